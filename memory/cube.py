"""Cubes: one owner's container of memory, and the revision counter that everything fresh hangs on.

Every write to a cube's memories takes the next revision and stamps its rows with it. Whoever holds a copy asks for what is
newer than the revision he knows; the index says up to which revision it is complete. So a reader in any process sees a
write as soon as it is committed, indexed or not.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
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
    embedder: str
    status: str = "active"  # active | archived
    archived_at: float | None = None
    quota: int | None = None  # memories that may be active
    ttl_s: float | None = None  # memories unused for so long are archived
    reflected_rev: int = 0
    linked_rev: int = 0


class Cubes:
    """The table of cubes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, cube: str) -> Cube | None:
        """The cube, or None."""
        async with self._database.read() as connection:
            row = (await connection.execute(sa.select(sql.cubes).where(sql.cubes.c.id == cube))).first()
        return Cube(**row._mapping) if row else None

    async def every(self, owner: str | None = None) -> list[Cube]:
        """All cubes, or one owner's."""
        query = sa.select(sql.cubes).order_by(sql.cubes.c.created_at, sql.cubes.c.id)
        if owner is not None:
            query = query.where(sql.cubes.c.owner == owner)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [Cube(**row._mapping) for row in rows]

    async def set_index(self, cube: str, *, generation: int, rev: int, rows: int, embedder: str) -> None:
        """Say which LanceDB table is current and up to which revision it is complete: the moment an index change counts."""

        async def work(connection: AsyncConnection) -> None:
            values = {"generation": generation, "indexed_rev": rev, "indexed_rows": rows, "embedder": embedder}
            await connection.execute(sa.update(sql.cubes).where(sql.cubes.c.id == cube).values(**values))

        await self._database.write(work)


async def ensure(connection: AsyncConnection, cube: str, owner: str, name: str, at: float) -> None:
    """Make the cube's row if it is not there yet."""
    known = (await connection.execute(sa.select(sql.cubes.c.id).where(sql.cubes.c.id == cube))).first()
    if known is None:
        row = {"id": cube, "owner": owner, "name": name, "created_at": at, "rev": 0, "generation": 0}
        await connection.execute(sa.insert(sql.cubes).values(**row, indexed_rev=0, indexed_rows=0, embedder=""))


async def next_rev(connection: AsyncConnection, cube: str) -> int:
    """Take the cube's next revision. Holds the row until the commit, so revisions become visible in their order."""
    statement = sa.update(sql.cubes).where(sql.cubes.c.id == cube).values(rev=sql.cubes.c.rev + 1)
    row = (await connection.execute(statement.returning(sql.cubes.c.rev))).first()
    if row is None:
        raise LookupError("no such cube")
    return int(row[0])
