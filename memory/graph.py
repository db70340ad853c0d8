# ruff: noqa: E501  (alternatives of one pattern stand together)
"""The graph of a cube: which names its memories mention, what follows what, what replaced what, what is because of what.

Filled incrementally by revision (`cubes.linked_rev`), inside jobs; linking twice leaves the same edges. Names are nodes by
their folded spelling, so the same name is the same node in every cube; another spelling of it is an `alias` node that leads
to it. What a memory was learned from is not an edge: it stands in its `sources`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.contradict import keys
from memory.correct import alike
from memory.entities import names, perhaps
from memory.memories import from_row, link, select
from memory.nodes import ALIAS, ENTITY, MENTIONS
from memory.sql import Database
from memory.timeline import touching, turn_before
from memory.types import Kind, Memory, Status, stable_id
from memory.words import fold, terms

BATCH = 5  # memories of one transaction: who writes beside it waits so long
LETS_IN_S = 0.01  # between two transactions, in which others write
HOPS = 8  # replacements that are followed from an old memory to the one that holds
_BECAUSE = re.compile(
    r"\bbecause (?:of )?(?P<en>[^.;!?\n]{3,120})|因为(?P<zh>[^，。；！？\n]{2,40})|^(?P<so>[^.;!?\n]{3,120}?), so (?:I|we)\b|由于(?P<zh2>[^，。；！？\n]{2,40})",
    re.IGNORECASE,
)
_FOR = re.compile(
    r"\b(?:in order to|so that (?:I|we) can|so (?:I|we) can)\s+(?P<en>[^.;!?\n]{3,120})|为了(?P<zh>[^，。；！？\n]{2,40})",
    re.IGNORECASE,
)
_NICKNAME = re.compile(
    r"(?P<a>[A-ZÀ-Þ][\w'-]+(?: [A-ZÀ-Þ][\w'-]+){0,2})(?:,? (?:but |and )?(?:everyone|everybody|people|friends|we|I) (?:just )?calls? (?:him|her|me|them|it)|,? (?:aka|a\.k\.a\.|also known as|or|short for)|,? who goes by|,? or just| goes by| is short for)\s+(?P<b>[A-ZÀ-Þ][\w'-]+)"
    r"|(?P<za>[\u4e00-\u9fff]{2,4})[，,]?(?:大家|朋友们?|我们|我)?(?:都)?(?:叫|喊)[他她它](?P<zb>[\u4e00-\u9fff]{2,3})(?=$|[，。！])|(?P<zc>[\u4e00-\u9fff]{2,4}?)(?:的)?(?:小名|外号|绰号|昵称)(?:是|叫)(?P<zd>[\u4e00-\u9fff]{2,3})"
)


@dataclass(frozen=True, slots=True)
class Linked:
    """How many memories were looked at, and how many edges now lead from them."""

    memories: int = 0
    edges: int = 0


@dataclass(frozen=True, slots=True)
class Replaced:
    """Something said in a turn that holds no longer, and what holds now (None: it ended, or its successor was erased)."""

    old: Memory
    now: Memory | None


def entity_id(name: str) -> str:
    """The node of a name."""
    return stable_id(ENTITY, fold(name))


# not a join: without statistics SQLite begins one with the whole cube
_CUBE: sa.BindParameter[str] = sa.bindparam("cube")
_LEARNED = sa.select(sql.lineage.c.memory).where(
    sql.lineage.c.cube == _CUBE, sql.lineage.c.turn.in_(sa.bindparam("turns", expanding=True))
)
_OVER = (
    sa.select(sql.memories)
    .where(
        sql.memories.c.cube == _CUBE,
        sql.memories.c.id.in_(_LEARNED),
        sql.memories.c.status == Status.SUPERSEDED.value,
    )
    .order_by(sql.memories.c.message_time, sql.memories.c.id)
)


class Graph:
    """The tables `nodes` and `edges`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def link(self, cube: str) -> Linked:
        """Bring the graph to the cube's present revision."""
        memories = edges = 0
        while True:
            done = await self._database.write(lambda connection: _link_batch(connection, cube))
            memories, edges = memories + done.memories, edges + done.edges
            if done.memories < BATCH:
                return Linked(memories, edges)
            await asyncio.sleep(LETS_IN_S)

    async def stale(self, cube: str, episodes: Collection[Memory]) -> dict[str, list[Replaced]]:
        """For each of these episodes that says something which holds no longer: what it was, and what holds now."""
        turns = {source.turn for episode in episodes for source in episode.sources if source.turn}
        if not turns:
            return {}
        old = [from_row(row) for row in await self._database.rows(_OVER, cube=cube, turns=list(turns))]
        now = await self.successors(cube, {memory.id for memory in old}) if old else {}
        found: dict[str, list[Replaced]] = {}
        for episode in episodes:
            said = {source.turn for source in episode.sources}
            gone = [Replaced(one, now.get(one.id)) for one in old if said & {source.turn for source in one.sources}]
            if gone:
                found[episode.id] = gone
        return found

    async def successors(self, cube: str, ids: Collection[str]) -> dict[str, Memory]:
        """Superseded memory → the active one that took its place, over any number of steps up to HOPS."""
        async with self._database.read() as connection:
            return await _successors(connection, cube, set(ids))

    async def entity(self, cube: str, name: str) -> str | None:
        """The node that a name leads to, over its alias."""
        async with self._database.read() as connection:
            table = sql.nodes
            query = sa.select(table).where(table.c.cube == cube, table.c.id == entity_id(name))
            row = (await connection.execute(query)).first()
        return None if row is None else str(row.parent if row.kind == ALIAS else row.id)


async def _successors(connection: AsyncConnection, cube: str, ids: set[str]) -> dict[str, Memory]:
    edges, table = sql.edges, sql.memories
    origin = {memory: {memory} for memory in ids}  # where we are → which of `ids` led there
    found: dict[str, Memory] = {}
    for _ in range(HOPS):
        here = (edges.c.cube == cube, edges.c.kind == "updates", edges.c.target.in_(list(origin)))
        query = (
            sa.select(edges.c.target.label("was"), table)
            .join(table, sa.and_(table.c.cube == edges.c.cube, table.c.id == edges.c.source))
            .where(*here)
            .order_by(table.c.message_time.desc(), table.c.id)
        )
        onward: dict[str, set[str]] = {}
        for row in (await connection.execute(query)).all():
            for old in origin[row.was] - found.keys():
                if row.status == Status.ACTIVE.value:
                    found[old] = from_row(row)
                elif row.status in (Status.SUPERSEDED.value, Status.MERGED.value):
                    onward.setdefault(row.id, set()).add(old)
        origin = {memory: olds - found.keys() for memory, olds in onward.items() if olds - found.keys()}
        if not origin:
            break
    return found


async def _link_batch(connection: AsyncConnection, cube: str) -> Linked:
    table, cubes = sql.memories, sql.cubes
    upto = (await connection.execute(sa.select(cubes.c.linked_rev).where(cubes.c.id == cube))).scalar_one_or_none()
    if upto is None:
        return Linked()
    query = sa.select(table).where(table.c.cube == cube, table.c.rev > upto).order_by(table.c.rev).limit(BATCH)
    changed = [from_row(row) for row in (await connection.execute(query)).all()]
    edges = 0
    for memory in changed:
        if memory.status is not Status.DELETED:
            edges += await _link_one(connection, memory)
    if changed:
        await connection.execute(sa.update(cubes).where(cubes.c.id == cube).values(linked_rev=changed[-1].rev))
    return Linked(len(changed), edges)


async def _link_one(connection: AsyncConnection, memory: Memory) -> int:
    edges = sql.edges
    ours = (edges.c.cube == memory.cube, edges.c.source == memory.id, edges.c.kind == MENTIONS)
    await connection.execute(sa.delete(edges).where(*ours))
    mentioned = _mentioned(memory)
    for name in await _known(connection, memory.cube, perhaps(memory.text)):
        mentioned.setdefault(name, 1.0)
    known = await _nodes_of(connection, memory.cube, mentioned)
    for node, weight in known.items():
        await link(connection, memory.cube, memory.id, MENTIONS, node, weight)
    for one, other in _same(memory):
        await same_entity(connection, memory.cube, one, other)
    count = len(known)
    if memory.supersedes:
        (old,) = await select(
            connection, sql.memories.c.cube == memory.cube, sql.memories.c.id == memory.supersedes
        ) or (None,)
        if old is not None and memory.kind is not Kind.EPISODE and memory.status is not Status.MERGED:
            await _renamed(connection, memory, old)
    if memory.kind is Kind.EPISODE:
        count += await _follow(connection, memory)
    elif memory.status is Status.ACTIVE:
        count += await _reasons(connection, memory)
    return count


def _mentioned(memory: Memory) -> dict[str, float]:
    """Names → how surely the memory is about them: what the other side of an episode names counts half."""
    found = dict.fromkeys(names(memory.answer), 0.5)
    found |= dict.fromkeys(names(memory.text), 1.0)
    return found | dict.fromkeys((name for name in memory.entities if _is_name(name)), 1.0)


async def _known(connection: AsyncConnection, cube: str, maybe: Sequence[str]) -> list[str]:
    table, ids = sql.nodes, {entity_id(name): name for name in maybe}
    if not ids:
        return []
    query = sa.select(table.c.id).where(table.c.cube == cube, table.c.id.in_(list(ids)))
    there = {row.id for row in (await connection.execute(query)).all()}
    return [name for node, name in ids.items() if node in there]


def _is_name(name: str) -> bool:
    return len(name.strip()) > 1 and "@" not in name and not re.fullmatch(r"[\d\s()+-]+", name)


async def _nodes_of(connection: AsyncConnection, cube: str, mentioned: dict[str, float]) -> dict[str, float]:
    """The nodes of these names, made where there are none."""
    table = sql.nodes
    wanted = {entity_id(name): name for name in mentioned}
    if not wanted:
        return {}
    query = sa.select(table.c.id, table.c.kind, table.c.parent).where(
        table.c.cube == cube, table.c.id.in_(list(wanted))
    )
    there = {row.id: (row.parent if row.kind == ALIAS else row.id) for row in (await connection.execute(query)).all()}
    missing = [
        {"cube": cube, "id": node, "kind": ENTITY, "name": name.strip(), "parent": None, "attributes": None}
        for node, name in wanted.items()
        if node not in there
    ]
    if missing:
        await connection.execute(sa.insert(table), missing)
    found: dict[str, float] = {}
    for node, name in wanted.items():
        at = there.get(node, node)
        found[at] = max(found.get(at, 0.0), mentioned[name])
    return found


def _same(memory: Memory) -> list[tuple[str, str]]:
    """(name, another name of the same) where the text says so."""
    pairs = []
    for match in _NICKNAME.finditer(memory.text):
        one, other = match["a"] or match["za"] or match["zc"], match["b"] or match["zb"] or match["zd"]
        if one and other and fold(one) != fold(other):
            pairs.append((one, other))
    return pairs


async def _renamed(connection: AsyncConnection, memory: Memory, old: Memory) -> None:
    """A correction of a misspelt name: the sentences are the same but for it."""
    for right in memory.entities:
        for wrong in old.entities:
            same_but_for_it = memory.text.replace(right, "\0") == old.text.replace(wrong, "\0")
            if (
                fold(right) != fold(wrong)
                and same_but_for_it
                and memory.valid_from == old.valid_from
                and alike(wrong, right)
            ):
                await same_entity(connection, memory.cube, right, wrong)


async def same_entity(connection: AsyncConnection, cube: str, name: str, alias: str) -> None:
    """From now on both names lead to the node of the first; what mentioned the second mentions the first."""
    nodes, edges = sql.nodes, sql.edges
    (kept,) = await _nodes_of(connection, cube, {name: 1.0})
    gone = entity_id(alias)
    if kept == gone:
        return
    rows = await connection.execute(sa.select(edges).where(edges.c.cube == cube, edges.c.target == gone))
    for row in rows.all():
        await link(connection, cube, row.source, row.kind, kept, row.weight)
    await connection.execute(sa.delete(edges).where(edges.c.cube == cube, edges.c.target == gone))
    await connection.execute(sa.update(nodes).where(nodes.c.cube == cube, nodes.c.parent == gone).values(parent=kept))
    await connection.execute(sa.delete(nodes).where(nodes.c.cube == cube, nodes.c.id == gone))
    other = {"cube": cube, "id": gone, "kind": ALIAS, "name": alias, "parent": kept, "attributes": None}
    await connection.execute(sa.insert(nodes).values(**other))


async def _follow(connection: AsyncConnection, memory: Memory) -> int:
    source = memory.sources[0] if memory.sources else None
    if source is None or not source.turn:
        return 0
    before = await turn_before(connection, memory.cube, source.session, memory.message_time)
    if before is None:
        return 0
    await link(connection, memory.cube, memory.id, "follows", stable_id(before, "episode"))
    return 1


async def _reasons(connection: AsyncConnection, memory: Memory) -> int:
    """Edges where a memory says why ("because …": that causes it) or what for ("in order to …": it supports that), when the
    reason is itself remembered."""
    count = 0
    for pattern, kind in ((_BECAUSE, "causes"), (_FOR, "supports")):
        for match in pattern.finditer(memory.text):
            words = next(filter(None, match.groupdict().values()))
            other = await _said_elsewhere(connection, memory, words)
            if other is not None:
                ends = (other, memory.id) if kind == "causes" else (memory.id, other)
                await link(connection, memory.cube, ends[0], kind, ends[1])
                count += 1
    return count


async def _said_elsewhere(connection: AsyncConnection, memory: Memory, words: str) -> str | None:
    wanted = keys(words)
    if not wanted:
        return None
    near = await touching(connection, memory.cube, words=_lookup(words))
    fits = [
        (len(wanted & keys(other.text)), other.id)
        for other, _ in near
        if other.id != memory.id and other.text != memory.text
    ]
    best = max(fits, default=(0, ""))
    return best[1] if best[0] >= 0.5 * len(wanted) else None


def _lookup(words: str) -> Sequence[str]:
    return sorted(dict.fromkeys(terms(words)), key=lambda term: (-len(term), term))[:6]
