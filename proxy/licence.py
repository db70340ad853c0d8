"""An executor's licence to write: a row in the database that its work changes, looked at inside every transaction.

Whoever takes over the jobs of an executor that seems dead takes its licence away first. One that was merely stalled (a paused
machine, a long pause of the disk) and comes to itself in the middle of a job can then change nothing any more: its next
transaction fails with Revoked, and so does its next write to the index. So no job's effects are made by two at once, whatever
the clocks say.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory.sql import Database
from proxy.db import licences


class Revoked(Exception):
    """Others have taken over what this executor was doing."""


class Licence:
    """Made before the database and the index that it is for, which call `holds` and `check`; nothing is checked before `grant`."""

    def __init__(self) -> None:
        self._database: Database | None = None
        self._name = ""

    def of(self, database: Database) -> None:
        """Keep the licence in this database."""
        self._database = database

    async def grant(self, executor: str) -> None:
        """Let this process write as `executor`. Raises DatabaseError."""
        await self._there().write(lambda c: c.execute(sa.insert(licences).values(executor=executor)))
        self._name = executor

    async def revoke(self, executor: str) -> None:
        """`executor` writes no more; when this returns, none of its transactions is under way. Raises DatabaseError, Revoked."""
        await self._there().write(lambda c: c.execute(sa.delete(licences).where(licences.c.executor == executor)))

    async def holds(self, connection: AsyncConnection) -> None:
        """Make sure that the licence lasts until this transaction ends. Raises Revoked."""
        if not self._name:
            return
        # a share lock on PostgreSQL, so that a revocation waits for the transaction; SQLite has one writer at a time anyway
        query = sa.select(licences.c.executor).where(licences.c.executor == self._name)
        if (await connection.execute(query.with_for_update(read=True, key_share=True))).first() is None:
            raise Revoked(self._name)

    async def check(self) -> None:
        """Raises Revoked, DatabaseError."""
        if not self._name:
            return
        async with self._there().read() as connection:
            query = sa.select(licences.c.executor).where(licences.c.executor == self._name)
            if (await connection.execute(query)).first() is None:
                raise Revoked(self._name)

    def _there(self) -> Database:
        if self._database is None:
            raise RuntimeError("the licence has no database yet")
        return self._database
