"""What was injected where: kept, so that it can be put at the same place again byte for byte. SQL with a small cache in front.

A row is written behind the request and read by the next one of the session, which may come sooner: the cache bridges that.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory.sql import Database, DatabaseError
from proxy import db

log = logging.getLogger(__name__)
_KEPT = 4096
K = TypeVar("K")
V = TypeVar("V")


class Spawn(Protocol):
    """Run something in the background to its end."""

    def __call__(self, work: Coroutine[Any, Any, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class Recalled:
    """The recall block of one user message."""

    anchor: str
    session: str
    at: float
    recall: str
    memories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Begun:
    """What a session began with: its stable block and the cube's revision then."""

    session: str
    stable: str
    memories: tuple[str, ...]
    rev: int


class Blocks:
    """The tables `blocks` and `sessions`."""

    def __init__(self, database: Database, spawn: Spawn) -> None:
        self._database = database
        self._spawn = spawn
        self._recent: OrderedDict[tuple[str, str], Recalled] = OrderedDict()
        self._begun: OrderedDict[tuple[str, str], Begun] = OrderedDict()

    async def at(self, cube: str, anchors: Sequence[str]) -> dict[str, Recalled]:
        """The blocks that stood at these places."""
        found = {anchor: self._recent[cube, anchor] for anchor in anchors if (cube, anchor) in self._recent}
        missing = [anchor for anchor in anchors if anchor not in found]
        table = db.blocks
        if missing:
            query = sa.select(table).where(table.c.cube == cube, table.c.anchor.in_(missing))
            async with self._database.read() as connection:
                for row in (await connection.execute(query)).all():
                    found[row.anchor] = Recalled(row.anchor, row.session, row.at, row.recall, tuple(row.memories))
        return found

    async def begun(self, cube: str, session: str) -> Begun | None:
        """What the session began with; None for a new one."""
        if (cube, session) in self._begun:
            return self._begun[cube, session]
        table = db.sessions
        query = sa.select(table).where(table.c.cube == cube, table.c.session == session)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return Begun(session, row.stable, tuple(row.memories), row.rev) if row else None

    def begin(self, cube: str, begun: Begun, at: float) -> None:
        """Keep what a session begins with."""
        _cache(self._begun, (cube, begun.session), begun)
        values = {
            "cube": cube,
            "session": begun.session,
            "started_at": at,
            "stable": begun.stable,
            "memories": list(begun.memories),
            "rev": begun.rev,
        }
        self._spawn(self._write(db.sessions, values, ("cube", "session")))

    def keep(self, cube: str, block: Recalled) -> None:
        """Keep what is injected at a place."""
        _cache(self._recent, (cube, block.anchor), block)
        values = {
            "cube": cube,
            "anchor": block.anchor,
            "session": block.session,
            "at": block.at,
            "recall": block.recall,
            "memories": list(block.memories),
        }
        self._spawn(self._write(db.blocks, values, ("cube", "anchor")))

    async def _write(self, table: sa.Table, values: dict[str, Any], key: tuple[str, str]) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(sa.delete(table).where(*(table.c[name] == values[name] for name in key)))
            await connection.execute(sa.insert(table).values(**values))

        try:
            await self._database.write(work)
        except DatabaseError as error:  # costs a cache hit at the provider, not the chat
            log.warning("an injected block was not kept: %s", error)

    async def forget(self, cube: str, memories: Sequence[str]) -> None:
        """Erase every kept block that shows one of these memories."""
        gone = set(memories)
        for key in [key for key, block in self._recent.items() if key[0] == cube and gone & set(block.memories)]:
            del self._recent[key]
        for key in [key for key, begun in self._begun.items() if key[0] == cube and gone & set(begun.memories)]:
            del self._begun[key]

        async def work(connection: AsyncConnection) -> None:
            for table, name in ((db.blocks, "anchor"), (db.sessions, "session")):
                rows = (
                    await connection.execute(sa.select(table.c[name], table.c.memories).where(table.c.cube == cube))
                ).all()
                for row in rows:
                    if gone & set(row.memories):
                        await connection.execute(sa.delete(table).where(table.c.cube == cube, table.c[name] == row[0]))

        await self._database.write(work)


async def purge(database: Database, before: float) -> int:
    """Let go of blocks and sessions from before that time; resuming one costs a cache hit at the provider, no more."""

    async def work(connection: AsyncConnection) -> int:
        gone = await connection.execute(sa.delete(db.blocks).where(db.blocks.c.at < before))
        more = await connection.execute(sa.delete(db.sessions).where(db.sessions.c.started_at < before))
        return gone.rowcount + more.rowcount

    return await database.write(work)


def _cache(cache: OrderedDict[K, V], key: K, value: V) -> None:
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > _KEPT:
        cache.popitem(last=False)
