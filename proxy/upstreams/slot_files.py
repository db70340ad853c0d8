"""The table `slot_files`: which states of which cube lie with a llama-server, by the names it knows them under.

The folder is the server's own, and it neither lists nor deletes. So each cube has a few names that are written over again and
again, and a row for each file outlives its cube until the file is overwritten: it holds ids and numbers, nobody's words.

Slots are known to the process that fills them, and another one may forget their cube. So how often a cube was forgotten is written
down beside its files, and what was filled before the last time is not saved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory.sql import Database
from proxy import db

_FORGOTTEN = "forgotten"  # the sort of the row that counts how often a cube was forgotten; its `uses`
NAMES = {"prefix": 3, "session": 4}  # of each cube and upstream


@dataclass(frozen=True, slots=True)
class SlotFile:
    """One file. `key`: what it was computed from (for a session its id), so that it is found again. Times are seconds since the
    epoch."""

    name: str
    owner: str
    sort: str
    key: str
    tokens: int
    bytes: int
    created: float
    used_at: float
    uses: int = 0


class SlotFiles:
    """The files at one upstream. Every method raises DatabaseError."""

    def __init__(self, database: Database, upstream: str, clock: Callable[[], float]) -> None:
        self._database = database
        self._upstream = upstream
        self._clock = clock

    async def find(self, cube: str, sort: str, key: str) -> SlotFile | None:
        """The cube's file that was computed from this."""
        return next((file for file in await self.of(cube) if (file.sort, file.key) == (sort, key)), None)

    async def of(self, cube: str) -> list[SlotFile]:
        """Those of a cube, last used first."""
        return await self._select(db.slot_files.c.owner == cube)

    async def every(self) -> list[SlotFile]:
        """Those of all cubes, last used first."""
        return await self._select()

    async def name(self, cube: str, sort: str, key: str) -> str:
        """Under which name to write: its own, a free one, or that of the cube's which was not used for longest."""
        there = [file for file in await self.of(cube) if file.sort == sort]
        own = next((file.name for file in there if file.key == key), "")
        stem = hashlib.sha256(f"{self._upstream}\0{cube}".encode()).hexdigest()[:24]
        free = {f"memrelay-{stem}-{sort}-{n}.kv" for n in range(NAMES[sort])} - {file.name for file in there}
        return own or min(free, default="") or there[-1].name

    async def keep(self, file: SlotFile, mark: int) -> bool:
        """Write down what lies under a name now; False, and no row, when the cube was forgotten since `mark`."""
        table = db.slot_files
        values = {name: getattr(file, name) for name in SlotFile.__slots__}

        async def work(connection: AsyncConnection) -> bool:
            await connection.execute(sa.delete(table).where(*self._named(file.name)))
            if await self._mark(connection, file.owner) != mark:
                return False
            await connection.execute(sa.insert(table).values(upstream=self._upstream, **values))
            return True

        return await self._database.write(work)

    async def mark(self, cube: str) -> int:
        """How often the cube was forgotten."""
        async with self._database.read() as connection:
            return await self._mark(connection, cube)

    async def forgotten(self, cube: str) -> None:
        """Count that the cube is forgotten: what was computed before is not kept any more."""
        table, name = db.slot_files, f"{_FORGOTTEN} {cube}"

        async def work(connection: AsyncConnection) -> None:
            more = sa.update(table).where(*self._named(name)).values(uses=table.c.uses + 1)
            if not (await connection.execute(more)).rowcount:
                now = self._clock()
                row = SlotFile(name, cube, _FORGOTTEN, "", 0, 0, created=now, used_at=now, uses=1)
                values = {field: getattr(row, field) for field in SlotFile.__slots__}
                await connection.execute(sa.insert(table).values(upstream=self._upstream, **values))

        await self._database.write(work)

    async def _mark(self, connection: AsyncConnection, cube: str) -> int:
        query = sa.select(db.slot_files.c.uses).where(*self._named(f"{_FORGOTTEN} {cube}"))
        return int((await connection.execute(query)).scalar_one_or_none() or 0)

    async def used(self, name: str) -> None:
        """Note a use."""
        table = db.slot_files
        now = {"uses": table.c.uses + 1, "used_at": self._clock()}
        await self._database.write(lambda c: c.execute(sa.update(table).where(*self._named(name)).values(now)))

    async def drop(self, name: str) -> None:
        """Nothing lies under this name any more."""
        await self._database.write(lambda c: c.execute(sa.delete(db.slot_files).where(*self._named(name))))

    def _named(self, name: str) -> tuple[sa.ColumnElement[bool], ...]:
        return db.slot_files.c.upstream == self._upstream, db.slot_files.c.name == name

    async def _select(self, *where: sa.ColumnElement[bool]) -> list[SlotFile]:
        table = db.slot_files
        query = sa.select(*(table.c[name] for name in SlotFile.__slots__)).where(
            table.c.upstream == self._upstream, table.c.sort != _FORGOTTEN, *where
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query.order_by(table.c.used_at.desc(), table.c.name))).all()
        return [SlotFile(**row._mapping) for row in rows]
