"""Which cubes stay in memory: at most so many bytes. Knows nothing of what is in them.

Who leaves is decided by whoever is given as `keeping`; without, it is who was asked longest ago. A cube that is in use keeps
its place against a large newcomer: otherwise two that do not fit together would push each other out at every question.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Generic, Protocol, TypeVar

BUSY_S = 60.0  # after its last question a cube counts as in use for so long


class Sized(Protocol):
    """Something that takes `size` bytes."""

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        ...


class Keeping(Protocol):
    """Says which cubes are worth their memory. `sizes`: the bytes of those that are held, by cube, the one asked longest ago
    first."""

    def asked(self, cube: str) -> None:
        """A question was asked of the cube."""
        ...

    def leaving(self, sizes: Mapping[str, int], budget: int) -> Collection[str]:
        """Those that leave, so that the others take at most `budget` bytes."""
        ...

    def takes(self, cube: str, size: int, sizes: Mapping[str, int], budget: int) -> bool:
        """Whether a newcomer of so many bytes would stay."""
        ...


class LongestUnasked:
    """Who was asked longest ago leaves first, and every newcomer is taken."""

    def asked(self, cube: str) -> None:
        """The shelf has them in this order anyway."""

    def leaving(self, sizes: Mapping[str, int], budget: int) -> Collection[str]:
        """The first of them."""
        total, gone = sum(sizes.values()), []
        for cube, size in sizes.items():
            if total <= budget:
                break
            gone.append(cube)
            total -= size
        return gone

    def takes(self, cube: str, size: int, sizes: Mapping[str, int], budget: int) -> bool:
        """Always."""
        return True


T = TypeVar("T", bound=Sized)


class Shelf(Generic[T]):
    """Entries by cube, at most `budget` bytes of them; one entry is kept however large it is."""

    def __init__(
        self, budget: int, clock: Callable[[], float] = time.monotonic, *, keeping: Keeping | None = None
    ) -> None:
        self._budget = budget
        self._clock = clock
        self._keeping = keeping or LongestUnasked()
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
        room = max(self._budget - entry.size, 0)
        others = self._others(cube)
        if sum(others.values()) <= room:
            return
        gone = [name for name in self._keeping.leaving(others, room) if name in others]
        gone += LongestUnasked().leaving({name: size for name, size in others.items() if name not in gone}, room)
        for name in gone:
            del self._entries[name], self._asked[name]

    def takes(self, cube: str, size: int) -> bool:
        """Whether the cube could be kept with so many bytes: no other that is in use has to leave, nor one worth more."""
        return size <= self.room(cube) and self._keeping.takes(cube, size, self._others(cube), self._budget)

    def room(self, cube: str) -> int:
        """Bytes that the cube could take without pushing out another that is in use."""
        since = self._clock() - BUSY_S
        busy = (size for name, size in self._others(cube).items() if self._asked[name] > since)
        return max(self._budget - sum(busy), 0)

    def _others(self, cube: str) -> dict[str, int]:
        return {name: held.size for name, held in self._entries.items() if name != cube}

    @property
    def budget(self) -> int:
        """Bytes for all."""
        return self._budget

    @property
    def used(self) -> int:
        """Bytes of all that is held."""
        return sum(held.size for held in self._entries.values())
