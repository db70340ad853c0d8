"""The surface `POST /v1/messages` (Anthropic). Pure; see surface.py.

`system`, a string or blocks, is message 0. What we add carries no `cache_control` and stands behind what the client has marked:
the end of `system`, and before the last text of a user's message (behind tool results, which must come first).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from proxy.errors import ApiError, BadRequest
from proxy.splice import Edit, Shape, splice
from proxy.stream import Listener, split_last

_SHAPE = Shape("messages", lead="system", late=True)
_END = re.compile(rb'(?:\A|(?<=[\r\n]))(?:event:[ \t]*|data:[ \t]*\{[ ]?"type":[ ]?")message_stop\b')
_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip


class Messages:
    """Anthropic's protocol."""

    name = "messages"
    path = "/messages"
    kinds: Sequence[bytes] = (b"file", b"container", b"skill")

    def check(self, body: Mapping[str, Any]) -> None:
        """See Surface."""
        if not isinstance(body.get("messages"), list):
            raise BadRequest("messages: an array is needed", param="messages", code="invalid_type")

    def as_chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """See Surface."""
        told, given = body.get("system"), body.get("messages")
        messages: list[Any] = [{"role": "system", "content": told}] if told is not None else []
        messages += [_message(message) for message in given] if isinstance(given, list) else []
        return {"messages": messages}

    def goes_on(self, body: Mapping[str, Any]) -> str:
        """See Surface."""
        return ""

    def keeps(self, body: Mapping[str, Any]) -> bool:
        """See Surface."""
        return False

    def leads_to(self, body: Mapping[str, Any], answer: str) -> tuple[str, ...]:
        """See Surface."""
        return ()

    def edit(self, raw: bytes, edits: Sequence[Edit]) -> bytes:
        """See Surface."""
        return splice(raw, edits, _SHAPE)

    def listener(self, *, sse: bool, encoding: str) -> Listener:
        """See Surface."""
        return _Heard(sse=sse, encoding=encoding)

    def split(self, chunk: bytes, done: bool) -> tuple[bytes, bytes]:
        """See Surface."""
        return split_last(chunk, _END, done)

    def error(self, error: ApiError, request_id: str) -> bytes:
        """See Surface."""
        return msgspec.json.encode({**_error(error.status, error.message), "request_id": request_id})

    def broken(self, message: str) -> bytes:
        """See Surface."""
        return b"event: error\ndata: " + msgspec.json.encode(_error(502, message)) + b"\n\n"


def listing(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A list of models as Anthropic's clients want it: all on one page."""
    data = [
        {
            "type": "model",
            "id": model["id"],
            "display_name": model.get("display_name") or model["id"],
            "created_at": model.get("created_at") or "1970-01-01T00:00:00Z",
        }
        for model in models
    ]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"data": data, "has_more": False, **ends}


def _error(status: int, message: str) -> dict[str, Any]:
    kind = _TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def _message(message: Any) -> Any:
    """A message as chat completions would have it: an answer's calls stand beside its words, which come in one or many blocks."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, list) or message.get("role") != "assistant":
        return message
    blocks = [block for block in content if isinstance(block, Mapping)]
    calls = [block for block in blocks if block.get("type") == "tool_use"]
    said = "".join(str(block.get("text", "")) for block in blocks if block.get("type") == "text")
    return {"role": "assistant", "content": said, "tool_calls": calls}


class _Heard(Listener):
    """Listens to a message."""

    def _event(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == "message_start" and isinstance(message := event.get("message"), dict):
            self._note(message)
        elif kind == "content_block_start":
            self._block(event.get("content_block"))
        elif kind == "content_block_delta" and isinstance(delta := event.get("delta"), dict):
            self._say(delta.get("text") if delta.get("type") == "text_delta" else None)
        elif kind == "message_delta" and isinstance(delta := event.get("delta"), dict):
            self._finish = str(delta.get("stop_reason") or self._finish)
        elif kind == "message_stop":
            self.done = True
        elif kind == "error":
            self._failed = True

    def _whole(self, body: dict[str, Any]) -> None:
        blocks = body.get("content")
        for block in blocks if isinstance(blocks, list) else []:
            self._block(block)
        self._finish = str(body.get("stop_reason") or "")
        if body.get("type") == "error":
            self._failed = True

    def _block(self, block: Any) -> None:
        if not isinstance(block, dict):
            return
        if block.get("type") == "text":
            self._say(block.get("text"))
        elif block.get("type") == "tool_use":
            self._tool_calls = True


MESSAGES = Messages()
