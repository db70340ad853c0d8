"""Cubes: one owner's container of memory, its life (active, archived, erased), and the revision counter that everything
fresh hangs on.

Every write to a cube's memories takes the next revision and stamps its rows with it. Whoever holds a copy asks for what is
newer than the revision he knows; the index says up to which revision it is complete. So a reader in any process sees a
write as soon as it is committed, indexed or not. A cube's row is never deleted, because revisions and generations must not
be used twice: of an erased one it holds nothing but these.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.grants import ACTIVE, ARCHIVED, ERASED, CubeRefused, Level, standing
from memory.prepared import made_once
from memory.sql import Database


@dataclass(frozen=True, slots=True)
class Cube:
    """A cube's manifest row."""

    id: str
    owner: str
    name: str
    created_at: float
    rev: int
    generation: int
    indexed_rev: int
    indexed_rows: int
    embedder: str  # whose vectors the LanceDB table holds; empty: there is no table
    status: str = ACTIVE  # active | archived | erased
    archived_at: float | None = None
    quota: int | None = None  # memories that may be active
    ttl_s: float | None = None  # memories unused for so long are archived
    reflected_rev: int = 0
    linked_rev: int = 0


_GET = sa.select(sql.cubes).where(sql.cubes.c.id == sa.bindparam("id"))

_NEXT_REV = made_once(
    sa.update(sql.cubes)
    .where(sql.cubes.c.id == sa.bindparam("cube"))
    .values(rev=sql.cubes.c.rev + 1)
    .returning(sql.cubes.c.rev)
)


class Cubes:
    """The table of cubes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, cube: str) -> Cube | None:
        """The cube, or None."""
        rows = await self._database.rows(_GET, id=cube)
        return Cube(**rows[0]._mapping) if rows else None

    async def every(self, owner: str | None = None) -> list[Cube]:
        """All cubes that are not erased, or one owner's."""
        query = sa.select(sql.cubes).where(sql.cubes.c.status != ERASED)
        query = query.order_by(sql.cubes.c.created_at, sql.cubes.c.id)
        if owner is not None:
            query = query.where(sql.cubes.c.owner == owner)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [Cube(**row._mapping) for row in rows]

    async def usable(self, principal: str, *, after: str | None = None, limit: int = 100) -> list[tuple[Cube, Level]]:
        """The cubes that the principal owns or was granted, oldest first; `after` is the last one of the page before."""
        cubes, grants = sql.cubes, sql.grants
        granted = sa.and_(grants.c.cube == cubes.c.id, grants.c.principal == principal)
        query = (
            sa.select(cubes, grants.c.level)
            .select_from(cubes.outerjoin(grants, granted))
            .where(sa.or_(cubes.c.owner == principal, grants.c.level.is_not(None)), cubes.c.status != ERASED)
            .order_by(cubes.c.created_at, cubes.c.id)
            .limit(limit)
        )
        if after is not None:
            last = cubes.alias()
            since = sa.select(last.c.created_at).where(last.c.id == after).scalar_subquery()
            query = query.where(
                sa.or_(cubes.c.created_at > since, sa.and_(cubes.c.created_at == since, cubes.c.id > after))
            )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        found = [(Cube(*row[:-1]), row.level) for row in rows]
        return [(info, Level.OWNER if info.owner == principal else Level(level)) for info, level in found]

    async def set_index(self, cube: str, *, generation: int, rev: int, rows: int, embedder: str) -> None:
        """Say which LanceDB table is current and up to which revision it is complete: the moment an index change counts."""

        async def work(connection: AsyncConnection) -> None:
            values = {"generation": generation, "indexed_rev": rev, "indexed_rows": rows, "embedder": embedder}
            await connection.execute(sa.update(sql.cubes).where(sql.cubes.c.id == cube).values(**values))

        await self._database.write(work)

    async def create(self, info: Cube) -> None:
        """A new, empty cube."""

        async def work(connection: AsyncConnection) -> None:
            await _insert(connection, info)

        await self._database.write(work)

    async def change(self, cube: str, values: dict[str, Any]) -> Cube | None:
        """Set some of name, quota, ttl_s, status and archived_at. None: no such cube."""
        here = (sql.cubes.c.id == cube, sql.cubes.c.status != ERASED)
        if not values:
            found = await self.get(cube)
            return found if found is not None and found.status != ERASED else None

        async def work(connection: AsyncConnection) -> Cube | None:
            changed = sa.update(sql.cubes).where(*here).values(**values).returning(sql.cubes)
            row = (await connection.execute(changed)).first()
            return Cube(**row._mapping) if row else None

        return await self._database.write(work)

    async def archive(self, cube: str, owner: str, at: float) -> bool:
        """Archive a cube of this owner. False: it is not his, or not active."""
        here = (sql.cubes.c.id == cube, sql.cubes.c.owner == owner, sql.cubes.c.status == ACTIVE)

        async def work(connection: AsyncConnection) -> bool:
            changed = sa.update(sql.cubes).where(*here).values(status=ARCHIVED, archived_at=at)
            return (await connection.execute(changed)).rowcount > 0

        return await self._database.write(work)

    async def close(self, cube: str) -> bool:
        """Say that an archived cube has no table any more; the next one takes a new generation. False: it is not archived."""
        here = (sql.cubes.c.id == cube, sql.cubes.c.status == ARCHIVED)

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(sa.update(sql.cubes).where(*here).values(**NO_TABLE))).rowcount > 0

        return await self._database.write(work)

    async def counts(self, cubes: Collection[str]) -> dict[str, dict[str, int]]:
        """Cube → kind → how many active memories."""
        table = sql.memories
        query = (
            sa.select(table.c.cube, table.c.kind, sa.func.count())
            .where(table.c.cube.in_(cubes), table.c.status == "active")
            .group_by(table.c.cube, table.c.kind)
        )
        found: dict[str, dict[str, int]] = {cube: {} for cube in cubes}
        async with self._database.read() as connection:
            for cube, kind, number in (await connection.execute(query)).all():
                found[cube][kind] = number
        return found

    async def size(self, cube: str) -> int:
        """About how many bytes a cube takes in the database: its texts and vectors."""
        texts = sa.func.sum(sa.func.length(sql.memories.c.text) + sa.func.length(sql.memories.c.answer))
        said = sa.func.sum(sa.func.length(sql.turns.c.user_text) + sa.func.length(sql.turns.c.assistant_text))
        meant = sa.func.sum(sa.func.length(sql.vectors.c.vector))
        total = 0
        async with self._database.read() as connection:
            for summed, table in ((texts, sql.memories), (said, sql.turns), (meant, sql.vectors)):
                row = await connection.execute(sa.select(summed).where(table.c.cube == cube))
                total += int(row.scalar_one() or 0)
        return total


# what a cube's row says when its table is gone: a generation that nobody has built, and no one's vectors
NO_TABLE: dict[str, Any] = {
    "generation": sql.cubes.c.generation + 1,
    "indexed_rev": 0,
    "indexed_rows": 0,
    "embedder": "",
}


async def ensure(
    connection: AsyncConnection, cube: str, owner: str, name: str, at: float, *, make: bool = True
) -> None:
    """See to it that `owner` may write into the cube, in the transaction in which he does: he owns it, or was granted writing
    and still is. A cube that is not there (or was erased) is made, unless `make` is false. Raises CubeRefused."""
    known = await standing(connection, cube, owner)
    if known is None:
        row = (await connection.execute(sa.select(sql.cubes).where(sql.cubes.c.id == cube))).first()
        if row is not None and row.owner != owner:
            raise CubeRefused("not granted")
        if not make:
            raise CubeRefused("unknown")
        if row is None:
            await _insert(connection, Cube(cube, owner, name, at, 0, 0, 0, 0, ""))
        else:
            await connection.execute(sa.update(sql.cubes).where(sql.cubes.c.id == cube).values(status=ACTIVE))
    elif not known.writes:
        raise CubeRefused("not granted")
    elif known.status != ACTIVE:
        raise CubeRefused("archived")


async def _insert(connection: AsyncConnection, info: Cube) -> None:
    await connection.execute(sa.insert(sql.cubes).values({name: getattr(info, name) for name in Cube.__slots__}))


async def next_rev(connection: AsyncConnection, cube: str) -> int:
    """Take the cube's next revision. Holds the row until the commit, so revisions become visible in their order."""
    row = (await connection.execute(_NEXT_REV, {"cube": cube})).first()
    if row is None:
        raise LookupError("no such cube")
    return int(row[0])
