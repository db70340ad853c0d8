"""The queue before the slots, fair between cubes: one user with twenty requests does not keep another waiting behind them.

Next is a request of the cube that has the fewest slots; among equals, of the one that was served longest ago; a cube's own
requests come in order. Single-threaded.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from memory.engine.slots import Work


class Waiting:
    """Requests that have no slot yet."""

    def __init__(self) -> None:
        self._cubes: dict[str, deque[Work]] = {}  # in the order in which they were served last

    def __len__(self) -> int:
        return sum(map(len, self._cubes.values()))

    def __iter__(self) -> Iterator[Work]:
        return chain.from_iterable(self._cubes.values())

    def add(self, work: Work) -> None:
        """Queue a request."""
        self._cubes.setdefault(work.owner.cube, deque()).append(work)

    def first(self, served: Iterable[str]) -> Work | None:
        """Whose turn it is; `served`: the cube of every slot that is being worked on. It stays until it is taken."""
        slots = Counter(served)
        cube = min(self._cubes, key=lambda name: slots[name], default=None)
        return None if cube is None else self._cubes[cube][0]

    def take(self, work: Work) -> None:
        """It has got a slot; its cube's other requests now come after those of all that wait."""
        rest = self._cubes.pop(work.owner.cube)
        rest.remove(work)
        if rest:
            self._cubes[work.owner.cube] = rest

    def remove(self, which: Callable[[Work], bool]) -> list[Work]:
        """Take out all that are so."""
        out = [work for work in self if which(work)]
        for work in out:
            rest = self._cubes[work.owner.cube]
            rest.remove(work)
            if not rest:
                del self._cubes[work.owner.cube]
        return out
