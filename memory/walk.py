"""Reading the graph: what lies around a name or a memory, which names are spoken of most, which topics there are.

One recursive query walks the edges in both directions, up to a depth and a number of nodes. Only memories that are active are
shown unless others are asked for. Reads only.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.memories import select
from memory.nodes import ALIAS, ENTITY, TOPIC
from memory.sql import Database
from memory.types import Kind, Memory, Status

WALKED = 2000  # nodes that a walk may reach before it is narrowed


@dataclass(frozen=True, slots=True)
class Narrowed:
    """Which memories are wanted; `since` and `until` are seconds since the epoch, of the event or else of the saying."""

    kinds: Collection[Kind] = ()
    tag: str | None = None
    since: float | None = None
    until: float | None = None
    statuses: Collection[Status] = (Status.ACTIVE,)

    def wants(self, memory: Memory) -> bool:
        """Whether a memory is among them."""
        at = memory.event_time if memory.event_time is not None else memory.message_time
        return (
            memory.status in self.statuses
            and (not self.kinds or memory.kind in self.kinds)
            and (self.tag is None or self.tag in memory.tags)
            and (self.since is None or at >= self.since)
            and (self.until is None or at < self.until)
        )


@dataclass(frozen=True, slots=True)
class Node:
    """An entity or a topic; `size` is the number of memories that lead to it."""

    id: str
    kind: str
    name: str
    parent: str | None = None
    aliases: tuple[str, ...] = ()
    size: int = 0


@dataclass(frozen=True, slots=True)
class Edge:
    """A typed link from a memory."""

    source: str
    kind: str
    target: str
    weight: float


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the graph: every edge has both its ends here."""

    nodes: tuple[Node, ...] = ()
    memories: tuple[Memory, ...] = ()
    edges: tuple[Edge, ...] = ()


class Walk:
    """Reads the graph of cubes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def around(self, cube: str, start: str, *, depth: int, limit: int, wanted: Narrowed) -> Part:
        """What is at most `depth` edges away from a node or a memory, the nearest first, at most `limit` of it."""
        edges = sql.edges
        walk = sa.select(sa.literal(start).label("id"), sa.literal(0).label("depth")).cte("walk", recursive=True)
        there = sa.case((edges.c.source == walk.c.id, edges.c.target), else_=edges.c.source)
        touches = sa.or_(edges.c.source == walk.c.id, edges.c.target == walk.c.id)
        step = sa.select(there, walk.c.depth + 1).where(edges.c.cube == cube, touches, walk.c.depth < depth)
        walk = walk.union(step)
        near = sa.func.min(walk.c.depth).label("near")
        query = sa.select(walk.c.id, near).group_by(walk.c.id).order_by(near, walk.c.id).limit(WALKED)
        async with self._database.read(long=True) as connection:
            far = {row.id: int(row.near) for row in (await connection.execute(query)).all()}
            return await _part(connection, cube, far, limit, wanted)

    async def most(self, cube: str, kind: str, *, limit: int, wanted: Narrowed) -> Part:
        """The entities or topics that most memories lead to, without the memories."""
        nodes, edges, memories = sql.nodes, sql.edges, sql.memories
        size = sa.func.count().label("size")
        query = (
            sa.select(nodes.c.id, size)
            .join(edges, sa.and_(edges.c.cube == nodes.c.cube, edges.c.target == nodes.c.id))
            .join(memories, sa.and_(memories.c.cube == edges.c.cube, memories.c.id == edges.c.source))
            .where(nodes.c.cube == cube, nodes.c.kind == kind)
            .where(memories.c.status.in_([status.value for status in wanted.statuses]))
            .group_by(nodes.c.id)
            .order_by(size.desc(), nodes.c.id)
            .limit(limit)
        )
        if wanted.kinds:
            query = query.where(memories.c.kind.in_([one.value for one in wanted.kinds]))
        at = sa.func.coalesce(memories.c.event_time, memories.c.message_time)
        if wanted.since is not None:
            query = query.where(at >= wanted.since)
        if wanted.until is not None:
            query = query.where(at < wanted.until)
        async with self._database.read(long=True) as connection:
            sizes = {row.id: int(row.size) for row in (await connection.execute(query)).all()}
            found = await _nodes(connection, cube, list(sizes), sizes)
        return Part(nodes=tuple(sorted(found, key=lambda node: (-node.size, node.id))))

    async def topic(self, cube: str, wanted: str) -> str | None:
        """A topic's id, by its id or its name."""
        nodes = sql.nodes
        named = sa.or_(nodes.c.id == wanted, nodes.c.name == wanted)
        query = sa.select(nodes.c.id).where(nodes.c.cube == cube, nodes.c.kind == TOPIC, named).order_by(nodes.c.id)
        async with self._database.read(long=True) as connection:
            row = (await connection.execute(query.limit(1))).first()
        return str(row.id) if row else None


async def _part(connection: AsyncConnection, cube: str, far: dict[str, int], limit: int, wanted: Narrowed) -> Part:
    """Of what is so far away, the nearest; of equals nodes first, then memories, the latest first."""
    table, ids = sql.memories, list(far)
    every: list[Memory] = []
    for start in range(0, len(ids), 500):
        every += await select(connection, table.c.cube == cube, table.c.id.in_(ids[start : start + 500]))
    memories = {memory.id: memory for memory in every if wanted.wants(memory)}
    nodes = {node.id: node for node in await _nodes(connection, cube, ids, {})}
    latest = {one: memory.message_time for one, memory in memories.items()}
    there = [one for one in ids if one in memories or one in nodes]
    kept = sorted(there, key=lambda one: (far[one], one in latest, -latest.get(one, 0.0), one))[:limit]
    edges = sql.edges
    query = (
        sa.select(edges)
        .where(edges.c.cube == cube, edges.c.source.in_(kept), edges.c.target.in_(kept))
        .order_by(edges.c.source, edges.c.kind, edges.c.target)
    )
    found = [Edge(row.source, row.kind, row.target, row.weight) for row in (await connection.execute(query)).all()]
    ends = {end for edge in found for end in (edge.source, edge.target)}
    return Part(
        nodes=tuple(nodes[one] for one in kept if one in nodes and (one in ends or one == ids[0])),
        memories=tuple(memories[one] for one in kept if one in memories),
        edges=tuple(found),
    )


async def _nodes(connection: AsyncConnection, cube: str, ids: Sequence[str], sizes: dict[str, int]) -> list[Node]:
    nodes = sql.nodes
    found: list[Any] = []
    names: dict[str, list[str]] = {}
    for start in range(0, len(ids), 500):
        some = ids[start : start + 500]
        query = sa.select(nodes).where(nodes.c.cube == cube, nodes.c.id.in_(some), nodes.c.kind.in_([ENTITY, TOPIC]))
        found += (await connection.execute(query)).all()
        alias = sa.select(nodes).where(nodes.c.cube == cube, nodes.c.parent.in_(some), nodes.c.kind == ALIAS)
        for row in (await connection.execute(alias)).all():
            names.setdefault(row.parent, []).append(row.name)
    return [
        Node(row.id, row.kind, row.name, row.parent, tuple(sorted(names.get(row.id, ()))), sizes.get(row.id, 0))
        for row in found
    ]
