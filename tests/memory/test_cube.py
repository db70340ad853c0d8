"""Cubes, their revisions, and who may write into them."""

from __future__ import annotations

import asyncio

import pytest

from memory.cube import Cube, Cubes, ensure, next_rev
from memory.grants import CubeRefused, Grants, Level
from memory.memories import Memories
from memory.sql import Database
from memory.turns import Place, TurnLog
from tests.memory.make import CUBE, NOW, memory, turn


async def made(database: Database, *ids: str) -> Cubes:
    for cube in ids:
        await database.write(lambda c, cube=cube: ensure(c, cube, f"owner of {cube}", "", NOW))
    return Cubes(database)


async def test_a_cube_is_made_once(database: Database) -> None:
    cubes = await made(database, CUBE, CUBE)
    assert await cubes.every() == [Cube(CUBE, f"owner of {CUBE}", "", NOW, 0, 0, 0, 0, "")]


async def test_every_cube_of_one_owner(database: Database) -> None:
    cubes = await made(database, "a", "b")
    assert [cube.id for cube in await cubes.every("owner of b")] == ["b"]
    assert await cubes.get("nobody's") is None


async def test_revisions_have_no_gaps_and_no_repeats(database: Database) -> None:
    await made(database, CUBE)
    taken = await asyncio.gather(*(database.write(lambda c: next_rev(c, CUBE)) for _ in range(50)))
    assert sorted(taken) == list(range(1, 51))


async def test_a_revision_of_no_cube_is_refused(database: Database) -> None:
    with pytest.raises(LookupError):
        await database.write(lambda c: next_rev(c, "nobody's"))


async def test_the_index_is_told_from_the_cube(database: Database) -> None:
    cubes = await made(database, CUBE)
    await cubes.set_index(CUBE, generation=3, rev=7, rows=9, embedder="e")
    info = await cubes.get(CUBE)
    assert info is not None
    assert (info.generation, info.indexed_rev, info.indexed_rows, info.embedder) == (3, 7, 9, "e")


@pytest.mark.parametrize(
    ("level", "status", "reason"),
    [(None, "active", "not granted"), (Level.READ, "active", "not granted"), (Level.WRITE, "archived", "archived")],
)
async def test_who_may_not_write_is_refused_in_the_writing_itself(
    database: Database, level: Level | None, status: str, reason: str
) -> None:
    cubes = await made(database, CUBE)
    await cubes.change(CUBE, {"status": status})
    if level is not None:
        await Grants(database).give(CUBE, "guest", level)
    for write in (
        TurnLog(database).record(turn(), Place(), "guest"),
        Memories(database).add(memory(), "guest"),
    ):
        with pytest.raises(CubeRefused) as refused:
            await write
        assert refused.value.reason == reason
    assert await Memories(database).since(CUBE, 0) == []


async def test_a_grant_lets_a_guest_write_until_it_is_taken(database: Database) -> None:
    await made(database, CUBE)
    grants = Grants(database)
    await grants.give(CUBE, "guest", Level.WRITE)
    await Memories(database).add(memory(text="kept"), "guest")
    assert await grants.take(CUBE, "guest") is True
    assert await grants.take(CUBE, "guest") is False
    with pytest.raises(CubeRefused):
        await Memories(database).add(memory(), "guest")
    assert [m.text for m in await Memories(database).since(CUBE, 0)] == ["kept"]


async def test_an_erased_cube_is_only_made_again_when_that_is_wanted(database: Database) -> None:
    cubes = await made(database, CUBE)
    await cubes.change(CUBE, {"status": "erased"})
    with pytest.raises(CubeRefused):
        await Memories(database).add(memory(), f"owner of {CUBE}", make=False)
    assert await cubes.every() == []
    await Memories(database).add(memory(), f"owner of {CUBE}")
    assert [cube.status for cube in await cubes.every()] == ["active"]


async def test_what_a_principal_may_use_comes_in_pages(database: Database) -> None:
    cubes = await made(database, "a", "b", "c")
    for cube, level in (("a", Level.READ), ("c", Level.WRITE)):
        await Grants(database).give(cube, "owner of b", level)
    seen = await cubes.usable("owner of b", limit=2)
    seen += await cubes.usable("owner of b", after=seen[-1][0].id, limit=2)
    assert [(cube.id, level.value) for cube, level in seen] == [("a", "read"), ("b", "owner"), ("c", "write")]


async def test_an_id_with_wildcards_names_no_other_cube(database: Database) -> None:
    await made(database, CUBE)
    for name in ("%", "_%", "c_", "c1%", "' OR 1=1 --"):
        assert await Grants(database).standing(name, f"owner of {CUBE}") is None
