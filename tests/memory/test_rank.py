"""Ranking: numbers that are always numbers, in an order that a reader would choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from memory.rank import Signals, bm25, rank, scaled, session_signal
from tests.memory.make import NOW

NAN = float("nan")


def signals(texts: Sequence[str], **overrides: Any) -> Signals:
    n = len(texts)
    fields: dict[str, Any] = {
        "cosine": np.zeros(n),
        "sessions": [f"s{i}" for i in range(n)],
        "times": np.full(n, NOW),
        "sides": ["user"] * n,
    } | overrides
    return Signals(
        texts=texts, **{name: np.array(v) if name in ("cosine", "times") else v for name, v in fields.items()}
    )


def order(question: str, *texts: str, **overrides: Any) -> list[int]:
    return [entry.index for entry in rank(question, signals(texts, **overrides), NOW)]


@pytest.mark.parametrize("question", ["", "dog", "the of", "?"])
def test_nothing_is_found_in_nothing(question: str) -> None:
    assert rank(question, signals([]), NOW) == []


@pytest.mark.parametrize(
    ("cosine", "found"),
    [([0.9], [0]), ([0.1], []), ([NAN], []), ([NAN, NAN], []), ([0.5, 0.5], [0, 1]), ([NAN, 0.4], [1])],
)
def test_meaning_alone(cosine: list[float], found: list[int]) -> None:
    assert order("dog", *["tea"] * len(cosine), cosine=cosine) == found


def test_a_word_alone_is_enough_without_any_vector() -> None:
    assert order("zanzibar", "tea", "zanzibar tea", cosine=[NAN, NAN]) == [1]


def test_a_question_that_nothing_fits_returns_nothing() -> None:
    assert order("quantum chromodynamics", "my dog is Rex", "tea with milk", cosine=[0.1, 0.2]) == []


@pytest.mark.parametrize("now", [0.0, NOW, NOW + 1e12])
@pytest.mark.parametrize("cosine", [[NAN] * 3, [1.0] * 3, [-1.0, NAN, 1.0], [0.0, 0.0, 0.0]])
def test_scores_are_numbers_between_nought_and_one(now: float, cosine: list[float]) -> None:
    for entry in rank("dog tea", signals(["dog", "", "dog tea"], cosine=cosine), now):
        assert 0.0 <= entry.score <= 1.0
        assert all(np.isfinite(value) for value in entry.why.values())


def test_one_unknown_vector_does_not_press_the_known_ones_together() -> None:
    known = rank("x", signals(["a", "b"], cosine=[0.9, 0.4]), NOW)
    beside = rank("x", signals(["a", "b", "c"], cosine=[0.9, 0.4, NAN]), NOW)
    assert [e.why["meaning"] for e in beside] == [e.why["meaning"] for e in known]


def test_equals_fall_to_the_side_of_the_user() -> None:
    assert order("dog", "dog", "dog", cosine=[0.5, 0.5], sides=["assistant", "user"]) == [1, 0]


def test_the_later_of_two_equals_comes_first() -> None:
    assert order("dog", "dog", "dog", cosine=[0.5, 0.5], times=[NOW - 86400 * 90, NOW]) == [1, 0]


def test_a_session_that_fits_lifts_its_turns() -> None:
    assert order("x", *"abcd", cosine=[0.9, 0.8, 0.5, 0.5], sessions=["s", "s", "t", "s"])[2] == 3


def test_rare_words_weigh_more() -> None:
    scores, covered = bm25(["tea", "rex"], [["tea"], ["tea"], ["tea", "rex"], ["rex"]])
    assert scores[3] > scores[0]
    assert covered[2] == pytest.approx(1.0)
    assert covered[0] + covered[3] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("asked", "documents"), [([], [["a"]]), (["a"], []), (["a"], [[]]), (["a"], [[], []]), (["a", "a"], [["a"]])]
)
def test_bm25_of_odd_input_is_finite(asked: list[str], documents: list[list[str]]) -> None:
    scores, covered = bm25(asked, documents)
    assert scores.shape == covered.shape == (len(documents),)
    assert np.isfinite(scores).all()
    assert (covered <= 1.0 + 1e-9).all()


def test_a_longer_document_scores_less_for_the_same_word() -> None:
    scores, _ = bm25(["a"], [["a"], ["a", *"bcdefgh"]])
    assert scores[0] > scores[1]


def test_a_session_counts_its_three_best() -> None:
    got = session_signal(np.array([0.9, 0.6, 0.3, 0.1, 0.9]), ["s", "s", "s", "s", ""])
    assert got.tolist() == pytest.approx([0.6, 0.6, 0.6, 0.6, 0.0])


@pytest.mark.parametrize(
    ("values", "expected"), [([3.0], [0]), ([2, 2], [0, 0]), ([1, 2, 3], [0, 0.5, 1]), ([-1, 1], [0, 1])]
)
def test_scaling(values: list[float], expected: list[float]) -> None:
    assert scaled(np.array(values, float)).tolist() == expected
