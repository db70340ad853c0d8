"""Predictions: what is likeliest, how surely, why; and when somebody comes back."""

from __future__ import annotations

import random

import numpy as np
import pytest

from scheduler.scenes import LIMIT, NEXT, NEXT_CURVE, Foreseen, arrival, chances, predict, scenes

HOUR = 3600.0
DAY = 24 * HOUR
MONDAY_9 = 1_699_866_000.0  # Monday, 13 November 2023, 9:00 UTC


def test_the_likeliest_come_first_with_their_reasons() -> None:
    values = np.zeros((3, 2), np.float32)
    values[1] = (1.0, 0.0)
    values[2] = (1.0, 1.0)
    found = predict(["a", "b", "c"], ["said", "due"], values, {"said": 1.0, "due": 2.0}, NEXT_CURVE)
    assert [one.memory for one in found] == ["c", "b", "a"]
    assert found[0].why == {"said": 1.0, "due": 2.0}
    assert 0 < found[2].chance < found[1].chance < found[0].chance < 1


def test_a_prediction_holds_at_most_twenty() -> None:
    values = np.random.default_rng(0).random((500, len(NEXT))).astype(np.float32)
    found = predict([str(i) for i in range(500)], list(NEXT), values, NEXT, NEXT_CURVE)
    assert len(found) == LIMIT
    assert predict([], list(NEXT), values[:0], NEXT, NEXT_CURVE) == []


def test_a_chance_grows_with_the_score_and_falls_with_the_company() -> None:
    alone, crowded = chances(np.array([2.0, 0.0]), NEXT_CURVE), chances(np.array([2.0, *[1.9] * 50]), NEXT_CURVE)
    assert alone[0] > alone[1]
    assert alone[0] > crowded[0]


def test_memories_of_one_topic_are_a_scene() -> None:
    one = [Foreseen("a", 0.4, {"said": 1.0}), Foreseen("b", 0.3, {"due": 2.0}), Foreseen("c", 0.2, {"said": 0.5})]
    garden, rest = scenes(one, {"a": "garden", "c": "garden"})
    assert (garden.topic, garden.chance, garden.memories) == ("garden", 0.4, ("a", "c"))
    assert garden.reasons == ("near to the last question and its answer",)
    assert (rest.topic, rest.memories, rest.reasons) == ("", ("b",), ("an open task is due",))


def test_weekly_sessions_are_expected_in_their_hour() -> None:
    begun = [MONDAY_9 + week * 7 * DAY + 300 for week in range(4)]
    found = arrival(begun, MONDAY_9 + 24 * DAY)
    assert found is not None
    assert found.at == MONDAY_9 + 28 * DAY
    assert found.chance > 0.8


def test_daily_sessions_are_expected_tomorrow() -> None:
    begun = [MONDAY_9 + day * DAY for day in range(14)]
    found = arrival(begun, MONDAY_9 + 13 * DAY + HOUR)
    assert found is not None
    assert found.at == pytest.approx(MONDAY_9 + 14 * DAY) or (found.at - MONDAY_9) % DAY == 0


def test_no_habit_no_expectation() -> None:
    chance = random.Random(3)
    begun = [MONDAY_9 + chance.random() * 60 * DAY for _ in range(40)]
    assert arrival(begun, MONDAY_9 + 61 * DAY) is None
    assert arrival(begun[:2], MONDAY_9 + 61 * DAY) is None
