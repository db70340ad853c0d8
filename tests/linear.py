"""Does the work grow no faster than its input? A ratio of CPU times within one run, not a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T", str, bytes)

_NOTHING_S = 0.03  # so little says nothing about growth


def assert_linear(run: Callable[[T], object], whole: T) -> None:
    """Four times the input may take about four times as long; quadratic work would take sixteen."""
    part = whole[: len(whole) // 4]
    long = min(_cpu(run, whole) for _ in range(2))
    if long > _NOTHING_S:
        assert long < 10 * max(min(_cpu(run, part) for _ in range(3)), 1e-3)


def _cpu(run: Callable[[T], object], value: T) -> float:
    started = time.thread_time()
    run(value)
    return time.thread_time() - started
