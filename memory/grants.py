"""Who may use a cube: its owner, and those to whom the owner granted reading or writing.

Nothing here is ever cached: each request, and each write in its own transaction, asks SQL, so a revoked grant ends with the
next of either in every process. Knows principals as ids only, and nothing of keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.prepared import made_once
from memory.sql import Database

ACTIVE, ARCHIVED, ERASED = "active", "archived", "erased"  # a cube's status


class Level(StrEnum):
    """What a principal may do with a cube; each includes the ones before it."""

    READ = "read"
    WRITE = "write"
    OWNER = "owner"


class CubeRefused(Exception):
    """A cube that may not be written: `reason` is unknown, archived, erased or not granted."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the cube cannot be used: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Grant:
    """One principal's right to use another's cube."""

    cube: str
    principal: str
    level: Level
    granted_at: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How a principal stands to a cube that he may use."""

    level: Level
    status: str  # active | archived

    @property
    def writes(self) -> bool:
        """Whether he may write into it (when it is active)."""
        return self.level is not Level.READ


_CUBE: sa.BindParameter[str] = sa.bindparam("cube")
_MINE = sql.grants.c.principal == sa.bindparam("principal")
_STANDING = made_once(
    sa.select(sql.cubes.c.owner, sql.cubes.c.status, sql.grants.c.level)
    .select_from(sql.cubes.outerjoin(sql.grants, sa.and_(sql.grants.c.cube == sql.cubes.c.id, _MINE)))
    .where(sql.cubes.c.id == _CUBE, sql.cubes.c.status != ERASED)
)


class Grants:
    """The table of grants."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def standing(self, cube: str, principal: str) -> Standing | None:
        """None: there is no such cube, or it is none of his."""
        return _standing(await self._database.rows(_STANDING, cube=cube, principal=principal), principal)

    async def give(self, cube: str, principal: str, level: Level) -> Grant:
        """Let the principal use the cube; what he was granted before is replaced."""
        grant = Grant(cube, principal, level, self._clock())
        table = sql.grants

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(sa.delete(table).where(table.c.cube == cube, table.c.principal == principal))
            values: dict[str, Any] = {"cube": cube, "principal": principal, "granted_at": grant.granted_at}
            await connection.execute(sa.insert(table).values(**values, level=level.value))

        await self._database.write(work)
        return grant

    async def take(self, cube: str, principal: str) -> bool:
        """End a grant. False: there was none."""
        table = sql.grants

        async def work(connection: AsyncConnection) -> bool:
            here = (table.c.cube == cube, table.c.principal == principal)
            return (await connection.execute(sa.delete(table).where(*here))).rowcount > 0

        return await self._database.write(work)

    async def of(self, cube: str) -> list[Grant]:
        """Everyone who was granted the cube, oldest grant first."""
        return await self._select(sql.grants.c.cube == cube)

    async def to(self, principal: str) -> list[Grant]:
        """Everything that the principal was granted, oldest grant first."""
        return await self._select(sql.grants.c.principal == principal)

    async def _select(self, where: sa.ColumnElement[bool]) -> list[Grant]:
        table = sql.grants
        query = sa.select(table).where(where).order_by(table.c.granted_at, table.c.cube, table.c.principal)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [Grant(row.cube, row.principal, Level(row.level), row.granted_at) for row in rows]


async def standing(connection: AsyncConnection, cube: str, principal: str) -> Standing | None:
    """The same inside the caller's transaction."""
    found = await connection.execute(_STANDING, {"cube": cube, "principal": principal})
    return _standing(found.all(), principal)


def _standing(rows: Sequence[Any], principal: str) -> Standing | None:
    if not rows:
        return None
    owner, status, level = rows[0]
    if owner != principal and level is None:
        return None
    return Standing(Level.OWNER if owner == principal else Level(level), status)
