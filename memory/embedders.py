"""Which embedders an installation has used: the current one, and those whose vectors still serve while new ones are made."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import embed, sql
from memory.models import Embedder
from memory.sql import Database

log = logging.getLogger(__name__)


class Embedders:
    """Made once per process. `models_dir`: where exported models lie."""

    def __init__(self, database: Database, models_dir: Path, *, threads: int = 1) -> None:
        self._database = database
        self._models_dir = models_dir
        self._threads = threads
        self._made: dict[str, Embedder | None] = {}
        self._making = asyncio.Lock()

    async def current(self, model: str) -> Embedder:
        """The embedder that the configuration names; remembered, so that its vectors can be used after a change."""
        made = await asyncio.to_thread(embed.make, model, self._models_dir, threads=self._threads)
        self._made[made.id] = made

        async def work(connection: AsyncConnection) -> None:
            here = sql.embedders.c.id == made.id
            known = (await connection.execute(sa.select(sql.embedders.c.model).where(here))).first()
            if known is None:
                await connection.execute(sa.insert(sql.embedders).values(id=made.id, model=model))
            elif known[0] != model:
                await connection.execute(sa.update(sql.embedders).where(here).values(model=model))

        await self._database.write(work)
        return made

    async def earlier(self, embedder: str) -> Embedder | None:
        """The embedder with this id, made when it is first needed; None when it cannot be had any more."""
        async with self._making:
            if embedder not in self._made:
                self._made[embedder] = await self._make(embedder)
        return self._made[embedder]

    async def _make(self, embedder: str) -> Embedder | None:
        async with self._database.read() as connection:
            row = (
                await connection.execute(sa.select(sql.embedders.c.model).where(sql.embedders.c.id == embedder))
            ).first()
        if row is None:
            return None
        try:
            made = await asyncio.to_thread(embed.make, row[0], self._models_dir, threads=self._threads)
        except Exception as error:  # a folder or a package that is gone: the new embedder takes over at once
            log.warning("embedder %s cannot be made any more: %s", embedder, type(error).__name__)
            return None
        return made if made.id == embedder else None
