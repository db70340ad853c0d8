"""Erasing all of a cube: every table, nothing of any other cube, and counters that go on."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.adapters.table import Adapters, Choice, Used
from memory.cube import Cube, Cubes
from memory.erase import Receipt, Receipts, everything
from memory.grants import Grants, Level
from memory.index import Index
from memory.memories import Memories
from memory.models import Embedder
from memory.sql import Database
from memory.store import Store
from tests.memory.make import NOW, OWNER, record, turn

WITH_CUBE = [table for table in sql.metadata.sorted_tables if "cube" in table.c and table.name != "receipts"]


async def filled(database: Database, store: Store, embedder: Embedder, cube: str) -> None:
    """A row in every table."""
    said = await record(database, turn(cube=cube, user_text=f"Canary {cube} sings."))
    episode = (await Memories(database).page(cube))[0]
    await Memories(database).change(cube, episode.id, {"tags": ("bird",)})
    await Grants(database).give(cube, "guest", Level.WRITE)

    async def link(connection: AsyncConnection) -> None:
        await connection.execute(sa.insert(sql.nodes).values(cube=cube, id="n", kind="entity", name=f"Canary {cube}"))
        edge = {"cube": cube, "source": episode.id, "kind": "mentions", "target": "n"}
        await connection.execute(sa.insert(sql.edges).values(**edge))

    await database.write(link)
    adapters = Adapters(database)
    await adapters.choose(cube, Choice(on=True))
    await adapters.begin(cube, model="f", samples="s", settings={}, memories=[Used(episode.id, "d", 1)])
    await Index(database, store, embedder).catch_up(cube)
    assert said.cube == cube


async def rows(database: Database, cube: str) -> dict[str, int]:
    found = {}
    async with database.read() as connection:
        for table in WITH_CUBE:
            query = sa.select(sa.func.count()).select_from(table).where(table.c.cube == cube)
            found[table.name] = (await connection.execute(query)).scalar_one()
    return found


async def erase(database: Database, cube: str, *, keep: bool = True) -> Receipt:
    return await database.write(lambda c: everything(c, cube, OWNER, NOW, keep=keep))


async def info(database: Database, cube: str) -> Cube:
    found = await Cubes(database).get(cube)
    assert found is not None
    return found


async def test_every_table_is_emptied_of_one_cube_and_no_other(
    database: Database, store: Store, embedder: Embedder
) -> None:
    for cube in ("mine", "theirs"):
        await filled(database, store, embedder, cube)
    before = await rows(database, "mine")
    assert all(before.values()), "a table that this test does not fill proves nothing"
    receipt = await erase(database, "mine")
    assert not any((await rows(database, "mine")).values())
    assert await rows(database, "theirs") == before
    assert {name: receipt.counts[name] for name in before} == before


async def test_a_receipt_is_pending_until_it_is_signed(database: Database, store: Store, embedder: Embedder) -> None:
    await filled(database, store, embedder, "mine")
    receipts = Receipts(database)
    asked = await erase(database, "mine")
    assert (asked.state, await receipts.pending()) == ("pending", [asked])
    await receipts.sign([asked], NOW + 1)
    signed = await receipts.get(asked.id)
    assert signed is not None
    assert (signed.state, signed.done_at, await receipts.pending("mine")) == ("done", NOW + 1, [])
    assert "anary" not in str(signed)


async def test_revisions_and_generations_go_on(database: Database, store: Store, embedder: Embedder) -> None:
    await filled(database, store, embedder, "mine")
    before = await info(database, "mine")
    await erase(database, "mine")
    after = await info(database, "mine")
    assert after.rev > before.rev
    assert after.generation > before.generation
    assert after.embedder == ""
    await filled(database, store, embedder, "mine")
    again = await info(database, "mine")
    assert again.generation > after.generation
    assert await Index(database, store, embedder).verify("mine") is None


@pytest.mark.parametrize(("keep", "name", "status"), [(True, "Secret plan", "active"), (False, "", "erased")])
async def test_the_name_of_an_erased_cube_goes_too(database: Database, keep: bool, name: str, status: str) -> None:
    await Cubes(database).create(Cube("mine", OWNER, "Secret plan", NOW, 0, 0, 0, 0, "", quota=5))
    await erase(database, "mine", keep=keep)
    left = await info(database, "mine")
    assert (left.name, left.status) == (name, status)


async def test_what_was_never_there_is_erased_as_well(database: Database) -> None:
    assert not any((await erase(database, "nobody's")).counts.values())
    assert await Cubes(database).get("nobody's") is None


async def test_a_vector_that_was_being_made_does_not_come_back(
    database: Database, store: Store, embedder: Embedder
) -> None:
    await record(database, turn(cube="mine", user_text="Canary sings."))

    class Slow:
        id, dimensions = embedder.id, embedder.dimensions
        embed_query = embedder.embed_query

        def embed(self, texts: list[str]) -> object:
            asyncio.run_coroutine_threadsafe(erase(database, "mine"), loop).result()
            return embedder.embed(texts)

    loop = asyncio.get_running_loop()
    await Index(database, store, Slow()).catch_up("mine")  # type: ignore[arg-type]
    assert not any((await rows(database, "mine")).values())
