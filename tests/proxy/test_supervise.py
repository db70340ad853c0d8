"""The supervisor, with processes that do next to nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from proxy import supervise
from proxy.config import Config, ConfigError, UpstreamConfig
from proxy.status import read_processes
from proxy.supervise import Supervisor

STAYS = """
import signal, sys, time
signal.signal(15, lambda *_: (print("{0}", file=open("{1}", "a")), sys.exit(0)))
{2}
time.sleep(60)
"""


def stays(name: str, log: Path, more: str = "") -> Sequence[str]:
    return [sys.executable, "-S", "-c", STAYS.format(name, log, more)]


async def until(condition: Callable[[], object], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_processes_are_stopped_in_their_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ready = "open('{0}', 'a').close()"
    commands = {name: stays(name, log, ready.format(tmp_path / name)) for name in ("proxy", "executor", "engine")}
    supervisor = Supervisor(tmp_path, commands)
    work = asyncio.create_task(supervisor.run())
    await until(lambda: all((tmp_path / name).exists() for name in commands))
    supervisor.stop()
    await asyncio.wait_for(work, 10)
    assert log.read_text().split() == ["proxy", "executor", "engine"]
    assert {entry["state"] for entry in read_processes(tmp_path).values()} == {"stopped"}


async def test_one_that_dies_comes_back_later_and_later(tmp_path: Path) -> None:
    log = tmp_path / "log"
    dies = [
        sys.executable,
        "-S",
        "-c",
        f"import time; print(time.time(), file=open({str(log)!r}, 'a')); raise SystemExit(3)",
    ]
    supervisor = Supervisor(tmp_path, {"dies": dies, "stays": stays("stays", tmp_path / "other")})
    work = asyncio.create_task(supervisor.run())
    await until(lambda: log.exists() and len(log.read_text().split()) >= 3)
    pid = read_processes(tmp_path)["stays"]["pid"]
    times = [float(at) for at in log.read_text().split()[:3]]
    assert times[1] - times[0] > 0.19
    assert times[2] - times[1] > 0.49
    assert read_processes(tmp_path)["dies"]["restarts"] >= 2
    os.kill(pid, 0)  # the other one was left alone
    supervisor.stop()
    await asyncio.wait_for(work, 10)


async def test_what_the_supervisor_says_is_gone_with_it(tmp_path: Path) -> None:
    assert read_processes(tmp_path) == {}
    (tmp_path / "processes.json").write_text('{"supervisor": 4194305, "processes": {"proxy": {"state": "running"}}}')
    assert read_processes(tmp_path) == {}
    (tmp_path / "processes.json").write_text("{")
    assert read_processes(tmp_path) == {}


def test_the_engine_runs_only_for_a_local_model() -> None:
    local = Config(data="/x", upstreams=(UpstreamConfig(name="a", kind="llama"),))
    assert list(supervise.commands(local, None, 1)) == ["proxy", "executor", "engine"]
    cloud = supervise.commands(Config(data="/x"), "/c.yaml", 1)
    assert list(cloud) == ["proxy", "executor"]
    assert cloud["proxy"][-2:] == ["--role", "proxy"]
    assert "--config" in cloud["executor"]


def test_a_taken_port_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1:"):
            supervise.check_port("127.0.0.1", taken.getsockname()[1])
    supervise.check_port("127.0.0.1", supervise.free_port())
