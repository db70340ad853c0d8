"""The queue and the executor together, on real files: nothing is lost, nothing runs twice in effect."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from scheduler.executor import Executor
from scheduler.jobs import Arguments, Job, QueueError, Task
from scheduler.queue import DbosQueue

SAID = "my secret is zanzibar"


class Diary:
    """Tasks that write down what they do."""

    def __init__(self) -> None:
        self.beats = 0
        self.began: list[str] = []
        self.running: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.gate = threading.Event()  # tasks run in a loop of their own
        self.broken = 0

    async def note(self, cube: str, arguments: Arguments) -> Mapping[str, Any]:
        self.began.append(arguments.get("n", cube))
        return {"seen": arguments.get("n", "")}

    async def slow(self, cube: str, arguments: Arguments) -> Mapping[str, Any]:
        for whose in (cube, "all"):
            self.running[whose] = self.running.get(whose, 0) + 1
            self.most[whose] = max(self.most.get(whose, 0), self.running[whose])
        self.began.append(cube)
        await asyncio.to_thread(self.gate.wait, 5)
        await asyncio.sleep(0.02)
        for whose in (cube, "all"):
            self.running[whose] -= 1
        return {}

    async def breaks(self, cube: str, arguments: Arguments) -> Mapping[str, Any]:
        self.began.append(cube)
        if self.broken > 0:
            self.broken -= 1
            raise ValueError(SAID)
        return {"well": "again"}

    async def beat(self) -> None:
        self.beats += 1
        raise ValueError(SAID)

    def tasks(self) -> list[Task]:
        return [
            Task("note", self.note),
            Task("slow", self.slow),
            Task("breaks", self.breaks, attempts=2, backoff_s=0.05),
        ]


class Office:
    """An executor at work in a thread of its own, and a diary of what it does. DBOS allows one in a process."""

    def __init__(self, url: str, *, concurrency: int = 6) -> None:
        self.url, self.diary = url, Diary()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self.seen: list[tuple[str, str, float, Mapping[str, Any]]] = []
        self._executor = Executor(
            url,
            self.diary.tasks(),
            concurrency=concurrency,
            poll_s=0.02,
            beat=self.diary.beat,
            beat_s=0.2,
            seen=lambda *told: self.seen.append(told),
        )
        self._thread = threading.Thread(target=asyncio.run, args=[self._run()])

    @property
    def waiting(self) -> int:
        """Jobs that were taken from the queue and may not run yet."""
        return self._executor._desk.waiting

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._executor.run(self._stop, drain_s=3, ready=self._ready.set)

    def __enter__(self) -> Office:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(30)


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with Office(f"sqlite:///{tmp_path_factory.mktemp('queue')}/queue.db") as at_work:
        yield at_work


@pytest.fixture
def diary(office: Office) -> Diary:
    """A clean page."""
    office.diary.__init__()  # type: ignore[misc]
    return office.diary


@pytest.fixture
async def queue(office: Office) -> AsyncIterator[DbosQueue]:
    made = DbosQueue(office.url)
    yield made
    for job in await made.jobs(states=("waiting",), limit=1000):
        await made.cancel(job.id)
    await made.close()


@pytest.fixture
def cube() -> str:
    return uuid.uuid4().hex


async def until(check: Callable[[], Awaitable[Any]], seconds: float = 8.0) -> Any:
    """The first answer of `check` that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := await check()):
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)
    return answer


async def ended(queue: DbosQueue, job: str) -> Job:
    async def check() -> Job | None:
        found = await queue.get(job)
        return found if found and found.state not in ("waiting", "running") else None

    found: Job = await until(check)
    return found


async def started(diary: Diary, n: int) -> None:
    async def check() -> bool:
        return len(diary.began) >= n

    await until(check)


# --- putting in and looking at ------------------------------------------------------------------------------------------

LATER = 600.0  # seconds: such a job waits as long as the test takes


async def test_the_same_job_waits_once(queue: DbosQueue, cube: str) -> None:
    one = await queue.put("note", cube, {"a": "1", "b": "2"}, delay_s=LATER)
    assert await queue.put("note", cube, {"b": "2", "a": "1"}) == one
    others = [("note", cube), ("slow", cube), ("note", "another cube")]
    assert len({one, *[await queue.put(task, of, delay_s=LATER) for task, of in others]}) == 4


async def test_many_who_put_the_same_job_get_one(queue: DbosQueue, cube: str) -> None:
    ids = await asyncio.gather(*(queue.put("note", cube, delay_s=LATER) for _ in range(10)))
    assert len(set(ids)) == 1


async def test_a_job_as_it_is_listed(queue: DbosQueue, cube: str) -> None:
    await queue.put("note", cube, {"n": "1"}, priority=3, delay_s=LATER)
    (job,) = await queue.jobs(cube)
    assert job == await queue.get(job.id)
    assert (job.task, job.cube, job.state, job.priority, job.arguments) == ("note", cube, "waiting", 3, {"n": "1"})
    assert job.created_at == pytest.approx(time.time(), abs=60)


async def test_a_cube_sees_its_own_jobs_only(queue: DbosQueue, cube: str) -> None:
    await queue.put("note", cube, delay_s=LATER)
    await queue.put("note", f"{cube}x", delay_s=LATER)
    assert [job.cube for job in await queue.jobs(cube)] == [cube]
    assert await queue.jobs(cube, states=("done",)) == []
    assert await queue.get("nothing") is None


async def test_a_waiting_job_can_be_taken_out_once(queue: DbosQueue, cube: str) -> None:
    job = await queue.put("note", cube, delay_s=LATER)
    assert await queue.cancel(job)
    assert not await queue.cancel(job)
    assert not await queue.cancel("nothing")
    assert await queue.put("note", cube, delay_s=LATER) != job


async def test_a_cancelled_job_can_be_put_in_again(queue: DbosQueue, cube: str) -> None:
    job = await queue.put("note", cube, {"n": "1"}, priority=2, delay_s=LATER)
    assert await queue.retry(job) is None
    await queue.cancel(job)
    again = await queue.retry(job)
    (listed,) = await queue.jobs(cube)
    assert again != job
    assert (listed.id, listed.arguments, listed.priority) == (again, {"n": "1"}, 2)


@pytest.mark.parametrize("url", ["sqlite:////nowhere/at/all.db", "postgresql+psycopg://x@127.0.0.1:1/x"])
async def test_a_queue_out_of_reach_says_so(url: str) -> None:
    queue = DbosQueue(url)
    for ask in (queue.put("note", "c"), queue.jobs(), queue.get("x"), queue.cancel("x"), queue.purge(0, 0)):
        with pytest.raises(QueueError):
            await ask
    await queue.close()


# --- running ------------------------------------------------------------------------------------------------------------


async def test_what_a_job_returns_is_kept(queue: DbosQueue, cube: str) -> None:
    job = await ended(queue, await queue.put("note", cube, {"n": "7"}))
    assert (job.state, job.result, job.error) == ("done", {"seen": "7"}, None)


async def test_after_it_has_ended_the_same_job_is_a_new_one(queue: DbosQueue, cube: str) -> None:
    first = await ended(queue, await queue.put("note", cube))
    second = await ended(queue, await queue.put("note", cube))
    assert first.id != second.id


async def test_what_happens_while_a_job_runs_needs_another_job(queue: DbosQueue, diary: Diary, cube: str) -> None:
    first = await queue.put("slow", cube)
    await started(diary, 1)
    second = await queue.put("slow", cube, delay_s=LATER)
    assert first != second
    assert await queue.put("slow", cube) == second
    diary.gate.set()
    assert (await ended(queue, first)).state == "done"


async def test_a_delayed_job_waits(queue: DbosQueue, diary: Diary, cube: str) -> None:
    late = await queue.put("note", cube, {"n": "late"}, delay_s=1)
    await ended(queue, await queue.put("note", cube, {"n": "soon"}))
    assert [job.id for job in await queue.jobs(cube, states=("waiting",))] == [late]
    await ended(queue, late)
    assert diary.began == ["soon", "late"]


async def test_the_jobs_of_a_cube_run_one_by_one_and_cubes_side_by_side(queue: DbosQueue, diary: Diary) -> None:
    jobs = [await queue.put("slow", cube, {"n": str(n)}) for n in range(3) for cube in ("a", "b")]
    await started(diary, 2)
    diary.gate.set()
    assert {(await ended(queue, job)).state for job in jobs} == {"done"}
    assert diary.most == {"a": 1, "b": 1, "all": 2}


async def test_a_busy_cube_leaves_room_for_others(queue: DbosQueue, diary: Diary, cube: str) -> None:
    busy = [await queue.put("slow", "busy", {"n": str(n)}) for n in range(4)]
    await started(diary, 1)
    assert (await ended(queue, await queue.put("note", cube))).state == "done"
    diary.gate.set()
    assert {(await ended(queue, job)).state for job in busy} == {"done"}


async def test_a_task_that_fails_once_is_tried_again(queue: DbosQueue, diary: Diary, cube: str) -> None:
    diary.broken = 1
    job = await ended(queue, await queue.put("breaks", cube))
    assert (job.state, job.result, len(diary.began)) == ("done", {"well": "again"}, 2)


async def test_a_task_that_keeps_failing_can_be_put_in_again(queue: DbosQueue, diary: Diary, cube: str) -> None:
    diary.broken = 2
    job = await ended(queue, await queue.put("breaks", cube))
    assert (job.state, job.error, len(diary.began)) == ("failed", "ValueError", 2)
    again = await queue.retry(job.id)
    assert again is not None
    assert (await ended(queue, again)).state == "done"
    assert await queue.get(job.id) is None


async def test_what_a_fault_said_is_stored_nowhere(
    office: Office, queue: DbosQueue, diary: Diary, cube: str, caplog: pytest.LogCaptureFixture
) -> None:
    diary.broken = 2
    await ended(queue, await queue.put("breaks", cube))
    files = list(Path(office.url.removeprefix("sqlite:///")).parent.iterdir())
    assert any(cube.encode() in file.read_bytes() for file in files)
    assert not any(SAID.encode() in file.read_bytes() for file in files)
    assert "ValueError" in caplog.text
    assert SAID not in caplog.text


async def test_finished_jobs_are_purged_and_failed_ones_stay(queue: DbosQueue, diary: Diary, cube: str) -> None:
    diary.broken = 2
    await ended(queue, await queue.put("note", cube))
    failed = await ended(queue, await queue.put("breaks", cube))
    assert await queue.purge(60, time.time()) == 0
    assert await queue.purge(60, time.time() + 3600) >= 1
    assert [job.id for job in await queue.jobs(cube)] == [failed.id]


async def test_the_clock_goes_on_after_a_fault(diary: Diary) -> None:
    await until(lambda: asyncio.sleep(0, diary.beats >= 3))


# --- debounce, counts, pages, dead letters ---------------------------------------------------------------------------------


async def test_each_further_put_moves_a_debounced_job_back(queue: DbosQueue, diary: Diary, cube: str) -> None:
    job = await queue.put("note", cube, debounce_s=3)
    assert await queue.put("note", cube, debounce_s=LATER) == job
    await ended(queue, await queue.put("note", f"{cube}x", {"n": "after its first time"}, delay_s=3.2))
    assert diary.began == ["after its first time"]
    found = await queue.get(job)
    assert found is not None
    assert found.state == "waiting"


async def test_a_debounced_job_is_not_put_off_for_ever(queue: DbosQueue, diary: Diary, cube: str) -> None:
    async def again() -> bool:
        await queue.put("note", cube, debounce_s=0.15)
        return bool(diary.began)

    began = time.monotonic()
    await until(again, 20)
    assert time.monotonic() - began >= 0.15


async def test_what_waits_and_what_failed_is_counted(queue: DbosQueue, diary: Diary, cube: str) -> None:
    diary.broken = 2
    await ended(queue, await queue.put("breaks", cube))
    await queue.put("note", cube, delay_s=LATER)
    await queue.put("note", f"{cube}x", delay_s=LATER)
    counted = {(one.task, one.state): one for one in await queue.counts()}
    assert counted["note", "waiting"].number >= 2
    assert counted["breaks", "failed"].number >= 1
    assert counted["note", "waiting"].oldest_at <= time.time()


async def test_jobs_are_paged_without_a_gap(queue: DbosQueue, cube: str) -> None:
    put_in = {await queue.put("note", cube, {"n": str(n)}, delay_s=LATER) for n in range(7)}
    seen: list[str] = []
    while page := await queue.jobs(cube, task="note", limit=3, after=seen[-1] if seen else ""):
        seen += [job.id for job in page]
    assert len(seen) == 7
    assert set(seen) == put_in
    assert await queue.jobs(cube, task="slow") == []


async def test_dead_letters_are_purged_when_they_are_old_enough(queue: DbosQueue, diary: Diary, cube: str) -> None:
    diary.broken = 2
    failed = await ended(queue, await queue.put("breaks", cube))
    assert await queue.purge(60, time.time() + 3600, dead_s=7200) >= 0
    assert await queue.get(failed.id) is not None
    assert await queue.purge(60, time.time() + 3600, dead_s=60) >= 1
    assert await queue.get(failed.id) is None


async def test_one_cube_cannot_take_every_place(queue: DbosQueue, diary: Diary, cube: str) -> None:
    busy = [await queue.put("slow", "busy", {"n": str(n)}) for n in range(15)]  # of six places
    await started(diary, 1)
    assert (await ended(queue, await queue.put("note", cube))).state == "done"
    diary.gate.set()
    assert {(await ended(queue, job)).state for job in busy} == {"done"}
    assert diary.most["busy"] == 1


async def test_every_run_is_told(office: Office, queue: DbosQueue, diary: Diary, cube: str) -> None:
    office.seen.clear()
    diary.broken = 3
    await ended(queue, await queue.put("note", cube))
    await ended(queue, await queue.put("breaks", cube))
    await ended(queue, await queue.put("breaks", cube, {"n": "2"}))
    assert [(task, outcome) for task, outcome, *_ in office.seen] == [
        ("note", "done"),
        ("breaks", "retry"),
        ("breaks", "failed"),
        ("breaks", "retry"),
        ("breaks", "done"),
    ]
    assert office.seen[0][3] == {"seen": ""}
    assert all(seconds >= 0 for *_, seconds, _ in office.seen)
