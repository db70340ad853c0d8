"""`memrelay serve`: starts the processes, keeps them running, stops them in order.

A process that dies is started again after a pause that grows while it keeps dying. Children die with the supervisor, even
when it is killed, so nothing is left behind that holds the port.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from proxy.config import Config, ConfigError
from proxy.status import write_processes

log = logging.getLogger(__name__)
_PAUSES_S = (0.2, 0.5, 1, 2, 5, 10, 30)
_WELL_AFTER_S = 60.0
_STOP_S = 25.0


@dataclass(slots=True)
class Child:
    """A supervised process."""

    role: str
    command: Sequence[str]
    process: asyncio.subprocess.Process | None = None
    state: str = "starting"
    started_at: float = 0.0
    restarts: int = 0
    failures: int = 0  # in a row


class Supervisor:
    """Runs `commands` (role → command line) until stopped."""

    def __init__(self, folder: Path, commands: dict[str, Sequence[str]]) -> None:
        self._folder = folder
        self._children = [Child(role, command) for role, command in commands.items()]
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Returns after every process has ended."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        keepers = [asyncio.create_task(self._keep(child)) for child in self._children]
        await self._stop.wait()
        for child in self._children:  # proxy first: it drains into the queue; then the executor, then the engine
            await self._end(child)
        await asyncio.gather(*keepers)
        self._tell()

    def stop(self) -> None:
        """Begin to shut down."""
        self._stop.set()

    async def _keep(self, child: Child) -> None:
        while not self._stop.is_set():
            child.process = await asyncio.create_subprocess_exec(*child.command)
            if self._stop.is_set():  # it came too late to be stopped with the others
                await self._end(child)
                return
            child.started_at = time.time()
            child.state = "running"
            self._tell()
            code = await child.process.wait()
            if self._stop.is_set():
                child.state = "stopped"
                return
            child.failures = 1 if time.time() - child.started_at > _WELL_AFTER_S else child.failures + 1
            pause = _PAUSES_S[min(child.failures, len(_PAUSES_S)) - 1]
            child.restarts += 1
            child.state = "restarting"
            log.warning("%s ended (%s); starting it again in %.1f s", child.role, _how(code), pause)
            self._tell()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)

    async def _end(self, child: Child) -> None:
        process = child.process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            log.warning("%s did not stop in %.0f s: killed", child.role, _STOP_S)
            process.kill()
            await process.wait()
        child.state = "stopped"

    def _tell(self) -> None:
        write_processes(
            self._folder,
            {
                child.role: {
                    "state": child.state,
                    "pid": child.process.pid if child.process else None,
                    "restarts": child.restarts,
                    "since": child.started_at,
                }
                for child in self._children
            },
        )


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def commands(config: Config, config_path: str | None, engine_port: int) -> dict[str, Sequence[str]]:
    """The command line of each process."""
    base = [sys.executable, "-m", "proxy.cli", "serve", "--data", str(config.folder), "--engine-port", str(engine_port)]
    base += ["--supervised", "--host", config.server.host, "--port", str(config.server.port)]
    if config_path:
        base += ["--config", config_path]
    roles = ["proxy", "executor", *(["engine"] if config.local_model else [])]
    return {role: [*base, "--role", role] for role in roles}


def check_port(host: str, port: int) -> None:
    """Raises ConfigError when the address is taken or cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}") from error


def free_port() -> int:
    """A free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def wait_until_up(url: str, timeout_s: float) -> bool:
    """Whether `url` answered 200 in time."""
    deadline = time.monotonic() + timeout_s
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        while time.monotonic() < deadline:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(url) as response:
                    if response.status == 200:
                        return True
            await asyncio.sleep(0.1)
    return False
