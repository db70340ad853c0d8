"""Which cubes stay in memory: the policy of the scheduler, asked by the working set of memory, which does not know it.

A cube's use is a visit: questions within half an hour count once, so that one long chat is not worth more than coming back
every day. After a restart the visits are those that the database knows of. Knows nothing of what is in a cube.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from scheduler.policy import USED_HALF_LIFE_S, Budget, Item, Placement, Tier, explain, place, value

VISIT_S = 1800.0
AGAIN = 0.8  # chance that a cube which was asked, or is expected to be, within VISIT_S is asked soon
_MOST = 20_000  # cubes whose visits are remembered
_TIERS = (Tier.RAM, Tier.INDEX)


@dataclass(slots=True)
class _Visits:
    """`count`: visits, each halved for every USED_HALF_LIFE_S until the last one, which was at `last`."""

    count: float
    last: float
    asked: float


class Kept:
    """One per process; `keeping` of its working set. Also tells why a cube is in memory, or is not."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._began = clock()
        self._visits: dict[str, _Visits] = {}
        self._expected: dict[str, float] = {}  # cube → when its session was said to be about to begin
        self._placed: dict[str, Placement] = {}

    def visited(self, visits: Iterable[tuple[str, float]]) -> None:
        """Take over earlier visits: (cube, seconds since the epoch), oldest first."""
        for cube, at in visits:
            self._visit(cube, at)

    def asked(self, cube: str) -> None:
        """A question was asked of the cube."""
        self._visit(cube, self._clock())
        if len(self._visits) > _MOST:
            self._forget()

    def expects(self, cube: str) -> None:
        """A session of the cube is about to begin."""
        now = self._clock()
        self._expected = {other: at for other, at in self._expected.items() if now - at < VISIT_S} | {cube: now}

    def leaving(self, sizes: Mapping[str, int], budget: int) -> Collection[str]:
        """Those of the cubes in memory that are worth least per byte."""
        now, items = self._clock(), self._items(sizes)
        found = place(items, Budget({Tier.RAM: budget}), now, self._all_in(items, now))
        self._placed |= found
        return [cube for cube, one in found.items() if one.tier is not Tier.RAM]

    def takes(self, cube: str, size: int, sizes: Mapping[str, int], budget: int) -> bool:
        """Whether the cube would be in memory if it had been loaded: nobody worth more per byte has to leave for it."""
        now, held = self._clock(), self._items(sizes)
        newcomer = self._item(cube, size)
        found = place([*held, newcomer], Budget({Tier.RAM: budget}), now, self._all_in(held, now))
        self._placed[cube] = found[cube]
        return found[cube].tier is Tier.RAM

    def where(self, cube: str, size: int, age_s: float | None) -> tuple[Placement, str]:
        """Where the cube is (in memory for `age_s` seconds, or, with None, not), and a sentence why. `size` is in bytes."""
        now, item, last = self._clock(), self._item(cube, size), self._placed.get(cube)
        known = last is not None and (last.tier is Tier.RAM) is (age_s is not None)
        if last is None or not known:
            (last,) = place([item], Budget() if age_s is not None else Budget({Tier.RAM: 0}), now).values()
        since = now - age_s if age_s is not None else last.since if known else self._began
        here = replace(last, value=value(item, now), since=since, came_from=None)
        return here, explain(here, item)

    def _all_in(self, items: Sequence[Item], now: float) -> dict[str, Placement]:
        """Where the cubes are that are in memory."""
        return place(items, Budget(), now, self._placed)

    def _visit(self, cube: str, at: float) -> None:
        known = self._visits.get(cube)
        if known is None:
            self._visits[cube] = _Visits(1.0, at, at)
        elif at - known.asked < VISIT_S:
            known.asked = max(at, known.asked)
        else:
            known.count = known.count * 0.5 ** ((at - known.last) / USED_HALF_LIFE_S) + 1.0
            known.last = known.asked = at

    def _items(self, sizes: Mapping[str, int]) -> list[Item]:
        return [self._item(cube, size) for cube, size in sizes.items()]

    def _item(self, cube: str, size: int) -> Item:
        now = self._clock()
        known = self._visits.get(cube) or _Visits(0.0, self._began, self._began)
        return Item(
            id=cube,
            sizes=dict.fromkeys(_TIERS, size),
            since=known.asked,
            uses=known.count,
            last_used=known.asked,
            prior=0.0,
            expected=AGAIN if now - max(known.asked, self._expected.get(cube, 0.0)) < VISIT_S else None,
        )

    def _forget(self) -> None:
        for cube, _ in sorted(self._visits.items(), key=lambda pair: pair[1].asked)[: _MOST // 10]:
            del self._visits[cube]
            self._placed.pop(cube, None)
