"""The queue and the executor under load and under fire; each command is one run with everything real but the upstream.

`python -m benchmarks.jobs queue`: what putting a job in costs, jobs per second, the executor's idle CPU.
`python -m benchmarks.jobs burst`: chats in a burst while the extraction model is slow, beside the same burst with no executor.
`python -m benchmarks.jobs deaths`: kill -9 of the executor in the middle of each kind of task, over and over.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import sqlalchemy as sa
import yaml

from memory import sql
from memory.cube import Cubes
from memory.erase import Receipts
from memory.index import Index
from memory.sql import Database
from memory.store import Store
from memory.turns import Place, TurnLog
from memory.types import Kind, Memory, Status, Turn
from proxy import db
from proxy.config import Config, load
from proxy.keys import Keys
from proxy.parts import Parts, assemble
from scheduler.executor import Executor
from scheduler.jobs import QueueError, Task
from scheduler.queue import DbosQueue
from tests.fakes import Received, RecordingUpstream, Reply, completion, free_port

OWNER = "owner"
LOVED = (
    "cherries sailing chess cinnamon jazz hiking pottery violets saunas maps owls lemons rowing opera figs origami tango"
    " skiing puzzles lavender archery haiku olives beekeeping"
).split()
KINDS = ("learn", "index", "erase", "rebuild", "wipe", "close", "fuse", "trim", "reflect", "predict")


@click.group()
def main() -> None:
    """See above."""


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50": round(statistics.median(ordered) * 1000, 2),
        "p95": round(ordered[int(len(ordered) * 0.95)] * 1000, 2),
    }


@contextmanager
def folder(models: Path) -> Iterator[Path]:
    """A data folder that has the embedding model."""
    with tempfile.TemporaryDirectory() as made:
        (Path(made) / "models").symlink_to(models.resolve())
        yield Path(made)


@contextmanager
def serving(data: Path, settings: dict[str, Any], role: str) -> Iterator[subprocess.Popen[bytes]]:
    """`memrelay serve`, or one role of it."""
    path = data / f"{role}.yaml"
    path.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "proxy.cli", "serve", "--config", str(path), "--data", str(data)]
    with (data / f"{role}.log").open("ab") as log:
        process = subprocess.Popen([*command, "--role", role], stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


# --- queue ------------------------------------------------------------------------------------------------------------------


@main.command()
@click.option("--jobs", default=1000, show_default=True)
@click.option("--url", default="", help="A queue database; default: SQLite in a temporary folder.")
@click.option("--idle-s", default=30, show_default=True)
def queue(jobs: int, url: str, idle_s: int) -> None:
    """Putting in, running, doing nothing."""
    with tempfile.TemporaryDirectory() as made:
        print(json.dumps(asyncio.run(_queue(jobs, url or f"sqlite:///{made}/queue.db", idle_s)), indent=1))


async def _queue(jobs: int, url: str, idle_s: int) -> dict[str, Any]:
    done: list[float] = []

    async def nothing(cube: str, arguments: Any) -> dict[str, int]:
        done.append(time.perf_counter())
        return {}

    stop, ready, put = asyncio.Event(), asyncio.Event(), DbosQueue(url)
    executor = asyncio.create_task(Executor(url, [Task("nothing", nothing)]).run(stop, ready=ready.set))
    await ready.wait()
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.sleep(idle_s)
    idle = (time.process_time() - cpu) / (time.perf_counter() - wall)
    alone = []
    for number in range(200):  # one at a time, as a chat puts it in
        began = time.perf_counter()
        await put.put("nothing", f"alone{number}", delay_s=3600)
        alone.append(time.perf_counter() - began)
    again = []
    for _ in range(200):
        began = time.perf_counter()
        await put.put("nothing", "alone0", delay_s=3600)
        again.append(time.perf_counter() - began)
    began = time.perf_counter()
    await asyncio.gather(*(put.put("nothing", f"c{number % 50}", {"n": str(number)}) for number in range(jobs)))
    filled = time.perf_counter() - began
    while len(done) < jobs:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    took = max(done) - began
    stop.set()
    await executor
    await put.close()
    return {
        "put_ms": spread(alone),
        "put_coalesced_ms": spread(again),
        "puts_per_s": round(jobs / filled),
        "jobs_per_s": round(jobs / took),
        "idle_cpu_percent": round(100 * idle, 2),
    }


# --- burst ------------------------------------------------------------------------------------------------------------------


@main.command()
@click.option("--chats", default=2000, show_default=True)
@click.option("--keys", default=40, show_default=True)
@click.option("--at-once", default=16, show_default=True)
@click.option("--slow-s", default=2.0, show_default=True, help="What the extraction model takes for a call.")
@click.option("--models", default=".cache/models", type=click.Path(path_type=Path), show_default=True)
def burst(chats: int, keys: int, at_once: int, slow_s: float, models: Path) -> None:
    """Chats in a burst while extraction is slow."""
    depths: list[int] = []

    def answer(received: Received) -> Reply | str:
        if received.body.get("model") == "slow":
            return Reply(chunks=[completion('{"items": []}')], wait_s=slow_s)
        return "Noted."

    with RecordingUpstream(answer) as upstream, folder(models) as alone, folder(models) as full:
        base = {
            "upstreams": [{"name": "r", "kind": "openai", "base_url": upstream.url}],
            "extraction": {"model": "slow"},
        }
        told: dict[str, Any] = {"chats": chats, "keys": keys, "at_once": at_once, "slow_s": slow_s}
        for name, data, role in (("no executor", alone, "proxy"), ("slow extraction", full, "all")):
            port = free_port()
            settings = {**base, "server": {"port": port}}
            config = load(None, data=str(data))
            db.upgrade(config)
            secrets = asyncio.run(_keys(config, keys))
            with serving(data, settings, role):
                asyncio.run(_up(port))
                told[name] = asyncio.run(_burst(port, secrets, chats, at_once))
                if role == "all":
                    told[name] |= asyncio.run(_settled(config, chats, depths))
        told["p95_ratio"] = round(told["slow extraction"]["ms"]["p95"] / told["no executor"]["ms"]["p95"], 3)
        told["extraction_calls"] = sum(1 for one in upstream.requests if one.raw.find(b'"slow"') >= 0)
        print(json.dumps(told, indent=1))


async def _keys(config: Config, number: int) -> list[str]:
    database = db.open_database(config)
    try:
        return [(await Keys(database).create("bench")).secret for _ in range(number)]
    finally:
        await database.close()


async def _up(port: int) -> None:
    import httpx

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        for _ in range(600):
            try:
                if (await client.get("/health")).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.1)
    raise SystemExit("memrelay did not start")


async def _burst(port: int, secrets: list[str], chats: int, at_once: int) -> dict[str, Any]:
    import httpx

    gate, took, states = asyncio.Semaphore(at_once), [], Counter[str]()
    numbers = itertools.count()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:

        async def chat(secret: str, number: int) -> None:
            body = {"model": "m", "messages": [{"role": "user", "content": f"Parcel {number} went to Zagreb."}]}
            async with gate:
                began = time.perf_counter()
                response = await client.post(
                    "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {secret}"}
                )
                took.append(time.perf_counter() - began)
            states[f"{response.status_code} {response.headers.get('x-memory-state', '')}"] += 1

        began = time.perf_counter()
        await asyncio.gather(*(chat(secrets[n % len(secrets)], n) for n in itertools.islice(numbers, chats)))
        wall = time.perf_counter() - began
    return {"ms": spread(took), "chats_per_s": round(chats / wall, 1), "states": dict(states)}


async def _settled(config: Config, chats: int, depths: list[int]) -> dict[str, Any]:
    """Wait until every turn was extracted; then count what is there."""
    database, jobs = db.open_database(config), DbosQueue(config.queue_url)
    began = time.perf_counter()
    try:
        while True:
            counts = await jobs.counts()
            depths.append(sum(one.number for one in counts if one.state != "failed"))
            async with database.read() as connection:
                waiting = sa.select(sa.func.count()).where(sql.turns.c.extracted == 0).select_from(sql.turns)
                left = (await connection.execute(waiting)).scalar_one()
                turns = (await connection.execute(sa.select(sa.func.count()).select_from(sql.turns))).scalar_one()
            if not left and turns >= chats:
                break
            await asyncio.sleep(0.5)
            if time.perf_counter() - began > 1200:
                break
        async with database.read() as connection:
            episodes = sa.select(sa.func.count(), sa.func.count(sa.distinct(sql.memories.c.text))).where(
                sql.memories.c.kind == "episode"
            )
            number, distinct = (await connection.execute(episodes)).one()
        learn = await jobs.jobs(task="learn", limit=100_000)
        return {
            "turns": turns,
            "turns_not_extracted": left,
            "episodes": number,
            "distinct_episodes": distinct,
            "learn_jobs": len(learn),
            "jobs_failed": sum(one.number for one in counts if one.state == "failed"),
            "deepest": max(depths),
            "settled_s": round(time.perf_counter() - began, 1),
        }
    finally:
        await jobs.close()
        await database.close()


# --- deaths -----------------------------------------------------------------------------------------------------------------


@main.command()
@click.option("--rounds", default=50, show_default=True, help="Deaths in all, of each kind in turn.")
@click.option("--models", default=".cache/models", type=click.Path(path_type=Path), show_default=True)
def deaths(rounds: int, models: Path) -> None:
    """kill -9 in the middle of every kind of task."""
    with folder(models) as data:
        config = load(None, data=str(data))
        db.upgrade(config)
        told = asyncio.run(Deaths(config, data).run(rounds))
        print(json.dumps(told, indent=1))
        raise SystemExit(0 if told["lost"] == told["doubled"] == told["failed"] == 0 else 1)


class Deaths:
    """Work is put in, the executor is killed while it runs, another one is started; in the end everything is counted."""

    def __init__(self, config: Config, data: Path) -> None:
        self._config = config
        self._data = data
        self._cubes, self._numbers = itertools.count(1), itertools.count(1)
        self._said: dict[str, list[str]] = {}  # cube → what must be there
        self._chance = random.Random(11)

    async def run(self, rounds: int) -> dict[str, Any]:
        """The figures."""
        parts = await assemble(self._config)
        hits, missed = Counter[str](), Counter[str]()
        executor = self._start()
        try:
            for number in range(rounds):
                kind = KINDS[number % len(KINDS)]
                jobs = await self._work(parts, kind)
                if await self._caught(parts.queue, jobs):
                    executor.kill()
                    executor.wait()
                    running = await parts.queue.get(jobs[0])
                    (hits if running and running.state == "running" else missed)[kind] += 1
                    executor = self._start()
                else:
                    missed[kind] += 1
                await self._settle(parts, jobs)
            return {"killed_in_the_middle": dict(hits), "too_late": dict(missed)} | await self._count(parts)
        finally:
            executor.terminate()
            executor.wait(30)
            await parts.close()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "proxy.cli", "serve", "--role", "executor", "--data", str(self._data)]
        with (self._data / "executor.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})

    async def _caught(self, queue: Any, jobs: list[str]) -> bool:
        """Wait until the job runs, and a little longer."""
        while True:
            try:
                found = await queue.get(jobs[0])
            except QueueError:
                await asyncio.sleep(0.1)
                continue
            if found is not None and found.state == "running":
                await asyncio.sleep(self._chance.random() * 0.03)
                return True
            if found is not None and found.state != "waiting":
                return False
            await asyncio.sleep(0.002)

    async def _settle(self, parts: Parts, jobs: list[str]) -> None:
        for job in jobs:
            deadline = time.monotonic() + 60
            while (found := await parts.queue.get(job)) is None or found.state in ("waiting", "running"):
                if time.monotonic() > deadline:
                    raise SystemExit(f"job {job} is still {found.state if found else 'nowhere'}")
                await asyncio.sleep(0.05)

    async def _work(self, parts: Parts, kind: str) -> list[str]:
        """Put in a job of this kind, with something for it to do."""
        cube = f"cube{next(self._cubes)}"
        await self._fill(parts.database, parts.turns, cube)
        put = parts.queue.put
        if kind == "erase":
            await self._settle(parts, [await self._put(put, "learn", cube)])
            gone = self._said[cube].pop()
            (memory,) = [one for one in await parts.memories.since(cube, 0) if one.text == gone]
            await parts.memories.forget(cube, memory.id)
        elif kind in ("wipe", "close"):
            await self._settle(parts, [await self._put(put, "learn", cube)])
            if kind == "wipe":
                await parts.lifecycle.erase(cube, OWNER, keep=False)
                self._said[cube] = []
            else:
                await parts.cubes.archive(cube, OWNER, time.time())
        elif kind == "fuse":
            other = f"{cube}b"
            await self._fill(parts.database, parts.turns, other)
            await self._settle(parts, [await self._put(put, "learn", one) for one in (cube, other)])
            self._said[cube] += self._said[other]
            return [await put("fuse", cube, {"from": other, "principal": OWNER, "archive": "no"})]
        elif kind in ("rebuild", "trim", "reflect", "predict"):
            await self._settle(parts, [await self._put(put, "learn", cube)])
        return [await self._put(put, kind, cube, {"force": "yes"} if kind == "rebuild" else None)]

    async def _put(self, put: Any, task: str, cube: str, arguments: dict[str, str] | None = None) -> str:
        while True:
            try:
                return str(await put(task, cube, arguments))
            except QueueError:  # the first executor is still making the tables
                await asyncio.sleep(0.2)

    async def _fill(self, database: Database, turns: TurnLog, cube: str) -> None:
        half = LOVED[: len(LOVED) // 2] if next(self._numbers) % 2 else LOVED[len(LOVED) // 2 :]
        texts = [f"I love {loved}." for loved in half]
        for n, text in enumerate(texts):
            at = 1_750_000_000.0 + n
            said = Turn("", cube, f"{cube}s", f"{cube}k{n}", text, "Noted.", at, at + 0.5)
            await turns.record(said, Place(named=True), OWNER)
        self._said[cube] = texts

    async def _count(self, parts: Parts) -> dict[str, Any]:
        lost = doubled = 0
        for cube, texts in self._said.items():
            there = [m for m in await parts.memories.since(cube, 0) if m.status is not Status.DELETED]
            episodes = Counter(m.text for m in there if m.kind is Kind.EPISODE)
            lost += sum(episodes[text] == 0 for text in texts)
            doubled += sum(number - 1 for text, number in episodes.items() if number > 1)
            facts = Counter((m.kind, m.text) for m in there if _is_learned(m))
            doubled += sum(number - 1 for number in facts.values() if number > 1)
            lost += sum(not any(_name(text) in m.text for m in there if _is_learned(m)) for text in texts)
        index = Index(parts.database, Store(self._config.store_root), parts.embedder)
        every = [info for info in await Cubes(parts.database).every() if info.generation and info.embedder]
        broken = [info.id for info in every if await index.verify(info.id)]
        unsigned = await Receipts(parts.database).pending()
        counts = await parts.queue.counts()
        return {
            "cubes": len(self._said),
            "lost": lost + len(broken) + len(unsigned),
            "doubled": doubled,
            "failed": sum(one.number for one in counts if one.state == "failed"),
        }


def _is_learned(memory: Memory) -> bool:
    return memory.kind not in (Kind.EPISODE, Kind.INSIGHT) and memory.status is Status.ACTIVE


def _name(text: str) -> str:
    return text.removesuffix(".")


if __name__ == "__main__":
    main()
