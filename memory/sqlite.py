"""SQLite without detours: a statement runs where it is asked for, in the event loop's own thread, as it takes less time there than
handing it to another thread and back would (docs/LOG.md). What may take long does not: reads marked `long` are aiosqlite's, as is
vacuuming; beginning to write waits for other processes, a commit for the disk, and writes marked `long` take a thread of their own.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from memory.prepared import Prepared, driver

T = TypeVar("T")
_RESTS = 6  # times as long as it wrote does one rest who gives way
_REST_S = 0.2  # at most
_LOOK_S = 0.0005  # between two attempts to begin to write


class RolledBack(sa.exc.SQLAlchemyError):
    """SQLite has given up a whole transaction, not only the statement that failed: the disk is full, say."""


class Connection:
    """As much of SQLAlchemy's AsyncConnection as statements of ours need. `threads`: where they run, None: right here."""

    def __init__(self, inner: sa.Connection, prepared: Prepared, threads: ThreadPoolExecutor | None = None) -> None:
        self._inner = inner
        self._prepared = prepared
        self._threads = threads
        self._nesting = 0

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        """As AsyncConnection.execute."""
        if self._threads is None and isinstance(parameters, dict) and "made_once" in statement.get_execution_options():
            return self._prepared.run(self._inner, statement, parameters)
        return await self._run(lambda: self._inner.execute(statement, parameters))

    async def exec_driver_sql(self, statement: str) -> Any:
        """As AsyncConnection.exec_driver_sql."""
        return await self._run(lambda: self._inner.exec_driver_sql(statement))

    async def _tell(self, text: str) -> None:
        if self._threads is None:
            driver(self._inner, text)
        else:
            await asyncio.get_running_loop().run_in_executor(self._threads, driver, self._inner, text)

    async def _run(self, ask: Callable[[], sa.CursorResult[Any]]) -> Any:
        if self._threads is None:
            return ask()
        return await asyncio.get_running_loop().run_in_executor(self._threads, _whole, ask)

    def begin_nested(self) -> AbstractAsyncContextManager[None]:
        """As AsyncConnection.begin_nested. Raises RolledBack when nothing is left to go back to."""
        return self._nested()

    @asynccontextmanager
    async def _nested(self) -> AsyncIterator[None]:
        self._nesting += 1
        name = f"part_{self._nesting}"
        await self._tell(f"SAVEPOINT {name}")
        try:
            yield
        except BaseException as error:
            if not self._stands():
                raise RolledBack(str(getattr(error, "orig", error))) from error
            await self._tell(f"ROLLBACK TO {name}")
            await self._tell(f"RELEASE {name}")
            raise
        else:
            await self._tell(f"RELEASE {name}")
        finally:
            self._nesting -= 1

    def _stands(self) -> bool:
        """Whether the transaction is still there."""
        raw = self._inner.connection.dbapi_connection
        return raw is not None and bool(raw.in_transaction)


class Sqlite:
    """One database file, for a Database (memory/sql.py) that owns it. `gives_way`: while other processes write, too, leave most of
    the time to them. Raises SQLAlchemy's errors."""

    def __init__(self, url: str, *, busy_timeout_s: float, readers: int, gives_way: bool = False) -> None:
        self._reader = _engine(url, busy_timeout_s, begin="BEGIN", size=readers)
        self._long_reader = _async_engine(url, busy_timeout_s, size=readers)
        self._writer = _engine(url, 0, begin=None, size=1)
        self._busy_timeout_s = busy_timeout_s
        self._gives_way = gives_way
        self._version = 0
        self._rests_until = 0.0
        self._single: sa.Connection | None = None
        self._writes: sa.Connection | None = None
        self._prepared = Prepared()
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="sqlite-write")

    @asynccontextmanager
    async def read(self, *, long: bool) -> AsyncIterator[AsyncConnection]:
        """A connection with a snapshot of its own."""
        if long:
            async with self._long_reader.connect() as connection:
                yield connection
        else:
            with self._reader.connect() as inline:
                yield self._as_async(inline, None)

    async def rows(self, statement: sa.Executable, parameters: Mapping[str, Any]) -> Sequence[sa.Row[Any]]:
        """What one statement reads. Its connection is kept, and sees at each statement what is committed then."""
        if self._single is None:
            self._single = self._reader.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            return self._prepared.rows(self._single, statement, parameters)
        except sa.exc.SQLAlchemyError:
            single, self._single = self._single, None
            single.close()
            raise

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Callable[[bool], AsyncConnection]]:
        """A transaction, committed durably at the end; gives its connection, which is kept, for short or (True) long work."""
        if self._writes is None:
            self._writes = await self._in_thread(self._writer.connect)
        connection = self._writes
        await asyncio.sleep(max(0.0, self._rests_until - time.monotonic()))
        try:
            if not _begins(connection):  # another process writes
                await self._in_thread(lambda: _begin_soon(connection, self._busy_timeout_s))
            began = time.monotonic()
            yield lambda long: self._as_async(connection, self._writing if long else None)
            await self._in_thread(lambda: driver(connection, "COMMIT"))
            if self._gives_way and self._others_wrote(connection):
                now = time.monotonic()
                self._rests_until = now + min(_RESTS * (now - began), _REST_S)
        except BaseException:
            self._writes = None
            await self._in_thread(lambda: _dropped(connection))
            raise

    def _others_wrote(self, connection: sa.Connection) -> bool:
        """Whether other processes have written since this was last asked."""
        ((version,),) = driver(connection, "PRAGMA data_version")[1]
        before, self._version = self._version, int(version)
        return before != self._version

    async def vacuum(self) -> bool:
        """See Database.vacuum."""
        async with self._long_reader.connect() as plain:
            connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
            await connection.exec_driver_sql("VACUUM")
            row = (await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")).one()
            return int(row[0]) == 0

    async def close(self) -> None:
        """Close every connection."""
        if self._single is not None:
            self._single.close()
            self._single = None
        await self._long_reader.dispose()
        if self._writes is not None:
            await self._in_thread(self._writes.close)
            self._writes = None
        for engine in (self._writer, self._reader):
            await self._in_thread(engine.dispose)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._writing, work))

    def _as_async(self, connection: sa.Connection, threads: ThreadPoolExecutor | None) -> AsyncConnection:
        return cast(AsyncConnection, Connection(connection, self._prepared, threads))


def _begins(connection: sa.Connection) -> bool:
    """Begin to write, unless another process is writing."""
    try:
        driver(connection, "BEGIN IMMEDIATE")
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            return False
        raise
    return True


def _begin_soon(connection: sa.Connection, within_s: float) -> None:
    """Begin to write as soon as it can be had. SQLite itself would look again after 1, 2, 5, 10, 15 ms and so on: a lock that is
    held for 3 ms would cost 8. Blocking; raises OperationalError when it cannot be had in time."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        time.sleep(_LOOK_S)
        if _begins(connection):
            return
    driver(connection, "BEGIN IMMEDIATE")


def _dropped(connection: sa.Connection) -> None:
    """Give up a connection, and with it what it has not committed."""
    connection.detach()
    connection.close()


def _whole(ask: Callable[[], sa.CursorResult[Any]]) -> Any:
    """The result with all its rows, so that reading them asks nothing more of SQLite."""
    result = ask()
    return result.freeze()() if result.returns_rows else result


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:  # NaN and the like, which the standard library has written
        return json.loads(text)


def _engine(url: str, busy_timeout_s: float, *, begin: str | None, size: int) -> sa.Engine:
    # no upper bound: who waits for a connection in the event loop's thread would wait for itself
    engine = sa.create_engine(
        url.replace("+aiosqlite", ""),
        json_deserializer=_json,
        pool_size=size,
        max_overflow=-1,
        hide_parameters=True,
    )
    _listen(engine, busy_timeout_s, begin)
    return engine


def _async_engine(url: str, busy_timeout_s: float, *, size: int) -> AsyncEngine:
    engine = create_async_engine(
        url, json_deserializer=_json, pool_size=size, max_overflow=0, pool_timeout=30, hide_parameters=True
    )
    _listen(engine.sync_engine, busy_timeout_s, "BEGIN")
    return engine


def _listen(engine: sa.Engine, busy_timeout_s: float, begin: str | None) -> None:
    pragmas = {
        "journal_mode": "WAL",
        "synchronous": "FULL",
        "busy_timeout": int(busy_timeout_s * 1000),
        "foreign_keys": "ON",
        "secure_delete": "ON",
        "temp_store": "MEMORY",  # what a savepoint goes back to: else a file, and a write for each page
    }

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        cursor = connection.cursor()
        try:
            for name, value in pragmas.items():
                cursor.execute(f"PRAGMA {name}={value}")
        except Exception:  # not a database: the pool would let go of the connection without closing it
            connection.close()
            raise
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        if begin is not None and connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql(begin)
