"""What is measured beside each other: the model server itself, memrelay (`serve`, as users run it), LiteLLM's proxy. Each is a
process (or several) of its own, started here with nothing on that costs time, and watched through /proc (Linux).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec

from proxy import supervise
from proxy.config import Config, Server, UpstreamConfig
from proxy.evaluation.talk import BadData
from proxy.keys import generate

_UP_S = 120.0
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_LITELLM = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}


@dataclass(frozen=True, slots=True)
class Side:
    """Where it listens, what a request to it carries, and the processes that serve it (`served`) or work behind them."""

    name: str
    port: int
    headers: Sequence[Mapping[str, str]]  # of as many users
    served: tuple[int, ...]
    behind: tuple[int, ...] = field(default=())

    def cpu_s(self) -> float:
        """CPU seconds of the serving processes so far."""
        return sum(map(cpu_s, self.served))

    def behind_s(self) -> float:
        """CPU seconds of those that work behind them."""
        return sum(map(cpu_s, self.behind))

    def rss_mb(self) -> float:
        """Memory of the serving processes."""
        return round(sum(map(_rss, self.served)) / 1024, 1)


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def _children(pid: int) -> list[int]:
    """The processes that it has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def _rss(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


@asynccontextmanager
async def mock() -> AsyncIterator[Side]:
    """The model server, asked directly."""
    port = supervise.free_port()
    async with _process([sys.executable, "-m", "proxy.evaluation.mock", str(port)]) as pid:
        await _until(lambda: _listens(port), "the model server")
        yield Side("direct", port, [{}], (pid,))


@asynccontextmanager
async def memrelay(config: Config, upstream: int, keys: Sequence[str]) -> AsyncIterator[tuple[Side, Side]]:
    """(with memory off, with memory on) of one installation in `config.data`, which was filled before."""
    port = supervise.free_port()
    served = msgspec.structs.replace(
        config,
        server=Server(port=port),
        upstreams=(UpstreamConfig(name="mock", kind="openai", base_url=f"http://127.0.0.1:{upstream}/v1"),),
        logging=msgspec.structs.replace(config.logging, level="warning"),
    )
    path = config.folder / "bench.yaml"
    path.write_bytes(msgspec.json.encode(msgspec.to_builtins(served)))  # JSON is YAML
    command = [sys.executable, "-m", "proxy.cli", "serve", "--config", str(path), "--data", str(config.folder)]
    async with _process(command) as parent:
        await _until(lambda: _ready(port), "memrelay")
        pids = await _pids(port)
        users = [{"authorization": f"Bearer {key}"} for key in keys]
        behind = (parent, *(pid for role, pid in pids.items() if role != "proxy"))
        off = Side("off", port, [user | {"x-memory": "off"} for user in users], (pids["proxy"],), behind)
        yield off, Side("on", port, users, (pids["proxy"],), behind)


@asynccontextmanager
async def litellm(python: Path, folder: Path, upstream: int, workers: int) -> AsyncIterator[Side]:
    """LiteLLM's proxy with nothing on but a key, which it insists on. `python`: an interpreter that has it; `workers`: so many
    processes that answer (its default is one)."""
    port, key = supervise.free_port(), generate()
    script = python.with_name("litellm")
    if not script.exists():
        raise BadData(f"{python} has no litellm beside it (pip install 'litellm[proxy]')")
    base = {"api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "x"}
    models = [{"model_name": n, "litellm_params": {"model": f"openai/{n}", **base}} for n in ("quick", "paced")]
    settings = {
        "model_list": models,
        "litellm_settings": {"telemetry": False, "num_retries": 0},
        "general_settings": {"master_key": key, "disable_spend_logs": True, "disable_error_logs": True},
    }
    path = folder / "litellm.yaml"
    path.write_text(json.dumps(settings))
    command = [str(script), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--num_workers", str(workers)]
    async with _process(command, _LITELLM) as pid:
        await _until(lambda: _answers(f"http://127.0.0.1:{port}/health/liveliness"), "LiteLLM")
        yield Side("litellm", port, [{"authorization": f"Bearer {key}"}], (pid, *_children(pid)))


@asynccontextmanager
async def _process(command: Sequence[str], environment: Mapping[str, str] | None = None) -> AsyncIterator[int]:
    running = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **(environment or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield running.pid
    finally:
        with suppress(ProcessLookupError):
            running.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(running.wait(), 40)
        except TimeoutError:
            running.kill()
            await running.wait()


async def _until(there: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + _UP_S
    while not await there():
        if asyncio.get_running_loop().time() > deadline:
            raise BadData(f"{what} did not come up within {_UP_S:.0f} s")
        await asyncio.sleep(0.1)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def _ready(port: int) -> bool:
    pids = await _pids(port)
    return {"proxy", "executor"} <= pids.keys()


async def _pids(port: int) -> dict[str, int]:
    """Role → process, of those that run."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/ready") as response:
            found = (await response.json()).get("processes") or {}
    except (aiohttp.ClientError, ValueError):
        return {}
    return {role: int(entry["pid"]) for role, entry in found.items() if entry.get("state") == "running"}
