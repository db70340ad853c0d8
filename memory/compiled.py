"""What is compiled: maxsim.cpp, signals.cpp and minilm.cpp, built when memrelay is installed where a compiler is. Nothing else
knows their calls. They let other threads run meanwhile; without them numpy and onnxruntime do the same, in a multiple of the time.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Function = Callable[..., int]

_WIDEST = 512  # as in maxsim.cpp
_TERM = np.dtype([("code", np.int32), ("digits", np.int32), ("times", np.float64)])
_A, _N, _D = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


@dataclass(frozen=True, slots=True)
class _Library:
    compare: Function
    open: Function
    tiles: Function
    run: Function
    close: Function

    @staticmethod
    def of(library: ctypes.CDLL) -> _Library:
        """Raises AttributeError for a library that was built of earlier sources."""
        compare, names = library.memrelay_compare, ("open", "tiles", "run", "close")
        minilm = [getattr(library, f"memrelay_minilm_{name}") for name in names]
        compare.argtypes, compare.restype = [_A, _A, _A], _N
        takes = ([_A, _N, _N], [_A], [_A, _A, _A, _N, _A, _A], [_A])
        for function, arguments, gives in zip(minilm, takes, (_A, _N, _N, None), strict=True):
            function.argtypes, function.restype = arguments, gives
        return _Library(compare, *minilm)


def _load() -> _Library | None:
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_compiled{suffix}")
        if path.exists():
            try:
                return _Library.of(ctypes.CDLL(str(path)))
            except (OSError, AttributeError) as error:
                log.warning("%s cannot be used (%s)", path.name, error)
                return None
    return None


_library = _load()


def is_built() -> bool:
    """Whether it is there."""
    return _library is not None


def compares(asked: NDArray[np.float32] | None, width: int) -> bool:
    """Whether it can compare a question's pieces (m, late) with stored ones of this width; None: it has none."""
    return is_built() and (asked is None or asked.shape[1] == width <= _WIDEST)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the arrays of a view lie, as signals.cpp reads it. Whoever holds it keeps them."""

    view: Ints
    blocks: Ints
    pieces: int
    dimensions: int

    @staticmethod
    def of(numbers: Sequence[int], arrays: Sequence[NDArray[np.generic]], blocks: Sequence[Sequence[int]]) -> Layout:
        """`numbers`: (pieces, memories, dimensions, width of the word pieces); of each block what it consists of."""
        laid = np.array(blocks, np.int64)
        view = np.array([*numbers, len(blocks), laid.ctypes.data, *(array.ctypes.data for array in arrays)], np.int64)
        return Layout(view, laid, numbers[0], numbers[2])


class _Question(ctypes.Structure):
    _fields_ = [
        ("mask", _A), ("vector", _A), ("terms", _A), ("many", _N), ("whole", _N), ("closely", _N), ("about", _N),
        ("asked", _N), ("pieces", _A), ("scaled_by", _D), ("word_of", _A), ("word_ends", _A), ("flags", _N), ("dated", _A),
        ("speaker", _N), ("now", _D), ("table", _A), ("limits", _A), ("said", _N), ("unknown", _D),
    ]  # fmt: skip


class _Found(ctypes.Structure):
    _fields_ = [(name, _A) for name in (
        "numbers", "values", "cosine", "covered", "met", "total", "order", "fits", "rarity",
    )]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Closely:
    """How many pieces are compared closely: all of so many, else the best, and of the very best what was said around them."""

    whole: int
    best: int
    around: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What fits, by `values` in the order of signals.cpp; `said`: View.said of the question; `unknown`: as rank.py has it."""

    values: Floats
    said: int
    unknown: float


@dataclass(frozen=True, slots=True)
class Compared:
    """The candidates of a question: numbers of pieces (n,), their signals (n, names), cosine, share of the question's rare words,
    share of its word pieces met (NaN: not known), weighed total, the places 0 to n - 1 with the best first, which fit."""

    numbers: Ints
    values: NDArray[np.float32]
    cosine: Floats
    covered: Floats
    met: Floats
    total: NDArray[np.float32]
    order: Ints
    fits: Bools


def compare(
    layout: Layout, mask: Bools, vector: NDArray[np.float32], terms: Mapping[str, int], codes: Mapping[str, int],
    closely: Closely, pieces: NDArray[np.float32] | None, scale: float, words: Sequence[Sequence[int]],
    flags: Sequence[bool], dated: Floats | None, speaker: int, now: float, table: NDArray[np.float32],
    limits: Limits | None,
) -> Compared:  # fmt: skip
    """See signals.py. `terms`: how often the question has each word; `codes`: the view's number of each; `words`: for each of its
    `pieces` which of the terms are the word that it belongs to; `table`: what each signal weighs; without `limits` `fits` means
    nothing. Raises ValueError for vectors of other lengths than the view's."""
    size = layout.pieces
    given = [(codes.get(word, -1), any(c.isdigit() for c in word), times) for word, times in terms.items()]
    asked = np.array(given, _TERM)
    word_of = np.array([term for word in words for term in word], np.int32)
    word_ends = np.cumsum([len(word) for word in words], dtype=np.int32)
    vector = np.ascontiguousarray(vector, np.float32)
    pieces = None if pieces is None or not words else np.ascontiguousarray(pieces, np.float32)
    if vector.shape != (layout.dimensions,) or len(words) != (0 if pieces is None else len(pieces)):
        raise ValueError("the question's vectors are not of the kind that the view holds")
    numbers, order = np.empty((2, size), np.int64)
    cosine, covered, met = np.empty((3, size))
    values, total = np.empty((size, len(table)), np.float32), np.empty(size, np.float32)
    fits, rarity = np.empty(size, bool), np.empty(len(asked))
    question = _Question(
        _at(mask), _at(vector), _at(asked), len(asked), closely.whole, closely.best, closely.around,
        0 if pieces is None else len(pieces), _at(pieces), scale, _at(word_of), _at(word_ends),
        sum(flag << place for place, flag in enumerate(flags)), _at(dated), speaker, now, _at(table),
        None if limits is None else _at(limits.values), 0 if limits is None else limits.said,
        0.0 if limits is None else limits.unknown,
    )  # fmt: skip
    found = _Found(*(_at(array) for array in (numbers, values, cosine, covered, met, total, order, fits, rarity)))
    assert _library is not None
    n = _library.compare(_at(layout.view), ctypes.byref(question), ctypes.byref(found))
    return Compared(numbers[:n], values[:n], cosine[:n], covered[:n], met[:n], total[:n], order[:n], fits[:n])


class Pass:
    """The default model's pass (memory/minilm.py). Several threads may run it at a time; what a text gives does not depend on what
    is beside it."""

    def __init__(self, library: _Library, model: int, kept: Sequence[NDArray[Any]], axes: int) -> None:
        self._library, self._model, self._kept, self.axes = library, model, kept, axes
        weakref.finalize(self, library.close, model).atexit = False  # threads may be in it to the end

    @staticmethod
    def of(arrays: Sequence[NDArray[Any]], axes: int, *, tiles: bool = True) -> Pass | None:
        """`arrays` as minilm.cpp takes them. None: it was not built, or this processor has no products of bytes for it. `tiles`:
        use AMX where that is."""
        kept = [np.ascontiguousarray(array) for array in arrays]
        given = np.array([array.ctypes.data for array in kept], np.int64)
        model = _library.open(_at(given), axes, tiles) if _library is not None else None
        if _library is None or not model:
            return None
        return Pass(_library, model, kept[:4], axes)  # the others were copied into the order in which they are read

    @property
    def tiles(self) -> bool:
        """Whether it uses AMX."""
        return bool(self._library.tiles(self._model))

    def run(self, texts: Sequence[Sequence[int]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of texts as numbers of word pieces, none of them empty: (unit vectors (len(texts), 384), those of all pieces, one text
        behind another (pieces, axes)). Raises MemoryError."""
        lengths = np.array([len(text) for text in texts], np.int64)
        ids = np.array([number for text in texts for number in text], np.int32)
        vectors, pieces = np.empty((len(texts), 384), np.float32), np.empty((len(ids), self.axes), np.float32)
        if self._library.run(self._model, _at(ids), _at(lengths), len(texts), _at(vectors), _at(pieces)):
            raise MemoryError("no memory for a pass of the embedder")
        return vectors, pieces


def _at(array: NDArray[Any] | None) -> int | None:
    return None if array is None else array.ctypes.data
