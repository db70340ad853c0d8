"""The gate before retrieval: so many questions at a time, in the order in which they came; when more come than can be served, the
newest first.

All at once none would be ready before its deadline. In the order of arrival, once more come than can be served, each would be let
in when its time is nearly up, and its work thrown away. So whoever came last is let in then, and who has too little time left to
be ready (by what it took the others lately) is told at once. As long as all can be served nobody is overtaken: of sixteen who ask
again as soon as they are answered, the first to wait would wait for ever. Knows nothing of memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

_WEIGHT = 0.2  # of the latest, in what it takes on average


@dataclass(slots=True)
class _Waiting:
    deadline: float  # of the loop's clock
    turn: asyncio.Future[bool]


class Gate:
    """`at_once`: how many are inside. One per process."""

    def __init__(self, at_once: int) -> None:
        self._free = self._at_once = at_once
        self._waiting: deque[_Waiting] = deque()
        self._takes_s = 0.0

    def locked(self) -> bool:
        """Whether whoever comes now has to wait."""
        return self._free == 0

    def empty(self) -> bool:
        """Whether nobody is inside."""
        return self._free == self._at_once

    @asynccontextmanager
    async def turn(self, within_s: float) -> AsyncIterator[None]:
        """Wait for a turn and take it. Raises TimeoutError after `within_s`, inside as well as before, and as soon as it is
        clear that the turn would come too late."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(within_s):
            await self._enter(loop.time() + within_s)
            began = loop.time()
            try:
                yield
                self._takes_s += _WEIGHT * (loop.time() - began - self._takes_s)
            finally:
                self._free += 1
                self._next()

    async def _enter(self, deadline: float) -> None:
        if self._free:
            self._free -= 1
            return
        entry = _Waiting(deadline, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            in_time = await entry.turn
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            elif entry.turn.done() and not entry.turn.cancelled() and entry.turn.result():
                self._free += 1
                self._next()
            raise
        if not in_time:
            raise TimeoutError

    def _next(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._free and self._waiting:
            entry = self._waiting.popleft() if self._all_in_time(now) else self._waiting.pop()
            in_time = entry.deadline - now > self._takes_s
            if entry.turn.done():
                continue
            entry.turn.set_result(in_time)
            self._free -= in_time

    def _all_in_time(self, now: float) -> bool:
        """Whether the newest could wait for all others and have half of its time left."""
        through_s = self._takes_s * len(self._waiting) / self._at_once
        return 2 * through_s < self._waiting[-1].deadline - now
