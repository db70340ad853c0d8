"""Which adapters a cube has, what they rest on, and whether they may be used.

An adapter may be used while every memory under it is active and says what it said when it was read. That is asked at each use, so
a memory that changed is never answered for by weights that hold the old one: the version is then `stale`, until it is trained
anew. Of an erased memory nothing may be left in weights either: `withdraw` runs in the transaction that erases it.

Functions that take a connection run inside the caller's transaction; methods of Adapters open their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.sql import Database

BUILDING, READY, STALE, DROPPED = "building", "ready", "stale", "dropped"
STATES = (BUILDING, READY, STALE, DROPPED)
_KEPT = 2  # versions of a cube whose files stay: the newest, and the one before


@dataclass(frozen=True, slots=True)
class Adapter:
    """One version. `why`: of a dropped or stale one; `memories`: how many it rests on."""

    cube: str
    version: int
    state: str
    model: str
    samples: str
    settings: dict[str, Any]
    results: dict[str, Any]
    sha256: str
    bytes: int
    why: str
    created_at: float
    changed_at: float
    memories: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """What a cube's owner wants: adapters on or off, one version or the newest, and how strongly (0 to 2)."""

    on: bool = False
    version: int | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Used:
    """A memory as training read it: `digest` is that of its text."""

    id: str
    digest: str
    rev: int


async def withdraw(connection: AsyncConnection, cube: str, memories: Sequence[str], at: float) -> list[int]:
    """Drop every version that rests on one of these memories; their numbers. The files are the caller's to delete."""
    under = sql.adapter_memories
    here = (under.c.cube == cube, under.c.memory.in_(list(memories)))
    found = await connection.execute(sa.select(under.c.version).where(*here).distinct())
    versions = sorted(row[0] for row in found.all())
    await _drop(connection, cube, versions, "a memory was erased", at)
    return versions


async def _drop(connection: AsyncConnection, cube: str, versions: Sequence[int], why: str, at: float) -> None:
    table, under = sql.adapters, sql.adapter_memories
    if versions:
        here = (table.c.cube == cube, table.c.version.in_(list(versions)), table.c.state != DROPPED)
        await connection.execute(sa.update(table).where(*here).values(state=DROPPED, why=why, changed_at=at))
        rest = (under.c.cube == cube, under.c.version.in_(list(versions)))
        await connection.execute(sa.delete(under).where(*rest))


async def _changed(connection: AsyncConnection, cube: str, version: int) -> int:
    """How many of the memories under a version are not what they were."""
    under, table = sql.adapter_memories, sql.memories
    same = sa.and_(
        table.c.cube == under.c.cube,
        table.c.id == under.c.memory,
        table.c.digest == under.c.digest,
        table.c.status == "active",
    )
    query = sa.select(sa.func.count()).select_from(under.outerjoin(table, same))
    query = query.where(under.c.cube == cube, under.c.version == version, table.c.id.is_(None))
    return int((await connection.execute(query)).scalar_one())


class Adapters:
    """The tables of adapters and of what owners want."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def choice(self, cube: str) -> Choice:
        """What the cube's owner wants; off unless he said otherwise."""
        table = sql.adapter_use
        async with self._database.read() as connection:
            row = (await connection.execute(sa.select(table).where(table.c.cube == cube))).first()
        return Choice(bool(row.wanted), row.version, row.scale) if row else Choice()

    async def choose(self, cube: str, choice: Choice) -> None:
        """Write down what he wants."""
        table = sql.adapter_use

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(sa.delete(table).where(table.c.cube == cube))
            values = {"wanted": int(choice.on), "version": choice.version, "scale": choice.scale}
            await connection.execute(sa.insert(table).values(cube=cube, changed_at=self._clock(), **values))

        await self._database.write(work)

    async def wanting(self) -> list[str]:
        """The active cubes whose owners want adapters."""
        table, cubes = sql.adapter_use, sql.cubes
        query = sa.select(table.c.cube).join(cubes, cubes.c.id == table.c.cube)
        async with self._database.read() as connection:
            rows = await connection.execute(
                query.where(table.c.wanted == 1, cubes.c.status == "active").order_by(table.c.cube)
            )
        return [row[0] for row in rows.all()]

    async def cubes(self) -> list[str]:
        """Those that have a version whose file is wanted."""
        table = sql.adapters
        async with self._database.read() as connection:
            rows = await connection.execute(sa.select(table.c.cube).where(table.c.state != DROPPED).distinct())
        return [row[0] for row in rows.all()]

    async def every(self, cube: str) -> list[Adapter]:
        """All versions, the newest first."""
        async with self._database.read() as connection:
            return await _select(connection, cube)

    async def get(self, cube: str, version: int) -> Adapter | None:
        """One version."""
        async with self._database.read() as connection:
            return next(iter(await _select(connection, cube, sql.adapters.c.version == version)), None)

    async def rests_on(self, cube: str, version: int) -> dict[str, int]:
        """The ids of the memories under a version, each with the revision at which it was read."""
        under = sql.adapter_memories
        query = sa.select(under.c.memory, under.c.rev).where(under.c.cube == cube, under.c.version == version)
        async with self._database.read() as connection:
            return {row[0]: row[1] for row in (await connection.execute(query.order_by(under.c.memory))).all()}

    async def current(self, cube: str, model: str | None = None) -> Adapter | None:
        """The version to use now: the one that the owner chose or the newest that is ready, for this model, if what it rests on
        has not changed. None: there is none, or he wants none."""
        wanted = await self.choice(cube)
        if not wanted.on:
            return None
        table = sql.adapters
        where = [table.c.state == READY]
        where += [table.c.version == wanted.version] if wanted.version is not None else []
        where += [table.c.model == model] if model is not None else []
        async with self._database.read() as connection:
            found = next(iter(await _select(connection, cube, *where)), None)
            changed = await _changed(connection, cube, found.version) if found else 0
        if found is not None and changed:
            await self._outdated(cube, found.version)
            return None
        return found

    async def asked(self, cube: str) -> str:
        """The same as the engine is asked for it: `<version>@<scale>`; empty: none."""
        found = await self.current(cube)
        return f"{found.version}@{(await self.choice(cube)).scale:g}" if found else ""

    async def _outdated(self, cube: str, version: int) -> None:
        table = sql.adapters

        async def work(connection: AsyncConnection) -> None:
            if await _changed(connection, cube, version):
                here = (table.c.cube == cube, table.c.version == version, table.c.state == READY)
                values = {"state": STALE, "why": "a memory changed", "changed_at": self._clock()}
                await connection.execute(sa.update(table).where(*here).values(values))

        await self._database.write(work)

    async def begin(
        self, cube: str, *, model: str, samples: str, settings: Mapping[str, Any], memories: Sequence[Used]
    ) -> int:
        """A new version that is being built; one that was left unfinished is dropped. Returns its number."""
        table, under = sql.adapters, sql.adapter_memories

        async def work(connection: AsyncConnection) -> int:
            every = await _select(connection, cube)
            left = [one.version for one in every if one.state == BUILDING]
            await _drop(connection, cube, left, "not finished", self._clock())
            version = max((one.version for one in every), default=0) + 1
            row = {"cube": cube, "version": version, "state": BUILDING, "model": model, "samples": samples}
            row |= {"settings": dict(settings), "results": {}, "sha256": "", "bytes": 0, "why": ""}
            await connection.execute(sa.insert(table).values(**row, created_at=self._clock(), changed_at=self._clock()))
            rows = [
                {"cube": cube, "version": version, "memory": m.id, "digest": m.digest, "rev": m.rev} for m in memories
            ]
            if rows:
                await connection.execute(sa.insert(under), rows)
            return version

        return await self._database.write(work)

    async def building(self, cube: str, version: int) -> bool:
        """Whether a version is still wanted: not dropped, its cube not erased, its memories as they were."""
        async with self._database.read() as connection:
            found = await _select(connection, cube, sql.adapters.c.version == version)
            return bool(found) and found[0].state == BUILDING and not await _changed(connection, cube, version)

    async def finish(self, cube: str, version: int, *, sha256: str, size: int, results: Mapping[str, Any]) -> bool:
        """Say that a version is ready, and drop all but the newest ones. False: meanwhile it is not wanted any more."""
        table = sql.adapters

        async def work(connection: AsyncConnection) -> bool:
            every = await _select(connection, cube)
            here = next((one for one in every if one.version == version), None)
            if here is None or here.state != BUILDING:
                return False
            if await _changed(connection, cube, version):
                await _drop(connection, cube, [version], "a memory changed", self._clock())
                return False
            values = {"state": READY, "sha256": sha256, "bytes": size, "results": dict(results)}
            one = (table.c.cube == cube, table.c.version == version)
            await connection.execute(sa.update(table).where(*one).values(**values, changed_at=self._clock()))
            older = [one.version for one in every if one.state in (READY, STALE)][_KEPT - 1 :]
            await _drop(connection, cube, older, "replaced", self._clock())
            return True

        return await self._database.write(work)

    async def drop(self, cube: str, version: int | None, why: str) -> list[int]:
        """Drop one version, or with None all; returns those that were not dropped already."""

        async def work(connection: AsyncConnection) -> list[int]:
            every = [one.version for one in await _select(connection, cube) if one.state != DROPPED]
            gone = [number for number in every if version in (None, number)]
            await _drop(connection, cube, gone, why, self._clock())
            return gone

        return await self._database.write(work)

    async def standing(self, cube: str) -> list[int]:
        """The versions whose files are wanted."""
        return [one.version for one in await self.every(cube) if one.state != DROPPED]


async def _select(connection: AsyncConnection, cube: str, *where: sa.ColumnElement[bool]) -> list[Adapter]:
    table, under = sql.adapters, sql.adapter_memories
    number = (
        sa.select(sa.func.count())
        .where(under.c.cube == table.c.cube, under.c.version == table.c.version)
        .correlate(table)
        .scalar_subquery()
        .label("memories")
    )
    query = sa.select(table, number).where(table.c.cube == cube, *where).order_by(table.c.version.desc())
    return [Adapter(**row._mapping) for row in (await connection.execute(query)).all()]
