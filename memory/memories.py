"""Memories in SQL: add, get, list, change, forget, with history. Every write stamps the cube's next revision.

Functions that take a connection run inside the caller's transaction; methods of Memories open their own.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.adapters.table import withdraw
from memory.cube import ensure, next_rev
from memory.nodes import cut_out
from memory.prepared import made_once
from memory.progress import unsay
from memory.sql import Database
from memory.types import Kind, Memory, Source, Status, Trust
from memory.words import fold, squeeze

_KEPT = (
    "text", "answer", "kind", "status", "entities", "tags", "event_time", "event_end", "valid_from", "valid_to", "pinned",
    "confidence", "importance", "supersedes", "attributes", "sources",
)  # fmt: skip
_CLOSING = ("supersede", "merge", "correct")
_EMPTY: dict[str, Any] = (
    dict.fromkeys(("text", "answer", "speaker", "slot", "digest"), "")
    | {name: [] for name in ("entities", "tags", "sources")}
    | dict.fromkeys(("event_time", "event_end", "attributes", "supersedes"))
    | {"pinned": 0}
)


Beside = Callable[[AsyncConnection, Sequence[str]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a memory's history: `before` holds the fields as they were."""

    version: int
    at: float
    action: str
    before: dict[str, Any]


def digest(text: str, answer: str = "") -> str:
    """The same for texts that differ in case, accents, spacing or final punctuation only."""
    plain = "\x1f".join(squeeze(fold(part)).rstrip(".!?。！？ ") for part in (text, answer))
    return hashlib.sha256(plain.encode("utf-8", "replace")).hexdigest()[:32]


_M = sql.memories
_EVERY = sa.select(_M).where(_M.c.cube == sa.bindparam("cube")).order_by(_M.c.message_time, _M.c.id)
_BY_IDS = _EVERY.where(_M.c.id.in_(sa.bindparam("ids", expanding=True)), _M.c.status != Status.DELETED.value)
_SINCE = _EVERY.where(_M.c.rev > sa.bindparam("rev"))
_BY_KIND, _PINNED = _M.c.kind.in_(sa.bindparam("kinds", expanding=True)), _M.c.pinned == sa.literal_column("1")
_ACTIVE = _EVERY.where(_M.c.status == Status.ACTIVE.value)
_HERE = sa.select(_M.c.id).where(_M.c.cube == sa.bindparam("cube"), _M.c.status == Status.ACTIVE.value)
# each by an index of its own; of an "or" SQLite would look through the whole cube, and so it would without a bound below
_STANDING = _ACTIVE.where(_M.c.id.in_(sa.union_all(_HERE.where(_BY_KIND), _HERE.where(_PINNED))))
_STANDING_SINCE = _ACTIVE.where(sa.or_(_BY_KIND, _PINNED), _M.c.rev > sa.bindparam("rev"))
_USED = made_once(
    sa.update(_M)
    .where(
        _M.c.cube == sa.bindparam("in_cube"),
        _M.c.id.in_(sa.bindparam("ids", expanding=True)),
        _M.c.status != Status.DELETED.value,
    )
    .values(uses=_M.c.uses + sa.bindparam("more"), last_used_at=sa.bindparam("at"))
)
_THERE = made_once(
    sa.select(sa.func.count())
    .select_from(_M)
    .where(
        _M.c.cube == sa.bindparam("cube"),
        _M.c.id.in_(sa.bindparam("ids", expanding=True)),
        _M.c.status != Status.DELETED.value,
    )
)
_HERE = made_once(sa.select(_M).where(_M.c.cube == sa.bindparam("cube"), _M.c.id == sa.bindparam("id")))
_LINK = made_once(sa.insert(sql.edges))
_CUT = made_once(
    sa.delete(sql.edges).where(
        *(sql.edges.c[name] == sa.bindparam(f"this_{name}") for name in ("cube", "source", "kind", "target"))
    )
)
_INSERT, _INSERT_LINEAGE = made_once(sa.insert(_M)), made_once(sa.insert(sql.lineage))


def from_row(row: sa.Row[Any]) -> Memory:
    """A row of `memories` as a value."""
    return from_row_values(row._mapping)


def from_row_values(r: Mapping[Any, Any]) -> Memory:
    """The same from its columns."""
    return Memory(
        id=r["id"],
        cube=r["cube"],
        kind=Kind(r["kind"]),
        text=r["text"],
        answer=r["answer"],
        speaker=r["speaker"],
        entities=tuple(r["entities"]),
        tags=tuple(r["tags"]),
        status=Status(r["status"]),
        event_time=r["event_time"],
        event_end=r["event_end"],
        message_time=r["message_time"],
        created_at=r["created_at"],
        valid_from=r["valid_from"],
        valid_to=r["valid_to"],
        supersedes=r["supersedes"],
        sources=tuple(Source(**source) for source in r["sources"]),
        trust=Trust(r["trust"]),
        confidence=r["confidence"],
        importance=r["importance"],
        uses=r["uses"],
        last_used_at=r["last_used_at"],
        pinned=bool(r["pinned"]),
        attributes=r["attributes"],
        rev=r["rev"],
    )


def to_row(memory: Memory, *, slot: str, rev: int) -> dict[str, Any]:
    """A value as a row of `memories`."""
    row = {name: getattr(memory, name) for name in sql.memories.c.keys() if hasattr(memory, name)}
    row |= {
        "kind": memory.kind.value,
        "status": memory.status.value,
        "trust": memory.trust.value,
        "entities": list(memory.entities),
        "tags": list(memory.tags),
        "sources": [asdict(source) for source in memory.sources],
        "pinned": int(memory.pinned),
        "slot": slot,
        "digest": digest(memory.text, memory.answer),
        "rev": rev,
    }
    return row


async def add(connection: AsyncConnection, memory: Memory) -> Memory:
    """Insert a memory that was not there, with its lineage."""
    rev = await next_rev(connection, memory.cube)
    await connection.execute(_INSERT, to_row(memory, slot="", rev=rev))
    await _trace(connection, memory)
    return memory.evolve(rev=rev)


async def _trace(connection: AsyncConnection, memory: Memory) -> None:
    for turn in {source.turn for source in memory.sources if source.turn}:
        await connection.execute(_INSERT_LINEAGE, {"cube": memory.cube, "turn": turn, "memory": memory.id})


async def save(
    connection: AsyncConnection, memory: Memory, *, action: str, at: float, slot: str | None = None
) -> Memory:
    """Insert or replace a memory, with its lineage and, when it was there before, a history entry."""
    rev = await next_rev(connection, memory.cube)
    table = sql.memories
    here = sa.and_(table.c.cube == memory.cube, table.c.id == memory.id)
    old = (await connection.execute(_HERE, {"cube": memory.cube, "id": memory.id})).first()
    row = to_row(memory, slot=slot if slot is not None else (old._mapping["slot"] if old else ""), rev=rev)
    if old is None:
        await connection.execute(_INSERT, row)
    else:
        await _remember_before(connection, old, action, at)
        await connection.execute(sa.update(table).where(here).values(**row))
    lineage = sql.lineage
    await connection.execute(sa.delete(lineage).where(lineage.c.cube == memory.cube, lineage.c.memory == memory.id))
    await _trace(connection, memory)
    return memory.evolve(rev=rev)


async def _remember_before(connection: AsyncConnection, old: sa.Row[Any], action: str, at: float) -> None:
    r, table = old._mapping, sql.history
    count = sa.select(sa.func.coalesce(sa.func.max(table.c.version), 0)).where(
        table.c.cube == r["cube"], table.c.memory == r["id"]
    )
    version = int((await connection.execute(count)).scalar_one()) + 1
    before = {name: r[name] for name in _KEPT}
    await connection.execute(
        sa.insert(table).values(cube=r["cube"], memory=r["id"], version=version, at=at, action=action, before=before)
    )


async def link(
    connection: AsyncConnection, cube: str, source: str, kind: str, target: str, weight: float = 1.0
) -> None:
    """Draw an edge; one that is there keeps its place."""
    edge = {"cube": cube, "source": source, "kind": kind, "target": target}
    await connection.execute(_CUT, {f"this_{name}": value for name, value in edge.items()})
    await connection.execute(_LINK, edge | {"weight": weight})


async def select(connection: AsyncConnection, *where: sa.ColumnElement[bool], limit: int | None = None) -> list[Memory]:
    """Memories in the order in which they were said."""
    table = sql.memories
    query = sa.select(table).where(*where).order_by(table.c.message_time, table.c.id).limit(limit)
    return [from_row(row) for row in (await connection.execute(query)).all()]


async def archive(
    connection: AsyncConnection, memory: Memory, *, at: float, valid_to: float, action: str = "archive"
) -> list[str]:
    """Take a memory that is no longer said out of retrieval. What it had closed holds again, and of those that were merged
    into it the earliest takes its place. Returns the ids of those."""
    await save(connection, memory.evolve(status=Status.ARCHIVED, valid_to=valid_to), action=action, at=at)
    table, edges = sql.memories, sql.edges
    changed = sa.select(edges.c.target).where(
        edges.c.cube == memory.cube, edges.c.source == memory.id, edges.c.kind == "updates"
    )
    closed = table.c.id.in_(changed.union_all(sa.select(sa.literal(memory.supersedes or ""))))
    back = []
    for before in await select(connection, table.c.cube == memory.cube, closed):
        ended_here = before.status is Status.SUPERSEDED and before.valid_to in (memory.valid_from, before.valid_from)
        if ended_here or (before.status is Status.MERGED and before.supersedes == memory.id):
            await _reopen(connection, before, at)
            back.append(before.id)
    into_it = (table.c.cube == memory.cube, table.c.supersedes == memory.id, table.c.status == Status.MERGED.value)
    same = [other for other in await select(connection, *into_it) if other.id not in back]
    for place, other in enumerate(same):
        risen = (
            other.evolve(status=Status.ACTIVE, supersedes=None) if not place else other.evolve(supersedes=same[0].id)
        )
        await save(connection, risen, action="restore", at=at)
    return back + [other.id for other in same[:1]]


async def _reopen(connection: AsyncConnection, memory: Memory, at: float) -> None:
    """A memory as it was before something closed it."""
    table = sql.history
    here = (table.c.cube == memory.cube, table.c.memory == memory.id, table.c.action.in_(_CLOSING))
    query = sa.select(table.c.before).where(*here).order_by(table.c.version.desc()).limit(1)
    before = (await connection.execute(query)).scalar_one_or_none() or {}
    restored = memory.evolve(
        status=Status.ACTIVE,
        valid_to=None,
        supersedes=before.get("supersedes"),
        attributes=before.get("attributes", memory.attributes),
    )
    await save(connection, restored, action="restore", at=at)


async def _close_again(connection: AsyncConnection, memory: Memory, at: float) -> list[str]:
    """A memory that was taken back holds again: what it closes is closed once more."""
    if memory.status is not Status.ACTIVE:
        return []
    table, edges = sql.memories, sql.edges
    from_here = (edges.c.cube == memory.cube, edges.c.source == memory.id, edges.c.kind == "updates")
    ids = sa.select(edges.c.target).where(*from_here)
    where = (table.c.cube == memory.cube, table.c.id.in_(ids), table.c.status == Status.ACTIVE.value)
    closed = await select(connection, *where)
    for old in closed:
        ended = old.evolve(status=Status.SUPERSEDED, valid_to=memory.valid_from)
        await save(connection, ended, action="supersede", at=at)
    return [old.id for old in closed]


async def _unlink(connection: AsyncConnection, memory: Memory) -> None:
    """A memory that holds after all was not replaced by anything."""
    edges, table = sql.edges, sql.memories
    here = (edges.c.cube == memory.cube, edges.c.target == memory.id, edges.c.kind == "updates")
    await connection.execute(sa.delete(edges).where(*here))
    named = (table.c.cube == memory.cube, table.c.supersedes == memory.id, table.c.status != Status.MERGED.value)
    await connection.execute(sa.update(table).where(*named).values(supersedes=None))


async def put_away(connection: AsyncConnection, cube: str, ids: Sequence[str], at: float) -> int:
    """Archive many memories at once, each with its history entry; returns how many there were."""
    table, kept = sql.memories, sql.history
    here = (table.c.cube == cube, table.c.id.in_(list(ids)), table.c.status == Status.ACTIVE.value)
    old = [row._mapping for row in (await connection.execute(sa.select(table).where(*here))).all()]
    if not old:
        return 0
    query = sa.select(kept.c.memory, sa.func.max(kept.c.version)).where(
        kept.c.cube == cube, kept.c.memory.in_(list(ids))
    )
    versions = {row[0]: int(row[1]) for row in (await connection.execute(query.group_by(kept.c.memory))).all()}
    entries = [
        {
            "cube": cube,
            "memory": r["id"],
            "version": versions.get(r["id"], 0) + 1,
            "at": at,
            "action": "archive",
            "before": {name: r[name] for name in _KEPT},
        }
        for r in old
    ]
    await connection.execute(sa.insert(kept), entries)
    rev = await next_rev(connection, cube)
    await connection.execute(sa.update(table).where(*here).values(status=Status.ARCHIVED.value, rev=rev))
    return len(old)


async def forget(connection: AsyncConnection, cube: str, ids: Sequence[str], at: float) -> list[str]:
    """Erase memories and what was derived from them: what remains of each is a row without content, so that readers and the
    index learn of it."""
    done: list[str] = []
    for memory in await _with_derived(connection, cube, ids):
        table = sql.memories
        here = sa.and_(table.c.cube == cube, table.c.id == memory, table.c.status != Status.DELETED.value)
        if (await connection.execute(sa.select(table.c.id).where(here))).first() is None:
            continue
        empty = _EMPTY | {"valid_to": at}
        rev = await next_rev(connection, cube)
        await connection.execute(sa.update(table).where(here).values(status=Status.DELETED.value, rev=rev, **empty))
        for other in (sql.history, sql.vectors, sql.lineage):
            await connection.execute(sa.delete(other).where(other.c.cube == cube, other.c.memory == memory))
        await cut_out(connection, cube, memory)
        done.append(memory)
    await withdraw(connection, cube, done, at)
    return done


async def all_there(connection: AsyncConnection, cube: str, ids: Iterable[str]) -> bool:
    """Whether none of these memories was erased."""
    wanted = list(dict.fromkeys(ids))
    if not wanted:
        return True
    found = await connection.execute(_THERE, {"cube": cube, "ids": wanted})
    return int(found.scalar_one()) == len(wanted)


async def _with_derived(connection: AsyncConnection, cube: str, ids: Sequence[str]) -> list[str]:
    """These memories and, step by step, all that rest on them."""
    edges, found = sql.edges, dict.fromkeys(ids)
    fresh = list(found)
    while fresh:
        resting = (edges.c.cube == cube, edges.c.kind == "derived_from", edges.c.target.in_(fresh))
        rows = (await connection.execute(sa.select(edges.c.source).where(*resting))).all()
        fresh = [row[0] for row in rows if row[0] not in found]
        found |= dict.fromkeys(fresh)
    return list(found)


class Memories:
    """What the Memory API and the jobs ask of the stored memories."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def add(self, memory: Memory, owner: str, *, slot: str = "", make: bool = True) -> Memory:
        """Store a memory that was given, not learned, for a principal who may. Makes the cube when it is new, unless `make`
        is false. Raises CubeRefused."""

        async def work(connection: AsyncConnection) -> Memory:
            await ensure(connection, memory.cube, owner, "", self._clock(), make=make)
            return await save(connection, memory, action="add", at=self._clock(), slot=slot)

        return await self._database.write(work)

    async def get(self, cube: str, memory: str) -> Memory | None:
        """One memory that is not erased, or None."""
        found = await self.by_ids(cube, [memory])
        return found.get(memory)

    async def by_ids(self, cube: str, ids: Iterable[str]) -> dict[str, Memory]:
        """Those of the memories that exist and are not erased."""
        wanted = list(ids)
        if not wanted:
            return {}
        rows = await self._database.rows(_BY_IDS, cube=cube, ids=wanted)
        return {memory.id: memory for memory in map(from_row, rows)}

    async def since(self, cube: str, rev: int) -> list[Memory]:
        """Everything that changed after `rev`, erased ones (without content) too."""
        if rev > 0:
            return [from_row(row) for row in await self._database.rows(_SINCE, cube=cube, rev=rev)]
        async with self._database.read(long=True) as connection:
            return await select(connection, sql.memories.c.cube == cube, sql.memories.c.rev > rev)

    async def page(
        self,
        cube: str,
        *,
        kinds: Sequence[Kind] = (),
        statuses: Sequence[Status] = (Status.ACTIVE,),
        tag: str | None = None,
        entity: str | None = None,
        ids: Collection[str] | None = None,
        without: Collection[str] = (),
        after: tuple[float, str] | None = None,
        limit: int = 50,
    ) -> list[Memory]:
        """Newest first; `after` is the (created_at, id) of the last one of the page before. `ids`: only of these."""
        table = sql.memories
        query = sa.select(table).where(table.c.cube == cube)
        if kinds:
            query = query.where(table.c.kind.in_([kind.value for kind in kinds]))
        if statuses:
            query = query.where(table.c.status.in_([status.value for status in statuses]))
        if ids is not None:
            query = query.where(table.c.id.in_(list(ids)))
        if without:
            query = query.where(table.c.id.not_in(list(without)))
        if after is not None:
            query = query.where(
                sa.or_(table.c.created_at < after[0], sa.and_(table.c.created_at == after[0], table.c.id < after[1]))
            )
        query = query.order_by(table.c.created_at.desc(), table.c.id.desc())
        if tag is None and entity is None:
            query = query.limit(limit)
        async with self._database.read() as connection:
            found = [from_row(row) for row in (await connection.execute(query)).all()]
        if tag is not None:
            found = [memory for memory in found if tag in memory.tags]
        if entity is not None:
            found = [memory for memory in found if fold(entity) in map(fold, memory.entities)]
        return found[:limit]

    async def standing(self, cube: str, kinds: Sequence[Kind], *, since: int = 0) -> list[Memory]:
        """Active memories of these kinds and all pinned ones that changed after revision `since`, in the order in which they were
        said."""
        names = [kind.value for kind in kinds]
        if since:
            rows = await self._database.rows(_STANDING_SINCE, cube=cube, kinds=names, rev=since)
        else:
            rows = await self._database.rows(_STANDING, cube=cube, kinds=names)
        return [from_row(row) for row in rows]

    async def change(
        self, cube: str, memory: str, changes: dict[str, Any] | Callable[[Memory], dict[str, Any]]
    ) -> Memory | None:
        """Set editable fields, or those that a function of the memory gives; the old values go into the history. None: no such
        memory."""

        async def work(connection: AsyncConnection) -> Memory | None:
            table = sql.memories
            here = (table.c.cube == cube, table.c.id == memory, table.c.status != Status.DELETED.value)
            found = await select(connection, *here)
            if not found:
                return None
            values = changes(found[0]) if callable(changes) else changes
            return await save(connection, found[0].evolve(**values), action="update", at=self._clock())

        return await self._database.write(work)

    async def undo(self, cube: str, memory: str) -> tuple[Memory, list[str]] | None:
        """Take back the last change of a memory. One that was never changed is taken back itself (archived), and what it had
        closed holds again. Undoing twice leaves things as they were. Returns it with the ids of the others that changed;
        None: no such memory."""

        async def work(connection: AsyncConnection) -> tuple[Memory, list[str]] | None:
            at, table, history = self._clock(), sql.memories, sql.history
            here = (table.c.cube == cube, table.c.id == memory, table.c.status != Status.DELETED.value)
            row = (await connection.execute(sa.select(table).where(*here))).first()
            if row is None:
                return None
            now = from_row(row)
            query = (
                sa.select(history.c.before)
                .where(history.c.cube == cube, history.c.memory == memory, history.c.action != "cite")
                .order_by(history.c.version.desc())
            )
            before = (await connection.execute(query.limit(1))).scalar_one_or_none()
            if before is None:
                others = await archive(connection, now, at=at, valid_to=at, action="undo")
            else:
                then = from_row_values({**row._mapping, **before})
                await save(connection, then, action="undo", at=at, slot=row.slot)
                others = await _close_again(connection, then, at) if now.status is Status.ARCHIVED else []
                if then.status is Status.ACTIVE and now.status in (Status.SUPERSEDED, Status.MERGED):
                    await _unlink(connection, then)
            (after,) = await select(connection, *here)
            return after, others

        return await self._database.write(work)

    async def used(self, cube: str, uses: Mapping[str, int], at: float) -> None:
        """Count how often memories went into a prompt. No revision: what they say has not changed."""
        often: dict[int, list[str]] = {}
        for memory, times in uses.items():
            often.setdefault(times, []).append(memory)

        async def work(connection: AsyncConnection) -> None:
            for times, ids in often.items():
                await connection.execute(_USED, {"in_cube": cube, "ids": ids, "more": times, "at": at})

        await self._database.write(work, later=True)

    async def history(self, cube: str, memory: str) -> list[Change]:
        """What happened to a memory, oldest first."""
        table = sql.history
        query = sa.select(table).where(table.c.cube == cube, table.c.memory == memory).order_by(table.c.version)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [Change(r.version, r.at, r.action, r.before) for r in rows]

    async def forget(self, cube: str, memory: str, *, beside: Beside | None = None) -> list[str] | None:
        """Erase a memory and where it stands: the turns it came from, and what was learned from such a turn alone when
        the erased memory is the turn itself. `beside` erases in the same transaction what others keep of these memories. Returns
        the ids of all erased memories; None: no such memory."""

        async def work(connection: AsyncConnection) -> list[str] | None:
            done = await erase(connection)
            if done and beside is not None:
                await beside(connection, done)
            return done

        async def erase(connection: AsyncConnection) -> list[str] | None:
            table, lineage, turns = sql.memories, sql.lineage, sql.turns
            here = (table.c.cube == cube, table.c.id == memory, table.c.status != Status.DELETED.value)
            found = await select(connection, *here)
            if not found:
                return None
            repeated = await select(
                connection, table.c.cube == cube, table.c.supersedes == memory, table.c.status == Status.MERGED.value
            )
            gone = [memory, *(other.id for other in repeated)]
            if found[0].kind is Kind.INSIGHT:  # it only says what others say; the mark keeps it from being made again
                done = await forget(connection, cube, gone, self._clock())
                unwanted = sa.update(table).where(table.c.cube == cube, table.c.id == memory)
                await connection.execute(unwanted.values(slot="unwanted"))
                return done
            said_in = sorted({source.turn for one in (found[0], *repeated) for source in one.sources if source.turn})
            for turn in said_in:
                query = sa.select(lineage.c.memory).where(lineage.c.cube == cube, lineage.c.turn == turn)
                ids = [row[0] for row in (await connection.execute(query)).all()]
                for other in await select(connection, table.c.cube == cube, table.c.id.in_(ids)):
                    only_here = {source.turn for source in other.sources} <= set(said_in)
                    if other.kind is Kind.EPISODE or (found[0].kind is Kind.EPISODE and only_here):
                        gone.append(other.id)
                await connection.execute(sa.delete(turns).where(turns.c.cube == cube, turns.c.id == turn))
            if said_in:
                await unsay(connection, cube, said_in, await next_rev(connection, cube))
            return await forget(connection, cube, list(dict.fromkeys(gone)), self._clock())

        return await self._database.write(work)
