"""What is compiled: maxsim.cpp and signals.cpp, built when memrelay is installed where a compiler is. Nothing else knows their
calls. They copy nothing and let other threads run meanwhile; without them numpy does the same, in a multiple of the time.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Function = Callable[..., int]

_WIDEST = 512  # as in maxsim.cpp
_TERM = np.dtype([("code", np.int32), ("digits", np.int32), ("times", np.float64)])
_A, _N, _F, _D = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_double
_CALLS: Mapping[str, Sequence[object]] = {
    "nearest": (_A, _A, _A, _A, _N, _N, _N, _N, *[_A] * 7),
    "signals": (_A, _N, *[_A] * 6, _N, _A, _F, _A, _N, _A, _A, _D, _A, _A),
}


def _load() -> dict[str, Function]:
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_compiled{suffix}")
        if path.exists():
            try:
                library = ctypes.CDLL(str(path))
                found = {name: getattr(library, f"memrelay_{name}") for name in _CALLS}
            except (OSError, AttributeError) as error:
                log.warning("%s cannot be used (%s)", path.name, error)
                return {}
            for name, function in found.items():
                function.argtypes = _CALLS[name]
                function.restype = _N if name == "nearest" else None
            return found
    return {}


_functions = _load()


def is_built() -> bool:
    """Whether it is there."""
    return bool(_functions)


def compares(asked: NDArray[np.float32] | None, width: int) -> bool:
    """Whether it can compare a question's pieces (m, late) with stored ones of this width; None: it has none."""
    return is_built() and (asked is None or asked.shape[1] == width <= _WIDEST)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the arrays of a view lie, as signals.cpp reads it. Whoever holds it keeps them."""

    view: Ints
    blocks: Ints
    pieces: int

    @staticmethod
    def of(numbers: Sequence[int], arrays: Sequence[NDArray[np.generic]], blocks: Sequence[Sequence[int]]) -> Layout:
        """`numbers`: (pieces, memories, dimensions, width of the word pieces); of each block what it consists of."""
        laid = np.array(blocks, np.int64)
        view = np.array([*numbers, len(blocks), laid.ctypes.data, *(array.ctypes.data for array in arrays)], np.int64)
        return Layout(view, laid, numbers[0])


@dataclass(frozen=True, slots=True)
class Nearest:
    """Pieces that are worth a closer look: numbers (n,), how near in meaning, BM25, cosine (NaN: not known), share of the
    question's rare words, share of its numbers and codes; and how rare each word is."""

    numbers: Ints
    meaning: Floats
    words: Floats
    cosine: Floats
    covered: Floats
    exact: Floats
    rarity: dict[str, float]


def nearest(
    layout: Layout, mask: Bools, vector: NDArray[np.float32], terms: Mapping[str, int], codes: Mapping[str, int],
    whole: int, closely: int, around: int,
) -> Nearest:  # fmt: skip
    """See signals.py. `terms`: how often the question has each word; `codes`: the view's number of each."""
    asked = np.array(
        [(codes.get(word, -1), any(c.isdigit() for c in word), times) for word, times in terms.items()], _TERM
    )
    rarity, numbers = np.empty(len(asked)), np.empty(layout.pieces, np.int64)
    found = np.empty((5, layout.pieces))
    at, row = found.ctypes.data, found.strides[0]
    count = _functions["nearest"](
        layout.view.ctypes.data, mask.ctypes.data, vector.ctypes.data, asked.ctypes.data, len(asked), whole, closely, around,
        rarity.ctypes.data, numbers.ctypes.data, *(at + row * i for i in range(5)),
    )  # fmt: skip
    meaning, words, cosine, covered, exact = found[:, :count]
    rare = dict(zip(terms, rarity.tolist(), strict=True))
    return Nearest(numbers[:count], meaning, words, cosine, covered, exact, rare)


def signals(
    layout: Layout, near: Nearest, asked: NDArray[np.float32] | None, scale: float, weights: NDArray[np.float32] | None,
    flags: Sequence[bool], dated: Floats | None, spoken: Floats | None, now: float, columns: int,
) -> tuple[NDArray[np.float32], Floats]:  # fmt: skip
    """(signals (n, columns), share of the question's word pieces met (n,); NaN: not known). See signals.py."""
    count = len(near.numbers)
    values, met = np.empty((count, columns), np.float32), np.empty(count)
    arrays = (near.numbers, near.meaning, near.words, near.cosine, near.covered, near.exact)
    many = 0 if asked is None or weights is None else len(asked)
    _functions["signals"](
        layout.view.ctypes.data, count, *(array.ctypes.data for array in arrays), many, _at(asked), scale, _at(weights),
        sum(flag << place for place, flag in enumerate(flags)), _at(dated), _at(spoken), now, values.ctypes.data,
        met.ctypes.data,
    )  # fmt: skip
    return values, met


def _at(array: NDArray[np.generic] | None) -> int | None:
    return None if array is None else array.ctypes.data
