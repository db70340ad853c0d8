"""The engine as a process that dies in native code: its states outlive it, and half-written ones are not found again."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from proxy import supervise

PROCESS = """
import sys
from pathlib import Path
from memory.activation.states import Budgets
from memory.activation.store import States
from memory.engine.settings import EngineSettings, bundled_model
from proxy.engine_app import run
settings = EngineSettings(bundled_model(), "small", slots=1, context=512, threads=1)
run(settings, port=int(sys.argv[1]), states=States(Path(sys.argv[2]), Budgets()))
"""
MESSAGES = [{"role": "system", "content": "You know Ann. " + "She likes tea, and birds. " * 12}]
ANN = {"x-memory-cube": "ann", "x-memory-session": "s1"}


@asynccontextmanager
async def engine(root: Path) -> AsyncIterator[tuple[httpx.AsyncClient, asyncio.subprocess.Process]]:
    port = supervise.free_port()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROCESS, str(port), str(root))
    try:
        assert await supervise.wait_until_up(f"http://127.0.0.1:{port}/health", 60)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client, process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def question(**body: Any) -> dict[str, Any]:
    messages = [*MESSAGES, {"role": "user", "content": "What does she like? " + "Think of tea, cakes and birds. " * 6}]
    return {"model": "small", "messages": messages, "temperature": 0, "max_tokens": 8} | body


async def test_states_outlive_a_crash_and_a_stop_saves_what_was_read(tmp_path: Path) -> None:
    async with engine(tmp_path) as (client, process):
        built = (await client.post("/v1/kv/states", json={"cube": "ann", "messages": MESSAGES})).json()
        async with asyncio.timeout(20):
            while not list(tmp_path.glob("ann/*.kv")):  # noqa: ASYNC110, ASYNC240 - another process's
                await asyncio.sleep(0.01)
        (tmp_path / "ann" / "0.tmp").write_bytes(b"half of a file")
        process.send_signal(signal.SIGABRT)  # as a failed assertion of llama.cpp does
        await process.wait()
    async with engine(tmp_path) as (client, _):
        first = await client.post("/v1/chat/completions", json=question(), headers=ANN)
        assert first.headers["x-memory-kv"] == f"restored:{built['tokens']}"
        assert first.headers["x-memory-kv-source"] == "disk"
        await client.post("/v1/chat/completions", json=question(max_tokens=1), headers={"x-memory-cube": "bob"})
    async with engine(tmp_path) as (client, _):
        again = await client.post("/v1/chat/completions", json=question(), headers=ANN)
        assert int(again.headers["x-memory-kv"].removeprefix("restored:")) > built["tokens"] + 32
        assert again.json()["choices"] == first.json()["choices"]
        held = (await client.get("/v1/kv")).json()
    assert (held["states"], held["damaged"], list(tmp_path.glob("*/*.tmp"))) == (2, {}, [])  # noqa: ASYNC240
