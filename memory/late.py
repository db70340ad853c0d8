"""Late interaction: a question and a text compared word piece by word piece, from the pass that gives their vectors too.

Of each piece of the question the best cosine among the text's pieces counts, weighted by how rare the word is (MaxSim:
Khattab and Zaharia, ColBERT, 2020). The default embedder was not trained for it; measured, it is the best single signal all
the same (docs/LOG.md). Stored pieces are projected on the model's main axes and rounded: `late` bytes a piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from memory.compiled import Pass
from memory.models import Embedder, Vectors

SCALE = 254.0  # components of projected unit vectors seldom exceed 0.5
_AT_ONCE = (
    1024  # pieces that are compared at a time: as floats they are four times as large, and shall stay in the cache
)


class Encoded(NamedTuple):
    """Vectors of shape (n, dimensions), and for each text its pieces, int8 of shape (pieces, late)."""

    vectors: Vectors
    pieces: list[NDArray[np.int8]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: its vector (dimensions,), its pieces (m, late) as unit rows, and where in the text each stands."""

    vector: NDArray[np.float32]
    pieces: NDArray[np.float32] | None = None
    spans: list[tuple[int, int]] | None = None


@runtime_checkable
class LateEmbedder(Embedder, Protocol):
    """An embedder that also gives vectors of word pieces."""

    late: int  # bytes a piece

    def encode(self, texts: list[str]) -> Encoded:
        """Vectors and pieces of the texts."""
        ...

    def encode_query(self, text: str) -> Asked:
        """Vector and pieces of a question."""
        ...


class Spelled(NamedTuple):
    """A question as numbers of word pieces, those of them that stand for something in the text, and where each of these stands."""

    ids: NDArray[np.int32]
    inside: slice
    spans: list[tuple[int, int]]


class SpellingEmbedder(LateEmbedder, Protocol):
    """One whose pass knows no Python, so that it can be had without (memory/crew.py)."""

    ours: Pass

    def spelled(self, text: str) -> Spelled | None:
        """What the pass takes; None where it has to be asked for the vectors as a whole."""
        ...


def spells(embedder: Embedder) -> TypeGuard[SpellingEmbedder]:
    """Whether it is one of those."""
    return hasattr(embedder, "spelled")


def is_late(embedder: Embedder) -> TypeGuard[LateEmbedder]:
    """Whether it gives vectors of word pieces, too. Asking for the Protocol itself takes 20 µs."""
    return hasattr(embedder, "encode_query")


def encode(embedder: Embedder, texts: list[str]) -> Encoded:
    """Vectors and pieces; of an embedder without pieces, none."""
    if is_late(embedder):
        return embedder.encode(texts)
    return Encoded(embedder.embed(texts), [np.zeros((0, 0), np.int8)] * len(texts))


def encode_query(embedder: Embedder, text: str) -> Asked:
    """A question's vector and, where the embedder has them, its pieces."""
    if is_late(embedder):
        return embedder.encode_query(text)
    return Asked(embedder.embed_query(text))


def packed(rows: NDArray[np.float32]) -> NDArray[np.int8]:
    """Projected rows (..., late) as unit vectors in int8."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)
    rounded: NDArray[np.int8] = np.clip(np.round(unit * SCALE), -127, 127).astype(np.int8)
    return rounded


def best_matches(
    asked: NDArray[np.float32], stored: NDArray[np.int8], starts: NDArray[np.int64]
) -> NDArray[np.float32]:
    """For each stored text (they begin at `starts`, none is empty) and each piece asked (m, late) the best cosine:
    shape (len(starts), m)."""
    rows = np.empty((min(_AT_ONCE, len(stored)), stored.shape[1]), np.float32)
    found = np.empty((len(stored), len(asked)), np.float32)
    wanted = np.ascontiguousarray(asked.T) / np.float32(SCALE)
    for start in range(0, len(stored), _AT_ONCE):
        part = rows[: min(_AT_ONCE, len(stored) - start)]
        np.copyto(part, stored[start : start + _AT_ONCE])
        np.matmul(part, wanted, out=found[start : start + _AT_ONCE])
    best: NDArray[np.float32] = np.maximum.reduceat(found, starts, axis=0)
    return best
