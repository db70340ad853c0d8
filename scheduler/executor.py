"""The executor: runs jobs from the queue until it is told to stop, then lets the running ones finish.

Jobs of one cube run one after the other, also when several executors share the queue, and one cube's cannot take every place. A
task that raises is tried again with growing pauses and then lies in the dead letters (state `failed`), from where it can be put
in again. A job that was running when the process died is started again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig
from dbos import error as dbos_error

from scheduler.desk import Desk
from scheduler.jobs import Arguments, Task
from scheduler.presence import BEAT_S, Licences, Presence, StruckOut
from scheduler.queue import APPLICATION, QUEUE, VERSION, JobFailed, JsonSerializer, engine, priority_of

log = logging.getLogger(__name__)
T = TypeVar("T")
Seen = Callable[[str, str, float, Mapping[str, Any]], None]
_AHEAD = 8  # jobs taken from the queue for each place: while one cube's wait for each other, others' have their turn
_REVOKE_S = 60.0  # the database may be rewriting itself
_TAKEN_S = 0.5  # until a cube that another executor works on is asked for again


class Executor:
    """One per process (DBOS allows one). `beat` is called now and then while it runs: the clock trigger. `seen` is told of every
    run of a task: its name, done, retry or failed, the seconds it took, and its result. `licences`: what its tasks
    need to write; taken away from an executor whose jobs others take over."""

    def __init__(
        self,
        url: str,
        tasks: Sequence[Task],
        *,
        name: str = "local",
        concurrency: int = 4,
        limits: Mapping[str, int] | None = None,
        poll_s: float = 0.25,
        beat: Callable[[], Awaitable[None]] | None = None,
        beat_s: float = 10.0,
        seen: Seen = lambda *_: None,
        licences: Licences | None = None,
    ) -> None:
        self._url = url
        self._tasks = tasks
        self._name = f"{name}.{uuid.uuid4().hex[:12]}"
        self._concurrency = concurrency
        self._poll_s = poll_s
        self._beat = beat
        self._beat_s = beat_s
        self._seen = seen
        self._desk = Desk(concurrency, limits or {})
        self._tries: Counter[str] = Counter()  # job → runs that failed here
        self._engine = engine(url)
        self._licences = licences
        self._presence = Presence(self._engine, self._name, revoke=self._revoke)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="presence")
        self._jobs: set[asyncio.Task[Mapping[str, Any]]] = set()
        self._looked = False  # for jobs that nobody living is at
        self._loop: asyncio.AbstractEventLoop

    async def run(self, stop: asyncio.Event, *, drain_s: int = 20, ready: Callable[[], None] | None = None) -> None:
        """Run until `stop` is set, then wait at most `drain_s` for what is running. Raises StruckOut when this process stood
        still for so long that others have taken its jobs."""
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_engine": self._engine,
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
        await self._off(self._presence.arrive)
        if self._licences is not None:
            await self._licences.grant(self._name)
        await asyncio.to_thread(DBOS.launch)
        await DBOS.register_queue_async(
            QUEUE,
            worker_concurrency=self._concurrency * _AHEAD,
            polling_interval_sec=self._poll_s,
            on_conflict="always_update",
        )
        log.info("executor %s runs %d tasks", self._name, len(self._tasks))
        if ready:
            ready()
        beating = asyncio.create_task(self._beats())
        living = asyncio.create_task(self._lives())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({stopped, living}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for other in (beating, stopped):
                other.cancel()
            struck = living.done() and not living.cancelled()
            if struck:
                for job in list(self._jobs):
                    job.cancel()
            await asyncio.to_thread(
                DBOS.destroy, workflow_completion_timeout_sec=0 if struck else drain_s, destroy_registry=True
            )
            living.cancel()
            await asyncio.gather(beating, stopped, living, return_exceptions=True)
            try:
                await self._off(self._presence.leave)
            except Exception as error:  # others will find us gone
                log.warning("executor %s could not sign off: %s", self._name, type(error).__name__)
            await self._off(self._engine.dispose)
            self._threads.shutdown(wait=False)
            # DBOS had made its own thread pool the loop's, and has just shut it down
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        if struck:
            living.result()

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
            work = asyncio.run_coroutine_threadsafe(
                self._run(task, cube, arguments, DBOS.workflow_id or ""), self._loop
            )
            return await asyncio.wrap_future(work)

        @DBOS.workflow(name=task.name, max_recovery_attempts=20)
        async def workflow(cube: str, arguments: Arguments) -> Mapping[str, Any]:
            try:
                return await step(cube, arguments)
            except dbos_error.DBOSException as error:  # the last try failed: keep its kind, not DBOS's wrapping
                tries = getattr(error, "errors", None)
                raise JobFailed(str(tries[-1]) if tries else type(error).__name__) from None

    async def _run(self, task: Task, cube: str, arguments: Arguments, job: str) -> Mapping[str, Any]:
        key = json.dumps([task.name, cube, dict(arguments)], sort_keys=True)
        if self._desk.waits(key):  # it has not begun, and will do what this one would
            return {"coalesced": 1}
        await self._enter(task.name, cube, priority_of(job), key)
        running = asyncio.ensure_future(_guarded(task, cube, arguments))
        self._jobs.add(running)
        began, outcome, result = time.perf_counter(), "retry", None
        try:
            result = await running
            outcome = "done"
            self._tries.pop(job, None)
            return result
        except JobFailed:
            self._tries[job] += 1
            if self._tries[job] >= task.attempts:
                outcome = "failed"
                del self._tries[job]
            raise
        finally:
            self._jobs.discard(running)
            try:
                await self._off(self._presence.give_back, cube)
            except sa.exc.SQLAlchemyError as error:  # it goes with us when we end
                log.warning("lease of cube %s: %s", cube, type(error).__name__)
            self._desk.leave(task.name, cube)
            self._seen(task.name, outcome, time.perf_counter() - began, result or {})

    async def _off(self, call: Callable[..., T], *args: Any) -> T:
        """Run it off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    async def _enter(self, task: str, cube: str, priority: int, key: str) -> None:
        """Wait until the job may run here and its cube is ours alone."""
        while True:
            await self._desk.enter(task, cube, priority, key)
            try:
                if await self._off(self._presence.take, cube):
                    return
            except BaseException:
                self._desk.leave(task, cube)
                raise
            self._desk.leave(task, cube)
            await asyncio.sleep(_TAKEN_S)

    async def _lives(self) -> None:
        """Beat, and take over what dead executors were at. Ends with StruckOut."""
        while True:
            try:
                dead = await self._off(self._presence.beat)
                pending = await self._off(self._orphans) if dead or not self._looked else set()
                for name in {*dead, *pending}:
                    log.warning("executor %s is dead: its jobs are taken over", name)
                    await self._off(DBOS._recover_pending_workflows, [name])
                self._looked = True
            except StruckOut:
                log.error("executor %s stood still for too long: others have its jobs", self._name)
                raise
            except Exception as error:  # the database is busy or away: the next beat tries again
                self._looked = False
                log.warning("heartbeat of %s: %s", self._name, type(error).__name__)
            await asyncio.sleep(BEAT_S)

    def _revoke(self, name: str) -> None:
        """For a thread: the licences live on our loop."""
        if self._licences is not None:
            asyncio.run_coroutine_threadsafe(self._licences.revoke(name), self._loop).result(_REVOKE_S)

    def _orphans(self) -> set[str]:
        """Executors that have running jobs and are not among the living."""
        rows = DBOS.list_workflows(status="PENDING", queue_name=QUEUE, load_input=False, load_output=False)
        return {row.executor_id for row in rows if row.executor_id} - self._presence.living()

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
        # those that failed together must not come back together
        await asyncio.sleep(random.uniform(0.0, 0.5) * task.backoff_s)
        # DBOS stores what is raised: only the kind of fault may get there
        log.error("task %s failed for cube %s: %s\n%s", task.name, cube, type(error).__name__, where(error))
        raise JobFailed(type(error).__name__) from None


def where(error: BaseException) -> str:
    """The traceback without the exception's own text, which may quote what people said."""
    return "".join(traceback.format_tb(error.__traceback__)).rstrip()
