"""A live memrelay for tests: the proxy alone in a thread, or everything under its supervisor as users run it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
import yaml
from anthropic import Anthropic
from openai import AsyncOpenAI, OpenAI

from memory import embed
from memory.cube import Cubes
from memory.index import Index
from memory.store import Store
from proxy import app, db
from proxy.config import Config, load
from proxy.keys import DEFAULT_SCOPES, Keys, digest
from proxy.parts import Parts
from tests.fakes import free_port


class Front:
    """What both kinds have: a URL, keys, clients, the Memory API."""

    config: Config
    port: int

    def __init__(self) -> None:
        self._clients: list[OpenAI | Anthropic] = []

    def close_clients(self) -> None:
        while self._clients:
            self._clients.pop().close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def key(self, *scopes: str, principal: str | None = None, models: list[str] | None = None) -> str:
        """A key for a new principal (or one more for a known one)."""

        async def make() -> str:
            database = db.open_database(self.config)
            try:
                made = await Keys(database).create(
                    "test", scopes=scopes or DEFAULT_SCOPES, principal=principal, models=models
                )
            finally:
                await database.close()
            return made.secret

        return asyncio.run(make())

    def revoke(self, key: str) -> None:
        """Revoke a key, as another process would."""

        async def work() -> None:
            database = db.open_database(self.config)
            try:
                found = await Keys(database).find(digest(key))
                assert found is not None
                await Keys(database).revoke(found.id)
            finally:
                await database.close()

        asyncio.run(work())

    def client(self, key: str, **headers: str) -> OpenAI:
        """A client that is closed with the server: collected as garbage, it might leave its socket open for a moment."""
        made = OpenAI(
            base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60, default_headers=_named(headers)
        )
        self._clients.append(made)
        return made

    def async_client(self, key: str, **headers: str) -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60, default_headers=_named(headers)
        )

    def anthropic(self, key: str, **headers: str) -> Anthropic:
        made = Anthropic(base_url=self.url, api_key=key, max_retries=0, timeout=60, default_headers=_named(headers))
        self._clients.append(made)
        return made

    def api(self, key: str, method: str, path: str, body: Any = None, *, cube: str = "") -> tuple[int, Any]:
        """A call of the Memory API, or of any other route: (status, parsed body)."""
        raw = json.dumps(body).encode() if body is not None else None
        named = {"authorization": f"Bearer {key}"} | ({"x-memory-cube": cube} if cube else {})
        request = urllib.request.Request(f"{self.url}{path}", raw, named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")

    def items(self, key: str, **query: str) -> list[dict[str, Any]]:
        """All memories that the API lists for a key."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            words = "&".join(f"{name}={value}" for name, value in {**query, "limit": "200"}.items())
            status, page = self.api(key, "GET", f"/v1/memory/items?{words}{after}")
            assert status == 200, page
            found += page["data"]
            if not page["has_more"]:
                return found
            after = f"&after={page['next']}"

    def idle(self, key: str) -> bool:
        """Whether there were jobs, and the executor is through with all but those that wait for a silence."""
        status, body = self.api(key, "GET", "/v1/memory/jobs")
        jobs = body["data"] if status == 200 else []
        return bool(jobs) and all(job["state"] == "done" or _waits_for_silence(job) for job in jobs)

    def search(self, key: str, query: str, **given: Any) -> list[dict[str, Any]]:
        status, body = self.api(key, "POST", "/v1/memory/search", {"query": query, **given})
        assert status == 200, body
        hits: list[dict[str, Any]] = body["data"]
        return hits


def _waits_for_silence(job: dict[str, Any]) -> bool:
    return job["state"] == "waiting" and job["task"] in ("predict", "reflect", "activate")


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


class LiveProxy(Front):
    """The proxy process's app under a real uvicorn in a thread; no executor runs beside it."""

    def __init__(self, data: Path, *, engine_port: int = 0, **config: Any) -> None:
        super().__init__()
        self.port = free_port()
        self._engine_port = engine_port
        settings = {"memory": {"deadline_ms": 10_000}, **config}
        path = data / "config.yaml"
        path.write_text(yaml.safe_dump(settings))
        self.config = load(str(path), data=str(data))
        db.upgrade(self.config)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> LiveProxy:
        built = self._app = app.build(self.config, engine_port=self._engine_port)
        self._server = uvicorn.Server(
            uvicorn.Config(built, host="127.0.0.1", port=self.port, log_config=None, access_log=False, ws="none")
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        wait_for(lambda: self._server is not None and self._server.started, "the proxy to start")
        return self

    def __exit__(self, *_: object) -> None:
        self.close_clients()
        assert self._server is not None
        assert self._thread is not None
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive(), "the proxy did not stop"

    def stop_after(self, seconds: float) -> None:
        """How long what is under way may take once the proxy is told to stop."""
        assert self._server is not None
        self._server.config.timeout_graceful_shutdown = seconds  # type: ignore[assignment]  # any number will do

    @property
    def parts(self) -> Parts:
        parts: Parts = self._app.state.parts
        return parts

    def index_everything(self) -> None:
        """What the executor would do: bring every cube's index up to date."""

        async def work() -> None:
            database = db.open_database(self.config)
            embedder = embed.make(self.config.memory.embedder, self.config.folder / "models")
            index = Index(database, Store(self.config.store_root), embedder)
            try:
                for cube in await Cubes(database).every():
                    await index.catch_up(cube.id)
            finally:
                await database.close()

        asyncio.run(work())

    def forget_handles(self) -> None:
        """Make the proxy open its tables anew."""
        self.parts.store.forget_every_handle()


class Installation(Front):
    """`memrelay serve` as users run it: supervisor, proxy, executor and, with a local model, engine."""

    def __init__(self, data: Path, **config: Any) -> None:
        super().__init__()
        self.data = data
        self.port = free_port()
        settings = {"server": {"port": self.port}, "memory": {"deadline_ms": 10_000}, **config}
        self.path = data / "config.yaml"
        self.path.write_text(yaml.safe_dump(settings))
        self.config = load(str(self.path), data=str(data))
        self.log = data / "serve.log"
        self._process: subprocess.Popen[bytes] | None = None
        db.upgrade(self.config)

    def __enter__(self) -> Installation:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close_clients()
        self.stop()

    def start(self, timeout_s: float = 120) -> None:
        command = [sys.executable, "-m", "proxy.cli", "serve", "--config", str(self.path), "--data", str(self.data)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        wait_for(lambda: self.processes_run() and self.up(), "memrelay to serve", timeout_s)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)

    def kill_everything(self) -> None:
        """kill -9 of every process at once."""
        assert self._process is not None
        pids = [int(entry["pid"]) for entry in self.processes().values()]
        for pid in (self._process.pid, *pids):
            os.kill(pid, signal.SIGKILL)
        self._process.wait(10)
        wait_for(
            lambda: not any(Path(f"/proc/{pid}/cmdline").exists() and _alive(pid) for pid in pids), "processes to end"
        )

    def processes(self) -> dict[str, Any]:
        status, body = self.api("", "GET", "/ready")
        return body["processes"] if status == 200 else {}

    def processes_run(self) -> bool:
        try:
            found = self.processes()
        except OSError:
            return False
        return bool(found) and all(entry["state"] == "running" for entry in found.values())

    def up(self) -> bool:
        return "memrelay serves" in self.log.read_text(errors="replace")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    """Poll until `condition` gives something true; returns it."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.05)
