"""Work that outlives the request that began it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from scheduler.executor import where

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Background:
    """Work that outlives the request that began it; contains its failures, and is waited for at shutdown."""

    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def __call__(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` to its end."""
        task = asyncio.create_task(_contained(work))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def drain(self, timeout_s: float) -> int:
        """Wait for what is running; returns how many were given up."""
        deadline = time.monotonic() + timeout_s
        while self.tasks and time.monotonic() < deadline:
            await asyncio.wait(set(self.tasks), timeout=max(0.0, deadline - time.monotonic()))
        return len(self.tasks)


async def _contained(work: Coroutine[Any, Any, Any]) -> None:
    try:
        await work
    except Exception as error:  # nobody waits for it: log it here or nowhere
        log.error("background work failed: %s\n%s", type(error).__name__, where(error))
