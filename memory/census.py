"""How many memories of a cube there are, and what they take: counted in SQL, no text is read. Nothing here writes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from memory import sql
from memory.index import INDEXED
from memory.memories import Change
from memory.sql import Database
from memory.types import Status

_SOME = 500  # ids in one query


@dataclass(frozen=True, slots=True)
class Count:
    """So many memories, and about how many bytes their texts and vectors take."""

    items: int = 0
    bytes: int = 0


class Census:
    """Counts the memories of a cube."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def indexed(self, cube: str) -> Count:
        """Those that retrieval may find: active ones, and superseded ones, which answer for the past."""
        return await self._count(cube, [status.value for status in INDEXED])

    async def archived(self, cube: str) -> Count:
        """Those that are out of retrieval."""
        return await self._count(cube, [Status.ARCHIVED.value])

    async def _count(self, cube: str, statuses: Collection[str]) -> Count:
        table, vectors = sql.memories, sql.vectors
        here = sa.and_(table.c.cube == cube, table.c.status.in_(statuses))
        texts = sa.func.length(table.c.text) + sa.func.length(table.c.answer)
        meant = sa.func.length(vectors.c.vector) + sa.func.coalesce(sa.func.length(vectors.c.late), 0)
        of_these = sa.and_(vectors.c.cube == table.c.cube, vectors.c.memory == table.c.id)
        async with self._database.read(long=True) as connection:
            said = (await connection.execute(sa.select(sa.func.count(), sa.func.sum(texts)).where(here))).one()
            joined = sa.select(sa.func.sum(meant)).select_from(table.join(vectors, of_these)).where(here)
            held = (await connection.execute(joined)).scalar_one()
        return Count(int(said[0]), int(said[1] or 0) + int(held or 0))

    async def put_away(self, cube: str, ids: Collection[str]) -> dict[str, Change]:
        """Memory → the last change of it before which it was active: for an archived one, its archiving."""
        table, wanted = sql.history, list(ids)
        found: dict[str, Change] = {}
        async with self._database.read(long=True) as connection:
            for start in range(0, len(wanted), _SOME):
                here = (table.c.cube == cube, table.c.memory.in_(wanted[start : start + _SOME]))
                rows = (await connection.execute(sa.select(table).where(*here).order_by(table.c.version))).all()
                for row in rows:
                    if row.action != "cite" and row.before.get("status") == Status.ACTIVE.value:
                        found[row.memory] = Change(row.version, row.at, row.action, row.before)
        return found
