"""The executor: the most urgent first, an orderly end, and a death in the middle of a job."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.jobs import QueueError
from scheduler.queue import DbosQueue
from tests.scheduler.test_queue import Office, ended, started, until


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/queue.db"


async def test_the_most_urgent_runs_first_and_the_running_one_may_finish(url: str) -> None:
    queue = DbosQueue(url)
    with Office(url, concurrency=1) as office:
        await queue.put("slow", "c")
        await started(office.diary, 1)
        for priority in (5, 9, 1):
            await queue.put("note", "c", {"n": str(priority)}, priority=priority)
        await until(lambda: asyncio.sleep(0, office.waiting == 3))
        office.diary.gate.set()
        await until(lambda: asyncio.sleep(0, len(office.diary.began) == 4))
        assert office.diary.began == ["c", "1", "5", "9"]
        office.diary.gate.clear()
        running = await queue.put("slow", "c")
        await started(office.diary, 5)
        asyncio.get_running_loop().call_later(0.2, office.diary.gate.set)
        await asyncio.to_thread(office.__exit__)
    assert (await ended(queue, running)).state == "done"
    await queue.close()


CHILD = """
import asyncio, pathlib, sys
from scheduler.executor import Executor
from scheduler.jobs import Task

folder, url, hang = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "hang"

async def work(cube, arguments):
    with (folder / "began").open("a") as log:
        log.write("x")
    if hang:
        await asyncio.sleep(60)
    (folder / "effect").write_text("done")
    return {"ok": 1}

asyncio.run(Executor(url, [Task("work", work)], poll_s=0.02).run(asyncio.Event()))
"""


def child(tmp_path: Path, url: str, mood: str) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), url, mood], cwd=root, env=environment)


async def test_a_job_survives_the_death_of_its_executor(url: str, tmp_path: Path) -> None:
    queue = DbosQueue(url)
    first = child(tmp_path, url, "hang")
    try:
        await until(lambda: asyncio.sleep(0, (tmp_path / "queue.db").exists()), 20)
        job = await until(lambda: _put(queue), 20)
        await until(lambda: asyncio.sleep(0, (tmp_path / "began").exists()), 20)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    second = child(tmp_path, url, "work")
    try:
        await until(lambda: asyncio.sleep(0, (tmp_path / "effect").exists()), 20)
        assert (await ended(queue, job)).result == {"ok": 1}
    finally:
        second.kill()
        second.wait()
    assert (tmp_path / "began").read_text() == "xx"
    await queue.close()


async def _put(queue: DbosQueue) -> str | None:
    try:
        return await queue.put("work", "c")
    except QueueError:  # the tables are not there yet
        return None
