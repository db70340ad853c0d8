"""What a cube has consolidated, as training reads it: active memories of the lasting kinds that people told, newest first.

Raw turns and episodes are never read, nor what a tool, a file or a web page said.
"""

from __future__ import annotations

import sqlalchemy as sa

from memory import sql
from memory.adapters.table import Used
from memory.memories import from_row
from memory.parametric.samples import KINDS, Told
from memory.sql import Database
from memory.types import Status, Trust


async def told(database: Database, cube: str, most: int) -> tuple[list[Told], dict[str, Used]]:
    """(at most so many memories, in the order in which they were said; memory → how it stood when it was read)"""
    table = sql.memories
    query = (
        sa.select(table)
        .where(
            table.c.cube == cube,
            table.c.status == Status.ACTIVE.value,
            table.c.kind.in_([kind.value for kind in KINDS]),
            table.c.trust.in_([Trust.USER.value, Trust.ACCEPTED.value]),
        )
        .order_by(table.c.pinned.desc(), table.c.message_time.desc(), table.c.id)
        .limit(most)
    )
    async with database.read() as connection:
        rows = (await connection.execute(query)).all()
    found = sorted(rows, key=lambda row: (row.message_time, row.id))
    return [_told(row) for row in found], {row.id: Used(row.id, row.digest, row.rev) for row in found}


def _told(row: sa.Row[tuple[object, ...]]) -> Told:
    memory = from_row(row)
    wish = memory.attributes or {}
    return Told(
        id=memory.id,
        rev=memory.rev,
        kind=memory.kind,
        text=memory.text,
        slot=row._mapping["slot"],
        entities=memory.entities,
        when=str(wish.get("when") or ""),
        then=str(wish.get("then") or ""),
    )
