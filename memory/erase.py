"""Erasing all of a cube: in SQL at once and in one transaction, and a receipt that says so without a word of what it was.

What is left is the cube's row with its counters, so that revisions and generations are not used twice, and the receipt. The
index and the bytes that SQL leaves in its files are a job's work, which then signs the receipt; until then it is pending.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.cube import NO_TABLE
from memory.grants import ERASED
from memory.sql import Database

_NAMELESS: dict[str, Any] = {"status": ERASED, "name": "", "quota": None, "ttl_s": None, "archived_at": None}


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was erased: table → rows, and kv_states. `done_at`: when no byte of it was left in any file, None while that is
    being done."""

    id: str
    cube: str
    owner: str
    asked_at: float
    counts: dict[str, int]
    done_at: float | None = None

    @property
    def state(self) -> str:
        """pending or done."""
        return "pending" if self.done_at is None else "done"


async def everything(
    connection: AsyncConnection,
    cube: str,
    owner: str,
    at: float,
    *,
    beside: Sequence[sa.Table] = (),
    also: Mapping[str, int] | None = None,
    keep: bool,
) -> Receipt:
    """Delete every row that belongs to the cube, here and in the tables `beside` (each has a column `cube`); `keep` leaves an
    empty cube that can be written to again. `also`: what was erased elsewhere, to be counted in the receipt."""
    counts = dict(also or {})
    ours = [table for table in sql.metadata.sorted_tables if "cube" in table.c and table is not sql.receipts]
    for table in (*ours, *beside):
        counts[table.name] = (await connection.execute(sa.delete(table).where(table.c.cube == cube))).rowcount
    later = sql.cubes.c.rev + 1
    values = {**NO_TABLE, "rev": later, "reflected_rev": later, "linked_rev": later, **({} if keep else _NAMELESS)}
    await connection.execute(sa.update(sql.cubes).where(sql.cubes.c.id == cube).values(values))
    receipt = Receipt(str(uuid.uuid4()), cube, owner, at, counts)
    row = {name: getattr(receipt, name) for name in ("id", "cube", "owner", "asked_at", "counts")}
    await connection.execute(sa.insert(sql.receipts).values(**row))
    return receipt


class Receipts:
    """The table of receipts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, receipt: str) -> Receipt | None:
        """One of them, or None."""
        found = await self._select(sql.receipts.c.id == receipt)
        return found[0] if found else None

    async def pending(self, cube: str | None = None) -> list[Receipt]:
        """Those that are not signed, of one cube or of all."""
        here = [sql.receipts.c.cube == cube] if cube is not None else []
        return await self._select(sql.receipts.c.done_at.is_(None), *here)

    async def sign(self, receipts: Sequence[Receipt], at: float) -> None:
        """Say that nothing of these is left."""
        ids = [receipt.id for receipt in receipts]

        async def work(connection: AsyncConnection) -> None:
            here = (sql.receipts.c.id.in_(ids), sql.receipts.c.done_at.is_(None))
            await connection.execute(sa.update(sql.receipts).where(*here).values(done_at=at))

        await self._database.write(work, long=True)

    async def _select(self, *where: sa.ColumnElement[bool]) -> list[Receipt]:
        query = sa.select(sql.receipts).where(*where).order_by(sql.receipts.c.asked_at, sql.receipts.c.id)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [Receipt(**row._mapping) for row in rows]


async def forget_table(database: Database, cube: str) -> None:
    """Say that the cube has no table, whatever a job that was running meanwhile has said of it."""

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(sa.update(sql.cubes).where(sql.cubes.c.id == cube).values(NO_TABLE))

    await database.write(work, long=True)
