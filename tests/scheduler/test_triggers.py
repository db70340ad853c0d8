"""Which jobs follow from what happens."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from scheduler import triggers
from scheduler.jobs import Job, QueueError
from scheduler.triggers import Trigger, Triggers


class Slip:
    """A queue that writes down what is put in; `refuses` names the tasks it does not take."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.put_in: list[tuple[str, str, dict[str, str], int, float]] = []

    async def put(
        self,
        task: str,
        cube: str,
        arguments: Mapping[str, str] | None = None,
        *,
        priority: int = 5,
        delay_s: float = 0.0,
    ) -> str:
        if task == self.refuses:
            raise QueueError("OperationalError")
        self.put_in.append((task, cube, dict(arguments or {}), priority, delay_s))
        return f"job {len(self.put_in)}"

    async def jobs(self, cube: str | None = None, *, states: tuple[str, ...] = (), limit: int = 50) -> list[Job]:
        return []

    async def get(self, job: str) -> Job | None:
        return None

    async def cancel(self, job: str) -> bool:
        return False

    async def retry(self, job: str) -> str | None:
        return None

    async def purge(self, older_than_s: float, now: float) -> int:
        return 0


@pytest.mark.parametrize(
    ("event", "task", "priority", "delay"),
    [
        (triggers.TURN_FINISHED, "learn", 5, 7.0),
        (triggers.TURN_FINISHED, "predict", 8, 60.0),
        (triggers.MEMORY_WRITTEN, "index", 3, 0.0),
        (triggers.MEMORY_ERASED, "erase", 1, 0.0),
        (triggers.INDEX_BROKEN, "rebuild", 2, 0.0),
        (triggers.FEEDBACK_GIVEN, "reflect", 8, 5.0),
    ],
)
async def test_what_follows_from_an_event(event: str, task: str, priority: int, delay: float) -> None:
    queue = Slip()
    assert await Triggers(queue, triggers.table(debounce_s=7.0, quiet_s=60.0)).fire(event, "c", {"n": "1"})
    assert (task, "c", {"n": "1"}, priority, delay) in queue.put_in


async def test_nothing_follows_from_an_event_that_nobody_waits_for() -> None:
    assert await Triggers(Slip(), triggers.table(debounce_s=1)).fire("sunrise", "c") == []


async def test_one_job_that_cannot_be_queued_does_not_stop_the_next() -> None:
    queue = Slip(refuses="a")
    rules = [Trigger("x", "a"), Trigger("x", "b")]
    assert await Triggers(queue, rules).fire("x", "c") == ["job 1"]
    assert [task for task, *_ in queue.put_in] == ["b"]
