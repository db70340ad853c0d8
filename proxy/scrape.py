"""What `GET /metrics` shows: the proxy's own counters, those of the executors beside it, and the queue as it is now.

An executor serves no HTTP: every few seconds it writes its counters into the data folder, and takes the file away when it ends.
The proxy reads what is fresh, tells executors apart by a label, and joins what several processes count. Neither a damaged file
nor a queue that cannot be reached keeps the rest from being seen.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from scheduler.jobs import Count, JobQueue, QueueError

log = logging.getLogger(__name__)
EVERY_S = 5.0
FRESH_S = 60.0  # after so long without a word an executor is not counted on
_GONE_S = 3600.0  # a file that nobody has written for so long is deleted
_ASK_S = 1.0  # a scrape waits so long for the queue
_STATES = ("waiting", "running", "failed")


class MetricsFile:
    """An executor's counters in the data folder."""

    def __init__(self, folder: Path, name: str, registry: CollectorRegistry) -> None:
        self._path = folder / f"executor-{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.prom"
        self._registry = registry

    async def run(self) -> None:
        """Write every few seconds until cancelled, then take the file away."""
        try:
            while True:
                try:
                    await asyncio.to_thread(self.write)
                except OSError as error:  # a full disk: the next one may go
                    log.warning("metrics are not written: %s", error.strerror)
                await asyncio.sleep(EVERY_S)
        finally:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def write(self) -> None:
        """Replace the file in one step, and delete those of executors long dead. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for other in self._path.parent.glob("executor-*.prom"):
            with suppress(FileNotFoundError):
                if time.time() - other.stat().st_mtime > _GONE_S:
                    other.unlink()
        work = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        work.write_bytes(generate_latest(self._registry))
        work.replace(self._path)


class Scrape:
    """Makes the text. `tasks`: those that are shown even when there is no job of theirs."""

    def __init__(
        self,
        own: CollectorRegistry,
        folder: Path,
        queue: JobQueue,
        tasks: Collection[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._own = own
        self._folder = folder
        self._queue = queue
        self._tasks = tasks
        self._clock = clock
        self._asking: asyncio.Task[list[Count]] | None = None

    async def text(self) -> bytes:
        """The exposition format. Never raises for what others left undone."""
        written = await asyncio.to_thread(written_by_executors, self._folder)
        found = joined([*self._own.collect(), *written, *self._gauges(await self._counts())])
        return generate_latest(_Given(found))

    async def _counts(self) -> list[Count] | None:
        """The queue's counts; None when they do not come in time. A question that hangs is not asked twice at a time."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._queue.counts())
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # late ones are nobody's
        done, _ = await asyncio.wait({self._asking}, timeout=_ASK_S)
        if not done:
            return None
        try:
            return self._asking.result()
        except QueueError:
            return None

    def _gauges(self, counts: Sequence[Count] | None) -> list[Metric]:
        up = GaugeMetricFamily("memrelay_queue_up", "Whether the job queue answers in time", value=counts is not None)
        if counts is None:
            return [up]
        jobs = GaugeMetricFamily(
            "memrelay_jobs", "Jobs that wait, run, or lie in the dead letters", labels=["task", "state"]
        )
        oldest = GaugeMetricFamily(
            "memrelay_oldest_waiting_job_seconds", "Since the oldest waiting job was put in", labels=["task"]
        )
        known = {(count.task, count.state): count for count in counts}
        for task in sorted({*self._tasks, *(count.task for count in counts)}):
            for state in _STATES:
                count = known.get((task, state))
                jobs.add_metric([task, state], count.number if count else 0)
                if state == "waiting":
                    oldest.add_metric([task], max(0.0, self._clock() - count.oldest_at) if count else 0.0)
        return [up, jobs, oldest]


class _Given:
    """Metrics that were collected already."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def written_by_executors(folder: Path) -> list[Metric]:
    """What the executors' fresh files say, each sample with the label `executor`."""
    found: list[Metric] = []
    for path in sorted(folder.glob("executor-*.prom")):
        try:
            if time.time() - path.stat().st_mtime > FRESH_S:
                continue
            families = list(text_string_to_metric_families(path.read_text(encoding="utf-8")))
        except FileNotFoundError:  # it has just ended
            continue
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read: %s", path.name, type(error).__name__)
            continue
        name = path.stem.removeprefix("executor-")
        for family in families:
            if family.name.endswith("_created"):  # our own counters say so under their own family
                continue
            family.samples = [s._replace(labels={**s.labels, "executor": name}) for s in family.samples]
            found.append(family)
    return found


def joined(metrics: Iterable[Metric]) -> list[Metric]:
    """One family per name, in the order of their first coming: Prometheus refuses a name that is told twice."""
    found: dict[tuple[str, str], Metric] = {}
    for metric in metrics:
        known = found.get((metric.name, metric.type))
        if known is None:
            known = found[metric.name, metric.type] = Metric(metric.name, metric.documentation, metric.type)
        known.samples.extend(metric.samples)
    return list(found.values())
