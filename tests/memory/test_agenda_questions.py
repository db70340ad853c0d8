"""Questions about what is open (data/agenda_questions.jsonl) and look-alikes; what time and which kinds they ask for.

`dev` was tuned on; `held` was written before the patterns; `last` unseen by what came of those, in looser wording. Both were
looked at after they had been measured: how they did at first is in docs/LOG.md.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from memory.agenda import KINDS
from memory.agenda_questions import asked
from memory.types import Kind
from tests.linear import assert_linear

ROWS = [
    json.loads(line) for line in (Path(__file__).parent / "data" / "agenda_questions.jsonl").read_text().splitlines()
]
WEDNESDAY = 1684337400.0  # 2023-05-17 15:30 UTC


def measure(part: str) -> tuple[float, float, list[str]]:
    """(precision, recall, the texts that were judged wrongly)"""
    rows = [row for row in ROWS if row["part"] == part]
    found = [row for row in rows if asked(row["text"], WEDNESDAY)]
    right = sum(row["agenda"] for row in found)
    wrong = [row["text"] for row in rows if (row in found) is not row["agenda"]]
    return right / max(1, len(found)), right / sum(row["agenda"] for row in rows), wrong


@pytest.mark.parametrize(("part", "precision", "recall"), [("dev", 1.0, 1.0), ("held", 0.95, 0.9), ("last", 0.95, 0.9)])
def test_questions_about_the_agenda_are_told_from_others(part: str, precision: float, recall: float) -> None:
    right, found, wrong = measure(part)
    print(f"\n{part}: precision {right:.3f}, recall {found:.3f}; wrong: {wrong}")
    assert right >= precision, wrong
    assert found >= recall, wrong


def test_the_list_is_mixed_and_half_of_it_looks_alike() -> None:
    assert len(ROWS) >= 80
    assert sum(not row["agenda"] for row in ROWS) * 2 >= len(ROWS)
    assert sum(row["part"] != "dev" for row in ROWS) * 2 >= len(ROWS)
    assert sum(any("\u4e00" <= c <= "\u9fff" for c in row["text"]) for row in ROWS) / len(ROWS) >= 0.35


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("What do I still have to do this week?", "", "2023-05-22"),
        ("What's due by Friday?", "", "2023-05-20"),
        ("What do I have to do tomorrow?", "2023-05-18", "2023-05-19"),
        ("下周有什么事要做？", "2023-05-22", "2023-05-29"),
        ("What is open?", "", ""),
    ],
)
def test_the_time_that_a_question_names_narrows_it(text: str, since: str, until: str) -> None:
    found = asked(text, WEDNESDAY) or pytest.fail("no question about the agenda")
    assert (_date(found.since), _date(found.until)) == (since, until)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("What is open?", KINDS), ("What are my goals?", (Kind.GOAL,)), ("我的目标是什么", (Kind.GOAL,)),
        ("What are my open tasks?", (Kind.TASK,)), ("Anything due?", (Kind.TASK,)), ("What are my tasks and goals?", KINDS),
    ],
)  # fmt: skip
def test_goals_and_tasks_are_told_apart(text: str, kinds: tuple[Kind, ...]) -> None:
    assert (asked(text, WEDNESDAY) or pytest.fail("no question about the agenda")).kinds == kinds


@pytest.mark.parametrize(
    "text", ["what's still " + "open " * 59, "还有什么" * 70, "so " * 99, "what is my " + "open " * 57]
)
def test_odd_messages_stay_cheap(text: str) -> None:
    assert asked(text * 500, WEDNESDAY) is None
    assert_linear(lambda given: asked(given, WEDNESDAY), text)


def _date(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).date().isoformat()
