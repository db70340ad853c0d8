"""What reflection proposes: a memory with the memories it rests on, and how it is written. Its cited ones must still hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.memories import save, select
from memory.types import Kind, Memory, Status, Trust, stable_id

UNWANTED = "unwanted"  # the slot of an insight that its owner deleted: it is not made again
STANDS = (Status.ACTIVE.value, Status.MERGED.value)  # what was merged is still said, by another
MOST_SOURCES = 60
_ORDER = list(Trust)


@dataclass(frozen=True, slots=True)
class Derived:
    """A memory that rests on others."""

    memory: Memory
    cites: tuple[str, ...]
    slot: str = ""


def derive(kind: Kind, text: str, cited: Sequence[Memory], at: float, *, name: str, **fields: Any) -> Memory:
    """A memory over `cited`: their turns united, the trust of the least trusted, the time of the latest.
    `name` is what the id is made of."""
    sources = dict.fromkeys(source for memory in cited for source in memory.sources)
    return Memory(
        id=stable_id(cited[0].cube, "derived", name),
        cube=cited[0].cube,
        kind=kind,
        text=text,
        message_time=max(memory.message_time for memory in cited),
        created_at=at,
        valid_from=min(memory.valid_from for memory in cited),
        sources=tuple(sources)[-MOST_SOURCES:],
        trust=least(cited),
        **{"confidence": round(min(memory.confidence for memory in cited), 3)} | fields,
    )


def least(memories: Sequence[Memory]) -> Trust:
    """The trust of the least trusted."""
    return max((memory.trust for memory in memories), key=_ORDER.index)


async def write(connection: AsyncConnection, made: Derived, at: float) -> bool:
    """Store a derived memory; False when nothing changed, when something it cites is gone, or when its owner deleted it.

    No history is kept of a text that can be made again: it would outlive what it was made of.
    """
    memory, table, edges = made.memory, sql.memories, sql.edges
    here = (table.c.cube == memory.cube, table.c.id == memory.id)
    old = (await connection.execute(sa.select(table.c.slot, table.c.status).where(*here))).first()
    if old is not None and old.status == Status.DELETED.value and old.slot == UNWANTED:
        return False
    holds = (table.c.cube == memory.cube, table.c.id.in_(made.cites), table.c.status.in_(STANDS))
    standing = (await connection.execute(sa.select(sa.func.count()).select_from(table).where(*holds))).scalar_one()
    if standing != len(set(made.cites)):
        return False
    if old is not None and old.status == Status.ACTIVE.value:
        (known,) = await select(connection, *here)
        if _same(known, memory) and made.cites == await cites(connection, memory.cube, memory.id):
            return False
        memory = memory.evolve(
            created_at=known.created_at,
            uses=known.uses,
            last_used_at=known.last_used_at,
            pinned=known.pinned,
            importance=known.importance,
        )
    await save(connection, memory, action="reflect", at=at, slot=made.slot)
    history = sql.history
    await connection.execute(sa.delete(history).where(history.c.cube == memory.cube, history.c.memory == memory.id))
    mine = (edges.c.cube == memory.cube, edges.c.source == memory.id, edges.c.kind == "derived_from")
    await connection.execute(sa.delete(edges).where(*mine))
    rows = [
        {"cube": memory.cube, "source": memory.id, "kind": "derived_from", "target": target, "weight": 1.0}
        for target in dict.fromkeys(made.cites)
    ]
    await connection.execute(sa.insert(edges), rows)
    return True


async def cites(connection: AsyncConnection, cube: str, memory: str) -> tuple[str, ...]:
    """What a derived memory rests on, in the order of ids."""
    edges = sql.edges
    here = (edges.c.cube == cube, edges.c.source == memory, edges.c.kind == "derived_from")
    rows = await connection.execute(sa.select(edges.c.target).where(*here).order_by(edges.c.target))
    return tuple(str(row[0]) for row in rows.all())


def _same(known: Memory, made: Memory) -> bool:
    names = ("kind", "text", "tags", "entities", "sources", "trust", "confidence", "attributes", "valid_from")
    return all(getattr(known, name) == getattr(made, name) for name in names)
