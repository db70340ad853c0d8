"""Taking a memory out of the graph, with all that only it had put there. Runs inside the caller's transaction."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.words import fold

MENTIONS = "mentions"
PART_OF = "part_of"
ENTITY = "entity"
TOPIC = "topic"


async def cut_out(connection: AsyncConnection, cube: str, memory: str) -> None:
    """Remove the edges of a memory that is being erased. Nodes that nothing leads to any more go; of those that stay, names
    that only it used go; a topic it was part of goes as a whole (its name may hold its words) and is made anew."""
    edges, nodes = sql.edges, sql.nodes
    touched = sa.select(edges.c.target).where(edges.c.cube == cube, edges.c.source == memory)
    ids = [row[0] for row in (await connection.execute(touched)).all()]
    ends = sa.or_(edges.c.source == memory, edges.c.target == memory)
    await connection.execute(sa.delete(edges).where(edges.c.cube == cube, ends))
    query = sa.select(nodes).where(nodes.c.cube == cube, nodes.c.id.in_(ids))
    for node in (await connection.execute(query)).all():
        here = (edges.c.cube == cube, edges.c.target == node.id)
        sources = [row[0] for row in (await connection.execute(sa.select(edges.c.source).where(*here))).all()]
        if node.kind == TOPIC or not sources:
            await connection.execute(sa.delete(edges).where(*here))
            await connection.execute(sa.delete(nodes).where(nodes.c.cube == cube, nodes.c.id == node.id))
        else:
            await _keep_names_still_used(connection, cube, node, sources)


async def _keep_names_still_used(
    connection: AsyncConnection, cube: str, node: sa.Row[tuple[str, ...]], by: list[str]
) -> None:
    nodes, memories = sql.nodes, sql.memories
    texts = sa.select(memories.c.text, memories.c.answer).where(memories.c.cube == cube, memories.c.id.in_(by[:500]))
    said = fold(" ".join(f"{row[0]} {row[1]}" for row in (await connection.execute(texts)).all()))
    names = [node.name, *(node.attributes or {}).get("aliases", [])]
    used = [name for name in names if fold(name) in said] or names[-1:]
    if used != names:
        values = {"name": used[0], "attributes": {"aliases": used[1:]}}
        await connection.execute(sa.update(nodes).where(nodes.c.cube == cube, nodes.c.id == node.id).values(**values))
