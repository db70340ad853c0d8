"""The agenda: what is open in the order in which it matters, how urgent it is, what comes again, and pages of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from memory.agenda import DAY_S, Agenda, by_date, item, open_items, pressing, set_to, state_of, urgency
from memory.extract.recurring import Every, recurrence
from memory.memories import Memories
from memory.progress import Report, reported, reports
from memory.sql import Database
from memory.types import Kind, Memory, Status
from tests.memory.make import CUBE, NOW, OWNER, memory

WEDNESDAY = datetime(2023, 5, 17, 15, 30, tzinfo=UTC).timestamp()


def task(text: str = "I need to call Ann", *, days: float | None = None, **overrides: Any) -> Memory:
    """A task that is due in so many days."""
    attributes = {"state": "open", "due": None if days is None else NOW + days * DAY_S} | overrides.pop(
        "attributes", {}
    )
    return memory(**({"kind": Kind.TASK, "text": text, "attributes": attributes} | overrides))


def day(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at - 1, UTC).date().isoformat()


def test_what_is_overdue_comes_first_then_what_is_near_then_what_matters() -> None:
    known = [
        task("whenever"),
        task("in a month", days=30, importance=0.9),
        task("on Sunday", days=4),
        task("tonight", days=0.05),
        task("yesterday", days=-1),
        task("last week", days=-7),
    ]
    assert [one.memory.text for one in open_items(known, NOW)] == [
        "last week", "yesterday", "tonight", "on Sunday", "in a month", "whenever"
    ]  # fmt: skip
    assert [one.when for one in open_items(known, NOW)] == ["overdue", "overdue", "today", "soon", "later", ""]


@pytest.mark.parametrize(
    ("overrides", "state"),
    [
        ({}, "open"),
        ({"attributes": {"state": "done"}}, "done"),
        ({"attributes": {"state": "cancelled"}, "status": Status.SUPERSEDED}, "cancelled"),
        ({"status": Status.SUPERSEDED}, ""),
        ({"attributes": {"state": "done"}, "status": Status.ARCHIVED}, ""),
        ({"kind": Kind.FACT}, ""),
    ],
)
def test_a_task_is_open_done_or_cancelled_or_none_of_it(overrides: dict[str, Any], state: str) -> None:
    assert state_of(task(**overrides)) == state


def test_urgency_grows_towards_the_due_date_and_falls_behind_it() -> None:
    days = [30, 7, 3, 1, 0]
    values = [urgency(task(days=ahead), NOW) for ahead in days]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(0.75)
    assert urgency(task(days=-30), NOW) == pytest.approx(0.375)
    assert 0 < urgency(task(), NOW) < urgency(task(days=3), NOW)
    assert urgency(task(days=0, importance=1.0), NOW) == 1.0
    assert urgency(task(days=0, attributes={"state": "done"}), NOW) == 0.0


@pytest.mark.parametrize("due", ["soon", float("nan"), float("inf"), -5.0, True, 1e300])
def test_a_due_date_that_is_none_counts_as_none(due: Any) -> None:
    found = item(task(attributes={"due": due}), NOW)
    assert (found.due, found.when, found.overdue) == (None, "", False)


def test_what_presses_is_due_by_tomorrow_or_has_not_been_overdue_for_long() -> None:
    known = [
        task("late", days=-3),
        task("now", days=0.5),
        task("later", days=2),
        task("forgotten", days=-40),
        task("never"),
    ]
    known.append(task("goal", days=0.5, kind=Kind.GOAL))
    assert [one.memory.text for one in pressing(known, NOW)] == ["late", "now"]


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("I have to water the plants every Monday", Every("week", 1, 0)),
        ("Remind me to back up every two weeks", Every("week", 2)),
        ("I need to pay the rent on the 1st of every month", Every("month", 1, 1)),
        ("Remind me to stretch every morning", Every("day")),
        ("I have choir practice to prepare on Thursdays", Every("week", 1, 3)),
        ("I have to send the weekly report", Every("week")),
        ("提醒我每周三倒垃圾", Every("week", 1, 2)),
        ("提醒我每个月15号还信用卡", Every("month", 1, 15)),
        ("我每天要吃药", Every("day")),
        ("Everyone needs to call me on Monday", None),
        ("I need to call Ann on Monday", None),
        ("我每次都忘", None),
    ],
)
def test_a_rhythm_is_read_from_the_words(text: str, every: Every | None) -> None:
    assert recurrence(text) == every


@pytest.mark.parametrize(
    ("every", "due"),
    [
        (Every("day"), "2023-05-17"),
        (Every("week", 1, 0), "2023-05-22"),
        (Every("week"), "2023-05-21"),
        (Every("week", 2, 0), "2023-05-29"),
        (Every("month", 1, 1), "2023-06-01"),
        (Every("month", 1, 31), "2023-05-31"),
        (Every("year"), "2023-12-31"),
    ],
)
def test_what_comes_again_is_due_on_its_next_day(every: Every, due: str) -> None:
    assert day(every.following(WEDNESDAY, WEDNESDAY)) == due


def test_what_was_done_today_is_due_the_next_time() -> None:
    text, now = "I have to water the plants every Monday", WEDNESDAY + 5 * DAY_S
    known = task(text, message_time=WEDNESDAY)
    assert day(item(known, now).due) == "2023-05-22"
    done = known.evolve(attributes=reported(known.attributes, Report("done", "Watered.", "t", now - 60)))
    assert day(item(done, now).due) == "2023-05-29"


def test_reports_are_kept_in_order_and_bare_texts_are_read() -> None:
    attributes = reported(
        reported({"state": "open"}, Report("progress", "Half done.", "t1", 1.0)), Report("failed", "No.", "t2")
    )
    assert [(one.how, one.turn) for one in reports(attributes)] == [("progress", "t1"), ("failed", "t2")]
    assert reports({"state": "done", "feedback": "Sent it."}) == (Report("done", "Sent it."),)
    assert reports({"feedback": [1, {"text": 2}]}) == reports({}) == reports(None) == ()


def test_setting_a_state_closes_and_opens_and_what_is_no_task_has_none() -> None:
    done = task().evolve(**set_to(task(), NOW, {"state": "done"}))
    assert (done.status, done.valid_to, state_of(done)) == (Status.SUPERSEDED, NOW, "done")
    again = done.evolve(**set_to(done, NOW + 5, {"state": "open", "due": NOW}))
    assert (again.status, again.valid_to, item(again, NOW + 1).overdue) == (Status.ACTIVE, None, True)
    for other in (memory(), task(status=Status.SUPERSEDED)):
        with pytest.raises(ValueError):
            set_to(other, NOW, {"state": "done"})


async def test_a_cubes_agenda_and_its_pages(database: Database) -> None:
    for known in [
        task("b", days=2), task("a", days=1), task("z"), task("x", days=9, attributes={"state": "done"}), memory(),
        task("goal", kind=Kind.GOAL), task("elsewhere", cube="c2"),
    ]:  # fmt: skip
        await Memories(database).add(known, OWNER if known.cube == CUBE else "other")
    agenda = Agenda(database)
    assert {one.memory.text for one in await agenda.open(CUBE, NOW)} == {"a", "b", "z", "goal"}
    assert [one.memory.text for one in await agenda.open(CUBE, NOW, until=NOW + 1.5 * DAY_S)] == ["a"]
    whole = by_date(await agenda.open(CUBE, NOW))
    first = await agenda.page(CUBE, NOW, limit=2)
    rest = await agenda.page(CUBE, NOW, after=(first[-1].due or 0, -NOW, first[-1].memory.id))
    assert [one.memory.id for one in first + rest] == [one.memory.id for one in whole]
    assert [one.memory.text for one in await agenda.page(CUBE, NOW, states=["done"])] == ["x"]
    assert [one.memory.text for one in await agenda.page(CUBE, NOW, due_after=NOW + 1.5 * DAY_S)] == ["b"]
