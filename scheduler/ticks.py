"""When each trigger of the clock last fired: a table beside the queue's, so that neither a restart nor a second executor makes it
fire again before its time. Every call blocks; they are for a thread."""

from __future__ import annotations

import time
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy import Column, Float, MetaData, String, Table

metadata = MetaData()
ticks = Table(
    "memrelay_clock",
    metadata,
    Column("name", String, primary_key=True),
    Column("at", Float, nullable=False),  # seconds since the epoch
)


class Ticks:
    """The table, in the queue's database."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        self._made = False

    def mine(self, name: str, every_s: float) -> bool:
        """Whether `name` has not fired for `every_s` (or never); of all who ask, one is told so. Raises SQLAlchemyError."""
        if not self._made:
            metadata.create_all(self._engine)
            self._made = True
        now = self._clock()
        with self._engine.begin() as connection:
            # the clock may have been set back: what lies ahead of it counts for nothing
            due = sa.or_(ticks.c.at <= now - every_s, ticks.c.at > now)
            if connection.execute(sa.update(ticks).where(ticks.c.name == name, due).values(at=now)).rowcount:
                return True
            if connection.execute(sa.select(ticks.c.name).where(ticks.c.name == name)).first() is not None:
                return False
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(ticks).values(name=name, at=now))
        except sa.exc.IntegrityError:  # another executor was quicker
            return False
        return True
