"""MaxSim, compiled and with numpy: the same best matches, whatever the shapes."""

from __future__ import annotations

import numpy as np
import pytest

from memory import maxsim
from memory.index import embed_pieces
from memory.late import SCALE, encode_query
from memory.models import Embedder
from memory.rank import rank
from memory.store import Filter
from memory.view import View
from tests.memory.test_rank import piece

built = pytest.mark.skipif(not maxsim.is_built(), reason="memrelay was installed without a compiler")


def test_the_installation_of_this_repository_has_built_it() -> None:
    assert maxsim.is_built()  # `make test` needs a compiler for llama.cpp anyway


@built
@pytest.mark.parametrize("many", [1, 3, 15, 16, 17, 33, 64])
@pytest.mark.parametrize("width", [1, 7, 96, 512])
def test_both_find_the_same(many: int, width: int) -> None:
    dice = np.random.default_rng(many * 1000 + width)
    lengths = np.array([1, 2, 7, 8, 9, 16, 31, 256, 3])
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    stored = dice.integers(-127, 128, (int(lengths.sum()), width)).astype(np.int8)
    asked = dice.standard_normal((many, width)).astype(np.float32)
    expected = maxsim.best_of(asked, stored, starts, SCALE)
    assert maxsim.can(asked, width)
    found = maxsim.best_at(asked, stored.ctypes.data + starts * width, lengths, SCALE)
    assert found.shape == (len(lengths), many)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


@built
def test_what_it_cannot_compare_it_refuses() -> None:
    asked = np.ones((2, 96), np.float32)
    assert not maxsim.can(asked, 64)  # other axes
    assert not maxsim.can(np.ones((2, 513), np.float32), 513)
    assert not maxsim.can(asked[:0], 96)


def test_a_question_finds_the_same_without_it(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    view = _talk(embedder)
    asked = encode_query(embedder, "Where did the dog sleep?")
    with_it = [(one.number, one.score) for one in rank(view, "Where did the dog sleep?", asked, Filter(), 1e9)]
    monkeypatch.setattr(maxsim, "_built", None)
    without = [(one.number, one.score) for one in rank(view, "Where did the dog sleep?", asked, Filter(), 1e9)]
    assert [number for number, _ in with_it] == [number for number, _ in without]
    assert [score for _, score in with_it] == pytest.approx([score for _, score in without], abs=1e-5)
    assert with_it


def test_a_view_of_several_blocks_is_compared_as_one(embedder: Embedder) -> None:
    whole = _talk(embedder)
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
    view = _talk(embedder).changed((), bare, embedder.dimensions)
    asked = encode_query(embedder, "line").pieces
    assert asked is not None
    best, which = view.matches(np.arange(len(view.pieces)), asked)
    assert which.tolist() == list(range(len(view.pieces) - 3))
    assert best.shape == (len(which), len(asked))
    assert np.isfinite(best).all()


def _talk(embedder: Embedder) -> View:
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
