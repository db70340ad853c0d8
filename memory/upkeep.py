"""Keeping a cube within its limits: more active memories than its quota, or unused for longer than its time to live, and the
least valuable are archived. Nothing is lost: an archived memory keeps its words and its history, and its turn stays in the log.

Pinned memories are never archived. Both limits are looked at anew for every batch, so it may be interrupted and repeated.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.grants import ACTIVE
from memory.memories import put_away
from memory.sql import Database
from memory.types import Status

HALF_LIFE_S = 30 * 86400.0  # what was not used for so long is worth half its importance
_BATCH = 500  # memories a transaction: chats write their turns in between
_USED = sa.func.coalesce(sql.memories.c.last_used_at, sql.memories.c.created_at)
_ACTIVE = sql.memories.c.status == Status.ACTIVE.value


async def due(database: Database, now: float) -> list[str]:
    """Active cubes that are beyond one of their limits."""
    cubes, table = sql.cubes, sql.memories
    here = sa.and_(table.c.cube == cubes.c.id, _ACTIVE)
    number = sa.select(sa.func.count()).where(here).correlate(cubes).scalar_subquery()
    stale = sa.exists().where(here, table.c.pinned == 0, now - cubes.c.ttl_s > _USED).correlate(cubes)
    many = sa.exists().where(here, table.c.pinned == 0).correlate(cubes)
    over = sa.or_(
        sa.and_(cubes.c.quota.is_not(None), number > cubes.c.quota, many), sa.and_(cubes.c.ttl_s.is_not(None), stale)
    )
    query = sa.select(cubes.c.id).where(cubes.c.status == ACTIVE, over).order_by(cubes.c.id)
    async with database.read() as connection:
        return [str(row[0]) for row in (await connection.execute(query)).all()]


async def trim(database: Database, cube: str, now: float) -> dict[str, int]:
    """Archive what is beyond the cube's limits; returns how many were unused for too long, and how many were too many."""
    done = {"unused": 0, "too_many": 0}

    async def work(connection: AsyncConnection) -> int:
        archived = 0
        for reason, ids in (await _beyond(connection, cube, now)).items():
            number = await put_away(connection, cube, ids, now)
            done[reason] += number
            archived += number
        return archived

    while await database.write(work, long=True):
        pass
    return done


async def _beyond(connection: AsyncConnection, cube: str, now: float) -> dict[str, list[str]]:
    """The next batch of memories to archive, by reason."""
    cubes, table = sql.cubes, sql.memories
    limits = sa.select(cubes.c.quota, cubes.c.ttl_s).where(cubes.c.id == cube, cubes.c.status == ACTIVE)
    row = (await connection.execute(limits)).first()
    if row is None:
        return {}
    loose = (table.c.cube == cube, _ACTIVE, table.c.pinned == 0)
    if row.ttl_s is not None:
        query = sa.select(table.c.id).where(*loose, now - row.ttl_s > _USED).order_by(_USED).limit(_BATCH)
        if stale := [str(found[0]) for found in (await connection.execute(query)).all()]:
            return {"unused": stale}
    if row.quota is None:
        return {}
    number = sa.select(sa.func.count()).where(table.c.cube == cube, _ACTIVE)
    excess = int((await connection.execute(number)).scalar_one()) - row.quota
    if excess <= 0:
        return {}
    query = sa.select(table.c.id, table.c.importance, _USED).where(*loose)
    found = (await connection.execute(query)).all()
    worth = sorted((value(importance, now - used), str(memory)) for memory, importance, used in found)
    return {"too_many": [memory for _, memory in worth[: min(excess, _BATCH)]]}


def value(importance: float, unused_s: float) -> float:
    """What a memory is worth keeping: its importance, halved for every HALF_LIFE_S in which it was not used."""
    return importance * float(0.5 ** (max(unused_s, 0.0) / HALF_LIFE_S))
