"""The SQL truth: tables of memory, and a Database that reads in parallel and writes in durable groups.

A write is acknowledged after its commit reached the disk (SQLite `synchronous=FULL`); writes that wait at the same time
share one commit. Nobody else makes an engine. SQLAlchemy Core only: every statement stands in the module that owns it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from memory.sqlite import RolledBack, Sqlite

log = logging.getLogger(__name__)
T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]
Permit = Callable[[AsyncConnection], Awaitable[None]]

_LATER_S = 0.5

metadata = MetaData()

cubes = Table(
    "cubes",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),  # a principal
    Column("name", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("rev", Integer, nullable=False, default=0),  # grows with every write to the cube's memories
    Column("generation", Integer, nullable=False, default=0),  # which LanceDB table is current; 0 = none yet
    Column("indexed_rev", Integer, nullable=False, default=0),  # all changes up to here stand in that table
    Column("indexed_rows", Integer, nullable=False, default=0),
    Column("embedder", String, nullable=False, default=""),  # whose vectors that table holds; empty: no table
    Column("status", String, nullable=False, default="active", server_default="active"),  # active | archived | erased
    Column("archived_at", Float),
    Column("quota", Integer),  # memories that may be active; null = no limit
    Column("ttl_s", Float),  # memories unused for so long are archived; null = never
    Column("reflected_rev", Integer, nullable=False, default=0, server_default="0"),  # reflection has seen up to here
    Column(
        "linked_rev", Integer, nullable=False, default=0, server_default="0"
    ),  # the graph holds everything up to here
    Index("cubes_owner", "owner"),
)

grants = Table(  # who besides its owner may use a cube
    "grants",
    metadata,
    Column("cube", String, primary_key=True),
    Column("principal", String, primary_key=True),
    Column("level", String, nullable=False),  # read | write (write includes read)
    Column("granted_at", Float, nullable=False),
    Index("grants_principal", "principal"),
)

nodes = Table(  # what a cube's memories speak of: entities, and the tree of topics
    "nodes",
    metadata,
    Column("cube", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),  # entity | topic
    Column("name", String, nullable=False),
    Column("parent", String),  # a topic's topic
    Column("attributes", sa.JSON),
    Index("nodes_kind", "cube", "kind"),
)

edges = Table(  # typed links: memory → memory, memory → entity, memory → topic
    "edges",
    metadata,
    Column("cube", String, primary_key=True),
    Column("source", String, primary_key=True),  # a memory's id
    Column(
        "kind", String, primary_key=True
    ),  # mentions | part_of | follows | updates | derived_from | causes | supports
    Column("target", String, primary_key=True),  # a memory's or a node's id
    Column("weight", Float, nullable=False, default=1.0),
    Index("edges_target", "cube", "target"),
)

receipts = Table(  # what was erased as a whole, without a word of it
    "receipts",
    metadata,
    Column("id", String, primary_key=True),
    Column("cube", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("asked_at", Float, nullable=False),
    Column("done_at", Float),
    Column("counts", sa.JSON, nullable=False),
    Index("receipts_cube", "cube"),
)

embedders = Table(  # embedder id → the model's name, so that old vectors keep serving while new ones are made
    "embedders",
    metadata,
    Column("id", String, primary_key=True),
    Column("model", String, nullable=False),
)

turns = Table(
    "turns",
    metadata,
    Column("cube", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("session", String, nullable=False),
    Column("key", String, nullable=False),
    Column("position", String, nullable=False, default=""),  # hash of all that was said before, as the client resent it
    Column("tail", String, nullable=False, default=""),  # the position of the turn that follows this one
    Column("user_text", Text, nullable=False),
    Column("assistant_text", Text, nullable=False),
    Column("speaker", String, nullable=False, default=""),
    Column("model", String, nullable=False, default=""),
    Column("request_id", String, nullable=False, default=""),
    Column("said_at", Float, nullable=False),
    Column("answered_at", Float, nullable=False),
    Column("complete", Integer, nullable=False, default=1),
    Column("replaced", Integer, nullable=False, default=0),  # 1: the user edited it away
    Column("extracted", Integer, nullable=False, default=0),  # 0: waits for extraction
    Index("turns_key", "cube", "key", unique=True),
    Index("turns_tail", "cube", "tail"),
    Index("turns_session", "cube", "session", "said_at"),
    Index("turns_waiting", "extracted", "cube"),
)

memories = Table(
    "memories",
    metadata,
    Column("cube", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("text", Text, nullable=False),
    Column("answer", Text, nullable=False, default=""),
    Column("speaker", String, nullable=False, default=""),
    Column("entities", sa.JSON, nullable=False),
    Column("tags", sa.JSON, nullable=False),
    Column("status", String, nullable=False),
    Column("slot", String, nullable=False, default=""),
    Column("digest", String, nullable=False, default=""),  # of the normalised text: finds exact duplicates
    Column("event_time", Float),
    Column("event_end", Float),
    Column("message_time", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("valid_from", Float, nullable=False),
    Column("valid_to", Float),
    Column("supersedes", String),
    Column("sources", sa.JSON, nullable=False),
    Column("trust", String, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("importance", Float, nullable=False),
    Column("uses", Integer, nullable=False, default=0),
    Column("last_used_at", Float),
    Column("pinned", Integer, nullable=False, default=0),
    Column("attributes", sa.JSON),
    Column("rev", Integer, nullable=False),
    Index("memories_rev", "cube", "rev"),
    Index("memories_kind", "cube", "kind", "status"),
    Index("memories_digest", "cube", "digest"),
    Index("memories_slot", "cube", "slot"),
    Index("memories_pinned", "cube", sqlite_where=sa.text("pinned = 1"), postgresql_where=sa.text("pinned = 1")),
    Index(
        "memories_supersedes",
        "cube",
        "supersedes",
        sqlite_where=sa.text("supersedes IS NOT NULL"),
        postgresql_where=sa.text("supersedes IS NOT NULL"),
    ),
)

lineage = Table(  # which turn a memory was learned from; the same as memories.sources, to be asked from the other end
    "lineage",
    metadata,
    Column("cube", String, primary_key=True),
    Column("turn", String, primary_key=True),
    Column("memory", String, primary_key=True),
    Index("lineage_memory", "cube", "memory"),
)

vectors = Table(  # the embedding of every indexed piece, so that an index can be rebuilt without embedding again
    "vectors",
    metadata,
    Column("cube", String, primary_key=True),
    Column("piece", String, primary_key=True),
    Column("embedder", String, primary_key=True),
    Column("memory", String, nullable=False),
    Column("digest", String, nullable=False),  # of the embedded text
    Column("vector", LargeBinary, nullable=False),  # float32, little endian
    Column("late", LargeBinary),  # int8, (word pieces, width); null: the embedder has none
    Column("width", Integer, nullable=False, default=0, server_default="0"),
    Index("vectors_memory", "cube", "memory"),
)

history = Table(
    "history",
    metadata,
    Column("cube", String, primary_key=True),
    Column("memory", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("action", String, nullable=False),  # add | update | supersede | merge | archive | restore
    Column("before", sa.JSON),  # the changed fields as they were
)


adapters = Table(  # weights that were trained on a cube's memories: one row a version, also of those that are gone
    "adapters",
    metadata,
    Column("cube", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("state", String, nullable=False),  # building | ready | stale | dropped
    Column("model", String, nullable=False),  # SHA-256 of the GGUF file
    Column("samples", String, nullable=False),  # digest of what was learned
    Column("settings", sa.JSON, nullable=False),
    Column("results", sa.JSON, nullable=False),
    Column("sha256", String, nullable=False, default=""),
    Column("bytes", Integer, nullable=False, default=0),
    Column("why", String, nullable=False, default=""),  # it is stale or dropped
    Column("created_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
)

adapter_memories = Table(  # what a version rests on
    "adapter_memories",
    metadata,
    Column("cube", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("memory", String, primary_key=True),
    Column("digest", String, nullable=False),  # of the memory's text as it was read
    Column("rev", Integer, nullable=False),
    Index("adapter_memories_memory", "cube", "memory"),
)

adapter_use = Table(  # which cubes are answered for with an adapter; no row: none
    "adapter_use",
    metadata,
    Column("cube", String, primary_key=True),
    Column("wanted", Integer, nullable=False),  # 1: on
    Column("version", Integer),  # null: the newest that is ready
    Column("scale", Float, nullable=False, default=1.0),
    Column("changed_at", Float, nullable=False),
)


class DatabaseError(Exception):
    """The database refused or could not be reached; the message names the kind of fault and never a value."""


@dataclass(slots=True)
class _Waiting:
    work: Work[Any]
    long: bool
    again: bool = False  # it may be run once more, in a transaction of which nothing remained
    done: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Database:
    """One database: `sqlite+aiosqlite:///…` or `postgresql+psycopg://…`.

    `read()` gives a connection of its own; `write(work)` runs `work(connection)` inside a transaction that several
    writers may share (each behind its own savepoint), and returns after the commit. Raises DatabaseError, and what `permit`
    raises: it is asked first in every transaction that writes, whether this process still may. `gives_way`: on SQLite, where one
    process writes at a time, leave most of the time to the others.
    """

    def __init__(
        self,
        url: str,
        *,
        busy_timeout_s: float = 5.0,
        readers: int = 4,
        permit: Permit | None = None,
        gives_way: bool = False,
    ) -> None:
        self.url = url
        self._permit = permit
        self.sqlite = url.startswith("sqlite")
        self._engines: Sqlite | _Server = (
            Sqlite(url, busy_timeout_s=busy_timeout_s, readers=readers, gives_way=gives_way)
            if self.sqlite
            else _Server(url, readers)
        )
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._later: deque[_Waiting] = deque()
        self._loop: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def read(self, *, long: bool = False) -> AsyncIterator[AsyncConnection]:
        """A connection with a snapshot of its own; rolled back at the end. `long`: many rows are read, so on SQLite off the
        event loop."""
        try:
            async with self._engines.read(long=long) as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise DatabaseError(fault(error)) from error

    async def rows(self, statement: sa.Executable, **parameters: Any) -> Sequence[sa.Row[Any]]:
        """What one statement reads; the quickest way, when it was made once and is given its `parameters` here."""
        try:
            return await self._engines.rows(statement, parameters)
        except sa.exc.SQLAlchemyError as error:
            raise DatabaseError(fault(error)) from error

    async def write(self, work: Work[T], *, long: bool = False, later: bool = False, again: bool = False) -> T:
        """Run `work` in the next commit. When the caller is cancelled, the write still happens. `long`: many rows are written,
        so on SQLite off the event loop. `later`: it may wait half a second for a commit that comes anyway. `again`: it may be run
        twice, the first time for nothing, as another's fault may take it along; then it needs no savepoint of its own."""
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._write_loop(), name="sql writer")
        waiting = _Waiting(work, long, again)
        if not later:
            self._queue.put_nowait(waiting)
        else:
            self._later.append(waiting)
            if len(self._later) == 1:
                asyncio.get_running_loop().call_later(_LATER_S, self._hurry)
        return await asyncio.shield(waiting.done)

    def _hurry(self) -> None:
        """What could wait has waited long enough."""
        while self._later:
            self._queue.put_nowait(self._later.popleft())

    async def _write_loop(self) -> None:
        while True:
            first = await self._queue.get()
            group = [*self._later, first]
            self._later.clear()
            while len(group) < 256 and not self._queue.empty():
                group.append(self._queue.get_nowait())
            await self._commit(group)

    async def _commit(self, group: list[_Waiting]) -> None:
        outcomes: list[tuple[Any, Exception | None]] = []
        try:
            async with self._engines.write() as connection:
                if self._permit is not None:
                    await self._permit(connection(False))
                outcomes = await self._all(connection, group)
        except Exception as error:  # the group's edge: whatever failed belongs to those who wait
            outcomes = [(None, error)] * len(group)
        for waiting, (result, failure) in zip(group, outcomes, strict=True):
            if waiting.done.done():
                continue
            if failure is None:
                waiting.done.set_result(result)
            elif isinstance(failure, sa.exc.SQLAlchemyError):
                waiting.done.set_exception(DatabaseError(fault(failure)))
            else:
                waiting.done.set_exception(failure)
            waiting.done.add_done_callback(_retrieve)

    async def _all(
        self, connection: Callable[[bool], AsyncConnection], group: list[_Waiting]
    ) -> list[tuple[Any, Exception | None]]:
        if len(group) > 1 and all(waiting.again for waiting in group):
            try:
                async with connection(False).begin_nested():
                    return [(await waiting.work(connection(waiting.long)), None) for waiting in group]
            except RolledBack:
                raise
            except Exception:
                log.debug("a write of %d failed: each by itself", len(group))
        alone = len(group) == 1
        return [await self._one(connection(waiting.long), waiting, alone=alone) for waiting in group]

    @staticmethod
    async def _one(connection: AsyncConnection, waiting: _Waiting, *, alone: bool) -> tuple[Any, Exception | None]:
        if alone:  # no savepoint: a failure rolls the whole (single) transaction back
            return await waiting.work(connection), None
        try:
            async with connection.begin_nested():
                return await waiting.work(connection), None
        except RolledBack:  # what the others of the group have written is gone with it
            raise
        except Exception as error:  # one writer's fault must not take the group's other writes with it
            return None, error

    async def flush(self) -> None:
        """Wait until everything queued so far is committed."""

        async def nothing(_: AsyncConnection) -> None:
            return None

        await self.write(nothing)

    async def vacuum(self) -> bool:
        """Rewrite the database so that deleted rows leave no bytes behind. False: a reader held the log, try again.
        Raises DatabaseError."""
        try:
            return await self._engines.vacuum()
        except sa.exc.SQLAlchemyError as error:
            raise DatabaseError(fault(error)) from error

    async def close(self) -> None:
        """Commit what waits, then close every connection."""
        if self._loop is not None and not self._loop.done():
            with suppress(Exception):
                await asyncio.wait_for(self.flush(), 10)
            self._loop.cancel()
            with suppress(asyncio.CancelledError):
                await self._loop
        await self._engines.close()


class _Server:
    """A PostgreSQL server, which is far away: its driver waits for it without a thread."""

    def __init__(self, url: str, readers: int) -> None:
        self._reader, self._writer = (
            create_async_engine(url, pool_size=size, max_overflow=0, pool_timeout=30, hide_parameters=True)
            for size in (readers, 1)
        )

    @asynccontextmanager
    async def read(self, *, long: bool) -> AsyncIterator[AsyncConnection]:
        async with self._reader.connect() as connection:
            yield connection

    async def rows(self, statement: sa.Executable, parameters: Mapping[str, Any]) -> Sequence[sa.Row[Any]]:
        async with self._reader.connect() as connection:
            return (await connection.execute(statement, dict(parameters))).all()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Callable[[bool], AsyncConnection]]:
        async with self._writer.begin() as connection:
            yield lambda long: connection

    async def vacuum(self) -> bool:
        return True

    async def close(self) -> None:
        await self._writer.dispose()
        await self._reader.dispose()


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Mark a failure as seen even when its caller went away."""
    if not future.cancelled():
        future.exception()


def fault(error: BaseException) -> str:
    """A short name of a database fault that holds no value of any row."""
    text = str(getattr(error, "orig", error)).lower()
    for sign, name in (
        ("locked", "locked"),
        ("disk is full", "disk full"),
        ("no such table", "missing table"),
        ("malformed", "damaged"),
        ("not a database", "damaged"),
        ("unable to open", "cannot open"),
        ("readonly", "read only"),
        ("disk i/o", "disk error"),
    ):
        if sign in text:
            return name
    return type(getattr(error, "orig", None) or error).__name__
