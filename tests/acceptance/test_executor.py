"""Through the front door: a burst against a slow model, and an executor that dies in the middle of every kind of work."""

from __future__ import annotations

import asyncio
from pathlib import Path

from openai import AsyncOpenAI

from benchmarks.jobs import KINDS, Deaths
from proxy import db
from proxy.config import load
from tests.fakes import Received, RecordingUpstream, Reply, completion
from tests.live import Installation, wait_for

CHATS, KEYS = 60, 3


def test_a_burst_against_a_slow_model_loses_and_doubles_nothing(data: Path) -> None:
    asked: list[int] = []

    def answer(received: Received) -> Reply | str:
        if received.body["model"] != "slow":
            return "Noted."
        asked.append(received.prompt.count("parcel"))
        return Reply(chunks=[completion('{"items": []}')], wait_s=0.5)

    async def chats(live: Installation, keys: list[str]) -> None:
        async def one(client: AsyncOpenAI, number: int) -> None:
            said = [{"role": "user", "content": f"My parcel {number} went to Zagreb."}]
            await client.chat.completions.create(model="m", messages=said)  # type: ignore[arg-type]

        clients = [live.async_client(key) for key in keys]
        await asyncio.gather(*(one(clients[n % KEYS], n) for n in range(CHATS)))
        for client in clients:
            await client.close()

    def texts(key: str) -> list[str]:
        return sorted(item["text"] for item in live.items(key, kind="episode"))

    def learned(key: str) -> bool:
        jobs = live.api(key, "GET", "/v1/memory/jobs?limit=200")[1]["data"]
        learning = [job for job in jobs if job["task"] == "learn"]
        return bool(learning) and all(job["state"] == "done" for job in learning)

    with RecordingUpstream(answer) as upstream:
        upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url}]
        extraction = {"model": "slow", "debounce_s": 0.2}
        with Installation(data, upstreams=upstreams, extraction=extraction, executor={"sweep_s": 1}) as live:
            keys = [live.key() for _ in range(KEYS)]
            asyncio.run(chats(live, keys))
            wait_for(lambda: all(learned(key) for key in keys), "the slow model", 90)
            for at, key in enumerate(keys):
                assert texts(key) == sorted(f"My parcel {n} went to Zagreb." for n in range(CHATS) if n % KEYS == at)
    assert len(asked) < CHATS / 2, "turns that wait are taken together"
    assert sum(asked) >= CHATS


def test_an_executor_that_dies_in_the_middle_loses_and_doubles_nothing(data: Path) -> None:
    config = load(None, data=str(data))
    db.upgrade(config)
    told = asyncio.run(Deaths(config, data).run(len(KINDS)))
    assert told["lost"] == told["doubled"] == told["failed"] == 0
    assert len(told["killed_in_the_middle"]) >= len(KINDS) / 2
