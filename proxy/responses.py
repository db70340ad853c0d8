"""The surface `POST /v1/responses`. Pure; see surface.py.

`instructions` are message 0, what `input` holds comes after them. History may stand at the upstream: then `input` is only what is
new, and `previous_response_id` or `conversation` says what it follows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from memory.words import whole
from proxy.errors import ApiError, BadRequest
from proxy.objects import KINDS
from proxy.splice import Edit, Shape, splice
from proxy.stream import Listener, split_last

_SHAPE = Shape("input", lead="instructions", part="input_text", bare=True)
# a stored prompt brings instructions of its own, which the field would replace
_WITH_PROMPT = Shape("input", role="developer", part="input_text", bare=True)
_ENDS = ("response.completed", "response.failed", "response.incomplete")
_END = re.compile(
    rb'(?:\A|(?<=[\r\n]))(?:event:[ \t]*|data:[ \t]*\{"type":[ ]?")response\.(?:completed|failed|incomplete)\b'
)
_CALLS = frozenset(
    "function_call custom_tool_call computer_call local_shell_call shell_call apply_patch_call mcp_approval_request".split()
)
_OUTPUTS = frozenset(
    "function_call_output custom_tool_call_output computer_call_output local_shell_call_output shell_call_output "
    "apply_patch_call_output mcp_approval_response".split()
)


class Responses:
    """Answers as items, with or without history at the upstream."""

    name = "responses"
    path = "/responses"
    kinds: Sequence[bytes] = KINDS

    def check(self, body: Mapping[str, Any]) -> None:
        """See Surface."""
        if not isinstance(body.get("input", ""), str | list | None):
            raise BadRequest("input must be a string or an array", param="input", code="invalid_type")

    def as_chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """See Surface."""
        told, given = body.get("instructions"), body.get("input")
        messages: list[Any] = [{"role": "system", "content": told}] if told is not None else []
        if isinstance(given, str):
            messages.append({"role": "user", "content": given})
        elif isinstance(given, list):
            messages += _rounds([_message(item) for item in given])
        text = body.get("text")
        wanted = text.get("format") if isinstance(text, Mapping) else None
        return {"messages": messages, "response_format": {"json_schema": wanted}}

    def goes_on(self, body: Mapping[str, Any]) -> str:
        """See Surface."""
        before = body.get("previous_response_id")
        return _name(before) if isinstance(before, str) else _conversation(body)

    def keeps(self, body: Mapping[str, Any]) -> bool:
        """See Surface."""
        return body.get("store") is not False

    def leads_to(self, body: Mapping[str, Any], answer: str) -> tuple[str, ...]:
        """See Surface. What is not stored cannot be named."""
        kept = _name(answer) if self.keeps(body) else ""
        return tuple(name for name in (kept, _conversation(body)) if name)

    def edit(self, raw: bytes, edits: Sequence[Edit]) -> bytes:
        """See Surface."""
        body = msgspec.json.decode(raw, type=_Leads) if b"prompt" in raw else _Leads()
        return splice(raw, edits, _WITH_PROMPT if body.prompt and body.instructions is None else _SHAPE)

    def listener(self, *, sse: bool, encoding: str) -> Listener:
        """See Surface."""
        return _Heard(sse=sse, encoding=encoding)

    def split(self, chunk: bytes, done: bool) -> tuple[bytes, bytes]:
        """See Surface."""
        return split_last(chunk, _END, done)

    def error(self, error: ApiError, request_id: str) -> bytes:
        """See Surface."""
        return error.body()

    def broken(self, message: str) -> bytes:
        """See Surface. With `error` besides the fields of the event, so that clients do not take it for one of many."""
        told = {"message": message, "code": "upstream_broken", "param": None}
        event = {"type": "error", "sequence_number": 0, **told, "error": {"type": "upstream_error", **told}}
        return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"


class _Leads(msgspec.Struct):
    instructions: Any = None
    prompt: Any = None


def _conversation(body: Mapping[str, Any]) -> str:
    named = body.get("conversation")
    named = named.get("id") if isinstance(named, Mapping) else named
    return _name(named) if isinstance(named, str) else ""


def _name(told: str) -> str:
    """An id as it can be kept and looked for; half a surrogate pair in one is the client's, and no upstream's."""
    return whole(told[:200])


def _message(item: Any) -> Any:
    """An input item as a chat message; what is neither said nor called keeps its place and says nothing."""
    if not isinstance(item, Mapping):
        return item
    kind = item.get("type", "message")
    if kind == "message":
        return item
    if kind in _CALLS:
        return {"role": "assistant", "content": None, "tool_calls": [item]}
    if kind in _OUTPUTS:
        return {"role": "tool", "content": None}
    return {"role": str(kind), "content": None}


def _rounds(messages: list[Any]) -> list[Any]:
    """What the model says before it calls a tool is an item of its own here: it belongs to the call, and is no answer."""
    out: list[Any] = []
    calls = False
    for message in reversed(messages):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role == "user":
            calls = False
        elif role == "tool" or (role == "assistant" and message.get("tool_calls")):
            calls = True
        elif role == "assistant" and calls:
            message = {**message, "tool_calls": [{}]}
        out.append(message)
    return out[::-1]


class _Heard(Listener):
    """Listens to a response."""

    def _event(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            self._say(event.get("delta"))
        elif kind == "error":
            self._failed = True
        elif kind in ("response.output_item.added", "response.output_item.done"):
            self._item(event.get("item"))
        response = event.get("response")
        if isinstance(response, dict) and isinstance(kind, str):
            self._note(response)
            if kind in _ENDS:
                self.done = True
                self._ended(response)

    def _whole(self, body: dict[str, Any]) -> None:
        self._ended(body)

    def _ended(self, response: dict[str, Any]) -> None:
        self._response = response
        output = response.get("output")
        said = [text for item in output if (text := self._item(item))] if isinstance(output, list) else []
        if said:  # the whole answer; what came in pieces is the same
            self._text, self._length = [], 0
            self._say("\n\n".join(said))
        status = response.get("status")
        self._finish = {"completed": "stop", "incomplete": "length"}.get(str(status), "") if status else "stop"
        if not self._finish:  # failed, cancelled, or a background one that has only begun
            self._failed = True

    def _item(self, item: Any) -> str:
        """Note a tool call; the words of a message."""
        if not isinstance(item, dict):
            return ""
        if item.get("type") in _CALLS:
            self._tool_calls = True
        parts = item.get("content")
        if item.get("type") != "message" or not isinstance(parts, list):
            return ""
        words = [part.get("text") or part.get("refusal") or "" for part in parts if isinstance(part, dict)]
        return "".join(word for word in words if isinstance(word, str))


RESPONSES = Responses()
