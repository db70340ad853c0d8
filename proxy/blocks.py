"""What was injected where: kept, so that it can be put at the same place again byte for byte; and where a conversation stands
whose history is at the upstream.

A row is written behind the request and read by the next one of the session, which may come sooner: until it is committed it
is also held here. Not longer, so that an erasure by another process is an erasure.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory.memories import all_there
from memory.prepared import made_once
from memory.sql import Database, DatabaseError
from memory.types import Turn
from proxy import db

log = logging.getLogger(__name__)
V = TypeVar("V")
_QUOTES = "[no longer so; now: "  # another memory's words in a line; rows of earlier releases do not name that memory


class Spawn(Protocol):
    """Run something in the background to its end."""

    def __call__(self, work: Coroutine[Any, Any, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class Recalled:
    """The recall block of one user message; `rev`: the cube's revision when it was made."""

    anchor: str
    session: str
    at: float
    recall: str
    memories: tuple[str, ...]
    rev: int = 0


@dataclass(frozen=True, slots=True)
class Begun:
    """What a session began with: its stable block and the cube's revision then."""

    session: str
    stable: str
    memories: tuple[str, ...]
    rev: int


@dataclass(frozen=True, slots=True)
class Link:
    """Where a conversation stood behind an answer that the upstream keeps. `here` is the hash of all that was said; while the
    turn is not over, `asked` is its question and `position` the hash of what was said before it. `seen`: digests of what the
    user has said."""

    session: str
    at: float
    position: str
    here: str
    asked: str = ""
    seen: tuple[str, ...] = ()


_CUBE: sa.BindParameter[str] = sa.bindparam("cube")
_AT = sa.select(db.blocks).where(
    db.blocks.c.cube == _CUBE, db.blocks.c.anchor.in_(sa.bindparam("anchors", expanding=True))
)
_BEGUN = sa.select(db.sessions).where(db.sessions.c.cube == _CUBE, db.sessions.c.session == sa.bindparam("session"))

_TABLES = (db.blocks, db.sessions, db.links)
_INSERT = {table: made_once(sa.insert(table).prefix_with("OR REPLACE", dialect="sqlite")) for table in _TABLES}
_DELETE = {
    table: made_once(
        sa.delete(table).where(*(column == sa.bindparam(f"this_{column.name}") for column in table.primary_key))
    )
    for table in _TABLES
}


class Blocks:
    """The tables `blocks`, `sessions` and `links`."""

    def __init__(self, database: Database, spawn: Spawn) -> None:
        self._database = database
        self._spawn = spawn
        self._recent: dict[tuple[str, str], Recalled] = {}
        self._begun: dict[tuple[str, str], Begun] = {}
        self._links: dict[tuple[str, str], Link] = {}

    async def at(self, cube: str, anchors: Sequence[str]) -> dict[str, Recalled]:
        """The blocks that stood at these places."""
        found = {anchor: self._recent[cube, anchor] for anchor in anchors if (cube, anchor) in self._recent}
        missing = [anchor for anchor in anchors if anchor not in found]
        if missing:
            for row in await self._database.rows(_AT, cube=cube, anchors=missing):
                found[row.anchor] = Recalled(row.anchor, row.session, row.at, row.recall, tuple(row.memories), row.rev)
        return found

    async def begun(self, cube: str, session: str) -> Begun | None:
        """What the session began with; None for a new one."""
        if (cube, session) in self._begun:
            return self._begun[cube, session]
        for row in await self._database.rows(_BEGUN, cube=cube, session=session):
            return Begun(session, row.stable, tuple(row.memories), row.rev)
        return None

    async def newest(self, cube: str) -> tuple[Begun, float] | None:
        """See newest."""
        return await newest(self._database, cube)

    def begin(self, cube: str, begun: Begun, at: float) -> None:
        """Keep what a session begins with."""
        values = {"started_at": at, "stable": begun.stable, "memories": list(begun.memories), "rev": begun.rev}
        key = {"cube": cube, "session": begun.session}
        self._begun[cube, begun.session] = begun
        self._spawn(self._write(db.sessions, key, values, self._begun, begun))

    def keep(self, cube: str, block: Recalled) -> None:
        """Keep what is injected at a place."""
        values = {"session": block.session, "at": block.at, "recall": block.recall, "memories": list(block.memories)}
        values["rev"] = block.rev
        key = {"cube": cube, "anchor": block.anchor}
        self._recent[cube, block.anchor] = block
        self._spawn(self._write(db.blocks, key, values, self._recent, block))

    async def before(self, cube: str, answer: str) -> Link | None:
        """Where the conversation stood behind this answer (or stands, by its own id). Raises DatabaseError."""
        if (cube, answer) in self._links:
            return self._links[cube, answer]
        table = db.links
        query = sa.select(table).where(table.c.cube == cube, table.c.id == answer)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return Link(row.session, row.at, row.position, row.here, row.asked, tuple(row.seen)) if row else None

    def link(self, cube: str, answer: str, link: Link) -> None:
        """Keep where the conversation stands behind this answer."""
        values = {"session": link.session, "at": link.at, "position": link.position, "here": link.here}
        values |= {"asked": link.asked, "seen": list(link.seen)}
        self._links[cube, answer] = link
        self._spawn(self._write(db.links, {"cube": cube, "id": answer}, values, self._links, link))

    async def _write(
        self, table: sa.Table, key: dict[str, str], values: dict[str, Any], held: dict[tuple[str, str], V], value: V
    ) -> None:
        place = (key["cube"], list(key.values())[1])

        async def work(connection: AsyncConnection) -> None:
            if held.get(place) is not value:
                return  # forgotten, or replaced, before it was written
            if not await all_there(connection, key["cube"], values.get("memories", ())):
                return  # another process has erased what it shows
            if not self._database.sqlite:  # which replaces it itself
                await connection.execute(_DELETE[table], {f"this_{name}": part for name, part in key.items()})
            await connection.execute(_INSERT[table], {**key, **values})

        try:
            await self._database.write(work, later=True, again=True)
        except DatabaseError as error:  # costs a cache hit at the provider, not the chat
            log.warning("an injected block was not kept: %s", error)
        finally:
            if held.get(place) is value:
                del held[place]

    def let_go(self, cube: str) -> None:
        """Do not write what is held of this cube; for when all of it was erased."""
        for key in [key for key in self._recent if key[0] == cube]:
            del self._recent[key]
        for key in [key for key in self._begun if key[0] == cube]:
            del self._begun[key]
        for key in [key for key in self._links if key[0] == cube]:
            del self._links[key]

    def drop(self, cube: str, memories: Sequence[str]) -> None:
        """Do not write what is held of blocks that show one of these memories, nor the questions of turns that are not over: nobody
        knows which memories were made of them."""
        gone = set(memories)
        for key in [key for key, block in self._recent.items() if key[0] == cube and gone & set(block.memories)]:
            del self._recent[key]
        for key in [key for key, begun in self._begun.items() if key[0] == cube and gone & set(begun.memories)]:
            del self._begun[key]
        for key in [key for key, link in self._links.items() if key[0] == cube and link.asked]:
            del self._links[key]

    async def forget(self, cube: str, memories: Sequence[str]) -> None:
        """Erase what is kept of these memories, as `drop` and `erase` do."""
        self.drop(cube, memories)
        await self._database.write(lambda connection: erase(connection, memories, cube=cube))


async def erase(connection: AsyncConnection, memories: Sequence[str], *, cube: str) -> None:
    """Erase every kept block that shows one of these memories, and the questions of turns that are not over."""
    gone = set(memories)
    await connection.execute(sa.delete(db.links).where(db.links.c.cube == cube, db.links.c.asked != ""))
    quotes = db.blocks.c.recall.contains(_QUOTES)
    await connection.execute(sa.delete(db.blocks).where(db.blocks.c.cube == cube, quotes))
    for table, name in ((db.blocks, "anchor"), (db.sessions, "session")):
        rows = (await connection.execute(sa.select(table.c[name], table.c.memories).where(table.c.cube == cube))).all()
        for row in rows:
            if gone & set(row.memories):
                await connection.execute(sa.delete(table).where(table.c.cube == cube, table.c[name] == row[0]))


async def newest(database: Database, cube: str) -> tuple[Begun, float] | None:
    """What the cube's newest session began with, and when."""
    table = db.sessions
    query = sa.select(table).where(table.c.cube == cube).order_by(table.c.started_at.desc(), table.c.session).limit(1)
    async with database.read() as connection:
        row = (await connection.execute(query)).first()
    return (Begun(row.session, row.stable, tuple(row.memories), row.rev), row.started_at) if row else None


async def shown_for(database: Database, turn: Turn) -> tuple[str, ...]:
    """The memories in the recall block of a recorded turn; none when there was no block, or it was let go of."""
    table = db.blocks
    during = (table.c.at >= turn.said_at, table.c.at <= turn.answered_at)
    query = sa.select(table.c.memories).where(table.c.cube == turn.cube, table.c.session == turn.session, *during)
    async with database.read() as connection:
        row = (await connection.execute(query.order_by(table.c.at.desc()).limit(1))).first()
    return tuple(row.memories) if row else ()


async def visits(database: Database, since: float, limit: int = 20_000) -> list[tuple[str, float]]:
    """(cube, when a session of it began) of the latest sessions since that time, oldest first."""
    table = db.sessions
    query = sa.select(table.c.cube, table.c.started_at).where(table.c.started_at >= since)
    async with database.read() as connection:
        rows = (await connection.execute(query.order_by(table.c.started_at.desc()).limit(limit))).all()
    return [(row.cube, row.started_at) for row in reversed(rows)]


async def purge(database: Database, before: float) -> int:
    """Let go of blocks and sessions from before that time; resuming one costs a cache hit at the provider, no more."""

    async def work(connection: AsyncConnection) -> int:
        gone = await connection.execute(sa.delete(db.blocks).where(db.blocks.c.at < before))
        more = await connection.execute(sa.delete(db.sessions).where(db.sessions.c.started_at < before))
        links = await connection.execute(sa.delete(db.links).where(db.links.c.at < before))
        return gone.rowcount + more.rowcount + links.rowcount

    return await database.write(work)
