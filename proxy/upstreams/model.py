"""A configured upstream as the ChatModel that memory asks for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from memory.models import ChatModelError
from proxy.errors import ApiError
from proxy.upstreams.port import Call, UpstreamBroken
from proxy.upstreams.routing import Routes

_AGAIN = frozenset({408, 409, 425, 429})


class UpstreamModel:
    """Calls `model` through whichever upstream serves it."""

    def __init__(self, routes: Routes, model: str) -> None:
        self._routes = routes
        self.name = model

    async def complete(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """See ChatModel.complete."""
        raw = msgspec.json.encode({**body, "model": self.name, "stream": False})
        headers = [("content-type", "application/json"), ("accept", "application/json")]
        try:
            upstream = self._routes.of(self.name)
            reply = await upstream.send(Call("POST", "/chat/completions", raw, headers))
            try:
                answer = b"".join([chunk async for chunk in reply.chunks()])
            finally:
                await reply.close()
        except ApiError as error:
            raise ChatModelError(error.code or error.type) from error
        except UpstreamBroken as error:
            raise ChatModelError("the answer broke off") from error
        if reply.status >= 400:
            again = reply.status >= 500 or reply.status in _AGAIN
            raise ChatModelError(f"status {reply.status}", retryable=again)
        try:
            decoded = msgspec.json.decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ChatModelError("the answer is not JSON") from error
        if not isinstance(decoded, dict):
            raise ChatModelError("the answer is not a JSON object")
        return decoded
