"""The agenda in a prompt: which lines, in which order, within which budget; the reminder, and switching it off."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from memory.agenda import DAY_S, open_items
from memory.agenda_questions import Asked
from memory.progress import Report, reported
from memory.types import Hit, Kind, Memory
from memory.words import tokens
from proxy import agenda_lines, inject
from tests.fakes import RecordingUpstream
from tests.live import LiveProxy
from tests.memory.make import NOW, memory

PLAIN = Asked()


def task(text: str, *, days: float | None = None, **overrides: Any) -> Memory:
    due = None if days is None else NOW + days * DAY_S
    return memory(**({"kind": Kind.TASK, "text": text, "attributes": {"state": "open", "due": due}} | overrides))


def test_an_answer_lists_by_due_date_and_says_how_things_stand() -> None:
    known = [task("never"), task("in two days", days=2), task("yesterday", days=-1), task("water it every Monday")]
    known[1] = known[1].evolve(attributes=reported(known[1].attributes, Report("progress", "Half of it.", "t1", NOW)))
    _, *lines = agenda_lines.answer(PLAIN, open_items(known, NOW), NOW, 500)
    assert [line for _, line in lines] == [
        "task, due 13 November 2023 (overdue): yesterday",
        "task, due 16 November 2023: in two days [progress: Half of it.]",
        "task, due 20 November 2023, every week on Monday: water it every Monday",
        "task, no due date: never",
    ]


def test_the_time_that_was_asked_for_narrows_it_and_the_rest_is_counted() -> None:
    items = open_items([task("late", days=-1), task("soon", days=1), task("later", days=9), task("never")], NOW)
    by_tomorrow = agenda_lines.answer(Asked(until=NOW + 2 * DAY_S), items, NOW, 500)
    assert [line.rpartition(": ")[2] for _, line in by_tomorrow[1:-1]] == ["late", "soon"]
    assert by_tomorrow[-1] == ("", "besides, 2 open without a date or due at another time")
    next_week = agenda_lines.answer(Asked(since=NOW + 5 * DAY_S, until=NOW + 12 * DAY_S), items, NOW, 500)
    assert [line.rpartition(": ")[2] for memory, line in next_week if memory] == ["late", "later"]


def test_a_long_list_keeps_to_its_budget_and_says_what_is_missing() -> None:
    items = open_items([task(f"Task number {number} of very many", days=number) for number in range(1, 60)], NOW)
    lines = agenda_lines.answer(PLAIN, items, NOW, 300)
    assert sum(tokens(line) for _, line in lines) <= 300
    assert lines[-1][1] == f"and {60 - len(lines) + 1} more"
    assert "complete" not in lines[0][1]


def test_with_nothing_open_nothing_is_said() -> None:
    assert agenda_lines.answer(PLAIN, [], NOW, 500) == agenda_lines.reminder([], NOW) == []
    ((_, only), (_, rest)) = agenda_lines.answer(Asked(until=NOW + 1), open_items([task("x", days=5)], NOW), NOW, 500)
    assert (only, rest[:11]) == (
        "nothing known is open due by 14 November 2023 (today is 14 November 2023)",
        "besides, 1 ",
    )


def test_a_reminder_is_short_and_names_the_most_urgent_first() -> None:
    known = [task(f"A rather long description of chore {number} in the house", days=-number) for number in range(9)]
    lines = agenda_lines.reminder([*known, task("far", days=30)], NOW)
    assert sum(tokens(line) for _, line in lines) <= agenda_lines.REMINDER_TOKENS
    assert "chore 0" in lines[1][1]
    assert not any("far" in line for _, line in lines)


def test_the_agenda_stands_last_and_nothing_of_it_is_said_twice() -> None:
    known = task("Call Ann", days=1)
    lines = agenda_lines.reminder([known], NOW)
    hits = [Hit(known, 0.9), Hit(memory(text="Ann is my aunt"), 0.8)]
    block = inject.recall_block(hits, [known], "0" * 8, 400, lines)
    assert block.text.count("Call Ann") == 1
    assert block.text.index("aunt") < block.text.index("Call Ann")
    assert set(block.memories) == {known.id, hits[1].memory.id}


@pytest.mark.parametrize("remind", [True, False])
def test_the_reminder_can_be_switched_off(
    remind: bool, tmp_path: Path, models_dir: Path, upstream: RecordingUpstream
) -> None:
    (tmp_path / "models").symlink_to(models_dir)
    upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url}]
    settings = {"deadline_ms": 10_000, "remind": remind}
    with LiveProxy(tmp_path, upstreams=upstreams, memory=settings) as live:
        key, clock = live.key(), time.time()
        live.api(key, "POST", "/v1/memory/items", {"text": "Call Ann.", "kind": "task", "due": clock - 60})
        live.client(key).chat.completions.create(
            model="any", messages=[{"role": "user", "content": "How are crêpes made?"}]
        )
        assert ("(reminder" in upstream.last.prompt) is remind
