"""What owners do with whole cubes, from HTTP and from the command line alike: make, change, archive, restore, share, erase, and
the jobs that follow. Who may do it has been settled before; this knows neither keys nor requests.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import erase
from memory.activation.folder import forget as remove_folder
from memory.adapters.files import Folder
from memory.adapters.table import Adapters
from memory.cube import Cube, Cubes
from memory.fuse import Fused, fuse, size
from memory.grants import ACTIVE, ARCHIVED, Grant, Grants, Level
from memory.sql import Database
from proxy import db
from proxy.blocks import Blocks
from proxy.upstreams.states import Forgotten
from scheduler.triggers import CUBE_ARCHIVED, CUBE_CHANGED, CUBE_ERASED, CUBE_FUSED, MEMORY_WRITTEN, Triggers

log = logging.getLogger(__name__)
_AT_ONCE = 2000  # turns and memories; more are copied by a job


@dataclass(frozen=True, slots=True)
class Owned:
    """A cube as its manifest shows it. `level`: owner, write or read; `memories`: kind → how many are active."""

    info: Cube
    level: Level
    memories: dict[str, int]


@dataclass(frozen=True, slots=True)
class Fusion:
    """What became of a fusion: `done` at once, or a `job` for a large cube (empty: the queue could not be reached)."""

    done: Fused | None = None
    job: str = ""


class Lifecycle:
    """Made once per process. `states` drops what models have computed of a cube, `forget` what this process holds of it; below
    `files` each cube has a folder of its other forms."""

    def __init__(
        self,
        database: Database,
        cubes: Cubes,
        grants: Grants,
        blocks: Blocks,
        triggers: Triggers,
        states: Callable[[str], Awaitable[Forgotten]],
        forget: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        adapters: Folder | None = None,
        files: Path | None = None,
    ) -> None:
        self._database = database
        self._cubes = cubes
        self._grants = grants
        self._blocks = blocks
        self._states = states
        self._forget = forget
        self._triggers = triggers
        self._clock = clock
        self._folder = adapters
        self._files = files
        self._adapters = Adapters(database, clock)

    async def of(self, principal: str, *, after: str | None = None, limit: int = 100) -> list[Owned]:
        """The cubes that the principal owns or was granted, oldest first; see Cubes.usable."""
        found = await self._cubes.usable(principal, after=after, limit=limit)
        counts = await self._cubes.counts([info.id for info, _ in found])
        return [Owned(info, level, counts[info.id]) for info, level in found]

    async def every(self) -> list[Owned]:
        """All cubes of the installation."""
        every = await self._cubes.every()
        counts = await self._cubes.counts([info.id for info in every])
        return [Owned(info, Level.OWNER, counts[info.id]) for info in every]

    async def create(self, owner: str, name: str, *, quota: int | None = None, ttl_s: float | None = None) -> Cube:
        """A further cube of this principal, empty."""
        made = Cube(str(uuid.uuid4()), owner, name, self._clock(), 0, 0, 0, 0, "", quota=quota, ttl_s=ttl_s)
        await self._cubes.create(made)
        return made

    async def change(self, cube: str, values: dict[str, Any]) -> Cube | None:
        """Set name, quota or ttl_s, and archive or restore it by its status. None: no such cube."""
        before = await self._cubes.get(cube)
        status = values.get("status")
        if before is not None and status is not None and status != before.status:
            values = values | {"archived_at": self._clock() if status == ARCHIVED else None}
        changed = await self._cubes.change(cube, values)
        if changed is None or before is None:
            return None
        if status == ARCHIVED:
            await self._states(cube)
            await self._triggers.fire(CUBE_ARCHIVED, cube)
        elif status == ACTIVE and before.status == ARCHIVED:
            await self._triggers.fire(MEMORY_WRITTEN, cube)  # builds the index
        if {"quota", "ttl_s"} & values.keys() and changed.status == ACTIVE:
            await self._triggers.fire(CUBE_CHANGED, cube)
        return changed

    async def grant(self, cube: str, principal: str, level: Level) -> Grant | None:
        """Let a principal use the cube, from its next request on. None: there is no such principal."""
        if not await self.is_principal(principal):
            return None
        return await self._grants.give(cube, principal, level)

    async def revoke(self, cube: str, principal: str) -> bool:
        """End a grant, from the principal's next request on; what models have computed in the cube goes with it. False: there was
        none."""
        if not await self._grants.take(cube, principal):
            return False
        await self._states(cube)
        return True

    async def is_principal(self, principal: str) -> bool:
        """Whether a key was ever made for it."""
        query = sa.select(db.principals.c.id).where(db.principals.c.id == principal)
        async with self._database.read() as connection:
            return (await connection.execute(query)).first() is not None

    async def erase(self, cube: str, owner: str, *, keep: bool) -> erase.Receipt:
        """Erase everything that is in the cube and the cube itself, or, with `keep`, leave it empty. Gone from SQL and every
        prompt when this returns; a job does the rest and signs the receipt."""
        beside = [table for table in db.metadata.sorted_tables if "cube" in table.c]

        before = await self._states(cube)

        async def work(connection: AsyncConnection) -> erase.Receipt:
            also = {"kv_states": before.states}
            return await erase.everything(connection, cube, owner, self._clock(), beside=beside, also=also, keep=keep)

        self._blocks.let_go(cube)
        self._forget(cube)
        receipt = await self._database.write(work, long=True)
        self._forget(cube)
        await self._states(cube)
        self._blocks.let_go(cube)  # what a chat that was running has added meanwhile
        await self.withdraw(cube)
        await self._remove_files(cube)
        await self._triggers.fire(CUBE_ERASED, cube)
        return receipt

    async def _remove_files(self, cube: str) -> None:
        if self._files is None:
            return
        try:
            await asyncio.to_thread(remove_folder, self._files, cube)
        except OSError as error:  # the job tries it again, and signs nothing before
            log.error("files of cube %s could not be removed: %s", cube, os.strerror(error.errno or 0))

    async def withdraw(self, cube: str) -> list[int]:
        """Delete the files of adapters that may not be used any more, because what they were trained on was erased; returns which
        versions they were."""
        if self._folder is None:
            return []
        return await asyncio.to_thread(self._folder.keep_only, cube, await self._adapters.standing(cube))

    async def fuse(self, target: str, source: str, principal: str, *, archive_source: bool) -> Fusion:
        """Copy the source into the target, for a principal who may; afterwards archive the source, if it is his. Raises
        CubeRefused."""
        if await size(self._database, source) > _AT_ONCE:
            given = {"from": source, "principal": principal, "archive": "yes" if archive_source else "no"}
            return Fusion(job=next(iter(await self._triggers.fire(CUBE_FUSED, target, given)), ""))
        done = await self._database.write(lambda c: fuse(c, target, source, principal, self._clock()), long=True)
        await self._triggers.fire(MEMORY_WRITTEN, target)
        if archive_source and await self._cubes.archive(source, principal, self._clock()):
            await self._states(source)
            await self._triggers.fire(CUBE_ARCHIVED, source)
        return Fusion(done)
