"""What is compiled: maxsim.cpp, signals.cpp, minilm.cpp and crew.cpp, built when memrelay is installed where a compiler is. Nothing
else knows their calls. They let other threads run meanwhile; without them numpy and onnxruntime do the same, in a multiple of the
time.
"""

from __future__ import annotations

import ctypes
import logging
import os
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
    crew_open: Function
    crew_embed: Function
    crew_compare: Function
    crew_drop: Function
    crew_through: Function
    crew_close: Function

    @staticmethod
    def of(library: ctypes.CDLL) -> _Library:
        """Raises AttributeError for a library that was built of earlier sources."""
        compare, names = library.memrelay_compare, ("open", "tiles", "run", "close")
        minilm = [getattr(library, f"memrelay_minilm_{name}") for name in names]
        compare.argtypes, compare.restype = [_A, _A, _A], _N
        crew = [
            getattr(library, f"memrelay_crew_{name}")
            for name in ("open", "embed", "compare", "drop", "through", "close")
        ]
        takes: list[list[Any]] = [[_A, _N, _N], [_A], [_A, _A, _A, _N, _A, _A], [_A]]
        takes += [[_N, _N], [_A, _N, _A, _A, _N, _N, _A, _A], [_A, _N, _N, _A, _A, _A]]
        takes += [[_A, _N], [_A, _A, _A, _N], [_A]]
        gives = (_A, _N, _N, None, _A, _N, _N, _N, _N, None)
        for function, arguments, result in zip((*minilm, *crew), takes, gives, strict=True):
            function.argtypes, function.restype = arguments, result
        return _Library(compare, *minilm, *crew)


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
    def of(numbers: Sequence[int], arrays: Sequence[int], blocks: Sequence[Sequence[int]]) -> Layout:
        """`numbers`: (pieces, memories, dimensions, width of the word pieces); where the `arrays` lie; of each block what it is
        made of."""
        laid = np.array(blocks, np.int64)
        view = np.array([*numbers, len(blocks), laid.ctypes.data, *arrays], np.int64)
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


class Comparison:
    """A question and a view as one call of signals.cpp takes them, with room for what is found; it keeps all that the call reads.
    `vector` and `pieces` may be filled later, as long as they are by the time it runs."""

    def __init__(
        self, layout: Layout, mask: Bools, vector: NDArray[np.float32], terms: Mapping[str, int], codes: Mapping[str, int],
        closely: Closely, pieces: NDArray[np.float32] | None, scale: float, words: Sequence[Sequence[int]],
        flags: Sequence[bool], dated: Floats | None, speaker: int, now: float, table: NDArray[np.float32],
        limits: Limits | None, keeps: object,
    ) -> None:  # fmt: skip
        """See signals.py. `terms`: how often the question has each word; `codes`: the view's number of each; `words`: for each of
        its `pieces` which of the terms are the word that it belongs to; `table`: what each signal weighs; without `limits` `fits`
        means nothing; `keeps`: the view itself. Raises ValueError for vectors of other lengths than the view's."""
        size = layout.pieces
        given = [(codes.get(word, -1), any(c.isdigit() for c in word), times) for word, times in terms.items()]
        asked = np.array(given, _TERM)
        word_of = np.array([term for word in words for term in word], np.int32)
        word_ends = np.cumsum([len(word) for word in words], dtype=np.int32)
        vector = np.ascontiguousarray(vector, np.float32)
        pieces = None if pieces is None or not words else np.ascontiguousarray(pieces, np.float32)
        if vector.shape != (layout.dimensions,) or len(words) != (0 if pieces is None else len(pieces)):
            raise ValueError("the question's vectors are not of the kind that the view holds")
        # one piece of memory, cut up: each array of its own would take as long as all of them
        room = np.empty((5 * size + len(asked)) * 8 + (size * (len(table) + 1)) * 4 + size, np.uint8)
        at = room.ctypes.data
        eights, fours = 8 * size, 4 * size
        places = [at + k * eights for k in range(5)]
        rarity = at + 5 * eights
        values = rarity + 8 * len(asked)
        total = values + fours * len(table)
        fits = total + fours
        numbers, order, cosine, covered, met = places
        question = _Question(
            _at(mask), _at(vector), _at(asked), len(asked), closely.whole, closely.best, closely.around,
            0 if pieces is None else len(pieces), _at(pieces), scale, _at(word_of), _at(word_ends),
            sum(flag << place for place, flag in enumerate(flags)), _at(dated), speaker, now, _at(table),
            None if limits is None else _at(limits.values), 0 if limits is None else limits.said,
            0.0 if limits is None else limits.unknown,
        )  # fmt: skip
        found = _Found(numbers, values, cosine, covered, met, total, order, fits, rarity)
        self._size, self._columns, self._terms, self._room = size, len(table), len(asked), room
        self._question, self._found = question, found
        self._keeps = keeps, layout, mask, vector, asked, pieces, word_of, word_ends, dated, table, limits
        self.addresses = _at(layout.view), ctypes.addressof(question), ctypes.addressof(found)

    def run(self) -> Compared:
        """Compare them here and now."""
        assert _library is not None
        return self.found(_library.compare(*self.addresses))

    def found(self, n: int) -> Compared:
        """What it has found, by the number that its call gave."""
        room, size, columns, at = self._room, self._size, self._columns, 0

        def cut(kind: Any, width: int) -> NDArray[Any]:
            nonlocal at
            start, at = at, at + size * width * np.dtype(kind).itemsize
            return room[start:at].view(kind)

        numbers, order = cut(np.int64, 1), cut(np.int64, 1)
        cosine, covered, met = cut(np.float64, 1), cut(np.float64, 1), cut(np.float64, 1)
        at += 8 * self._terms
        values, total = cut(np.float32, columns).reshape(size, columns), cut(np.float32, 1)
        fits = cut(np.bool_, 1)
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
    def address(self) -> int:
        """Where the model lies, for as long as this is kept."""
        return self._model

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


class Threads:
    """Threads that embed questions and compare them, see crew.cpp and memory/crew.py. What a job reads and writes is kept until it
    is told to be through. A byte comes out of `pipe` when somebody's job is through, or many are."""

    def __init__(self, count: int) -> None:
        """Raises MemoryError, OSError."""
        assert _library is not None
        self.pipe, told = os.pipe()
        for end in (self.pipe, told):
            os.set_blocking(end, False)
        self._library, self._crew = _library, _library.crew_open(count, told)
        if not self._crew:
            os.close(self.pipe)
            os.close(told)
            raise MemoryError("no threads for questions")
        self._keeps: dict[int, Any] = {}
        self._numbers, self._results = np.empty((2, 64), np.int64)
        # also when the process ends: they must not be in what is taken down
        self._end = weakref.finalize(self, _ended, _library, self._crew, (self.pipe, told), self._keeps)

    def embed(self, number: int, by: Pass, ids: NDArray[np.int32], vector: NDArray[Any], pieces: NDArray[Any]) -> None:
        """A question as numbers of word pieces → its vector (384,) and those of its pieces (len(ids), axes). Raises MemoryError."""
        self._keeps[number] = by, ids, vector, pieces
        to = _at(ids), len(ids), by.axes, _at(vector), _at(pieces)
        if self._library.crew_embed(self._crew, number, by.address, *to):
            del self._keeps[number]
            raise MemoryError("no memory for a question")

    def compare(self, number: int, after: int, comparison: Comparison | None) -> None:
        """Compare (or only tell) once the question of number `after` is embedded; 0: it is. Raises MemoryError."""
        self._keeps[number] = comparison
        what = (None, None, None) if comparison is None else comparison.addresses
        if self._library.crew_compare(self._crew, number, after, *what):
            del self._keeps[number]
            raise MemoryError("no memory for a question")

    def drop(self, number: int) -> None:
        """Do not compare, unless that has begun."""
        self._library.crew_drop(self._crew, number)

    def through(self) -> list[tuple[int, int]]:
        """(number, what came of it: -1 when there was no memory) of jobs that are through, and were not told before."""
        found: list[tuple[int, int]] = []
        most = n = len(self._numbers)
        while n == most:
            n = self._library.crew_through(self._crew, _at(self._numbers), _at(self._results), most)
            found += zip(self._numbers[:n].tolist(), self._results[:n].tolist(), strict=True)
        for number, _ in found:
            del self._keeps[number]
        return found

    def close(self) -> None:
        """Wait for what is being done; what waits is not done any more."""
        self._end()


def _ended(library: _Library, crew: int, pipe: tuple[int, int], keeps: dict[int, Any]) -> None:
    library.crew_close(crew)
    keeps.clear()
    for end in pipe:
        os.close(end)


def _at(array: NDArray[Any] | None) -> int | None:
    return None if array is None else array.ctypes.data
