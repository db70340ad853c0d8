"""Memories read ahead: they save reading, and what changed meanwhile is never used as it was."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from memory import erase
from memory.memories import Memories
from memory.rows import Count, Rows
from memory.sql import Database
from memory.types import Memory, Status
from tests.memory.make import CUBE, NOW, OWNER, memory, put

STEPS = 2500


class Counted:
    """What became of what was read ahead."""

    def __init__(self) -> None:
        self.used = self.unused = self.stale = 0

    def __call__(self, count: Count) -> None:
        self.used += count.used
        self.unused += count.unused
        self.stale += count.stale


@pytest.fixture
async def memories(database: Database) -> Memories:
    found = Memories(database, lambda: NOW)
    for number in range(12):
        await found.add(memory(id=f"r{number}", text=f"Fact {number}."), OWNER)
    return found


async def test_what_was_read_ahead_is_not_read_again(database: Database, memories: Memories) -> None:
    counted = Counted()
    rows = Rows(database, counted=counted)
    assert await rows.ahead(CUBE, ["r1", "r2", "r3"]) == 3
    assert await rows.ahead(CUBE, ["r2", "r3", "r4"]) == 1
    found = await rows.by_ids(CUBE, ["r2", "r9"])
    assert sorted(found) == ["r2", "r9"]
    assert (counted.used, counted.stale) == (1, 0)
    rows.let_go(CUBE)
    assert counted.unused == 3


async def test_a_change_after_reading_ahead_is_seen(database: Database, memories: Memories) -> None:
    counted = Counted()
    rows = Rows(database, counted=counted)
    await rows.ahead(CUBE, ["r1", "r2", "r3"])
    await put(database, (await memories.by_ids(CUBE, ["r1"]))["r1"].evolve(text="Fact one, corrected."))
    await memories.forget(CUBE, "r2")
    found = await rows.by_ids(CUBE, ["r1", "r2", "r3"])
    assert {one.id: one.text for one in found.values()} == {"r1": "Fact one, corrected.", "r3": "Fact 3."}
    assert counted.stale == 2


async def test_nothing_of_an_erased_cube_is_used_when_it_begins_again(database: Database, memories: Memories) -> None:
    rows = Rows(database)
    await rows.ahead(CUBE, ["r1", "r2"])
    await database.write(lambda c: erase.everything(c, CUBE, OWNER, NOW, keep=True))
    await memories.add(memory(id="r1", text="A new life."), OWNER)
    assert [one.text for one in (await rows.by_ids(CUBE, ["r1", "r2"])).values()] == ["A new life."]


async def test_one_cube_is_not_answered_from_another(database: Database, memories: Memories) -> None:
    await memories.add(memory(id="r1", cube="c2", text="Theirs."), "other")
    rows = Rows(database)
    await rows.ahead("c2", ["r1"])
    assert (await rows.by_ids(CUBE, ["r1"]))["r1"].text == "Fact 1."
    assert (await rows.by_ids("c2", ["r1", "r2"])).keys() == {"r1"}


async def test_no_interleaving_of_changes_and_reading_ahead_gives_what_was(
    database: Database, memories: Memories
) -> None:
    """Thousands of steps; every read is compared with the database, and one beside a change with both its sides."""
    chance, rows, ids = random.Random(7), Rows(database), [f"r{number}" for number in range(16)]
    for step in range(STEPS):
        some = chance.sample(ids, 5)
        match chance.randrange(8):
            case 0 | 1 | 2:
                await rows.ahead(CUBE, some)
            case 3:
                await _change(database, memories, chance, step)
            case 4:
                before = await memories.by_ids(CUBE, some)
                found, _ = await asyncio.gather(
                    rows.by_ids(CUBE, some), _change(database, memories, chance, step), return_exceptions=False
                )
                after = await memories.by_ids(CUBE, some)
                assert all(found.get(one) in (before.get(one), after.get(one)) for one in some), step
            case _:
                assert await rows.by_ids(CUBE, some) == await memories.by_ids(CUBE, some), step
    assert rows.held(CUBE)


async def _change(database: Database, memories: Memories, chance: random.Random, step: int) -> None:
    there: list[Memory] = await memories.since(CUBE, 0)
    alive = [one for one in there if one.status is not Status.DELETED]
    one: Any = chance.choice(alive) if alive else None
    match chance.randrange(6):
        case 0 if len(alive) > 6:
            await memories.forget(CUBE, one.id)
        case 1 if one:
            await put(database, one.evolve(status=Status.ARCHIVED))
        case 2 if chance.random() < 0.1:
            await database.write(lambda c: erase.everything(c, CUBE, OWNER, NOW, keep=True))
            for number in range(10):
                await memories.add(memory(id=f"r{number}", text=f"Fact {number} of step {step}."), OWNER)
        case 3:
            number = chance.randrange(16)
            if all(known.id != f"r{number}" for known in there):
                await memories.add(memory(id=f"r{number}", text=f"Added in step {step}."), OWNER)
        case _ if one:
            await put(database, one.evolve(text=f"{one.text[:40]} Changed in step {step}.", status=Status.ACTIVE))
