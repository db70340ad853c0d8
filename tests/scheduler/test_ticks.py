"""The clock of several executors, over restarts; on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from scheduler.queue import engine
from scheduler.ticks import Ticks


def test_each_time_comes_once_and_a_restart_does_not_bring_it_back(any_url: str) -> None:
    database, now = engine(any_url), [1000.0]
    came = []
    for now[0] in (1000.0, 1059.0, 1060.0, 1061.0, 1200.0):
        came.append(Ticks(database, lambda: now[0]).mine("trim", 60.0))
    assert came == [True, False, True, False, True]
    assert Ticks(database, lambda: now[0]).mine("another", 60.0)
    now[0] = 500.0  # somebody set the clock back
    assert Ticks(database, lambda: now[0]).mine("trim", 60.0)
    database.dispose()


def test_of_several_executors_one_is_told(any_url: str) -> None:
    database = engine(any_url)
    Ticks(database).mine("made", 1.0)
    every = [Ticks(database, lambda: 1000.0) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda one: one.mine("trim", 60.0), every)) == 1
    database.dispose()
