"""Exports and imports as HTTP and the command line both do them: temporary files, limits, and the jobs that follow.

Temporary files lie below the data folder and have no name, so nothing is left of them however a process ends.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from memory.models import Embedder
from memory.sql import Database
from memory.transfer import Adopter, Archive, Document, Imported, Importer, Limits, Target, sniff
from proxy import __version__
from proxy.config import Config
from scheduler.triggers import MEMORY_WRITTEN, TURN_FINISHED, Triggers

FOLDER = "transfer"  # below the data folder
Progress = Callable[[int, int], None]
_UNPACKED = 8  # times limits.import_bytes
_AT_A_TIME = 2
_STALE_S = 3600.0


class Mover:
    """Made once per process. `embedder`: the one in use, for the vectors in an archive."""

    def __init__(
        self,
        config: Config,
        database: Database,
        triggers: Triggers,
        embedder: Embedder,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = config.folder / FOLDER
        self._triggers = triggers
        self._clock = clock
        self._working = asyncio.Semaphore(_AT_A_TIME)
        limits = Limits(total=_UNPACKED * config.limits.import_bytes)

        def blobs(cube: str) -> Path:
            return config.cubes / cube / "blobs"

        self._archive = Archive(database, self._folder, f"memrelay {__version__}", blobs)
        self._document = Document(database)
        self._importer = Importer(database, embedder, blobs, limits)
        self._adopter = Adopter(database, limits)
        self._limits = limits

    def spool(self) -> BinaryIO:
        """A temporary file without a name."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self._folder.iterdir():  # on file systems that know no nameless files, a crash may leave one
            if self._clock() - left.stat().st_mtime > _STALE_S:
                left.unlink(missing_ok=True)
        file: BinaryIO = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        return file

    async def export(
        self, cube: str, out: BinaryIO, *, vectors: bool = True, progress: Progress | None = None
    ) -> dict[str, int]:
        """Write the cube's archive; returns its counts. Raises DatabaseError, OSError."""
        async with self._working:
            return await self._archive.write(cube, out, at=self._clock(), vectors=vectors, progress=progress)

    async def document(self, cube: str, out: BinaryIO, *, turns: bool = False) -> None:
        """Write the cube's Markdown view. Raises DatabaseError, OSError."""
        async with self._working:
            async for part in self._document.write(cube, turns=turns):
                out.write(part.encode())

    async def take_in(
        self,
        file: BinaryIO,
        target: Target,
        *,
        form: str = "",
        user: str = "",
        progress: Progress | None = None,
    ) -> tuple[str, Imported]:
        """Import an archive or a dump, and put in the jobs that follow; returns its format and what became of it. Raises
        Refused, CubeRefused (both: nothing was written), DatabaseError, OSError."""
        async with self._working:
            form = form or await asyncio.to_thread(sniff, file, self._limits)
            if form == "memrelay":
                done = await self._importer.run(file, target, progress)
            else:
                done = await self._adopter.run(file, form, target, user=user, progress=progress)
        if done.turns or done.memories or done.merged or done.restored:
            await self._triggers.fire(MEMORY_WRITTEN, target.cube)
            if done.waiting:
                await self._triggers.fire(TURN_FINISHED, target.cube)
        return form, done

    def target(self, cube: str, owner: str, *, make: bool, keep_erased: bool = False) -> Target:
        """Where an import goes, as of now."""
        return Target(cube, owner, self._clock(), make, "keep" if keep_erased else "restore")
