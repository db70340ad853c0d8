"""A client that costs next to nothing: HTTP/1.1 over a kept connection, as raw as can be, the same for whatever is measured."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


class LoadFailed(Exception):
    """What is measured did not answer as it should."""


@dataclass(slots=True)
class Got:
    """An answer. `chunks`: (seconds since the request, the piece) as the server cut its body, when it streamed."""

    status: int
    body: bytes
    seconds: float
    chunks: list[tuple[float, bytes]] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """One kept connection; one request at a time."""

    def __init__(self, port: int, headers: Mapping[str, str]) -> None:
        self._port = port
        named = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n{named}"
        ).encode()
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[Got] | None = None
        self._held = bytearray()
        self._got = Got(0, b"", 0.0)
        self._left = -2  # bytes of the body still to come; -1: chunked, -2: the head has not come
        self._began = 0.0

    async def ask(self, body: bytes) -> Got:
        """Raises LoadFailed when the connection breaks."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            self._transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", self._port)
        self._done = loop.create_future()
        self._held.clear()
        self._got, self._left = Got(0, b"", 0.0), -2
        self._began = time.perf_counter()
        self._transport.write(self._head + b"content-length: %d\r\n\r\n" % len(body) + body)
        return await self._done

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._transport = None
        if self._done is not None and not self._done.done():
            self._done.set_exception(LoadFailed("the connection was closed in the middle of an answer"))

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._held += data
        if self._left == -2:
            end = self._held.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._held[: end + 2])
            del self._held[: end + 4]
            self._got.status = int(head[9:12])
            length = _LENGTH.search(head)
            self._left = int(length.group(1)) if length else -1
        if self._left >= 0:
            if len(self._held) >= self._left:
                self._end(bytes(self._held[: self._left]))
            return
        self._chunks()

    def _chunks(self) -> None:
        now = time.perf_counter() - self._began
        while (end := self._held.find(b"\r\n")) >= 0:
            size = int(self._held[:end], 16)
            if len(self._held) < end + 4 + size:
                return
            if size == 0:
                self._end(b"")
                return
            self._got.chunks.append((now, bytes(self._held[end + 2 : end + 2 + size])))
            del self._held[: end + 4 + size]

    def _end(self, body: bytes) -> None:
        self._got.seconds = time.perf_counter() - self._began
        self._got.body = body or b"".join(chunk for _, chunk in self._got.chunks)
        if self._done is not None and not self._done.done():
            self._done.set_result(self._got)
