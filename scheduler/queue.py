"""The monitoring queue on DBOS: SQLite by default, PostgreSQL by URL. The only door to DBOS.

Job ids are `<cube>:<task>:<priority>.<random>`, so a cube's jobs are found by prefix. Arguments, results and errors are JSON
without anything that people said. Jobs run in the executor process (see scheduler.executor); here they are put in and looked
at.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient
from dbos._serialization import Serializer

from scheduler.jobs import LONGEST, Arguments, Count, Job, QueueError

QUEUE = "memrelay"
APPLICATION = "memrelay"
VERSION = "1"  # fixed: jobs of an older release are run by the newer one
_SAME_MOMENT = 50  # jobs that may have been put in within one millisecond
_AT_ONCE = 500  # jobs deleted in one transaction
_STATES = {
    "ENQUEUED": "waiting",
    "DELAYED": "waiting",
    "PENDING": "running",
    "SUCCESS": "done",
    "ERROR": "failed",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed",
    "CANCELLED": "cancelled",
}


class JsonSerializer(Serializer):
    """JSON instead of DBOS's default, which is pickle."""

    def serialize(self, data: Any) -> str:
        """Exceptions become their type's name and message."""
        return json.dumps(data, default=_plain, ensure_ascii=False)

    def deserialize(cls, serialized_data: str) -> Any:  # noqa: N805  (DBOS's own signature)
        """What `serialize` wrote."""
        value = json.loads(serialized_data)
        if isinstance(value, dict) and set(value) == {"exception", "message"}:
            return JobFailed(value["message"])
        return value

    def name(self) -> str:
        """What is written beside each value, so that another serializer is noticed."""
        return "memrelay_json"


class JobFailed(Exception):
    """A task raised; the message names the kind of fault and never what people said."""


def _plain(value: Any) -> Any:
    if isinstance(value, BaseException):
        return {
            "exception": type(value).__name__,
            "message": str(value) if isinstance(value, JobFailed) else type(value).__name__,
        }
    raise TypeError(f"{type(value).__name__} cannot be stored with a job")


_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000", "foreign_keys=ON", "secure_delete=ON")


def engine(url: str) -> sa.Engine:
    """An engine for the queue's database. On SQLite with WAL and immediate transactions: 20 times faster to enqueue."""
    made = sa.create_engine(url, hide_parameters=True, pool_size=8, max_overflow=4)
    if made.dialect.name == "sqlite":

        @sa.event.listens_for(made, "connect")
        def _connect(connection: Any, _record: Any) -> None:
            connection.isolation_level = "IMMEDIATE"
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")

    return made


class DbosQueue:
    """A JobQueue for any process. Connects at the first use, so that it may start before the executor has made the tables."""

    def __init__(self, url: str) -> None:
        self._engine = engine(url)
        self._client: DBOSClient | None = None

    def _connected(self) -> DBOSClient:
        if self._client is None:
            self._client = DBOSClient(
                system_database_engine=self._engine,
                serializer=JsonSerializer(),
                application_name=APPLICATION,
                lazy=True,
                retry_connection_errors=False,
            )
        return self._client

    async def _call(self, function: str, *args: Any, **kwargs: Any) -> Any:
        def run() -> Any:
            return getattr(self._connected(), function)(*args, **kwargs)

        try:
            return await asyncio.to_thread(run)
        except Exception as error:  # DBOS raises its own and SQLAlchemy's errors; both mean the same here
            raise QueueError(type(error).__name__) from error

    async def put(
        self,
        task: str,
        cube: str,
        arguments: Arguments | None = None,
        *,
        priority: int = 5,
        delay_s: float = 0.0,
        debounce_s: float = 0.0,
    ) -> str:
        """See JobQueue.put."""
        given = dict(arguments or {})
        same = hashlib.sha256(json.dumps([task, cube, given], sort_keys=True).encode()).hexdigest()[:32]
        options: dict[str, Any] = {
            "workflow_name": task,
            "queue_name": QUEUE,
            "workflow_id": f"{cube}:{task}:{priority}.{uuid.uuid4().hex[:12]}",
            "duplication_policy": "return-existing",
            "priority": priority,
            "app_version": VERSION,
        }
        if max(delay_s, debounce_s) > 0:
            options["delay_seconds"] = max(delay_s, debounce_s)
        for number in itertools.count():
            handle = await self._call("enqueue", options | {"deduplication_id": f"{same}.{number}"}, cube, given)
            job = str(handle.get_workflow_id())
            if job == options["workflow_id"]:
                break
            # DBOS calls a running job the same, too; but it may have looked already at what has changed just now
            twin = await self.get(job)
            if twin is not None and twin.state == "waiting":
                if debounce_s > 0 and time.time() - twin.created_at < debounce_s * (LONGEST - 1):
                    await self._call("set_workflow_delay", job, delay_seconds=debounce_s)
                break
        return job

    async def jobs(
        self,
        cube: str | None = None,
        *,
        states: tuple[str, ...] = (),
        task: str | None = None,
        limit: int = 50,
        after: str = "",
    ) -> list[Job]:
        """See JobQueue.jobs."""
        wanted = [theirs for theirs, ours in _STATES.items() if not states or ours in states]
        given: dict[str, Any] = {"status": wanted, "queue_name": QUEUE, "name": task, "sort_desc": True}
        given["workflow_id_prefix"] = f"{cube}:" if cube else None
        last = await self.get(after) if after else None
        if last is None:
            return [_job(row) for row in await self._call("list_workflows", **given, limit=limit)]
        given["end_time"] = datetime.fromtimestamp(last.created_at + 0.001, UTC).isoformat()
        rows = await self._call("list_workflows", **given, limit=limit + _SAME_MOMENT)
        ids = [row.workflow_id for row in rows]
        return [_job(row) for row in rows[ids.index(after) + 1 if after in ids else 0 :][:limit]]

    async def counts(self) -> list[Count]:
        """See JobQueue.counts."""
        alive = ("waiting", "running", "failed")

        def ask() -> list[Any]:
            system = self._connected()._sys_db
            table = system.tables.workflow_status
            names = [theirs for theirs, ours in _STATES.items() if ours in alive]
            columns = (table.c.name, table.c.status, sa.func.count(), sa.func.min(table.c.created_at))
            query = sa.select(*columns).where(table.c.queue_name == QUEUE, table.c.status.in_(names))
            with system.engine.connect() as connection:
                return list(connection.execute(query.group_by(table.c.name, table.c.status)).all())

        try:
            rows = await asyncio.to_thread(ask)
        except Exception as error:  # as in _call
            raise QueueError(type(error).__name__) from error
        found: dict[tuple[str, str], Count] = {}
        for task, status, number, oldest in rows:
            state, at = _STATES[status], (oldest or 0) / 1000
            known = found.get((task, state))
            found[task, state] = Count(
                task, state, number + (known.number if known else 0), min(at, known.oldest_at) if known else at
            )
        return sorted(found.values(), key=lambda count: (count.task, count.state))

    async def get(self, job: str) -> Job | None:
        """See JobQueue.get."""
        rows = await self._call("list_workflows", workflow_ids=[job])
        return _job(rows[0]) if rows else None

    async def cancel(self, job: str) -> bool:
        """See JobQueue.cancel."""
        found = await self.get(job)
        if found is None or found.state != "waiting":
            return False
        await self._call("cancel_workflow", job)
        return True

    async def retry(self, job: str) -> str | None:
        """See JobQueue.retry."""
        found = await self.get(job)
        if found is None or found.state not in ("failed", "cancelled"):
            return None
        again = await self.put(found.task, found.cube, found.arguments, priority=found.priority)
        await self._call("delete_workflow", job)
        return again

    async def purge(self, older_than_s: float, now: float, dead_s: float | None = None) -> int:
        """See JobQueue.purge."""
        gone = await self._purge(("done", "cancelled"), now - older_than_s)
        return gone + (await self._purge(("failed",), now - dead_s) if dead_s is not None else 0)

    async def _purge(self, states: tuple[str, ...], before: float) -> int:
        gone = 0
        while True:
            rows = await self._call(
                "list_workflows",
                status=[theirs for theirs, ours in _STATES.items() if ours in states],
                queue_name=QUEUE,
                completed_before=datetime.fromtimestamp(before, UTC).isoformat(),
                limit=_AT_ONCE,
                load_input=False,
                load_output=False,
            )
            if rows:
                await self._call("delete_workflows", [row.workflow_id for row in rows])
            gone += len(rows)
            if len(rows) < _AT_ONCE:
                return gone

    async def close(self) -> None:
        """Free connections."""
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(client.destroy)
        await asyncio.to_thread(self._engine.dispose)


def priority_of(job: str) -> int:
    """The priority that a job's id tells; an older release's tells none."""
    number = job.rpartition(":")[2].partition(".")[0]
    return int(number) if number.isdecimal() else 5


def _job(row: Any) -> Job:
    cube, _, _ = row.workflow_id.partition(":")
    given = (row.input or {}).get("args") or []
    arguments = given[1] if len(given) > 1 and isinstance(given[1], dict) else {}
    return Job(
        id=row.workflow_id,
        task=row.name,
        cube=cube,
        state=_STATES.get(row.status, row.status.lower()),
        priority=row.priority or 0,
        created_at=(row.created_at or 0) / 1000,
        updated_at=(row.updated_at or 0) / 1000,
        arguments=arguments,
        result=row.output if isinstance(row.output, dict) else None,
        error=str(row.error) if row.error else None,
    )
