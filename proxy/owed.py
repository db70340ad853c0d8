"""Usage that is told later: an answer that an upstream makes in the background has none until its client comes for it.

Noted when it is begun; counted, and taken off the list, when it is had for the first time: in one transaction, so once, however
many proxies there are and whenever they end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory.sql import Database, DatabaseError, Work
from memory.words import whole
from proxy import db
from proxy.usage import Prices, Tokens, Used, count, day

log = logging.getLogger(__name__)
T = TypeVar("T")
_KEPT_S = 60 * 86_400.0  # no upstream keeps an answer for so long
_RETRIES_S = (0.5, 2, 10, 60)


@dataclass(frozen=True, slots=True)
class Had:
    """What an answer has used, and whose request it was."""

    key: str
    upstream: str
    used: Used


class Owed:
    """The table `owed`."""

    def __init__(self, database: Database, prices: Prices, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._prices = prices
        self._clock = clock

    async def note(self, name: str, key: str, upstream: str, model: str) -> None:
        """The answer with this id has been begun for a key, and counted as one of unknown tokens."""
        now, name = self._clock(), whole(name[:200])
        values = {"id": name, "key": key, "upstream": upstream, "model": whole(model[:200]), "at": now}

        async def work(connection: AsyncConnection) -> None:
            table = db.owed
            await connection.execute(sa.delete(table).where(sa.or_(table.c.at < now - _KEPT_S, table.c.id == name)))
            await connection.execute(sa.insert(table).values(values))

        await self._write(work)

    async def had(self, name: str, tokens: Tokens) -> Had | None:
        """The answer is there, and tells its usage: count it. None: it was counted before, or is nobody's here."""
        now, name = self._clock(), whole(name[:200])

        async def work(connection: AsyncConnection) -> Had | None:
            here = db.owed.c.id == name
            row = (await connection.execute(sa.select(db.owed).where(here))).first()
            if row is None or not (await connection.execute(sa.delete(db.owed).where(here))).rowcount:
                return None
            used = Used(
                prompt=tokens.prompt,
                cached=tokens.cached,
                written=tokens.written,
                completion=tokens.completion,
                cost=self._prices.cost(row.upstream, row.model, tokens),
            )
            await count(connection, (row.key, day(row.at), row.upstream, row.model), Used(unknown=-1))
            await count(connection, (row.key, day(now), row.upstream, row.model), used)
            return Had(row.key, row.upstream, used)

        return await self._write(work)

    async def _write(self, work: Work[T]) -> T | None:
        for pause in (*_RETRIES_S, None):
            try:
                return await self._database.write(work)
            except DatabaseError as error:  # it cannot be reached, or another proxy has just made the same row
                if pause is None:
                    log.error("usage of an answer made in the background was not counted: %s", error)
                    break
                await asyncio.sleep(pause)
        return None
