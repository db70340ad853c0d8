"""Which item sits in which tier, and why. Pure: items with their figures in, placements out; no clock, no I/O.

An item is whatever can be held nearer or farther: a memory of a cube, or a whole cube. Its value is

    value     = frequency × recency × relevance
    frequency = (u + prior) / (u + prior + 3)     u: uses, each halved for every 30 days that passed since
    recency   = 1 / (1 + idle / 7 days)           idle: time since it was last said or used; 365 for what always holds
    relevance = 0.05 + 0.95 × chance              chance that the next scene needs it

so that one that is new, or of which nothing is foreseen, is worth something. Need falls with disuse as a power of time, not
exponentially (Anderson and Schooler, Reflections of the environment in memory, 1991): hence the form of recency. A tier takes
the items that are worth most per byte, of what bringing one back would cost. Who is in a tier stays until another is worth
1.25 times as much: while values move by less than that against each other, nothing moves at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

DAY_S = 86_400.0
USED_HALF_LIFE_S = 30 * DAY_S
IDLE_S = 7 * DAY_S  # after so long without use recency is a half
AGING_S = 365 * DAY_S  # the same for what holds in every scene
MANY = 3.0  # uses that make half of the greatest frequency
UNKNOWN = 0.2  # chance of an item of which nothing is foreseen
STANDING = 0.5  # at least that of one that holds in every scene
DUE_S = 3 * DAY_S  # so long before (and after) it is due, an item's chance is a half
STAYS = 1.25  # how much more than one that is there a newcomer must be worth
_LEAST = 0.05  # relevance of what is surely not needed next


class Tier(StrEnum):
    """Where an item can be, the nearest to the model first."""

    KV = "kv"  # its tokens are computed: the stable block
    RAM = "ram"  # held in memory, compared with every question
    INDEX = "index"  # in LanceDB
    ARCHIVE = "archive"  # out of retrieval; can come back

    @property
    def rank(self) -> int:
        """0 for the nearest."""
        return list(Tier).index(self)


@dataclass(frozen=True, slots=True)
class Item:
    """What is known of an item. Times are seconds since the epoch. `sizes`: what it takes in each tier that may hold it, in
    the unit of that tier's budget; a tier that is not named never holds it. `uses`: the last one at `last_used`, the others
    are taken as spread evenly between `since` and then. `prior`: uses that it is credited with before it has any. `expected`:
    the chance that the next scene needs it, None when nothing is foreseen. `standing`: it holds in every scene. `cost`: of
    bringing it back, in any one unit."""

    id: str
    sizes: Mapping[Tier, int]
    since: float
    uses: float = 0.0
    last_used: float | None = None
    prior: float = 0.5
    expected: float | None = None
    due: float | None = None
    standing: bool = False
    pinned: bool = False
    archived: bool = False
    cost: float = 1.0


@dataclass(frozen=True, slots=True)
class Value:
    """An item's value from 0 to 1, its factors, and what they were made of: decayed `used`, `idle_s`, `chance`. `known`:
    whether the chance was foreseen, or is that of any such item."""

    frequency: float
    recency: float
    relevance: float
    used: float
    idle_s: float
    chance: float
    known: bool

    @property
    def total(self) -> float:
        """The value itself."""
        return self.frequency * self.recency * self.relevance


@dataclass(frozen=True, slots=True)
class Budget:
    """What each tier may hold at most, in the unit of the items' sizes; a tier that is not named holds whatever comes."""

    tiers: Mapping[Tier, int] = field(default_factory=dict)

    def of(self, tier: Tier) -> float:
        """Infinite when there is no limit."""
        return self.tiers.get(tier, math.inf)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an item is, since when, and what it is worth there. `bar`: from which value on an item of its size is kept there;
    None when there is room for all. `missed`: the nearest tier that could hold it and does not, and with what `entry` it
    would. `came_from`: the tier that it has just left; None when it has stayed, or is new."""

    item: str
    tier: Tier
    since: float
    value: Value
    bar: float | None = None
    missed: Tier | None = None
    entry: float | None = None
    came_from: Tier | None = None

    @property
    def moved(self) -> bool:
        """Whether this placing has moved it."""
        return self.came_from is not None


def value(item: Item, now: float) -> Value:
    """What an item is worth now."""
    used = _decayed(item, now)
    idle = max(0.0, now - max(item.since, item.last_used if item.last_used is not None else item.since))
    known = item.expected is not None
    chance = min(1.0, max(0.0, item.expected)) if item.expected is not None else UNKNOWN
    if item.standing:
        chance = max(chance, STANDING)
    if item.due is not None:
        chance = max(chance, float(0.5 ** (abs(item.due - now) / DUE_S)))
    credit = used + max(item.prior, 0.0)
    return Value(
        frequency=credit / (credit + MANY),
        recency=1.0 / (1.0 + idle / (AGING_S if item.standing else IDLE_S)),
        relevance=_LEAST + (1.0 - _LEAST) * chance,
        used=used,
        idle_s=idle,
        chance=chance,
        known=known,
    )


def place(
    items: Iterable[Item], budget: Budget, now: float, before: Mapping[str, Placement] | None = None
) -> dict[str, Placement]:
    """Every item's tier, by item id; each item is in one tier only. No tier holds more than its budget, but for the last one,
    which takes what nobody else does. Pinned items come first; archived ones stay where they are. The same items in any
    order give the same placements."""
    before = before or {}
    rest = sorted(items, key=lambda item: item.id)
    values = {item.id: value(item, now) for item in rest}
    found: dict[str, Placement] = {}
    missed: dict[str, tuple[Tier, float | None]] = {}
    for tier in Tier:
        if tier is Tier.ARCHIVE:
            here = _Taken(rest, [], None, None)
        else:
            able = [item for item in rest if tier in item.sizes and not item.archived]
            here = _take(able, tier, budget.of(tier), values, before)
        for item in here.kept:
            first, entry = missed.get(item.id, (None, None))
            was = before.get(item.id)
            stayed = was is not None and was.tier is tier
            found[item.id] = Placement(
                item.id,
                tier,
                was.since if was is not None and stayed else now,
                values[item.id],
                _at_size(here.least, item, tier),
                first,
                entry,
                None if was is None or stayed else was.tier,
            )
        for item in here.refused:
            missed.setdefault(item.id, (tier, _at_size(here.enters, item, tier)))
        rest = [item for item in rest if item.id not in found]
    return found


def within(items: Iterable[Item], tier: Tier, now: float) -> dict[str, Placement]:
    """The items as they are when all of them are in this tier; what `place` takes as `before`."""
    return {item.id: Placement(item.id, tier, now, value(item, now)) for item in items}


def moves(placements: Mapping[str, Placement]) -> list[Placement]:
    """Those that this placing has moved."""
    return [one for one in placements.values() if one.moved]


def explain(placement: Placement, item: Item, because: str = "") -> str:
    """One sentence with the figures that the placing went by. `because`: what else it went by, such as why it was archived."""
    one, worth = placement, placement.value
    where = f"{_NAMES[one.tier]} since {day(one.since)}"
    if one.came_from is not None:
        where = f"from {_NAMES[one.came_from]} to {_NAMES[one.tier]} on {day(one.since)}"
    told = [
        _used(item, worth),
        f"expected next with {worth.chance:.2f}" + ("" if worth.known else " (nothing foreseen)"),
    ]
    if item.due is not None:
        told.append(f"due {day(item.due)}")
    told.append(f"value {worth.total:.3f}")
    return f"{where[0].upper()}{where[1:]}: {', '.join(told)}; {because or _reason(one, item)}."


def day(at: float) -> str:
    """A date as people write it (UTC)."""
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment.day} {moment:%b %Y}"


_NAMES = {Tier.KV: "the stable block", Tier.RAM: "RAM", Tier.INDEX: "the index", Tier.ARCHIVE: "the archive"}


def _decayed(item: Item, now: float) -> float:
    """The uses, each halved for every USED_HALF_LIFE_S that passed since: the last one, the others evenly before it."""
    if item.uses <= 0 or item.last_used is None:
        return 0.0
    rate = math.log(2) / USED_HALF_LIFE_S
    age = max(0.0, now - item.last_used)
    span = max(0.0, item.last_used - item.since)
    mean = -math.expm1(-rate * span) / (rate * span) if span * rate > 1e-9 else 1.0
    return math.exp(-rate * age) * (min(item.uses, 1.0) + max(item.uses - 1.0, 0.0) * mean)


@dataclass(frozen=True, slots=True)
class _Taken:
    """`least`: worth per byte of the least that is kept and not pinned; `enters`: that which a newcomer needs. None: room for
    all."""

    kept: Sequence[Item]
    refused: Sequence[Item]
    least: float | None
    enters: float | None


def _take(
    able: Sequence[Item], tier: Tier, budget: float, values: Mapping[str, Value], before: Mapping[str, Placement]
) -> _Taken:
    inside = {item.id for item in able if item.id in before and before[item.id].tier.rank <= tier.rank}
    plain = {item.id: values[item.id].total * item.cost / max(item.sizes[tier], 1) for item in able}
    held = {id_: worth * STAYS if id_ in inside else worth for id_, worth in plain.items()}
    kept: list[Item] = []
    refused: list[Item] = []
    used = 0
    for item in sorted(able, key=lambda item: (not item.pinned, -held[item.id], item.id)):
        fits = used + item.sizes[tier] <= budget
        (kept if fits else refused).append(item)
        used += item.sizes[tier] if fits else 0
    loose = [item.id for item in kept if not item.pinned] if refused else []
    least = min((plain[id_] for id_ in loose), default=None)
    return _Taken(kept, refused, least, min((held[id_] for id_ in loose), default=None))


def _at_size(worth: float | None, item: Item, tier: Tier) -> float | None:
    """What an item of this size must be worth to have so much worth per byte."""
    return None if worth is None else worth * max(item.sizes[tier], 1) / item.cost


def _reason(one: Placement, item: Item) -> str:
    if item.archived:
        return "it was archived"
    if item.pinned and one.tier in (Tier.KV, Tier.RAM):
        return "it is pinned"
    told = [] if one.bar is None else [f"one of its size is kept there from {one.bar:.3f} on"]
    if one.missed is not None and one.entry is not None and one.entry > one.value.total:
        told.append(f"{_NAMES[one.missed]} takes one of its size from {one.entry:.3f} on")
    elif one.missed is not None:
        told.append(f"it is larger than what is left of {_NAMES[one.missed]}")
    return ", ".join(told) or "there is room for all"


def _used(item: Item, worth: Value) -> str:
    days = worth.idle_s / DAY_S
    ago = "today" if days < 1 else "a day ago" if days < 2 else f"{days:.0f} days ago"
    if item.uses <= 0 or item.last_used is None:
        return f"not used yet, said {ago}"
    times = "once" if round(item.uses) == 1 else f"{item.uses:.0f} times"
    return f"used {times}, last {ago}"
