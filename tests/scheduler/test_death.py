"""Executors that die with work in hand: nothing is lost, another takes over, no cube is worked on by two."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scheduler.jobs import QueueError
from scheduler.queue import DbosQueue

# each run of a job writes down that it began and, in the end, that it is done; a cube in two hands at once shows
CHILD = """
import asyncio, pathlib, sys
from scheduler.executor import Executor
from scheduler.jobs import Task

folder, url = pathlib.Path(sys.argv[1]), sys.argv[2]

async def work(cube, arguments):
    hold = folder / f"hold-{cube}"
    try:
        hold.mkdir()
    except FileExistsError:
        if "careful" in sys.argv:
            (folder / "twice").touch()
    with (folder / "began").open("a") as log:
        log.write(arguments["n"] + " ")
    await asyncio.sleep(float(arguments.get("s", "0.05")))
    (folder / f"done-{arguments['n']}").touch()
    if hold.exists():
        hold.rmdir()
    return {"n": arguments["n"]}

asyncio.run(Executor(url, [Task("work", work)], poll_s=0.05).run(asyncio.Event()))
"""
ROOT = Path(__file__).parents[2]


def executor(folder: Path, url: str, *mood: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (folder / "log").open("ab") as log:
        command = [sys.executable, "-c", CHILD, str(folder), url, *mood]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


async def until(condition: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


async def put(queue: DbosQueue, cube: str, **arguments: str) -> str:
    while True:
        try:
            return await queue.put("work", cube, arguments)
        except QueueError:  # the tables are not there yet
            await asyncio.sleep(0.1)


def done(folder: Path) -> set[str]:
    return {file.name.removeprefix("done-") for file in folder.glob("done-*")}


async def test_nothing_is_lost_however_often_the_executor_dies(any_url: str, tmp_path: Path) -> None:
    queue, chance = DbosQueue(any_url), random.Random(5)
    running = executor(tmp_path, any_url)
    wanted = {str(number) for number in range(30)}
    try:
        jobs = [await put(queue, f"c{int(n) % 4}", n=n, s="0.2") for n in sorted(wanted)]
        for _ in range(3):
            before = (tmp_path / "began").read_text() if (tmp_path / "began").exists() else ""
            await until(
                lambda before=before: (tmp_path / "began").exists() and (tmp_path / "began").read_text() != before
            )
            await asyncio.sleep(chance.random() * 0.2)
            kill(running)
            running = executor(tmp_path, any_url)
        await until(lambda: done(tmp_path) == wanted)
    finally:
        kill(running)
    states = [found.state for job in jobs if (found := await queue.get(job))]
    assert len(states) == len(wanted)
    assert states.count("done") >= len(wanted) - 4, "those that had just ended may still be marked as running"
    await queue.close()


async def test_another_executor_takes_over_within_half_a_minute(any_url: str, tmp_path: Path) -> None:
    queue = DbosQueue(any_url)
    first = executor(tmp_path, any_url)
    job = await put(queue, "c", n="1", s="3600")
    await until(lambda: (tmp_path / "began").exists())
    second = executor(tmp_path, any_url)
    try:
        await put(queue, "d", n="2")
        await until(lambda: "2" in done(tmp_path))
        assert (tmp_path / "began").read_text().split().count("1") == 1, "while its executor lives nobody else takes it"
        died = time.monotonic()
        kill(first)
        await until(lambda: (tmp_path / "began").read_text().split().count("1") == 2, 30)
        assert time.monotonic() - died < 30
        found = await queue.get(job)
        assert found is not None
        assert found.state == "running"
    finally:
        kill(second)
        first.poll() is None and kill(first)  # type: ignore[func-returns-value]
    await queue.close()


@pytest.mark.parametrize("any_url", ["postgresql"], indirect=True)
async def test_two_executors_never_work_on_one_cube(any_url: str, tmp_path: Path) -> None:
    queue = DbosQueue(any_url)
    both = [executor(tmp_path, any_url, "careful") for _ in range(2)]
    wanted = {str(number) for number in range(40)}
    try:
        for n in sorted(wanted):
            await put(queue, f"c{int(n) % 3}", n=n, s="0.03")
        await until(lambda: done(tmp_path) == wanted)
    finally:
        for process in both:
            kill(process)
    assert not (tmp_path / "twice").exists()
    assert len((tmp_path / "began").read_text().split()) == len(wanted), "each ran once"
    await queue.close()
