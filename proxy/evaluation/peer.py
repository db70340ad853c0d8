"""mem0 as a peer to compare with: its worker process, started with an interpreter that has mem0 (it is no dependency of ours)."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from memory import embed
from proxy.evaluation.talk import BadData

_START_S = 180.0
_LINE = 1 << 26  # bytes of one answer


class Peer:
    """The running worker. One question at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def add(self, user: str, texts: Sequence[tuple[str, str]]) -> None:
        """(key, text) pairs through mem0's own path."""
        await self.ask(do="add", user=user, texts=texts)

    async def fill(self, user: str, texts: Sequence[tuple[str, str]]) -> None:
        """The same rows in batches."""
        await self.ask(do="fill", user=user, texts=texts)

    async def search(self, user: str, text: str, limit: int) -> tuple[list[str], float, float]:
        """(keys, best first; milliseconds; CPU milliseconds)"""
        told = await self.ask(do="search", user=user, text=text, limit=limit)
        return told["keys"], told["ms"], told["cpu_ms"]

    async def ask(self, **words: Any) -> dict[str, Any]:
        """One line in, one line out. Raises BadData when the worker ended."""
        assert self._process.stdin
        assert self._process.stdout
        with suppress(ConnectionError):
            self._process.stdin.write(json.dumps(words).encode() + b"\n")
            await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            raise BadData("mem0 ended unexpectedly")
        told: dict[str, Any] = json.loads(line)
        return told


def interpreter(named: str) -> str:
    """The Python that has mem0: the named one, else this one if it has; else empty."""
    return named or (sys.executable if importlib.util.find_spec("mem0") else "")


@asynccontextmanager
async def started(python: str) -> AsyncIterator[Peer]:
    """The worker, in a temporary folder. Raises BadData when it does not come up."""
    worker = Path(__file__).with_name("mem0_worker.py")
    with tempfile.TemporaryDirectory(prefix="mem0-") as folder:
        try:
            process = await asyncio.create_subprocess_exec(
                python,
                "-I",  # nothing of ours on its path
                str(worker),
                folder,
                str(embed.default_weights()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=_LINE,
            )
        except OSError as error:
            raise BadData(f"cannot start {python}: {error.strerror}") from error
        try:
            assert process.stdout
            if not await asyncio.wait_for(process.stdout.readline(), _START_S):
                raise BadData(f"{python} cannot run mem0 (is it installed there?)")
            yield Peer(process)
        finally:
            if process.stdin:
                process.stdin.close()
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
