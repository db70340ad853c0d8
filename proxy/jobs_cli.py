"""`memrelay jobs …`: the queue, for whoever runs the installation. Works beside a running server and without one; what is put in
again waits until there is an executor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TypeVar

import click
from rich.console import Console
from rich.table import Table

from proxy.console import Session, command, fail
from scheduler.jobs import STATES, Job, JobQueue

T = TypeVar("T")
_DAY_S = 86400.0


@click.group()
def jobs() -> None:
    """Jobs: what waits in the queue, what runs, what failed."""


@command(jobs, "list")
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="May be given several times.")
@click.option("--task", help="Only this task.")
@click.option("--cube", help="Only those of this cube.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--after", default="", metavar="ID", help="Those before this job: the next page.")
def jobs_list(
    session: Session, states: tuple[str, ...], task: str | None, cube: str | None, limit: int, after: str
) -> None:
    """The newest jobs, and how many there are of each task."""

    async def run(queue: JobQueue) -> tuple[list[Job], list[dict[str, object]]]:
        found = await queue.jobs(cube, states=states, task=task, limit=limit + 1, after=after)
        return found, [asdict(count) for count in await queue.counts()]

    found, counts = _with_queue(session, run)
    page, more = found[:limit], len(found) > limit

    def show(console: Console) -> None:
        table = Table(box=None)
        for title in ("id", "task", "state", "priority", "put in (UTC)", "result or fault"):
            table.add_column(title, overflow="fold")
        for job in page:
            told = job.error or ", ".join(f"{name} {value}" for name, value in (job.result or {}).items() if value)
            table.add_row(job.id, job.task, job.state, str(job.priority), _time(job.created_at), told)
        console.print(table)
        for count in counts:
            console.print(f"{count['task']}: {count['number']} {count['state']}")

    following = page[-1].id if more else None
    session.answer({"jobs": [asdict(job) for job in page], "next": following, "counts": counts}, show)


@command(jobs, "show")
@click.argument("job_id")
def jobs_show(session: Session, job_id: str) -> None:
    """One job."""
    found = _with_queue(session, lambda queue: queue.get(job_id))
    if found is None:
        fail(f"there is no job {job_id}")
    body = asdict(found)
    session.answer(body, lambda console: console.print_json(data=body))


@command(jobs, "retry")
@click.argument("job_id", nargs=-1)
@click.option("--all-failed", "--failed", "failed", is_flag=True, help="All dead letters.")
@click.option("--task", help="With --all-failed: only those of this task.")
def jobs_retry(session: Session, job_id: tuple[str, ...], failed: bool, task: str | None) -> None:
    """Put failed or cancelled jobs in again."""
    if bool(job_id) == failed:
        fail("name the jobs, or say --all-failed")

    async def run(queue: JobQueue) -> dict[str, str | None]:
        wanted = job_id or [job.id for job in await queue.jobs(None, states=("failed",), task=task, limit=100_000)]
        return {job: await queue.retry(job) for job in wanted}

    again = _with_queue(session, run)
    refused = [job for job, new in again.items() if new is None]
    body = {"retried": [{"id": job, "again": new} for job, new in again.items() if new], "refused": refused}
    session.answer(body, lambda console: console.print(f"{len(again) - len(refused)} put in again."))
    if refused:
        fail(f"there is no failed or cancelled job {', '.join(refused)}")


@command(jobs, "cancel")
@click.argument("job_id")
def jobs_cancel(session: Session, job_id: str) -> None:
    """Take a waiting job out."""
    if not _with_queue(session, lambda queue: queue.cancel(job_id)):
        fail(f"there is no waiting job {job_id}")
    session.answer({"id": job_id, "state": "cancelled"}, lambda console: console.print(f"{job_id} is cancelled."))


@command(jobs, "purge")
@click.option("--days", type=click.FloatRange(min=0), default=7.0, show_default=True, help="Ended so long ago.")
@click.option("--failed", is_flag=True, help="The dead letters, too.")
def jobs_purge(session: Session, days: float, failed: bool) -> None:
    """Delete jobs that have ended."""
    age = days * _DAY_S

    async def run(queue: JobQueue) -> int:
        return await queue.purge(age, time.time(), age if failed else None)

    gone = _with_queue(session, run)
    session.answer({"purged": gone}, lambda console: console.print(f"{gone} jobs deleted."))


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _with_queue(session: Session, work: Callable[[JobQueue], Awaitable[T]]) -> T:
    from scheduler.jobs import QueueError
    from scheduler.queue import DbosQueue

    async def run() -> T:
        queue = DbosQueue(session.config.queue_url)
        try:
            return await work(queue)
        finally:
            await queue.close()

    try:
        return asyncio.run(run())
    except QueueError as error:
        fail(f"the queue cannot be reached ({error}); it is made when the executor first runs")
