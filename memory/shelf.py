"""Which cubes stay in memory: at most so many bytes; who was asked longest ago leaves first. Knows nothing of what is in them.

A cube that is in use keeps its place against a large newcomer: otherwise two that do not fit together would push each other
out at every question.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

BUSY_S = 60.0  # after its last question a cube counts as in use for so long


class Sized(Protocol):
    """Something that takes `size` bytes."""

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        ...


T = TypeVar("T", bound=Sized)


class Shelf(Generic[T]):
    """Entries by cube, at most `budget` bytes of them; one entry is kept however large it is."""

    def __init__(self, budget: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget = budget
        self._clock = clock
        self._entries: OrderedDict[str, T] = OrderedDict()
        self._asked: dict[str, float] = {}

    def get(self, cube: str) -> T | None:
        """What is there of the cube."""
        return self._entries.get(cube)

    def put(self, cube: str, entry: T) -> None:
        """Keep the entry, which is asked now; others leave until all fit."""
        self._entries[cube] = entry
        self._entries.move_to_end(cube)
        self._asked[cube] = self._clock()
        total = sum(held.size for held in self._entries.values())
        while total > self._budget and len(self._entries) > 1:
            gone, held = self._entries.popitem(last=False)
            del self._asked[gone]
            total -= held.size

    def room(self, cube: str) -> int:
        """Bytes that the cube could take without pushing out another that is in use."""
        since = self._clock() - BUSY_S
        busy = (held.size for name, held in self._entries.items() if name != cube and self._asked[name] > since)
        return max(self._budget - sum(busy), 0)

    @property
    def budget(self) -> int:
        """Bytes for all."""
        return self._budget
