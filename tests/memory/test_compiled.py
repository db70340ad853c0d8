"""What is compiled gives the same signals as numpy, whatever is asked of whatever cube."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from memory import compiled, signals
from memory.index import embed_pieces
from memory.late import Asked, encode_query
from memory.models import Embedder
from memory.store import Filter, Piece
from memory.view import View
from tests.memory.make import NOW
from tests.memory.test_rank import piece

DAY = 86400.0
WORDS = (
    "tea soup boat dog Oslo garden violin snow Anna yesterday 42 book kitchen red music rain letter seven key river"
).split()
QUESTIONS = [
    "Where did Anna see the dog?", "when was the boat in Oslo?", "How many keys and books?", "What did you recommend to Ben?",
    "tea", "", "我家的狗叫什么？", "What happened yesterday in the kitchen, and 42 letters?", "x" * 600, "Did Ben mention rain?",
]  # fmt: skip


@pytest.fixture
def asked(embedder: Embedder) -> dict[str, Asked]:
    return {question: encode_query(embedder, question) for question in QUESTIONS}


def said(dice: np.random.Generator, count: int) -> list[Piece]:
    """Talk in sessions, two sides to a turn, with facts and questions in it."""
    out = []
    for n in range(count):
        turn, text = n // 2, " ".join(dice.choice(WORDS, int(dice.integers(1, 9))))
        out.append(
            piece(
                n,
                text + ("?" if dice.random() < 0.3 else "."),
                side="assistant" if n % 2 else "user",
                speaker="" if n % 2 else str(dice.choice(["Anna", "Ben", ""])),
                memory=f"m{turn}",
                session=str(dice.choice(["", "s1", "s2", f"s{turn // 5}"])),
                kind="fact" if dice.random() < 0.1 else "episode",
                time=NOW - DAY * float(dice.integers(0, 400)),
                tags=("note",) if dice.random() < 0.2 else (),
            )
        )
    return out


def both(
    monkeypatch: pytest.MonkeyPatch, view: View, question: str, asked: Asked, only: Filter
) -> tuple[signals.Signals, signals.Signals]:
    with monkeypatch.context() as without:
        without.setattr(signals, "is_built", lambda: False)
        expected = signals.signals(view, question, asked, only, NOW)
    return signals.signals(view, question, asked, only, NOW), expected


def agree(found: signals.Signals, expected: signals.Signals) -> None:
    assert found.numbers.tolist() == expected.numbers.tolist()
    for name in ("values", "cosine", "covered", "met"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.shape == other.shape
        assert one == pytest.approx(other, abs=2e-5, nan_ok=True), name


def views(embedder: Embedder, pieces: Sequence[Piece]) -> dict[str, View]:
    """The same talk as cubes are: new, changed, without word pieces, partly or not at all embedded, empty."""
    known = embed_pieces(embedder, pieces)
    half = len(known) // 2
    grown = View.of(known[:half], embedder.dimensions)
    for start in range(half, len(known), 7):
        new = [p if i % 3 else replace(p, vector=None, late=None) for i, p in enumerate(known[start : start + 7])]
        grown = grown.changed({known[start // 3].memory}, new, embedder.dimensions)
    return {
        "whole": View.of(known, embedder.dimensions),
        "grown": grown,
        "plain": View.of([replace(p, late=None) for p in known], embedder.dimensions),
        "bare": View.of(pieces, embedder.dimensions),
        "empty": View.of([], embedder.dimensions),
    }


def test_it_was_built_here() -> None:
    assert compiled.function("signals") is not None  # `make test` needs a compiler for llama.cpp anyway


@pytest.mark.parametrize("seed", range(3))
def test_small_cubes(embedder: Embedder, asked: dict[str, Asked], monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    dice = np.random.default_rng(seed)
    filters = [Filter(), Filter(tag="note"), Filter(kinds=("fact",)), Filter(since=NOW - 50 * DAY), Filter(tag="none")]
    for name, view in views(embedder, said(dice, 90)).items():
        for question, vectors in asked.items():
            for only in filters:
                agree(*both(monkeypatch, view, question, vectors, only))
            plain = Asked(vectors.vector)  # as embedders without word pieces give it
            agree(*both(monkeypatch, view, question, plain, Filter()))
        assert name == "empty" or len(both(monkeypatch, view, "tea", asked["tea"], Filter())[0].numbers)


def test_a_cube_of_which_only_a_part_is_compared_closely(
    embedder: Embedder, asked: dict[str, Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = said(np.random.default_rng(9), 900)
    vectors = embed_pieces(embedder, pieces[:200])
    noise = np.random.default_rng(1)
    known = []
    for i, p in enumerate(pieces):  # no two alike: which of two equals is chosen is nobody's business
        like = vectors[i % 200]
        assert like.vector is not None
        vector = like.vector + noise.standard_normal(len(like.vector)).astype(np.float32) * 0.02
        known.append(replace(p, vector=vector / np.linalg.norm(vector), late=like.late))
    view = View.of(known, embedder.dimensions)
    for question, given in asked.items():
        found, expected = both(monkeypatch, view, question, given, Filter())
        assert signals.CLOSELY <= len(found.numbers) < len(pieces)
        agree(found, expected)
