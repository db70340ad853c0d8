"""What the proxy costs: the same conversations with the model server directly, through memrelay with memory off and on, and
through LiteLLM's proxy, a little of each in turn in one run.

Latency is measured one request at a time, throughput with CONCURRENCY of them, as whole answers and as streams that come in one go;
then paced streams are held. Each turn asks another cube, so that none has grown by what was measured before.
CPU is that of the serving process from the first request until it has come to rest, so what is done after an answer counts.
A conversation has ROUNDS rounds and resends its history, as clients do; the time added is that above asking directly.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from memory.turns import Place
from proxy import db
from proxy.auth import home_cube
from proxy.config import Config
from proxy.evaluation import latency, run, sides
from proxy.evaluation.load import Connection, LoadFailed
from proxy.evaluation.mock import ANSWER, FRAMES, PACE_S
from proxy.evaluation.sides import Side
from proxy.evaluation.talk import Said
from proxy.keys import Keys

CONCURRENCY = 16
ROUNDS = 3
HELD = 64  # paced streams at a time
_BEGAN = 1_750_000_000.0
_FRAME = re.compile(rb"<(\d+)>")
_REST_S = 0.4
_ORGANISED_S = 600.0

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured. `turns`: how often each side has its turn; `alone`: requests of one at a time in each; `together_s`:
    seconds of many at a time; `streams`: so many paced streams at once through memrelay with memory off, 0: none."""

    memories: int = 1000
    turns: int = 5
    alone: int = 200
    together_s: float = 2.0
    streams: int = 0
    litellm_python: str = ""
    litellm_workers: int = 1


@dataclass(slots=True)
class _Seen:
    """Of one side: seconds of single requests; requests and seconds of many at a time, and CPU they took; the same of those whose
    answers stream."""

    alone: list[float] = field(default_factory=list)
    requests: int = 0
    seconds: float = 0.0
    counted: int = 0
    cpu_s: float = 0.0
    behind_s: float = 0.0
    streamed: int = 0
    streamed_s: float = 0.0
    first: list[float] = field(default_factory=list)
    chunk_cpu_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Streams that were held at once: their frames, the seconds to each one's first, those between two of one stream, and how many
    came together with another."""

    frames: int
    first: list[float]
    gaps: list[float]
    merged: int


async def measure(config: Config, options: Options, progress: Progress) -> dict[str, Any]:
    """`config.data` is a folder for this alone. Raises BadData, LoadFailed."""
    keys = await _filled(config, options, progress)
    async with AsyncExitStack() as stack:
        direct = await stack.enter_async_context(sides.mock())
        off, on = await stack.enter_async_context(sides.memrelay(config, direct.port, keys))
        every = [direct, off, on]
        if options.litellm_python:
            python = Path(options.litellm_python)
            every.append(
                await stack.enter_async_context(
                    sides.litellm(python, config.folder, direct.port, options.litellm_workers)
                )
            )
        progress("organising", 0, 1)
        await _organised(on)
        seen = {side.name: _Seen() for side in every}
        asks = itertools.cycle(latency.every_question())
        talk, quick, paced = _talk(asks), _talk(asks, stream=True), _talk(asks, "paced", stream=True)
        for side in every:
            await _one_by_one(side, 0, talk, options.alone)  # until each has compiled and loaded what it needs
        for turn in range(options.turns):
            progress("taking turns", turn, options.turns)
            for side in every:
                await _turn(side, turn + 1, talk, quick, options, seen[side.name])
        for number, side in enumerate(every):
            progress("streaming", number, len(every))
            await _streamed(side, paced, seen[side.name])
        held = None
        if options.streams:
            held = {side.name: _told(await _hold(side, paced, options.streams)) for side in (direct, off)}
        usual, first = np.array(seen["direct"].alone), float(np.median(seen["direct"].first))
        body = {side.name: _figures(side, seen[side.name], usual, first) for side in every}
    return {"memories": options.memories, **body, "streams": held}


def _figures(side: Side, seen: _Seen, usual: np.ndarray, first: float) -> dict[str, Any]:
    alone = np.array(seen.alone)
    p50, p99 = (1000 * float(np.percentile(alone, p)) for p in (50, 99))
    u50, u99 = (1000 * float(np.percentile(usual, p)) for p in (50, 99))
    return {
        "p50_ms": round(p50, 3),
        "p99_ms": round(p99, 3),
        "added_p50_ms": round(p50 - u50, 3),
        "added_p99_ms": round(p99 - u99, 3),
        "rps": round(seen.requests / seen.seconds, 1),
        "streamed_rps": round(seen.streamed / seen.streamed_s, 1),
        "cpu_ms_per_request": round(1000 * seen.cpu_s / seen.counted, 3),
        "behind_cpu_ms_per_request": round(1000 * seen.behind_s / (seen.counted + seen.streamed), 3),
        "added_first_token_ms": round(1000 * (float(np.median(seen.first)) - first), 3),
        "cpu_ms_per_chunk": seen.chunk_cpu_ms,
        "rss_mb": side.rss_mb(),
    }


async def _filled(config: Config, options: Options, progress: Progress) -> list[str]:
    """An installation with a key for each turn and one more, whose cubes hold so many memories each; the keys."""
    await asyncio.to_thread(db.upgrade, config)
    secrets = []
    async with run.opened(config) as (parts, work):
        keys = Keys(parts.database)
        people, memories = options.turns + 1, options.memories
        texts = latency.sentences(memories * people)
        for person in range(people):
            progress("learning", person, people)
            made = await keys.create(f"bench {person}")
            secrets.append(made.secret)
            cube = home_cube(made.key.principal)
            mine = texts[person * memories : (person + 1) * memories]
            for start in range(0, len(mine), 100):
                await asyncio.gather(
                    *(
                        parts.turns.record(
                            Said(str(i), f"s{i // 20}", _BEGAN + i * 600.0, text).turn(cube),
                            Place(named=True),
                            made.key.principal,
                        )
                        for i, text in enumerate(mine[start : start + 100], start)
                    )
                )
            await work.index.catch_up(cube)
    return secrets


def _talk(asks: Iterator[str], model: str = "quick", **more: Any) -> Iterator[list[bytes]]:
    """One conversation after another, each as its requests, which bring their history. No question comes again before memrelay
    has forgotten its vectors."""
    for number in itertools.count():
        messages = [{"role": "system", "content": f"You are a helpful assistant. Conversation {number}."}]
        requests = []
        for question in itertools.islice(asks, ROUNDS):
            messages.append({"role": "user", "content": question})
            requests.append(msgspec.json.encode({"model": model, "messages": messages, **more}))
            messages.append({"role": "assistant", "content": ANSWER})
        yield requests


async def _turn(
    side: Side,
    number: int,
    talk: Iterator[list[bytes]],
    quick: Iterator[list[bytes]],
    options: Options,
    seen: _Seen,
) -> None:
    await _one_by_one(side, number, talk, ROUNDS)  # its cube is loaded
    seen.alone += await _one_by_one(side, number, talk, options.alone)
    await _rest(side)
    cpu, behind = side.cpu_s(), side.behind_s()
    requests, seconds = await _together(side, number, talk, options.together_s)
    seen.requests += requests
    seen.seconds += seconds
    await _rest(side)
    seen.counted += requests
    seen.cpu_s += side.cpu_s() - cpu
    requests, seconds = await _together(side, number, quick, options.together_s)
    seen.streamed += requests
    seen.streamed_s += seconds
    await _rest(side)
    if side.name == "on":  # what the executor has to catch up on is measured, but beside nobody else
        await _organised(side)
    seen.behind_s += side.behind_s() - behind


async def _one_by_one(side: Side, number: int, talk: Iterator[list[bytes]], requests: int) -> list[float]:
    """Seconds of each, as the user of this number. The last conversation may be cut short."""
    connection, found = _connection(side, number), list[float]()
    try:
        while len(found) < requests:
            for body in next(talk)[: requests - len(found)]:
                found.append(await _asked(connection, body))
        return found
    finally:
        connection.close()


async def _together(side: Side, number: int, talk: Iterator[list[bytes]], seconds: float) -> tuple[int, float]:
    """(requests, seconds) of CONCURRENCY chats of one user at a time."""
    began, done = time.perf_counter(), 0

    async def chat() -> None:
        nonlocal done
        connection = _connection(side, number)
        while time.perf_counter() - began < seconds:
            for body in next(talk):
                await _asked(connection, body)
                done += 1
        connection.close()

    await asyncio.gather(*(chat() for _ in range(CONCURRENCY)))
    return done, time.perf_counter() - began


def _connection(side: Side, number: int) -> Connection:
    return Connection(side.port, side.headers[number % len(side.headers)])


async def _asked(connection: Connection, body: bytes) -> float:
    got = await connection.ask(body)
    if got.status != 200:
        raise LoadFailed(f"status {got.status}: {got.body[:200]!r}")
    return got.seconds


async def _organised(side: Side) -> None:
    """Wait until what was said has been worked off. Raises LoadFailed."""
    deadline, quiet = time.monotonic() + _ORGANISED_S, 0
    while quiet < 3:
        before = side.behind_s()
        await asyncio.sleep(1.0)
        quiet = quiet + 1 if side.behind_s() - before <= 0.1 else 0
        if time.monotonic() > deadline:
            raise LoadFailed("the executor has not come to rest")


async def _rest(side: Side) -> None:
    """Wait until the serving processes do nothing more."""
    while True:
        before = side.cpu_s()
        await asyncio.sleep(_REST_S)
        if side.cpu_s() - before <= 0.02:
            return


async def _streamed(side: Side, paced: Iterator[list[bytes]], seen: _Seen) -> None:
    """HELD paced streams; a request's own CPU, measured before, is taken off."""
    before = side.cpu_s()
    held = await _hold(side, paced, HELD)
    await _rest(side)
    own = HELD * seen.cpu_s / seen.counted
    seen.first += held.first
    seen.chunk_cpu_ms = round(1000 * max(side.cpu_s() - before - own, 0.0) / held.frames, 4)


async def _hold(side: Side, paced: Iterator[list[bytes]], streams: int) -> Held:
    """So many streams at once. Raises LoadFailed when a frame is lost or out of order."""
    bodies = [next(paced)[0] for _ in range(streams)]
    connections = [_connection(side, 0) for _ in range(streams)]

    async def one(number: int) -> Held:
        await asyncio.sleep(number * PACE_S / 8)  # as people come: not all in one moment
        got = await connections[number].ask(bodies[number])
        found = [(at, _FRAME.findall(chunk)) for at, chunk in got.chunks]
        numbers = [int(n) for _, frames in found for n in frames]
        if got.status != 200 or numbers != list(range(FRAMES)) or b"[DONE]" not in got.body:
            raise LoadFailed(f"{side.name}: a stream lost frames (status {got.status}, {len(numbers)} of {FRAMES})")
        times = [at for at, frames in found if frames]
        merged = sum(max(len(frames) - 1, 0) for _, frames in found)
        return Held(len(numbers), times[:1], [b - a for a, b in itertools.pairwise(times)], merged)

    try:
        every = await asyncio.gather(*map(one, range(streams)))
    finally:
        for connection in connections:
            connection.close()
    return Held(
        frames=sum(held.frames for held in every),
        first=[first for held in every for first in held.first],
        gaps=[gap for held in every for gap in held.gaps],
        merged=sum(held.merged for held in every),
    )


def _told(held: Held) -> dict[str, Any]:
    p50, p99 = np.percentile(held.gaps, (50, 99))
    return {
        "frames": held.frames,
        "lost": 0,
        "merged": held.merged,
        "first_token_p50_ms": round(1000 * float(np.median(held.first)), 1),
        "between_p50_ms": round(1000 * float(p50), 1),
        "between_p99_ms": round(1000 * float(p99), 1),
        "paced_ms": 1000 * PACE_S,
    }
