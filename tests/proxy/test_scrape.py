"""What GET /metrics shows of other processes and of the queue."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from proxy.metrics import ExecutorMetrics, Metrics
from proxy.scrape import MetricsFile, Scrape, joined
from scheduler.jobs import Count, QueueError
from tests.live import wait_for
from tests.scheduler.test_triggers import Slip


class Counted(Slip):
    """A queue with these counts; an error is raised; None never comes."""

    def __init__(self, counts: list[Count] | QueueError | None = None) -> None:
        super().__init__()
        self._counts = counts
        self.asked = 0

    async def counts(self) -> list[Count]:
        self.asked += 1
        if self._counts is None:
            await asyncio.Event().wait()
        if isinstance(self._counts, QueueError):
            raise self._counts
        return self._counts or []


def scrape(folder: Path, queue: Slip, own: CollectorRegistry | None = None) -> Callable[[], Awaitable[str]]:
    made = Scrape(own or CollectorRegistry(), folder, queue, {"learn"}, lambda: 1000.0)

    async def text() -> str:
        return (await made.text()).decode()

    return text


def executor(folder: Path, name: str, runs: int = 1) -> Path:
    """An executor's file."""
    metrics = ExecutorMetrics()
    for _ in range(runs):
        metrics.ran("learn", "done", 0.2, {"prompt_tokens": 7, "completion_tokens": 2})
    metrics.triggered("clock", "queued")
    MetricsFile(folder, name, metrics.registry).write()
    return folder / f"executor-{name}.prom"


async def test_executors_are_told_apart_and_what_all_count_is_one_family(tmp_path: Path) -> None:
    executor(tmp_path, "a")
    executor(tmp_path, "b", runs=3)
    own = Metrics()
    own.triggered("turn_finished", "joined")
    text = await scrape(tmp_path, Counted([]), own.registry)()
    assert 'memrelay_job_runs_total{executor="a",outcome="done",task="learn"} 1.0' in text
    assert 'memrelay_job_runs_total{executor="b",outcome="done",task="learn"} 3.0' in text
    assert 'memrelay_extraction_tokens_total{executor="b",kind="prompt"} 21.0' in text
    assert 'memrelay_triggers_total{event="turn_finished",outcome="joined"} 1.0' in text
    assert 'memrelay_triggers_total{event="clock",executor="a",outcome="queued"} 1.0' in text
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    assert {family.name for family in text_string_to_metric_families(text)} >= {"memrelay_job_seconds"}


async def test_an_executor_that_is_silent_is_left_out_and_one_long_dead_is_forgotten(tmp_path: Path) -> None:
    silent, dead = executor(tmp_path, "silent"), executor(tmp_path, "dead")
    os.utime(silent, times=(time.time() - 61,) * 2)
    os.utime(dead, times=(time.time() - 3700,) * 2)
    executor(tmp_path, "here")
    text = await scrape(tmp_path, Counted([]))()
    assert 'executor="here"' in text
    assert 'executor="silent"' not in text
    assert silent.exists()
    assert not dead.exists()


@pytest.mark.parametrize("damage", [b"memrelay_job_runs_total{task=", b"\xff\xfe", b"a b c d e"])
async def test_a_damaged_file_costs_nothing_but_itself(tmp_path: Path, damage: bytes) -> None:
    executor(tmp_path, "a").write_bytes(damage)
    executor(tmp_path, "b")
    text = await scrape(tmp_path, Counted([]))()
    assert 'executor="b"' in text
    assert "memrelay_queue_up 1.0" in text


async def test_the_queue_is_asked_at_every_scrape(tmp_path: Path) -> None:
    queue = Counted([Count("learn", "waiting", 3, 940.0), Count("wipe", "failed", 1, 5.0)])
    text = scrape(tmp_path, queue)
    assert queue.asked == 0
    shown = await text()
    assert queue.asked == 1
    assert 'memrelay_jobs{state="waiting",task="learn"} 3.0' in shown
    assert 'memrelay_jobs{state="failed",task="learn"} 0.0' in shown
    assert 'memrelay_jobs{state="failed",task="wipe"} 1.0' in shown
    assert 'memrelay_oldest_waiting_job_seconds{task="learn"} 60.0' in shown


async def test_a_queue_that_cannot_be_reached_is_said_to_be_down(tmp_path: Path) -> None:
    text = await scrape(tmp_path, Counted(QueueError("OperationalError")))()
    assert "memrelay_queue_up 0.0" in text
    assert "memrelay_jobs{" not in text


async def test_a_queue_that_hangs_is_not_waited_for_nor_asked_again(tmp_path: Path) -> None:
    queue = Counted(None)
    text = scrape(tmp_path, queue)
    assert "memrelay_queue_up 0.0" in await text()
    assert "memrelay_queue_up 0.0" in await text()
    assert queue.asked == 1


async def test_the_file_is_there_while_the_executor_runs(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    Counter("memrelay_x", "x", registry=registry).inc()
    running = asyncio.create_task(MetricsFile(tmp_path / "metrics", "host/1 a", registry).run())
    path = tmp_path / "metrics" / "executor-host_1_a.prom"
    await asyncio.to_thread(wait_for, path.exists, "the file")
    assert b"memrelay_x_total 1.0" in path.read_bytes()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert list((tmp_path / "metrics").iterdir()) == []


def test_what_is_joined_keeps_its_order_and_kind() -> None:
    own = Metrics()
    own.memory.labels("hit").inc()
    families = list(own.registry.collect())
    assert [family.name for family in joined([*families, *families])] == [family.name for family in families]
