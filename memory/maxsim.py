"""MaxSim (Khattab and Zaharia, ColBERT, 2020): of each piece asked the best match among each text's pieces.

Compiled (maxsim.cpp) it takes a third of the time of numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memory.compiled import BESIDE, WIDEST, function

_AT_ONCE = (
    1024  # pieces that numpy compares at a time: as floats they are four times as large, and shall stay in the cache
)

Ints = NDArray[np.int64]


_built = function("maxsim")


def is_built() -> bool:
    """Whether the compiled form is there."""
    return _built is not None


def can(asked: NDArray[np.float32], width: int) -> bool:
    """Whether `best_at` can compare these: the compiled form is there, and they are as wide as what is stored."""
    return _built is not None and asked.shape[1] == width <= WIDEST and len(asked) > 0


def best_at(asked: NDArray[np.float32], at: Ints, lengths: Ints, scale: float) -> NDArray[np.float32]:
    """For each text and each piece asked (m, width) the greatest product with one of the text's pieces, divided by `scale`: shape
    (len(at), m). `at`: where each text's pieces lie in memory, which the caller keeps; none is empty. Lets go of the GIL."""
    assert _built is not None
    many, width = asked.shape
    groups = -(-many // BESIDE)
    columns = np.zeros((groups, width, BESIDE), np.float32)
    for group in range(groups):
        part = asked[group * BESIDE : (group + 1) * BESIDE]
        np.divide(part.T, np.float32(scale), out=columns[group, :, : len(part)])
    best = np.empty((len(at), groups * BESIDE), np.float32)
    at, lengths = np.ascontiguousarray(at, np.int64), np.ascontiguousarray(lengths, np.int64)
    _built(at.ctypes.data, lengths.ctypes.data, len(at), columns.ctypes.data, groups, width, best.ctypes.data)
    return best[:, :many]


def best_of(asked: NDArray[np.float32], stored: NDArray[np.int8], starts: Ints, scale: float) -> NDArray[np.float32]:
    """The same with numpy, of texts that lie one after the other and begin at `starts`."""
    rows = np.empty((min(_AT_ONCE, len(stored)), stored.shape[1]), np.float32)
    found = np.empty((len(stored), len(asked)), np.float32)
    wanted = np.ascontiguousarray(asked.T) / np.float32(scale)
    for start in range(0, len(stored), _AT_ONCE):
        part = rows[: min(_AT_ONCE, len(stored) - start)]
        np.copyto(part, stored[start : start + _AT_ONCE])
        np.matmul(part, wanted, out=found[start : start + _AT_ONCE])
    best: NDArray[np.float32] = np.maximum.reduceat(found, starts, axis=0)
    return best
