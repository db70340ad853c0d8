"""Cubes and their revisions."""

from __future__ import annotations

import asyncio

import pytest

from memory.cube import Cube, Cubes, ensure, next_rev
from memory.sql import Database
from tests.memory.make import CUBE, NOW


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
