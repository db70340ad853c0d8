"""Admission: which of the jobs that were taken from the queue may run now. At most so many at once, of a task not more than its
limit, of a cube one; of those that may, the most urgent, then the one that came first. Knows neither DBOS nor a database."""

from __future__ import annotations

import asyncio
import bisect
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

_numbers = itertools.count()


@dataclass(order=True, slots=True)
class _Waiting:
    priority: int
    number: int
    task: str = field(compare=False)
    cube: str = field(compare=False)
    turn: asyncio.Future[None] = field(compare=False)
    key: str = field(compare=False)


class Desk:
    """`limits`: jobs of a task at a time; the others are limited by `places` alone."""

    def __init__(self, places: int, limits: Mapping[str, int]) -> None:
        self._places = places
        self._limits = dict(limits)
        self._running: Counter[str] = Counter()
        self._cubes: set[str] = set()
        self._waiting: list[_Waiting] = []

    async def enter(self, task: str, cube: str, priority: int, key: str = "") -> None:
        """Wait until the job may run; `leave` must follow. Jobs of one `key` do the same."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = _Waiting(priority, next(_numbers), task, cube, turn, key)
        bisect.insort(self._waiting, entry)
        self._next()
        try:
            await turn
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            elif turn.done() and not turn.cancelled():
                self.leave(task, cube)
            raise

    def leave(self, task: str, cube: str) -> None:
        """The job has ended, or gives its place up."""
        self._running[task] -= 1
        self._cubes.discard(cube)
        self._next()

    @property
    def waiting(self) -> int:
        """How many jobs wait here."""
        return len(self._waiting)

    def waits(self, key: str) -> bool:
        """Whether a job with this key is waiting here, and so has not begun."""
        return any(entry.key == key for entry in self._waiting)

    @property
    def running(self) -> int:
        """How many jobs run."""
        return sum(self._running.values())

    def _next(self) -> None:
        for entry in list(self._waiting):
            if self.running >= self._places:
                return
            full = self._running[entry.task] >= self._limits.get(entry.task, self._places)
            if not full and entry.cube not in self._cubes:
                self._waiting.remove(entry)
                self._running[entry.task] += 1
                self._cubes.add(entry.cube)
                entry.turn.set_result(None)
