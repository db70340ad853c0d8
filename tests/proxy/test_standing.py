"""The stable block: the same bytes for whoever makes it, until something else is known."""

from __future__ import annotations

from memory.memories import Memories
from memory.sql import Database
from memory.types import Kind
from proxy.auth import home_cube
from proxy.standing import Standing
from scheduler.policy import DAY_S
from tests.memory.make import memory

CUBE = home_cube("p")
MORNING = 20_000 * DAY_S
TIGHT = 60  # tokens: not everything that is known finds room


async def knows(database: Database, *texts: str) -> None:
    for number, text in enumerate(texts):
        known = memory(id=f"{CUBE}-{text}", cube=CUBE, kind=Kind.PREFERENCE, text=text, message_time=MORNING - number)
        await Memories(database).add(known, "p")


def at(database: Database, now: float, budget: int = 400) -> Standing:
    return Standing(database, b"secret", budget, lambda: now)


async def test_two_processes_make_the_same_block_all_day_long(database: Database) -> None:
    await knows(database, *(f"Likes the colour number {n} on walls and doors." for n in range(12)))
    here, there = at(database, MORNING + 60, TIGHT), at(database, MORNING + 0.9 * DAY_S, TIGHT)
    block = await here.block(CUBE)
    assert 0 < len(block.memories) < 12
    assert await there.block(CUBE) == block


async def test_what_is_learned_changes_it_and_what_is_forgotten_is_gone_from_it(database: Database) -> None:
    await knows(database, "Likes tea.")
    standing = at(database, MORNING)
    before = await standing.block(CUBE)
    await knows(database, "Likes rye bread.")
    after = await standing.block(CUBE)
    assert "rye" in after.text
    await Memories(database).forget(CUBE, f"{CUBE}-Likes rye bread.")
    assert await standing.block(CUBE) == before


async def test_another_installation_or_cube_has_another_mark(database: Database) -> None:
    await knows(database, "Likes tea.")
    ours = await at(database, MORNING).block(CUBE)
    theirs = await Standing(database, b"other", 400, lambda: MORNING).block(CUBE)
    assert ours.text != theirs.text
    assert ours.memories == theirs.memories
