"""Taking a memory out of the graph, with all that only it had put there. Runs inside the caller's transaction."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.words import fold

MENTIONS = "mentions"
PART_OF = "part_of"
ENTITY = "entity"
TOPIC = "topic"
ALIAS = "alias"  # another spelling or name; its parent is the entity


async def cut_out(connection: AsyncConnection, cube: str, memory: str) -> None:
    """Remove the edges of a memory that is being erased. Nodes that nothing leads to any more go; of those that stay, names
    that only it used go; a topic it was part of goes as a whole (its name may hold its words) and is made anew."""
    edges, nodes = sql.edges, sql.nodes
    touched = sa.select(edges.c.target).where(edges.c.cube == cube, edges.c.source == memory)
    ids = [row[0] for row in (await connection.execute(touched)).all()]
    ends = sa.or_(edges.c.source == memory, edges.c.target == memory)
    await connection.execute(sa.delete(edges).where(edges.c.cube == cube, ends))
    if not ids:
        return
    query = sa.select(nodes).where(nodes.c.cube == cube, nodes.c.id.in_(ids))
    for node in (await connection.execute(query)).all():
        here = (edges.c.cube == cube, edges.c.target == node.id)
        sources = [row[0] for row in (await connection.execute(sa.select(edges.c.source).where(*here))).all()]
        if node.kind == TOPIC or not sources:
            await connection.execute(sa.delete(edges).where(*here))
            gone = sa.or_(nodes.c.id == node.id, sa.and_(nodes.c.parent == node.id, nodes.c.kind == ALIAS))
            await connection.execute(sa.delete(nodes).where(nodes.c.cube == cube, gone))
        else:
            await _drop_names(connection, cube, node, sources)


async def _drop_names(connection: AsyncConnection, cube: str, node: Any, by: list[str]) -> None:
    """Keep of an entity's names those that a remaining memory uses; one of them becomes its name."""
    nodes, memories = sql.nodes, sql.memories
    texts = sa.select(memories.c.text, memories.c.answer, memories.c.entities).where(
        memories.c.cube == cube, memories.c.id.in_(by[:500])
    )
    said = fold(" ".join(f"{row[0]} {row[1]} {' '.join(row[2])}" for row in (await connection.execute(texts)).all()))
    query = sa.select(nodes).where(nodes.c.cube == cube, nodes.c.parent == node.id, nodes.c.kind == ALIAS)
    aliases = (await connection.execute(query)).all()
    unused = [row.id for row in aliases if fold(row.name) not in said]
    if unused:
        await connection.execute(sa.delete(nodes).where(nodes.c.cube == cube, nodes.c.id.in_(unused)))
    left = [row.name for row in aliases if row.id not in unused]
    if fold(node.name) not in said and left:
        here = (nodes.c.cube == cube, nodes.c.id == node.id)
        await connection.execute(sa.update(nodes).where(*here).values(name=left[0]))
