"""What is compiled gives the same signals as numpy, whatever is asked of whatever cube."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from memory import compiled, signals
from memory.index import embed_pieces
from memory.late import Asked, encode_query
from memory.models import Embedder
from memory.rank import rank
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
        without.setattr(signals, "compares", lambda asked, width: False)
        expected = signals.signals(view, question, asked, only, NOW)
    return signals.signals(view, question, asked, only, NOW), expected


def agree_on_rank(monkeypatch: pytest.MonkeyPatch, view: View, question: str, asked: Asked, *, every: bool) -> int:
    """Which fit, and how well; returns how many."""
    with monkeypatch.context() as without:
        without.setattr(signals, "compares", lambda asked, width: False)
        expected = dict(rank(view, question, asked, Filter(), NOW, every=every).pairs)
    found = dict(rank(view, question, asked, Filter(), NOW, every=every).pairs)
    assert found == pytest.approx(expected, abs=1e-3)
    assert [*found.values()] == sorted(found.values(), reverse=True)
    return len(found)


def agree(found: signals.Signals, expected: signals.Signals) -> None:
    assert found.numbers.tolist() == expected.numbers.tolist()
    for name in ("values", "cosine", "covered", "met"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.shape == other.shape
        assert one == pytest.approx(other, abs=1e-3, nan_ok=True), name


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


@pytest.mark.parametrize("merge", [512, 6])
def test_a_cube_that_grows_piece_by_piece(
    embedder: Embedder, asked: dict[str, Asked], monkeypatch: pytest.MonkeyPatch, merge: int
) -> None:
    monkeypatch.setattr("memory.view.MERGE", merge)
    known = embed_pieces(embedder, said(np.random.default_rng(5), 24))
    view = View.of(known[:1], embedder.dimensions)
    for n, one in enumerate(known[1:]):
        view = view.changed({known[n // 2].memory} if n % 5 == 4 else (), [one], embedder.dimensions)
        for question in QUESTIONS[:4]:
            agree(*both(monkeypatch, view, question, asked[question], Filter()))


def test_it_was_built_here() -> None:
    assert compiled.is_built()  # `make test` needs a compiler for llama.cpp anyway


@pytest.mark.parametrize("seed", range(3))
def test_small_cubes(embedder: Embedder, asked: dict[str, Asked], monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    dice = np.random.default_rng(seed)
    filters = [Filter(), Filter(tag="note"), Filter(kinds=("fact",)), Filter(since=NOW - 50 * DAY), Filter(tag="none")]
    counts: Counter[str] = Counter()
    for name, view in views(embedder, said(dice, 90)).items():
        for question, vectors in asked.items():
            for only in filters:
                agree(*both(monkeypatch, view, question, vectors, only))
            counts[name] += agree_on_rank(monkeypatch, view, question, vectors, every=False)
            agree_on_rank(monkeypatch, view, question, vectors, every=True)
            plain = Asked(vectors.vector)  # as embedders without word pieces give it
            agree(*both(monkeypatch, view, question, plain, Filter()))
        assert name == "empty" or len(both(monkeypatch, view, "tea", asked["tea"], Filter())[0].numbers)
    assert all(counts[name] for name in ("whole", "grown", "plain"))


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


@pytest.mark.parametrize("many", [1, 3, 15, 16, 17, 33, 64])
@pytest.mark.parametrize("width", [1, 7, 96, 512])
def test_word_pieces_of_any_width(monkeypatch: pytest.MonkeyPatch, many: int, width: int) -> None:
    dice = np.random.default_rng(many * 1000 + width)
    lengths = [1, 2, 7, 8, 9, 16, 31, 256, 3]
    stored = [dice.integers(-127, 128, (length, width)).astype(np.int8) for length in lengths]
    vectors = dice.standard_normal((len(lengths) + 1, 13)).astype(np.float32)
    talk = [
        piece(n, "red boat" if n % 2 else "tea", vector=vectors[n], late=late, memory=f"m{n}")
        for n, late in enumerate(stored)
    ]
    asked = Asked(vectors[-1], dice.standard_normal((many, width)).astype(np.float32), [(0, 3)] * many)
    agree(*both(monkeypatch, View.of(talk, 13), "red boat", asked, Filter()))


def test_vectors_of_another_length_are_refused(embedder: Embedder) -> None:
    view, given = talk(embedder), encode_query(embedder, "the dog")
    assert given.pieces is not None
    assert given.spans is not None
    wrong = [Asked(given.vector[:-1]), Asked(given.vector, given.pieces, given.spans[:-1]), Asked(given.vector[None])]
    for asked in wrong:
        with pytest.raises(ValueError, match="kind"):
            signals.signals(view, "the dog", asked, Filter(), NOW)


@pytest.mark.parametrize("strange", [np.inf, -np.inf, np.nan, 3e38])
def test_strange_vectors_do_no_harm(embedder: Embedder, strange: float) -> None:
    known = embed_pieces(embedder, said(np.random.default_rng(3), signals.WHOLE + 60))
    some = [replace(p, vector=np.full(384, strange, np.float32)) if i % 3 else p for i, p in enumerate(known)]
    given = encode_query(embedder, "Where did Anna see the dog?")
    for asked in (given, Asked(np.full(384, strange, np.float32), given.pieces, given.spans)):
        found = signals.signals(View.of(some, 384), "Where did Anna see the dog?", asked, Filter(), NOW)
        assert sorted(found.order.tolist()) == list(range(len(found.numbers)))
        assert len(found.numbers) >= signals.CLOSELY


def test_what_it_cannot_compare_is_left_to_numpy() -> None:
    asked = np.ones((2, 96), np.float32)
    assert compiled.compares(asked, 96)
    assert compiled.compares(None, 0)
    assert not compiled.compares(asked, 64)  # other axes
    assert not compiled.compares(np.ones((2, 513), np.float32), 513)


def test_a_view_of_several_blocks_is_compared_as_one(embedder: Embedder) -> None:
    whole = talk(embedder)
    pieces = whole.living()
    parts = View.of(pieces[:4], embedder.dimensions).changed((), pieces[4:7], embedder.dimensions)
    parts = parts.changed((), pieces[7:], embedder.dimensions)
    asked = encode_query(embedder, "the dog on the sofa").pieces
    assert asked is not None
    numbers = np.arange(len(pieces))
    one, which = whole.matches(numbers, asked)
    other, same = parts.matches(numbers, asked)
    assert np.array_equal(which, same)
    assert np.array_equal(one, other)


def test_pieces_without_vectors_are_told_apart(embedder: Embedder) -> None:
    bare = [piece(20 + n, f"line {n}") for n in range(3)]
    view = talk(embedder).changed((), bare, embedder.dimensions)
    asked = encode_query(embedder, "line").pieces
    assert asked is not None
    best, which = view.matches(np.arange(len(view.pieces)), asked)
    assert which.tolist() == list(range(len(view.pieces) - 3))
    assert best.shape == (len(which), len(asked))
    assert np.isfinite(best).all()


def talk(embedder: Embedder) -> View:
    said = [
        "The dog slept on the sofa all afternoon.",
        "Where does he sleep at night?",
        "In a basket by the stove.",
        "My sister sold her boat in May.",
        "The invoice is due on Friday.",
        "We painted the kitchen yellow.",
        "Tea, please, no sugar.",
        "The train to Lyon was late again.",
        "A dog needs two walks a day.",
    ]
    return View.of(embed_pieces(embedder, [piece(n, text) for n, text in enumerate(said)]), embedder.dimensions)
