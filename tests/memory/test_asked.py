"""Questions that were embedded lately are not embedded again."""

from __future__ import annotations

from typing import Any

import numpy as np

from memory.asked import Questions
from memory.late import Asked


class Counting:
    """An embedder that counts."""

    dimensions = 4

    def __init__(self, name: str = "counting") -> None:
        self.id, self.asked = name, 0

    def embed(self, texts: Any) -> Any:
        return np.stack([self.embed_query(text) for text in texts])

    def embed_query(self, text: str) -> Any:
        self.asked += 1
        return np.full(4, float(len(text)), np.float32)


def test_the_same_question_is_embedded_once() -> None:
    questions, one = Questions(), Counting()
    first = questions.embedded(one, "Where is Rex?")
    assert questions.embedded(one, "Where is Rex?") is first
    assert isinstance(first, Asked)
    questions.embedded(one, "Where is Rex")
    assert (one.asked, len(questions)) == (2, 2)


def test_each_embedder_has_its_own_vectors() -> None:
    questions, one, other = Questions(), Counting(), Counting("other")
    questions.embedded(one, "Where is Rex?")
    questions.embedded(other, "Where is Rex?")
    assert (one.asked, other.asked) == (1, 1)


def test_the_oldest_go_and_none_is_kept_for_long() -> None:
    questions, one = Questions(most=2), Counting()
    for text in ("a", "b", "c", "a"):
        questions.embedded(one, text)
    assert (one.asked, len(questions)) == (4, 2)
    forgetful = Questions(kept_s=0.0)
    for _ in range(2):
        forgetful.embedded(one, "a")
    assert one.asked == 6
