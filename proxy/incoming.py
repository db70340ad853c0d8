"""Request bodies that are passed on piece by piece: what stands at their beginning, how much may come, and who hung up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.types import Receive

from proxy.bodies import ClientGone
from proxy.errors import ApiError, TooLarge


class Incoming:
    """A request body that is passed on piece by piece."""

    def __init__(self, receive: Receive, most: int, *, ended: bool = False) -> None:
        self._receive = receive
        self._most = most
        self._size = 0
        self._held: list[bytes] = []
        self.ended = asyncio.Event()
        self.failure: ApiError | ClientGone | None = None
        if ended:
            self.ended.set()

    async def peek(self, enough: int) -> bytes:
        """Its beginning, or all of a short one (then it has ended, and `chunks` is not needed). Raises TooLarge, ClientGone."""
        while not self.ended.is_set() and self._size < enough:
            self._held.append(await self._next())
        return b"".join(self._held)

    async def chunks(self) -> AsyncIterator[bytes]:
        """All of it. Raises TooLarge, ClientGone."""
        for chunk in self._held:
            yield chunk
        self._held.clear()
        while not self.ended.is_set():
            if chunk := await self._next():
                yield chunk

    async def watch(self) -> dict[str, Any]:
        """As `receive`, but only for the hang-up: until the body has ended, it is somebody else's."""
        await self.ended.wait()
        return dict(await self._receive())

    async def _next(self) -> bytes:
        message = await self._receive()
        chunk: bytes = message.get("body", b"")
        self._size += len(chunk)
        if message["type"] == "http.disconnect":
            self.failure = ClientGone()
        elif self._size > self._most:
            self.failure = TooLarge(f"the body is larger than {self._most} bytes")
        if self.failure is not None:
            raise self.failure
        if not message.get("more_body", False):
            self.ended.set()
        return chunk
