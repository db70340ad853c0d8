"""What is foreseen for a cube's next session: made by the executor when the last one has gone quiet, read by the proxy. Ids and
numbers only. Also what was shown when, which predictions learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.expect import HISTORY, Shown
from memory.sql import Database
from proxy import db
from scheduler.scenes import Arrival, Foreseen

SOON_S = 900.0  # so long before a session is expected its cube is made ready
_HOUR_S = 3600.0
_BEGUN = 200  # sessions that are looked back on


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the opening of the next session will need, and when it is expected; None: no habit shows."""

    cube: str
    made_at: float
    rev: int  # the cube's revision then
    foreseen: tuple[Foreseen, ...]
    arrival: Arrival | None = None


class Forecasts:
    """The table `forecasts`: one row per cube."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, forecast: Forecast) -> None:
        """Replace what was foreseen for the cube. Nothing is kept for a cube that is gone."""
        table = db.forecasts
        row = {
            "cube": forecast.cube,
            "made_at": forecast.made_at,
            "rev": forecast.rev,
            "arrives_at": forecast.arrival.at if forecast.arrival else None,
            "arrives": forecast.arrival.chance if forecast.arrival else 0.0,
            "foreseen": [[one.memory, one.chance, dict(one.why)] for one in forecast.foreseen],
        }

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(sa.delete(table).where(table.c.cube == forecast.cube))
            there = sa.select(sql.cubes.c.id).where(sql.cubes.c.id == forecast.cube, sql.cubes.c.status == "active")
            if (await connection.execute(there)).first() is not None:
                await connection.execute(sa.insert(table).values(**row))

        await self._database.write(work)

    async def of(self, cube: str) -> Forecast | None:
        """What was last foreseen for the cube."""
        table = db.forecasts
        async with self._database.read() as connection:
            row = (await connection.execute(sa.select(table).where(table.c.cube == cube))).first()
        return None if row is None else _forecast(row)

    async def expected(self, now: float, limit: int) -> list[str]:
        """The cubes whose next session is expected about now, the surest first."""
        table = db.forecasts
        about = (table.c.arrives_at <= now + SOON_S, table.c.arrives_at > now - _HOUR_S)
        query = sa.select(table.c.cube).where(*about).order_by(table.c.arrives.desc(), table.c.cube).limit(limit)
        async with self._database.read() as connection:
            return [str(row.cube) for row in (await connection.execute(query)).all()]

    async def latest(self, limit: int) -> list[str]:
        """The cubes that were in use last."""
        table = db.forecasts
        query = sa.select(table.c.cube).order_by(table.c.made_at.desc(), table.c.cube).limit(limit)
        async with self._database.read() as connection:
            return [str(row.cube) for row in (await connection.execute(query)).all()]

    async def made_since(self, at: float, cubes: Sequence[str]) -> list[str]:
        """Those of the cubes whose forecast is newer."""
        table = db.forecasts
        query = sa.select(table.c.cube).where(table.c.cube.in_(list(cubes)), table.c.made_at >= at)
        async with self._database.read() as connection:
            return [str(row.cube) for row in (await connection.execute(query)).all()]

    async def revision(self, cube: str) -> int:
        """The cube's present revision; 0 when it is not there."""
        query = sa.select(sql.cubes.c.rev).where(sql.cubes.c.id == cube)
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one_or_none() or 0)

    async def shown(self, cube: str, limit: int = HISTORY) -> list[Shown]:
        """What was shown in the cube's chats, newest first; blocks without a memory are left out."""
        table = db.blocks
        query = (
            sa.select(table.c.at, table.c.session, table.c.memories)
            .where(table.c.cube == cube)
            .order_by(table.c.at.desc(), table.c.anchor)
            .limit(limit)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [Shown.of(row.at, row.session, row.memories) for row in rows if row.memories]

    async def begun(self, cube: str) -> list[float]:
        """When the cube's last sessions began, in seconds since the epoch, newest first."""
        table = sql.turns
        begins = sa.func.min(table.c.said_at).label("begins")
        query = (
            sa.select(begins)
            .where(table.c.cube == cube)
            .group_by(table.c.session)
            .order_by(begins.desc())
            .limit(_BEGUN)
        )
        async with self._database.read() as connection:
            return [float(row.begins) for row in (await connection.execute(query)).all()]

    async def topics(self, cube: str, memories: Sequence[str]) -> dict[str, str]:
        """The name of each memory's topic."""
        edges, nodes = sql.edges, sql.nodes
        query = (
            sa.select(edges.c.source, nodes.c.name)
            .join(nodes, sa.and_(nodes.c.cube == edges.c.cube, nodes.c.id == edges.c.target))
            .where(edges.c.cube == cube, edges.c.kind == "part_of", edges.c.source.in_(list(memories)))
            .order_by(edges.c.source, edges.c.weight)
        )
        async with self._database.read() as connection:
            return {row.source: str(row.name) for row in (await connection.execute(query)).all()}


def _forecast(row: sa.Row[tuple[object, ...]]) -> Forecast:
    kept = row._mapping
    arrival = None if kept["arrives_at"] is None else Arrival(kept["arrives_at"], kept["arrives"])
    foreseen = tuple(Foreseen(memory, chance, why) for memory, chance, why in kept["foreseen"])
    return Forecast(kept["cube"], kept["made_at"], kept["rev"], foreseen, arrival)
