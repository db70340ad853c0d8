"""Fusing two cubes: what the source holds is copied into the target, in one transaction; the source stays as it is.

Ids stay, so doing it again copies only what is new, and a memory that was erased or changed in the target is not brought back.
What both hold in the same words becomes one memory with the sources of both; the other points to it (`merged`). What
contradicts stays side by side: who fuses two people's cubes must not see one's home replace the other's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.cube import next_rev
from memory.grants import ACTIVE, CubeRefused, standing
from memory.memories import save, select
from memory.sql import Database
from memory.types import Kind, Status, stable_id


@dataclass(frozen=True, slots=True)
class Fused:
    """How many rows were copied, and how many of the memories were there already in the same words."""

    turns: int = 0
    memories: int = 0
    merged: int = 0
    nodes: int = 0
    edges: int = 0


async def size(database: Database, cube: str) -> int:
    """How many turns and memories a fusion would have to look at."""
    total = 0
    async with database.read() as connection:
        for table in (sql.turns, sql.memories):
            query = sa.select(sa.func.count()).select_from(table).where(table.c.cube == cube)
            total += int((await connection.execute(query)).scalar_one())
    return total


async def fuse(connection: AsyncConnection, target: str, source: str, principal: str, at: float) -> Fused:
    """Copy the source into the target for a principal who may write the one and read the other, in the transaction that does
    it. Raises CubeRefused."""
    await _allowed(connection, target, source, principal)
    rev = await next_rev(connection, target)
    turns = await _turns(connection, target, source)
    twins = await _twins(connection, target, source)
    lives = sql.memories.c.status != Status.DELETED.value
    memories = await _copy(connection, sql.memories, target, source, lives, rev=rev)
    for table in (sql.lineage, sql.vectors, sql.history):
        await _copy(connection, table, target, source, _new(table.c.memory, target, rev))
    for theirs, ours in twins:
        await _merge(connection, target, theirs, ours, at)
    nodes = await _copy(connection, sql.nodes, target, source)
    known = sa.and_(_known(sql.edges.c.source, target), _known(sql.edges.c.target, target))
    edges = await _copy(connection, sql.edges, target, source, known)
    return Fused(turns, memories, len(twins), nodes, edges)


async def _allowed(connection: AsyncConnection, target: str, source: str, principal: str) -> None:
    to, of = await standing(connection, target, principal), await standing(connection, source, principal)
    if to is None or of is None:
        raise CubeRefused("unknown")
    if not to.writes:
        raise CubeRefused("not granted")
    if to.status != ACTIVE:
        raise CubeRefused("archived")


async def _turns(connection: AsyncConnection, target: str, source: str) -> int:
    table, there = sql.turns, sql.turns.alias()
    erased = set(await _ids(connection, sql.memories.c.cube == target, sql.memories.c.status == Status.DELETED.value))
    gone = []
    if erased:
        theirs = (await connection.execute(sa.select(table.c.id).where(table.c.cube == source))).all()
        gone = [turn for (turn,) in theirs if stable_id(turn, "episode") in erased]
    wanted = table.c.id.not_in(gone)
    same_key = sa.exists().where(there.c.cube == target, there.c.key == table.c.key, there.c.id != table.c.id)
    copied = await _copy(connection, table, target, source, wanted, ~same_key)
    # the same words were said in both: there the turn has the key, as when they are said again in one cube
    aside = table.c.key + "@" + table.c.id
    return copied + await _copy(connection, table, target, source, wanted, same_key, key=aside)


async def _twins(connection: AsyncConnection, target: str, source: str) -> list[tuple[str, str]]:
    """(the source's, the target's) memories that say the same, where the source's is new to the target."""
    table, there = sql.memories, sql.memories.alias()
    says = sa.select(table.c.id, table.c.kind, table.c.digest).where(table.c.status == Status.ACTIVE.value)
    known = sa.exists().where(there.c.cube == target, there.c.id == table.c.id)
    # compared here: as a join, a database without statistics takes the index by kind and reads all for each
    held = (await connection.execute(says.where(table.c.cube == target).order_by(table.c.id.desc()))).all()
    ours = {(kind, digest): str(memory) for memory, kind, digest in held if digest}
    new = (await connection.execute(says.where(table.c.cube == source, ~known).order_by(table.c.id))).all()
    return [(str(memory), ours[kind, digest]) for memory, kind, digest in new if (kind, digest) in ours]


async def _merge(connection: AsyncConnection, target: str, theirs: str, ours: str, at: float) -> None:
    """Let the one that was copied point to the one that was there, which takes over its sources."""
    found = {
        m.id: m for m in await select(connection, sql.memories.c.cube == target, sql.memories.c.id.in_([theirs, ours]))
    }
    copied, kept = found[theirs], found[ours]
    await save(connection, copied.evolve(status=Status.MERGED, supersedes=ours), action="merge", at=at)
    sources = tuple(dict.fromkeys((*kept.sources, *copied.sources)))
    if kept.kind is not Kind.EPISODE and sources != kept.sources:
        confidence = max(kept.confidence, copied.confidence)
        await save(connection, kept.evolve(sources=sources, confidence=confidence), action="update", at=at)


async def _ids(connection: AsyncConnection, *where: sa.ColumnElement[bool]) -> list[str]:
    return [str(row[0]) for row in (await connection.execute(sa.select(sql.memories.c.id).where(*where))).all()]


def _new(memory: sa.ColumnElement[str], target: str, rev: int) -> sa.ColumnElement[bool]:
    """Whether this fusion has brought the memory into the target."""
    there = sql.memories.alias()
    return memory.in_(sa.select(there.c.id).where(there.c.cube == target, there.c.rev == rev))


def _known(one: sa.ColumnElement[str], target: str) -> sa.ColumnElement[bool]:
    """Whether the end of an edge is in the target."""
    memories, nodes = sql.memories.alias(), sql.nodes.alias()
    return sa.or_(
        sa.exists().where(memories.c.cube == target, memories.c.id == one, memories.c.status != Status.DELETED.value),
        sa.exists().where(nodes.c.cube == target, nodes.c.id == one),
    )


async def _copy(
    connection: AsyncConnection,
    table: sa.Table,
    target: str,
    source: str,
    *where: sa.ColumnElement[bool],
    **changed: Any,
) -> int:
    """Copy those rows of the source whose key the target does not have; returns how many."""
    there = table.alias()
    key = [there.c[column.name] == column for column in table.primary_key if column.name != "cube"]
    values = {"cube": sa.literal(target)} | {
        name: value if isinstance(value, sa.ColumnElement) else sa.literal(value) for name, value in changed.items()
    }
    rows = sa.select(*(values.get(column.name, column) for column in table.c)).where(
        table.c.cube == source, *where, ~sa.exists().where(there.c.cube == target, *key)
    )
    copied = sa.insert(table).from_select(table.c.keys(), rows).execution_options(preserve_rowcount=True)
    return (await connection.execute(copied)).rowcount
