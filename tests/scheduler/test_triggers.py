"""Which jobs follow from what happens."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from scheduler import triggers
from scheduler.jobs import Count, Job, QueueError
from scheduler.triggers import (
    CLOCK,
    MEMORY_WRITTEN,
    QUERY_ARRIVED,
    SESSION_QUIET,
    TURN_FINISHED,
    Clock,
    Trigger,
    Triggers,
)  # fmt: skip
from tests.scheduler.test_queue import until


class Slip:
    """A queue that writes down what is put in, and joins what is the same; `refuses` names the tasks it does not take."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.put_in: list[tuple[str, str, dict[str, str], int, float]] = []
        self.debounced: dict[str, float] = {}
        self.waiting: dict[tuple[str, str], str] = {}

    async def put(
        self,
        task: str,
        cube: str,
        arguments: Mapping[str, str] | None = None,
        *,
        priority: int = 5,
        delay_s: float = 0.0,
        debounce_s: float = 0.0,
    ) -> str:
        if task == self.refuses:
            raise QueueError("OperationalError")
        self.put_in.append((task, cube, dict(arguments or {}), priority, delay_s))
        self.debounced[task] = debounce_s
        return self.waiting.setdefault((task, cube), f"job {len(self.waiting) + 1}")

    async def jobs(
        self,
        cube: str | None = None,
        *,
        states: tuple[str, ...] = (),
        task: str | None = None,
        limit: int = 50,
        after: str = "",
    ) -> list[Job]:
        return []

    async def counts(self) -> list[Count]:
        return []

    async def get(self, job: str) -> Job | None:
        return None

    async def cancel(self, job: str) -> bool:
        return False

    async def retry(self, job: str) -> str | None:
        return None

    async def purge(self, older_than_s: float, now: float, dead_s: float | None = None) -> int:
        return 0


@pytest.mark.parametrize(
    ("event", "task", "priority", "delay"),
    [
        (triggers.TURN_FINISHED, "learn", 5, 7.0),
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


async def test_each_turn_puts_off_what_waits_for_a_silence() -> None:
    queue = Slip()
    assert len(await Triggers(queue, triggers.table(debounce_s=7.0, quiet_s=60.0)).fire(TURN_FINISHED, "c")) == 3
    assert queue.debounced == {"learn": 0.0, "predict": 60.0, "reflect": 60.0}


async def test_nothing_follows_from_an_event_that_nobody_waits_for() -> None:
    queue = Slip()
    fired = Triggers(queue, triggers.table(debounce_s=1))
    assert not fired.heard(QUERY_ARRIVED)
    assert await fired.fire(QUERY_ARRIVED, "c") == []
    assert queue.put_in == []


async def test_one_job_that_cannot_be_queued_does_not_stop_the_next() -> None:
    queue = Slip(refuses="a")
    rules = [Trigger(MEMORY_WRITTEN, "a"), Trigger(MEMORY_WRITTEN, "b")]
    assert await Triggers(queue, rules).fire(MEMORY_WRITTEN, "c") == ["job 1"]
    assert [task for task, *_ in queue.put_in] == ["b"]


async def test_every_put_is_counted_with_what_became_of_it() -> None:
    counted: list[tuple[str, str]] = []
    rules = [Trigger(MEMORY_WRITTEN, "index"), Trigger(MEMORY_WRITTEN, "lost"), Trigger(SESSION_QUIET, "predict")]
    fired = Triggers(Slip(refuses="lost"), rules, lambda event, outcome: counted.append((event, outcome)))
    await fired.fire(MEMORY_WRITTEN, "c")
    await fired.fire(MEMORY_WRITTEN, "c")
    await fired.fire(TURN_FINISHED, "c")
    written = [(MEMORY_WRITTEN, outcome) for outcome in ("queued", "refused", "joined", "refused")]
    assert counted == [*written, (SESSION_QUIET, "queued")]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"event": "sunrise"}, "there is no event 'sunrise'; there are turn_finished"),
        ({"delay_s": -1.0}, "delay_s must not be negative"),
        ({"debounce_s": -0.1}, "debounce_s must not be negative"),
        ({"priority": 0}, "priority must be 1"),
        ({"event": CLOCK}, "the event clock needs it"),
        ({"every_s": 60.0}, "every_s goes with the event clock"),
        ({"event": CLOCK, "every_s": float("nan")}, "every_s must not be negative"),
    ],
)
def test_a_trigger_that_makes_no_sense_is_refused(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Trigger(**{"event": TURN_FINISHED, "task": "index"} | given)


async def test_the_clock_fires_for_every_cube_when_its_time_is_ours() -> None:
    queue, asked = Slip(), list[tuple[str, float]]()
    rules = [
        Trigger(CLOCK, "trim", every_s=60.0),
        Trigger(CLOCK, "index", every_s=3600.0),
        Trigger(TURN_FINISHED, "learn"),
    ]

    async def cubes() -> list[str]:
        return ["a", "b"]

    async def mine(name: str, every_s: float) -> bool:
        asked.append((name, every_s))
        return every_s == 60.0

    await Clock(Triggers(queue, rules), rules, cubes, mine)()
    assert asked == [("trim every 60 s", 60.0), ("index every 3600 s", 3600.0)]
    assert {(task, cube) for task, cube, *_ in queue.put_in} == {("trim", "a"), ("trim", "b")}


# --- told, not waited for -------------------------------------------------------------------------------------------------


async def test_many_turns_become_few_jobs() -> None:
    queue, counted = Slip(), Counter[tuple[str, str]]()
    fired = Triggers(queue, triggers.table(debounce_s=0.0), lambda *told: counted.update([told]))
    for _ in range(200):
        fired.tell(TURN_FINISHED, "c")
    await fired.close()
    assert sorted(task for task, *_ in queue.put_in) == ["learn", "predict", "reflect"]
    assert counted[TURN_FINISHED, "joined"] == 199


async def test_what_happens_while_a_job_is_put_in_needs_another_put() -> None:
    queue = Slip()
    fired = Triggers(queue, [Trigger(TURN_FINISHED, "learn")])
    fired.tell(TURN_FINISHED, "c")
    await until(lambda: asyncio.sleep(0, queue.put_in))
    fired.tell(TURN_FINISHED, "c")
    await fired.close()
    assert [task for task, *_ in queue.put_in] == ["learn", "learn"]


async def test_a_queue_that_comes_back_gets_what_waited() -> None:
    queue, counted = Slip(refuses="learn"), list[tuple[str, str]]()
    fired = Triggers(queue, [Trigger(TURN_FINISHED, "learn")], lambda *told: counted.append(told))
    fired.tell(TURN_FINISHED, "c")
    await until(lambda: asyncio.sleep(0, counted))
    queue.refuses = ""
    await fired.close()
    assert [task for task, *_ in queue.put_in] == ["learn"]
    assert counted == [(TURN_FINISHED, "refused"), (TURN_FINISHED, "queued")]


async def test_what_is_given_up_is_counted() -> None:
    queue, counted = Slip(refuses="learn"), list[tuple[str, str]]()
    fired = Triggers(queue, [Trigger(TURN_FINISHED, "learn")], lambda *told: counted.append(told))
    fired.tell(TURN_FINISHED, "c")
    await fired.close()
    assert counted[-1] == (TURN_FINISHED, "lost")


async def test_a_queue_that_does_not_answer_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(Slip):
        async def put(self, task: str, cube: str, *given: Any, **more: Any) -> str:
            await asyncio.Event().wait()
            return ""

    monkeypatch.setattr(triggers, "_PATIENCE_S", 0.05)
    fired = Triggers(Stuck(), [Trigger(MEMORY_WRITTEN, "index")])
    assert await fired.fire(MEMORY_WRITTEN, "c") == []
    await fired.close(0.05)
