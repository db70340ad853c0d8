"""Fusing two cubes: everything arrives, nothing twice, and nothing that was erased."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.cube import Cubes
from memory.fuse import Fused, fuse, size
from memory.grants import CubeRefused, Grants, Level
from memory.index import Index
from memory.memories import Memories, save
from memory.models import Embedder
from memory.sql import Database
from memory.store import Store
from memory.turns import Place, TurnLog
from memory.types import Kind, Status
from tests.memory.make import NOW, OWNER, learned_from, memory, record, turn


async def run(database: Database, principal: str = OWNER) -> Fused:
    return await database.write(lambda c: fuse(c, "target", "source", principal, NOW))


async def texts(database: Database, cube: str = "target") -> list[str]:
    return sorted(m.text for m in await Memories(database).page(cube, limit=500))


@pytest.fixture
async def memories(database: Database) -> Memories:
    """Two cubes: both know of tea; the source of a cat, too."""
    found = Memories(database)
    for cube, said in (("target", "I like tea."), ("source", "i like TEA"), ("source", "I have a cat.")):
        told = await record(database, turn(cube=cube, user_text=f"To the {cube}: {said}"))
        fact = memory(cube=cube, id=f"{cube} {said}", text=said, sources=learned_from(told))
        await database.write(lambda c, fact=fact: save(c, fact, action="add", at=NOW))
    return found


async def everything(database: Database, cube: str) -> dict[str, set[str]]:
    out = {}
    async with database.read() as connection:
        for table in (sql.turns, sql.memories, sql.lineage, sql.history, sql.vectors, sql.nodes, sql.edges):
            rows = (await connection.execute(sa.select(table).where(table.c.cube == cube))).all()
            out[table.name] = {
                repr({k: v for k, v in row._mapping.items() if k not in ("cube", "rev")}) for row in rows
            }
    return out


async def test_what_both_say_becomes_one_memory_with_both_sources(database: Database, memories: Memories) -> None:
    assert await run(database) == Fused(turns=2, memories=4, merged=1)
    assert await texts(database) == sorted(
        [
            "I have a cat.",
            "I like tea.",
            "To the source: I have a cat.",
            "To the source: i like TEA",
            "To the target: I like tea.",
        ]
    )
    tea = await memories.get("target", "target I like tea.")
    merged = await memories.get("target", "source i like TEA")
    assert tea is not None
    assert merged is not None
    assert len({source.turn for source in tea.sources}) == 2
    assert (merged.status, merged.supersedes) == (Status.MERGED, tea.id)


async def test_doing_it_again_changes_nothing(database: Database, memories: Memories) -> None:
    await run(database)
    before = await everything(database, "target")
    assert await run(database) == Fused()
    assert await everything(database, "target") == before


async def test_the_source_stays_as_it_was(database: Database, memories: Memories) -> None:
    before = await everything(database, "source")
    await run(database)
    assert await everything(database, "source") == before


async def test_what_is_new_in_the_source_comes_the_next_time(database: Database, memories: Memories) -> None:
    await run(database)
    await record(database, turn(cube="source", user_text="I sold the cat."))
    assert await run(database) == Fused(turns=1, memories=1)


async def test_what_was_erased_or_changed_in_the_target_stays_so(database: Database, memories: Memories) -> None:
    await run(database)
    erased = next(m for m in await memories.page("target") if m.text == "To the source: I have a cat.")
    await memories.forget("target", erased.id)
    await memories.change("target", "target I like tea.", {"text": "I like coffee."})
    assert await run(database) == Fused()
    async with database.read() as connection:
        said = await connection.execute(sa.select(sql.turns.c.user_text).where(sql.turns.c.cube == "target"))
        assert sorted(row[0] for row in said.all()) == ["To the source: i like TEA", "To the target: I like tea."]
    assert "I like coffee." in await texts(database)
    assert "I have a cat." not in await texts(database)


async def test_erasing_a_turn_erases_what_a_fusion_made_of_it(database: Database, memories: Memories) -> None:
    await run(database)
    both = await memories.forget("target", "target I like tea.")
    assert both is not None
    assert {"target I like tea.", "source i like TEA"} <= set(both)
    assert await texts(database) == ["I have a cat.", "To the source: I have a cat."]


async def test_the_same_turn_said_in_both_cubes_is_kept_in_both(database: Database) -> None:
    said = turn(cube="target", user_text="Hello there.", key="k")
    for cube in ("target", "source"):
        await TurnLog(database).record(replace(said, cube=cube), Place(), OWNER)
    assert await run(database) == Fused(turns=1, memories=1, merged=1)
    again = await TurnLog(database).record(said, Place(), OWNER)  # a retry still finds the target's own
    assert [m.id for m in await Memories(database).page("target")] == [again.id]


async def test_the_graph_comes_along(database: Database, memories: Memories) -> None:
    async def link(connection: AsyncConnection) -> None:
        await connection.execute(sa.insert(sql.nodes).values(cube="source", id="cat", kind="entity", name="cat"))
        for goal in ("cat", "nothing"):
            edge = {"cube": "source", "source": "source I have a cat.", "kind": "mentions", "target": goal}
            await connection.execute(sa.insert(sql.edges).values(**edge))

    await database.write(link)
    done = await run(database)
    assert (done.nodes, done.edges) == (1, 1)


async def test_nothing_is_embedded_again(
    database: Database, memories: Memories, store: Store, embedder: Embedder
) -> None:
    index = Index(database, store, embedder)
    for cube in ("source", "target"):
        await index.catch_up(cube)
    await run(database)
    async with database.read() as connection:
        count = sa.select(sa.func.count()).select_from(sql.vectors).where(sql.vectors.c.cube == "target")
        assert (await connection.execute(count)).scalar_one() == 3 + 6  # two sides an episode
    await index.catch_up("target")
    assert await index.verify("target") is None


@pytest.mark.parametrize(
    ("on_target", "on_source", "reason"),
    [(None, Level.READ, "unknown"), (Level.WRITE, None, "unknown"), (Level.READ, Level.READ, "not granted")],
)
async def test_who_may_not_fuse_is_refused(
    database: Database, memories: Memories, on_target: Level | None, on_source: Level | None, reason: str
) -> None:
    for cube, level in (("target", on_target), ("source", on_source)):
        if level is not None:
            await Grants(database).give(cube, "guest", level)
    before = await everything(database, "target")
    with pytest.raises(CubeRefused) as refused:
        await run(database, "guest")
    assert refused.value.reason == reason
    assert await everything(database, "target") == before


async def test_a_guest_with_both_grants_may(database: Database, memories: Memories) -> None:
    await Grants(database).give("target", "guest", Level.WRITE)
    await Grants(database).give("source", "guest", Level.READ)
    assert (await run(database, "guest")).memories == 4
    assert await size(database, "source") == 6


async def test_nothing_goes_into_an_archived_cube_but_it_can_be_copied_from(
    database: Database, memories: Memories
) -> None:
    await Cubes(database).change("target", {"status": "archived"})
    with pytest.raises(CubeRefused):
        await run(database)
    await Cubes(database).change("target", {"status": "active"})
    await Cubes(database).change("source", {"status": "archived"})
    assert (await run(database)).memories == 4
    assert {m.kind for m in await memories.page("target")} == {Kind.EPISODE, Kind.FACT}
