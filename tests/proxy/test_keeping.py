"""Which cubes stay in memory: those that are worth most per byte, not those that were asked last."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from memory.index import Index
from memory.memories import Memories
from memory.models import Embedder
from memory.retrieve import Question, Retriever
from memory.shelf import BUSY_S, Keeping, LongestUnasked, Shelf
from memory.sql import Database
from memory.store import Store
from proxy.blocks import Begun, Blocks, visits
from proxy.keeping import VISIT_S, Kept
from tests.memory.make import NOW, OWNER, memory

DAY = 86_400.0


@dataclass
class Thing:
    size: int


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def asked(shelf: Shelf[Thing], keeping: Keeping, cube: str, size: int) -> None:
    """What the working set does at a question."""
    keeping.asked(cube)
    shelf.put(cube, Thing(size))


def who(shelf: Shelf[Thing], *cubes: str) -> set[str]:
    return {cube for cube in cubes if shelf.get(cube)}


SMALL = ("a", "b", "c", "d", "e")


@pytest.mark.parametrize(("policy", "gone"), [(True, {"large"}), (False, {"a"})])
def test_a_large_cube_used_once_does_not_push_out_small_ones_used_daily(policy: bool, gone: set[str]) -> None:
    clock = Clock()
    keeping = Kept(clock) if policy else LongestUnasked()
    shelf: Shelf[Thing] = Shelf(100, clock, keeping=keeping)
    for _ in range(7):
        clock.now += DAY
        for cube in SMALL:
            asked(shelf, keeping, cube, 10)
    for cube, size in (("large", 50), ("new", 10)):
        clock.now += 3600
        asked(shelf, keeping, cube, size)
    assert {*SMALL, "large", "new"} - who(shelf, *SMALL, "large", "new") == gone


def test_a_large_cube_is_not_even_loaded_until_it_is_worth_it() -> None:
    clock = Clock()
    kept = Kept(clock)
    shelf: Shelf[Thing] = Shelf(100, clock, keeping=kept)
    for cube in SMALL:
        asked(shelf, kept, cube, 10)
    taken = []
    for _ in range(80):
        clock.now += DAY
        kept.asked("large")
        taken.append(shelf.takes("large", 80))
    assert taken[0] is False
    assert taken[-1] is True  # the small ones were not asked again
    assert taken == sorted(taken)


def test_one_long_chat_is_one_visit() -> None:
    clock = Clock()
    kept = Kept(clock)
    for _ in range(50):
        kept.asked("chatty")
        clock.now += VISIT_S / 3
    for _ in range(3):
        clock.now += DAY
        kept.asked("daily")
    assert kept.leaving({"chatty": 10, "daily": 10}, 10) == ["chatty"]


def test_a_restart_does_not_forget_who_comes_every_day() -> None:
    clock = Clock()
    kept = Kept(clock)
    kept.visited([("daily", NOW - days * DAY) for days in range(9, 0, -1)])
    kept.asked("daily")
    clock.now += DAY
    kept.asked("once")
    clock.now += VISIT_S
    assert kept.leaving({"daily": 10, "once": 10}, 10) == ["once"]


def test_a_cube_whose_session_is_expected_is_not_the_first_to_go() -> None:
    clock = Clock()
    kept = Kept(clock)
    for cube in ("a", "b"):
        kept.asked(cube)
        clock.now += DAY
    assert kept.leaving({"a": 10, "b": 10}, 10) == ["a"]
    kept.expects("a")
    assert kept.leaving({"a": 10, "b": 10}, 10) == ["b"]
    clock.now += VISIT_S
    assert kept.leaving({"a": 10, "b": 10}, 10) == ["a"]  # it did not begin


async def test_earlier_visits_come_from_the_sessions_that_began(database: Database) -> None:
    pending = []
    blocks = Blocks(database, pending.append)
    for number, at in enumerate((NOW - 90 * DAY, NOW - DAY, NOW)):
        blocks.begin(f"c{number % 2}", Begun(f"s{number}", "", (), 0), at)
    for work in pending:
        await work
    assert await visits(database, NOW - 60 * DAY) == [("c1", NOW - DAY), ("c0", NOW)]
    assert await visits(database, 0.0, limit=1) == [("c0", NOW)]


def test_whatever_happens_the_budget_is_kept_and_who_is_asked_is_there() -> None:
    clock, rng = Clock(), random.Random(1)
    kept = Kept(clock)
    shelf: Shelf[Thing] = Shelf(100, clock, keeping=kept)
    for _ in range(2000):
        clock.now += rng.choice([1.0, 60.0, 3600.0, DAY])
        cube, size = f"c{rng.randrange(20)}", rng.randint(1, 100)
        if rng.random() < 0.2:
            shelf.takes(cube, size)
            continue
        asked(shelf, kept, cube, size)
        assert shelf.get(cube)
        assert shelf.used <= 100


def test_two_that_fit_only_alone_do_not_take_turns_behind_the_scenes() -> None:
    clock = Clock()
    kept = Kept(clock)
    shelf: Shelf[Thing] = Shelf(100, clock, keeping=kept)
    asked(shelf, kept, "a", 60)
    for _ in range(20):
        clock.now += 2 * BUSY_S
        kept.asked("b")
        assert not shelf.takes("b", 60)
        clock.now += 2 * BUSY_S
        asked(shelf, kept, "a", 60)


def test_it_says_why_a_cube_is_where_it_is() -> None:
    clock = Clock()
    kept = Kept(clock)
    kept.asked("a")
    assert kept.where("a", 10, 0.0)[1] == (
        "RAM since 14 Nov 2023: used once, last today, expected next with 0.80, value 0.203; there is room for all."
    )
    assert kept.leaving({"a": 10, "b": 20}, 10) == ["b"]
    assert kept.where("b", 20, None)[1].startswith("The index since 14 Nov 2023: not used yet")
    assert "RAM takes one of its size from" in kept.where("b", 20, None)[1]


@pytest.mark.parametrize(("policy", "gone"), [(True, "large"), (False, "a")])
async def test_the_working_set_asks_it(
    database: Database, data: Path, embedder: Embedder, threads: ThreadPoolExecutor, policy: bool, gone: str
) -> None:
    store, clock = Store(str(data / "lance")), Clock()
    for cube, notes in (("a", 15), ("b", 15), ("large", 18), ("new", 15)):
        for number in range(notes):
            await Memories(database).add(memory(text=f"Note {number} of {cube}.", cube=cube), OWNER)
        await Index(database, store, embedder).catch_up(cube)

    async def asked_in_turn(retriever: Retriever) -> list[str]:
        for cube in ("a", "b", "a", "b", "large", "new"):
            clock.now += DAY
            assert (await retriever.retrieve(cube, Question(f"Note 3 of {cube}", clock.now))).hits
        return [cube for cube in ("a", "b", "large", "new") if (here := retriever.held(cube)) is None or not here.whole]

    roomy = Retriever(database, store, embedder, threads)
    assert await asked_in_turn(roomy) == []
    narrow = Retriever(
        database, store, embedder, threads, budget=roomy.held_bytes - 1, keeping=Kept(clock) if policy else None
    )
    assert await asked_in_turn(narrow) == [gone]
    assert narrow.held_bytes < roomy.held_bytes
