"""Adapters made and unmade: the task `train`, the look-out for cubes that need one, and the files of versions that are gone.

Training takes minutes, so its job has a name of its own beside the cube's (`<cube>.adapter`): what is to be learned, indexed or
erased meanwhile does not wait for it. It happens in a process of its own, which ends when the executor does; a version that was
not finished is begun anew. Nothing here knows HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memory.adapters.files import Folder, Manifest, sha256_of
from memory.adapters.table import BUILDING, DROPPED, READY, Adapter, Adapters, Used
from memory.parametric import reading, run, samples
from memory.parametric.child import Order
from memory.parametric.errors import NotInstalled, Stopped, TooFew, TrainingError, Unsupported
from memory.parametric.samples import Sample, Told
from memory.parametric.settings import Settings
from memory.sql import Database
from scheduler.jobs import Arguments, JobQueue, QueueError, Task

log = logging.getLogger(__name__)
TRAIN = "train"
PRIORITY = 9
_BESIDE = ".adapter"  # after a cube's id: the name under which its trainings run
_LOOK_S = 60.0


def beside(cube: str) -> str:
    """The name under which a cube's trainings are queued."""
    return cube + _BESIDE


@dataclass(frozen=True, slots=True)
class Wanted:
    """When an adapter is made, and how. `least`, `most`: memories; `every_s`: between two trainings of a cube."""

    model: Path
    least: int
    most: int
    every_s: float
    settings: Settings


@dataclass(frozen=True, slots=True)
class _Lessons:
    """What there is to learn now. `rests`: memory → how it stood when it was read."""

    told: list[Told]
    made: list[Sample]
    rests: dict[str, Used]

    @property
    def digest(self) -> str:
        return samples.digest(self.made)


class Training:
    """Made once per executor process. `stop`: set when the process is to end."""

    def __init__(
        self,
        database: Database,
        folder: Folder,
        wanted: Wanted,
        queue: JobQueue,
        stop: asyncio.Event,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._adapters = Adapters(database, clock)
        self._folder = folder
        self._wanted = wanted
        self._queue = queue
        self._stop = stop
        self._clock = clock
        self._fingerprints: dict[tuple[int, int], str] = {}
        self._looked_at = 0.0

    def task(self) -> Task:
        """For the executor."""
        return Task(TRAIN, self.train, attempts=2, backoff_s=30.0)

    async def train(self, name: str, arguments: Arguments) -> dict[str, Any]:
        """Bring a cube's adapter up to date. {"force": "yes"}: also when it is, or was made a short while ago."""
        cube = name.removesuffix(_BESIDE)
        lessons = await self._lessons(cube)
        model = await self._fingerprint()
        if arguments.get("force") != "yes" and not await self._due(cube, lessons, model):
            return {"action": "nothing"}
        if len(lessons.rests) < self._wanted.least:
            gone = await self._adapters.drop(cube, None, "too few memories")
            await self.tidy(cube)
            return {"action": "too few", "memories": len(lessons.rests), "dropped": len(gone)}
        version = await self._adapters.begin(
            cube,
            model=model,
            samples=lessons.digest,
            settings=asdict(self._wanted.settings),
            memories=list(lessons.rests.values()),
        )
        try:
            return await self._make(cube, version, model, lessons)
        except Stopped:
            await self._adapters.drop(cube, version, "stopped")
            return {"action": "stopped", "version": version}
        except (NotInstalled, Unsupported, TooFew) as error:  # trying again would change nothing
            log.warning("cube %s gets no adapter: %s", cube, error)
            await self._adapters.drop(cube, version, error.code)
            return {"action": "refused", "version": version, "why": error.code}
        except TrainingError as error:
            await self._adapters.drop(cube, version, error.code)
            raise
        finally:
            await self.tidy(cube)

    async def _make(self, cube: str, version: int, model: str, lessons: _Lessons) -> dict[str, Any]:
        began, part = self._clock(), self._folder.unfinished(cube, version)
        order = Order(str(self._wanted.model), str(part), lessons.made, self._wanted.settings)

        async def wanted() -> bool:
            return not self._stop.is_set() and await self._adapters.building(cube, version)

        results = await run.train(order, wanted) | {"wall_s": round(self._clock() - began, 1)}
        digest, size = await asyncio.to_thread(sha256_of, part), part.stat().st_size
        manifest = Manifest(
            cube=cube,
            version=version,
            model=model,
            architecture=results["architecture"],
            memories={memory: used.rev for memory, used in sorted(lessons.rests.items())},
            samples=lessons.digest,
            settings=asdict(self._wanted.settings),
            results=results,
            sha256=digest,
            bytes=size,
            created=began,
        )
        await asyncio.to_thread(self._folder.keep, manifest)
        if not await self._adapters.finish(cube, version, sha256=digest, size=size, results=results):
            raise Stopped("a memory changed meanwhile")
        log.info("cube %s has adapter %d: %d memories, %d bytes", cube, version, len(lessons.rests), size)
        return {
            "action": "trained",
            "version": version,
            "memories": len(lessons.rests),
            "bytes": size,
            **_plain(results),
        }

    async def look(self) -> None:
        """Now and then: put in a job for each cube that needs training, and delete files that belong to no version."""
        if self._clock() - self._looked_at < _LOOK_S:
            return
        self._looked_at = self._clock()
        await self._sweep()
        for cube in await self._adapters.wanting():
            if await self._due(cube, await self._lessons(cube), await self._fingerprint()):
                try:
                    await self._queue.put(TRAIN, beside(cube), priority=PRIORITY)
                except QueueError as error:
                    log.warning("training: the queue is not reachable (%s)", error)
                    return

    async def tidy(self, cube: str) -> list[int]:
        """Delete the files of versions that are dropped; which they were."""
        standing = await self._adapters.standing(cube)
        return await asyncio.to_thread(self._folder.keep_only, cube, standing)

    async def _due(self, cube: str, lessons: _Lessons, model: str) -> bool:
        """Whether the newest version does not hold what the cube says now, and the last training was long enough ago."""
        if not (await self._adapters.choice(cube)).on:
            return False
        every = await self._adapters.every(cube)
        held = next((one for one in every if one.state not in (DROPPED, BUILDING)), None)
        if len(lessons.rests) < self._wanted.least:
            return held is not None
        if held is not None and held.state == READY and (held.samples, held.model) == (lessons.digest, model):
            return False
        return not self._lately(every)

    def _lately(self, every: list[Adapter]) -> bool:
        """Whether a training ended, or was refused, within the pause. One that broke off does not count."""
        since = self._clock() - self._wanted.every_s
        return any(
            one.created_at > since and one.why not in ("stopped", "not finished") and one.state != BUILDING
            for one in every
        )

    async def _lessons(self, cube: str) -> _Lessons:
        found, rests = await reading.told(self._database, cube, self._wanted.most)
        made = samples.samples(found)
        used = {memory for one in made for memory in one.memories}
        return _Lessons(found, made, {memory: rests[memory] for memory in rests if memory in used})

    async def _fingerprint(self) -> str:
        """The model file's SHA-256, read again only when the file has changed."""
        stat = self._wanted.model.stat()
        key = (stat.st_size, stat.st_mtime_ns)
        if key not in self._fingerprints:
            self._fingerprints[key] = await asyncio.to_thread(sha256_of, self._wanted.model)
        return self._fingerprints[key]

    async def _sweep(self) -> None:
        """Delete folders of cubes that have no versions (they were erased while a process here was away)."""
        there = await asyncio.to_thread(self._folder.cubes)  # first: a version has its row before it has a folder
        known = {self._folder.of(cube).name for cube in await self._adapters.cubes()}
        for name in there:
            if name not in known:
                await asyncio.to_thread(self._folder.clear, name)


def _plain(results: Mapping[str, Any]) -> dict[str, Any]:
    """Of the results what fits into a job's counts."""
    return {name: results[name] for name in ("samples", "epochs", "known_before", "known", "cpu_s", "wall_s")}
