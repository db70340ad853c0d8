"""The agenda of a cube: its open tasks and goals, when each is due, how urgent it is, and what was reported of it.

Goes in: memories (or a cube) and the present moment. Comes out: items in the order in which they matter. Times are UTC seconds; a
due date is the moment at which its time is up (the end of Friday for "by Friday"). Knows no prompt and no HTTP; what a
statement does to a task is the organiser's affair.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from memory import sql
from memory.extract.recurring import Every, recurrence
from memory.memories import select
from memory.progress import Report, reports
from memory.sql import Database
from memory.types import Kind, Memory, Status

KINDS = (Kind.TASK, Kind.GOAL)
STATES = ("open", "done", "cancelled")
DAY_S = 86_400.0
SOON_S = 7 * DAY_S
FORGOTTEN_S = 14 * DAY_S  # a task that has been overdue for longer is worth no reminder
_LATEST = 253_402_300_799.0  # the last second of the year 9999
_HALF_AHEAD = 3.0  # days to the due date after which urgency has halved
_HALF_PAST = 30.0  # the same for days since then, and for the age of what is never due
_UNDATED = 0.3  # urgency of what has no due date, on the day it is said


@dataclass(frozen=True, slots=True)
class Item:
    """A task or goal as it stands at a moment: `state` is one of STATES; `days` to the due date are negative when it is past;
    `when` is overdue, today (UTC), soon (within SOON_S), later, or empty without a due date."""

    memory: Memory
    state: str
    due: float | None
    days: float | None
    when: str
    repeats: Every | None
    feedback: tuple[Report, ...]
    urgency: float

    @property
    def overdue(self) -> bool:
        return self.when == "overdue"


def state_of(memory: Memory) -> str:
    """open, done or cancelled; empty for what is no task or goal, or was replaced, merged or put away."""
    if memory.kind not in KINDS:
        return ""
    state = (memory.attributes or {}).get("state", "open")
    if state == "open":
        return "open" if memory.status is Status.ACTIVE else ""
    return str(state) if state in STATES and memory.status in (Status.ACTIVE, Status.SUPERSEDED) else ""


def due_of(memory: Memory, now: float) -> float | None:
    """When its time is up. What comes again is due on its next day, or the one after when it was done on that day."""
    every = repeats(memory)
    if every is not None:
        done = [one.at for one in reports(memory.attributes) if one.how == "done"]
        due = every.following(memory.message_time, now)
        if due is not None and done and done[-1] >= due - DAY_S:
            due = every.following(memory.message_time, due)
        return due
    given = (memory.attributes or {}).get("due")
    told = isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given <= _LATEST
    return float(given) if told and given is not None else None


def repeats(memory: Memory) -> Every | None:
    """The rhythm of a task; goals have none ("run every day" is what is wanted, not what is due)."""
    return recurrence(memory.text) if memory.kind is Kind.TASK else None


def urgency(memory: Memory, now: float) -> float:
    """How much an open task or goal presses now, in [0, 1]; 0 for everything else.

    nearness × (0.5 + 0.5 importance). nearness is 2^(−days/3) before the due date, 2^(−days/30) after it (1 at the moment
    itself), and 0.3 × 2^(−age in days/30) for what has none.
    """
    if state_of(memory) != "open":
        return 0.0
    due = due_of(memory, now)
    if due is None:
        nearness = _UNDATED * 2 ** (-max(0.0, now - memory.message_time) / DAY_S / _HALF_PAST)
    else:
        days = (due - now) / DAY_S
        nearness = 2 ** (-days / _HALF_AHEAD) if days >= 0 else 2 ** (days / _HALF_PAST)
    return float(nearness * (0.5 + 0.5 * min(1.0, max(0.0, memory.importance))))


def end_of_day(now: float) -> float:
    """The end of the present day (UTC)."""
    return (now // DAY_S + 1) * DAY_S


def item(memory: Memory, now: float) -> Item:
    """A task or goal as it stands now."""
    state, due = state_of(memory), due_of(memory, now)
    ahead = None if due is None else due - now
    when = ""
    if ahead is not None and state == "open":
        tonight = end_of_day(now) - now
        when = "overdue" if ahead <= 0 else "today" if ahead <= tonight else "soon" if ahead <= SOON_S else "later"
    return Item(
        memory=memory,
        state=state,
        due=due,
        days=None if ahead is None else ahead / DAY_S,
        when=when,
        repeats=repeats(memory),
        feedback=reports(memory.attributes),
        urgency=urgency(memory, now),
    )


def open_items(memories: Iterable[Memory], now: float) -> list[Item]:
    """The open ones, in the order in which they matter: overdue, today, soon (each by its date), then the others by importance
    and the latest said first."""
    found = [item(memory, now) for memory in memories if state_of(memory) == "open"]
    return sorted(found, key=_order)


def _order(one: Item) -> tuple[float, ...]:
    place = {"overdue": 0, "today": 1, "soon": 2}.get(one.when, 3)
    date = one.due if place < 3 and one.due is not None else 0.0
    return (place, date, -one.memory.importance, -one.memory.message_time)


def by_date(items: Iterable[Item]) -> list[Item]:
    """By due date; those without one last, the latest said first."""
    return sorted(items, key=lambda one: place(one))


def place(one: Item) -> tuple[float, float, str]:
    """Where an item stands among those sorted by date."""
    return (math.inf if one.due is None else one.due, -one.memory.message_time, one.memory.id)


def pressing(memories: Iterable[Memory], now: float) -> list[Item]:
    """Tasks that are due today or tomorrow, or have been overdue for no more than FORGOTTEN_S: the most urgent first. What
    comes every day presses nobody."""
    tomorrow = end_of_day(now) + DAY_S
    found = [
        one
        for one in open_items((m for m in memories if m.kind is Kind.TASK), now)
        if one.due is not None
        and now - FORGOTTEN_S <= one.due <= tomorrow
        and not (one.repeats and one.repeats.unit == "day")
    ]
    return sorted(found, key=lambda one: (-one.urgency, one.memory.id))


def set_to(memory: Memory, now: float, given: dict[str, Any]) -> dict[str, Any]:
    """The fields that change when somebody sets `state` or `due` of a task or goal. Raises ValueError for other memories, and
    for those that were replaced or put away."""
    if memory.kind not in KINDS:
        raise ValueError("only a task or a goal has a state and a due date")
    attributes = {**(memory.attributes or {})}
    if "due" in given:
        attributes["due"] = given["due"]
    if "state" not in given:
        return {"attributes": attributes}
    if not state_of(memory):
        raise ValueError(f"it is {memory.status.value} and has no state")
    attributes["state"] = given["state"]
    if given["state"] == "open":
        return {"attributes": attributes, "status": Status.ACTIVE, "valid_to": None}
    return {"attributes": attributes, "status": Status.SUPERSEDED, "valid_to": memory.valid_to or now}


class Agenda:
    """What is open, done and cancelled in a cube."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(
        self,
        cube: str,
        now: float,
        *,
        kinds: Sequence[Kind] = KINDS,
        until: float | None = None,
        limit: int | None = None,
    ) -> list[Item]:
        """The open tasks and goals in the order in which they matter; with `until` only what is due by then."""
        found = open_items(await self._read(cube, kinds, [Status.ACTIVE]), now)
        return [one for one in found if until is None or (one.due is not None and one.due <= until)][:limit]

    async def page(
        self,
        cube: str,
        now: float,
        *,
        states: Sequence[str] = ("open",),
        kinds: Sequence[Kind] = KINDS,
        due_after: float | None = None,
        due_before: float | None = None,
        after: tuple[float, float, str] | None = None,
        limit: int = 50,
    ) -> list[Item]:
        """By due date; `after` is the place of the last one of the page before. A statement that only says that a task is
        settled is not listed beside that task."""
        known = await self._read(cube, kinds, [Status.ACTIVE, Status.SUPERSEDED])
        ids = {memory.id for memory in known}
        found = by_date(
            item(memory, now)
            for memory in known
            if state_of(memory) in states and not (memory.supersedes in ids and state_of(memory) != "open")
        )
        shown = [
            one
            for one in found
            if (due_before is None or (one.due is not None and one.due <= due_before))
            and (due_after is None or (one.due is not None and one.due > due_after))
            and (after is None or place(one) > after)
        ]
        return shown[:limit]

    async def _read(self, cube: str, kinds: Sequence[Kind], statuses: Sequence[Status]) -> list[Memory]:
        table = sql.memories
        where = (
            table.c.cube == cube,
            table.c.kind.in_([kind.value for kind in kinds]),
            table.c.status.in_([status.value for status in statuses]),
        )
        async with self._database.read() as connection:
            return await select(connection, *where)
