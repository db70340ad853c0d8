"""What speaks for a memory before anything is asked."""

from __future__ import annotations

from typing import Any

import numpy as np

from memory.expect import NEXT, OPENING, Expected, Heard, Known, Shown, next_turn, opening
from memory.store import Piece
from memory.view import View

DAY = 86400.0
NOW = 1_700_000_000.0


def piece(memory: str, session: str, at: float, axis: int, **overrides: Any) -> Piece:
    vector = np.zeros(8, np.float32)
    vector[axis] = 1.0
    fields: dict[str, Any] = {
        "id": f"{memory}:u0",
        "memory": memory,
        "side": "user",
        "session": session,
        "kind": "episode",
        "text": f"User: {memory}",
        "time": at,
        "at": at,
        "vector": vector,
    }
    return Piece(**(fields | overrides))


def view() -> View:
    """Three sessions of three turns, a week apart; the fourth is running."""
    rows = [
        piece(f"{session}{turn}", session, NOW + week * 7 * DAY + number * 60, number + week)
        for week, session in enumerate("abc")
        for number, turn in enumerate("123")
    ]
    return View.of([*rows, piece("d1", "d", NOW + 22 * DAY, 7)], 8)


def column(expected: Expected, name: str) -> dict[str, float]:
    at = expected.names.index(name)
    return {memory: round(float(row[at]), 3) for memory, row in zip(expected.memories, expected.values, strict=True)}


def test_the_running_session_is_left_out() -> None:
    expected = next_turn(view(), Known(NOW + 22 * DAY, "d"))
    assert "d1" not in expected.memories
    assert len(expected.memories) == 9
    assert expected.names == NEXT


def test_the_course_fades_from_turn_to_turn() -> None:
    course = [Heard({"a1": 0.5}, {"b1": 0.9}), Heard({"a2": 0.5}, {"b2": 0.9})]
    expected = next_turn(view(), Known(NOW, "d", course))
    assert column(expected, "asked") | {} == {**dict.fromkeys(expected.memories, 0.0), "a1": 1.0}
    assert (column(expected, "course")["a1"], column(expected, "course")["a2"]) == (1.0, 0.6)
    assert column(expected, "said_course")["b2"] == 0.6


def test_what_was_said_beside_is_lifted_within_its_session_only() -> None:
    found = column(next_turn(view(), Known(NOW, "d", [Heard({}, {"b1": 1.0})])), "beside")
    assert found["b2"] == 1.0
    assert found["a3"] == found["b3"] == 0.0


def test_meaning_is_nearness_to_what_was_said_last() -> None:
    vector = np.zeros(8, np.float32)
    vector[4] = 1.0
    found = column(next_turn(view(), Known(NOW, "d"), vector), "meaning")
    assert found["c3"] == 1.0
    assert found["a1"] == 0.0


def test_what_was_shown_after_the_like_of_this_follows() -> None:
    shown = [Shown(NOW + 30, "d", ("a1", "a2")), Shown(NOW + 20, "c", ("b3",)), Shown(NOW + 10, "c", ("a1",))]
    found = column(next_turn(view(), Known(NOW, "d", shown=shown)), "follows")
    assert found["b3"] == 1.0
    assert found["c1"] == 0.0


def test_often_and_lately_shown_are_counted() -> None:
    shown = [Shown(NOW, "c", ("a1",)), Shown(NOW, "c", ("a2",)), Shown(NOW, "b", ("a2",))]
    expected = next_turn(view(), Known(NOW, "d", shown=shown))
    assert column(expected, "often")["a2"] == 1.0
    assert column(expected, "often")["a1"] < 1.0
    assert column(expected, "again")["a1"] > column(expected, "again")["a2"]


def test_openings_know_how_sessions_begin_and_end() -> None:
    expected = opening(view(), Known(NOW + 29 * DAY))
    assert expected.names == OPENING
    assert {one for one, value in column(expected, "first").items() if value} == {"a1", "b1", "c1", "d1"}
    assert {one for one, value in column(expected, "second").items() if value} == {"a2", "b2", "c2"}
    assert column(expected, "ending")["a3"] == 1.0
    assert column(expected, "ending")["a1"] == 0.0
    assert {one for one, value in column(expected, "latest").items() if value} == {"d1"}


def test_the_same_hour_of_the_week_is_a_rhythm() -> None:
    found = column(opening(view(), Known(NOW + 28 * DAY)), "rhythm")
    assert found["a1"] > 0.99
    assert found["d1"] < 0.6
    assert column(opening(view(), Known(NOW + 28 * DAY + 12 * 3600)), "rhythm")["a1"] < 0.6


def test_due_tasks_and_guesses_are_told() -> None:
    expected = opening(view(), Known(NOW, due={"a1": 0.8}, guess={"b1": 0.5, "nobody": 1.0}))
    assert column(expected, "due")["a1"] == 0.8
    assert column(expected, "guess")["b1"] == 0.5


def test_an_empty_cube_expects_nothing() -> None:
    empty = View.of([], 8)
    assert next_turn(empty, Known(NOW, "d")).memories == ()
    assert opening(empty, Known(NOW)).memories == ()
