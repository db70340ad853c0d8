"""What the surfaces of the API (chat completions, responses, messages) have in common, and chat completions itself. Pure.

A surface says where in a request the words stand, in the shape of chat messages; how text is added to them without touching
another byte; how an answer is heard; and what errors look like. It knows nothing of memory, keys or upstreams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from proxy.errors import ApiError, BadRequest
from proxy.splice import Edit, splice
from proxy.stream import Gatherer, Listener, split_done


class Surface(Protocol):
    """One way of asking a model. `path` is the upstream's, without /v1; `kinds` are those of the ids of kept objects that a
    request can name (see objects.py)."""

    name: str
    path: str
    kinds: Sequence[bytes]

    def check(self, body: Mapping[str, Any]) -> None:
        """Raises BadRequest for a request whose words cannot be found."""
        ...

    def as_chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """`messages` (and `response_format`, if any) as chat completions would have them; to be read, not to be sent. The
        index of a message is the one that edits name."""
        ...

    def goes_on(self, body: Mapping[str, Any]) -> str:
        """The id of the answer or conversation that stands before this request at the upstream; empty when all that was said
        is in the body."""
        ...

    def keeps(self, body: Mapping[str, Any]) -> bool:
        """Whether the upstream keeps the answer, to be had again by its id."""
        ...

    def leads_to(self, body: Mapping[str, Any], answer: str) -> tuple[str, ...]:
        """What the next request may name as standing before it, once the answer with this id is there."""
        ...

    def edit(self, raw: bytes, edits: Sequence[Edit]) -> bytes:
        """The body with text added. Raises CannotSplice."""
        ...

    def listener(self, *, sse: bool, encoding: str) -> Listener:
        """Hears the answer."""
        ...

    def split(self, chunk: bytes, done: bool) -> tuple[bytes, bytes]:
        """What of a streamed chunk may go out, and what must wait until the turn is durable."""
        ...

    def error(self, error: ApiError, request_id: str) -> bytes:
        """The body of an error of our own."""
        ...

    def broken(self, message: str) -> bytes:
        """The event that ends a stream whose upstream broke off."""
        ...


class ChatCompletions:
    """`POST /v1/chat/completions`."""

    name = "chat"
    path = "/chat/completions"
    kinds: Sequence[bytes] = (b"file",)

    def check(self, body: Mapping[str, Any]) -> None:
        """See Surface."""
        if not isinstance(body.get("messages"), list):
            raise BadRequest("messages must be an array", param="messages", code="invalid_type")

    def as_chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """See Surface."""
        messages = body.get("messages")
        return {**body, "messages": messages if isinstance(messages, list) else []}

    def goes_on(self, body: Mapping[str, Any]) -> str:
        """See Surface."""
        return ""

    def keeps(self, body: Mapping[str, Any]) -> bool:
        """See Surface."""
        return body.get("store") is True

    def leads_to(self, body: Mapping[str, Any], answer: str) -> tuple[str, ...]:
        """See Surface."""
        return ()

    def edit(self, raw: bytes, edits: Sequence[Edit]) -> bytes:
        """See Surface."""
        return splice(raw, edits)

    def listener(self, *, sse: bool, encoding: str) -> Listener:
        """See Surface."""
        return Gatherer(sse=sse, encoding=encoding)

    def split(self, chunk: bytes, done: bool) -> tuple[bytes, bytes]:
        """See Surface."""
        return split_done(chunk, done)

    def error(self, error: ApiError, request_id: str) -> bytes:
        """See Surface."""
        return error.body()

    def broken(self, message: str) -> bytes:
        """See Surface."""
        error = {"message": message, "type": "upstream_error", "param": None, "code": "upstream_broken"}
        return b"data: " + msgspec.json.encode({"error": error}) + b"\n\n"


CHAT = ChatCompletions()
