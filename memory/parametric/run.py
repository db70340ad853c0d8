"""Starts the process that trains one adapter, listens to it, and ends it when nobody wants the adapter any more."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from memory.parametric import errors
from memory.parametric.child import Order
from memory.parametric.errors import Stopped, TrainingError

log = logging.getLogger(__name__)
_LOOK_S = 2.0  # between two questions whether the adapter is still wanted
_KINDS = {kind.code: kind for kind in (errors.NotInstalled, errors.Unsupported, errors.TooFew)}


async def train(
    order: Order,
    wanted: Callable[[], Awaitable[bool]],
    seen: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Have the adapter made; returns the child's results. `wanted` is asked every two seconds: on False the child ends. Raises
    TrainingError (Stopped: not wanted any more); when cancelled, ends the child first."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "memory.parametric.child",
        stdin=PIPE, stdout=PIPE, stderr=asyncio.subprocess.DEVNULL, env=environment, start_new_session=True,
    )  # fmt: skip
    lines = asyncio.create_task(_listen(child, order, seen))
    try:
        while not (await asyncio.wait({lines}, timeout=_LOOK_S))[0]:
            if not await wanted():
                raise Stopped("it is not wanted any more")
        return _outcome(lines.result(), await child.wait())
    finally:
        await _end(child, lines)


async def _listen(child: Process, order: Order, seen: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """Hand the order over; the child's last word, or {}."""
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(BrokenPipeError, ConnectionResetError):
        child.stdin.write(msgspec.json.encode(order))
        await child.stdin.drain()
        child.stdin.close()
    last: dict[str, Any] = {}
    async for line in child.stdout:
        last = json.loads(line)
        if "epoch" in last:
            seen(last["epoch"])
    return last


def _outcome(last: Mapping[str, Any], code: int) -> dict[str, Any]:
    if "results" in last:
        return dict(last["results"])
    if "error" in last:
        raise _KINDS.get(last["error"], TrainingError)(last["message"])
    raise TrainingError(f"the process that trained ended with {code}")


async def _end(child: Process, lines: asyncio.Task[dict[str, Any]]) -> None:
    if child.returncode is None:
        with suppress(ProcessLookupError):
            child.kill()
    lines.cancel()
    await asyncio.gather(lines, return_exceptions=True)
    await child.wait()
