"""A configured upstream as the ChatModel that memory asks for JSON.

Calls keep a pace (`extraction.calls_per_minute`). A provider that answers 429 with Retry-After is given that time and asked
again, as long as it wants no more than a minute; all other faults are the caller's to try again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from memory.models import ChatModelError
from proxy.errors import ApiError
from proxy.upstreams.pace import Pace, asked_pause
from proxy.upstreams.port import Call, Headers, UpstreamBroken
from proxy.upstreams.routing import Routes

_AGAIN = frozenset({408, 409, 425, 429})
_LONGEST_PAUSE_S = 60.0
_TRIES = 4  # at a provider that goes on asking for pauses


class UpstreamModel:
    """Calls `model` through whichever upstream serves it."""

    def __init__(self, routes: Routes, model: str, pace: Pace | None = None) -> None:
        self._routes = routes
        self._pace = pace or Pace()
        self.name = model

    async def complete(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """See ChatModel.complete."""
        raw = msgspec.json.encode({**body, "model": self.name, "stream": False})
        for number in range(1, _TRIES + 1):
            await self._pace.turn()
            status, headers, answer = await self._send(raw)
            pause = _pause(headers) if status == 429 else None
            if pause is None or pause > _LONGEST_PAUSE_S or number == _TRIES:
                break
            self._pace.pause(pause)
        if status >= 400:
            again = status >= 500 or status in _AGAIN
            raise ChatModelError(f"status {status}", retryable=again)
        try:
            decoded = msgspec.json.decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ChatModelError("the answer is not JSON") from error
        if not isinstance(decoded, dict):
            raise ChatModelError("the answer is not a JSON object")
        return decoded

    async def _send(self, raw: bytes) -> tuple[int, Headers, bytes]:
        """(status, headers, body) of one call. Raises ChatModelError."""
        headers = [("content-type", "application/json"), ("accept", "application/json")]
        try:
            upstream = self._routes.of(self.name)
            reply = await upstream.send(Call("POST", "/chat/completions", raw, headers))
            try:
                return reply.status, reply.headers, b"".join([chunk async for chunk in reply.chunks()])
            finally:
                await reply.close()
        except ApiError as error:
            raise ChatModelError(error.code or error.type) from error
        except UpstreamBroken as error:
            raise ChatModelError("the answer broke off") from error


def _pause(headers: Headers) -> float | None:
    asked = next((value for name, value in headers if name.lower() == "retry-after"), "")
    return asked_pause(asked, time.time())
