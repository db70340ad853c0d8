"""The executor: runs jobs from the queue until it is told to stop, then lets the running ones finish.

Jobs of one cube run one after the other. A task that raises is tried again with growing pauses and then lies in the dead
letters (state `failed`), from where it can be put in again. A job that was running when the process died is started again.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

from dbos import DBOS, DBOSConfig
from dbos import error as dbos_error

from scheduler.jobs import Arguments, Task
from scheduler.queue import APPLICATION, QUEUE, VERSION, JobFailed, JsonSerializer, engine

log = logging.getLogger(__name__)


class Executor:
    """One per process (DBOS allows one). `beat` is called now and then while it runs: the clock trigger."""

    def __init__(
        self,
        url: str,
        tasks: Sequence[Task],
        *,
        name: str = "local",
        concurrency: int = 4,
        poll_s: float = 0.25,
        beat: Callable[[], Awaitable[None]] | None = None,
        beat_s: float = 10.0,
    ) -> None:
        self._url = url
        self._tasks = tasks
        self._name = name
        self._concurrency = concurrency
        self._poll_s = poll_s
        self._beat = beat
        self._beat_s = beat_s
        self._cubes: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._loop: asyncio.AbstractEventLoop

    async def run(self, stop: asyncio.Event, *, drain_s: int = 20, ready: Callable[[], None] | None = None) -> None:
        """Run until `stop` is set, then wait at most `drain_s` for what is running."""
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_engine": engine(self._url),
            "executor_id": self._name,
            "application_version": VERSION,
            "serializer": JsonSerializer(),
            "use_listen_notify": not self._url.startswith("sqlite"),
            "log_level": "WARNING",
            "enable_otlp": False,
        }
        self._loop = asyncio.get_running_loop()
        DBOS(config=config)
        for task in self._tasks:
            self._register(task)
        await asyncio.to_thread(DBOS.launch)
        await DBOS.register_queue_async(
            QUEUE, worker_concurrency=self._concurrency, polling_interval_sec=self._poll_s, on_conflict="always_update"
        )
        log.info("executor %s runs %d tasks", self._name, len(self._tasks))
        if ready:
            ready()
        beating = asyncio.create_task(self._beats())
        try:
            await stop.wait()
        finally:
            beating.cancel()
            with suppress(asyncio.CancelledError):
                await beating
            await asyncio.to_thread(DBOS.destroy, workflow_completion_timeout_sec=drain_s, destroy_registry=True)
            # DBOS had made its own thread pool the loop's, and has just shut it down
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())

    def _register(self, task: Task) -> None:
        @DBOS.step(
            name=f"{task.name}.step",
            retries_allowed=task.attempts > 1,
            max_attempts=task.attempts,
            interval_seconds=task.backoff_s,
            backoff_rate=2.0,
        )
        async def step(cube: str, arguments: Arguments) -> Mapping[str, Any]:
            # DBOS calls us on a loop and thread of its own; tasks run where their database and locks belong
            work = asyncio.run_coroutine_threadsafe(self._run(task, cube, arguments), self._loop)
            return await asyncio.wrap_future(work)

        @DBOS.workflow(name=task.name, max_recovery_attempts=20)
        async def workflow(cube: str, arguments: Arguments) -> Mapping[str, Any]:
            try:
                return await step(cube, arguments)
            except dbos_error.DBOSException as error:  # the last try failed: keep its kind, not DBOS's wrapping
                tries = getattr(error, "errors", None)
                raise JobFailed(str(tries[-1]) if tries else type(error).__name__) from None

    async def _run(self, task: Task, cube: str, arguments: Arguments) -> Mapping[str, Any]:
        async with self._lock(cube):
            return await _guarded(task, cube, arguments)

    def _lock(self, cube: str) -> asyncio.Lock:
        lock = self._cubes.get(cube)
        if lock is None:
            lock = self._cubes[cube] = asyncio.Lock()
        return lock

    async def _beats(self) -> None:
        while self._beat is not None:
            try:
                await self._beat()
            except Exception as error:  # the clock must go on
                log.error("clock trigger failed: %s\n%s", type(error).__name__, where(error))
            await asyncio.sleep(self._beat_s)


async def _guarded(task: Task, cube: str, arguments: Arguments) -> Mapping[str, Any]:
    try:
        return await task.run(cube, arguments)
    except Exception as error:
        # DBOS stores what is raised: only the kind of fault may get there
        log.error("task %s failed for cube %s: %s\n%s", task.name, cube, type(error).__name__, where(error))
        raise JobFailed(type(error).__name__) from None


def where(error: BaseException) -> str:
    """The traceback without the exception's own text, which may quote what people said."""
    return "".join(traceback.format_tb(error.__traceback__)).rstrip()
