"""Late interaction: word pieces beside the vector, small and comparable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memory.embed import AXES
from memory.late import SCALE, LateEmbedder, best_matches, encode, encode_query, packed
from memory.models import Embedder


def test_the_default_embedder_gives_word_pieces(embedder: Embedder) -> None:
    assert isinstance(embedder, LateEmbedder)
    found = encode(embedder, ["I have a dog.", "", "Rain " * 400])
    assert [rows.dtype for rows in found.pieces] == [np.int8] * 3
    assert found.pieces[0].shape == (5, embedder.late)
    assert len(found.pieces[1]) == 0
    assert len(found.pieces[2]) <= 256
    assert np.allclose(found.vectors, embedder.embed(["I have a dog.", "", "Rain " * 400]), atol=1e-6)


def test_a_questions_pieces_know_their_place(embedder: Embedder) -> None:
    asked = encode_query(embedder, "my puppy")
    assert asked.pieces is not None
    assert asked.spans is not None
    assert next("my puppy"[a:b] for a, b in asked.spans) == "my"
    assert np.allclose(np.linalg.norm(asked.pieces, axis=1), 1.0, atol=1e-4)


def test_a_word_meets_its_synonym(embedder: Embedder) -> None:
    asked = encode_query(embedder, "puppy")
    found = encode(embedder, ["We have a little dog now.", "The invoice is due on Friday."])
    starts = np.array([0, len(found.pieces[0])])
    assert asked.pieces is not None
    best = best_matches(asked.pieces, np.concatenate(found.pieces), starts).mean(axis=1)
    assert best[0] > best[1] + 0.1


def test_packing_keeps_the_direction() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 96)).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.einsum("ij,ij->i", packed(rows) / SCALE, unit) == pytest.approx(np.ones(50), abs=0.02)


def test_the_axes_are_orthonormal() -> None:
    axes = np.load(Path(AXES)).astype(np.float64)
    assert axes.shape == (384, 96)
    assert np.allclose(axes.T @ axes, np.eye(96), atol=0.01)
