"""Two executors on one PostgreSQL: when one stops dead in the middle of a job the other takes it over, and one that was only
stalled finds that it may not write any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import postgres
from tests.fakes import Received, RecordingUpstream, Reply, completion
from tests.live import LiveProxy, wait_for

LESS_THAN_S = 30.0  # so soon its jobs must be at work again


class Executors:
    """`memrelay serve --role executor`, as on machines of their own."""

    def __init__(self, live: LiveProxy, folder: Path) -> None:
        self._live, self._folder = live, folder
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        config = self._live.config.folder / "config.yaml"
        command = [sys.executable, "-m", "proxy.cli", "serve", "--role", "executor"]
        command += ["--config", str(config), "--data", str(self._live.config.folder)]
        log = (self._folder / f"executor{len(self.running)}.log").open("wb")
        with log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        self.running.append(process)
        return process

    def log(self, number: int) -> str:
        return (self._folder / f"executor{number}.log").read_text(errors="replace")

    def stop(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(30)


class Model:
    """An extraction model that is slow the first time."""

    def __init__(self) -> None:
        self.calls = 0
        self.wait_s = 15.0

    def __call__(self, received: Received) -> Reply | str:
        if received.body.get("model") != "slow":
            return "Noted."
        self.calls += 1
        item = '{"items": [{"kind": "fact", "text": "The spare key is under the blue pot.", "turns": [1]}]}'
        return Reply(chunks=[completion(item)], wait_s=self.wait_s)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def live(data: Path, model: Model, postgresql: postgres.Postgres) -> Iterator[LiveProxy]:
    with RecordingUpstream(model) as upstream:
        upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url}]
        name = f"t{abs(hash(str(data))):x}"
        urls = {"database": postgresql.new_database(name), "queue": postgresql.new_database(f"{name}q")}
        settings = {"extraction": {"model": "slow", "debounce_s": 0.1}, "executor": {"sweep_s": 1}}
        with LiveProxy(data, upstreams=upstreams, **urls, **settings) as running:
            yield running


@pytest.fixture
def executors(live: LiveProxy, tmp_path: Path) -> Iterator[Executors]:
    made = Executors(live, tmp_path)
    yield made
    made.stop()


def jobs(live: LiveProxy, key: str, state: str) -> list[dict[str, Any]]:
    status, body = live.api(key, "GET", f"/v1/memory/jobs?task=learn&state={state}")
    return list(body["data"]) if status == 200 else []


def facts(live: LiveProxy, key: str) -> list[str]:
    return [item["text"] for item in live.items(key, kind="fact", status="all")]


def in_the_middle(live: LiveProxy, key: str, model: Model, executors: Executors) -> None:
    """One executor has asked the model and waits; another one is there as well."""
    executors.start()
    said: Any = [{"role": "user", "content": "The spare key is under the blue pot."}]
    live.client(key).chat.completions.create(model="m", messages=said)
    wait_for(lambda: model.calls, "the first executor to ask the model", 90)
    executors.start()
    wait_for(lambda: "runs" in executors.log(1), "the second executor", 60)
    model.wait_s = 0.0


def test_another_executor_goes_on_with_what_a_stalled_one_was_at(
    live: LiveProxy, executors: Executors, model: Model
) -> None:
    key = live.key()
    in_the_middle(live, key, model, executors)
    stalled = time.monotonic()
    executors.running[0].send_signal(signal.SIGSTOP)
    wait_for(lambda: facts(live, key), "the other one to learn", LESS_THAN_S)
    assert time.monotonic() - stalled < LESS_THAN_S
    wait_for(lambda: jobs(live, key, "done"), "the job to be done")
    executors.running[0].send_signal(signal.SIGCONT)  # its model has answered meanwhile
    assert executors.running[0].wait(30) != 0, "one whose jobs others have must not go on"
    assert "stood still" in executors.log(0)
    assert facts(live, key) == ["The spare key is under the blue pot."]
    assert [job["result"]["added"] for job in jobs(live, key, "done") if job["result"].get("turns")] == [1]
