"""The recording upstream: an OpenAI-compatible server that keeps what it was sent and answers as a test tells it.

The one fake in these tests. It runs under a real uvicorn on a free loopback port, in a thread of its own.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


@dataclass
class Received:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    raw: bytes
    method: str = "POST"
    target: str = ""  # path and query as they stood in the request line

    @property
    def body(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.raw)
        return parsed

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.body["messages"]
        return messages

    @property
    def prompt(self) -> str:
        """Everything the model was given, as one text, over whatever surface."""
        given = [self.body.get(name) for name in ("system", "messages", "instructions", "input")]
        return json.dumps([part for part in given if part is not None], ensure_ascii=False)


@dataclass
class Reply:
    """How the next request is answered. `chunks` are sent as they are, `pause_s` apart."""

    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    wait_s: float = 0.0  # before the first byte
    pause_s: float = 0.0


Answer = Callable[[Received], "Reply | str"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def completion(text: str, *, model: str = "fake") -> bytes:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return json.dumps(
        {"id": "c1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage}
    ).encode()


def events(text: str, *, model: str = "fake") -> list[bytes]:
    """A streamed chat completion, a word an event."""

    def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}
        return b"data: " + json.dumps(head).encode() + b"\n\n"

    words = [event({"content": word}) for word in text.split(" ") for word in (word + " ",)]
    return [event({"role": "assistant", "content": ""}), *words, event({}, "stop"), b"data: [DONE]\n\n"]


def response(
    text: str, *, model: str = "fake", output: list[dict[str, Any]] | None = None, **more: Any
) -> dict[str, Any]:
    """A response object."""
    part = {"type": "output_text", "text": text, "annotations": []}
    said = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}
    usage: dict[str, Any] = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    head = {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": model,
    }
    rest = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None, "usage": usage}
    return {**head, **rest, "output": [said] if output is None else output, **more}


def response_events(text: str, *, model: str = "fake", **more: Any) -> list[bytes]:
    """A streamed response, a word an event."""
    whole = response(text, model=model, **more)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    told: list[dict[str, Any]] = [
        {"type": f"response.{kind}", "response": begun} for kind in ("created", "in_progress")
    ]
    told += [
        {"type": "response.output_text.delta", **where, "delta": f"{word} ", "logprobs": []} for word in text.split()
    ]
    told += [
        {"type": "response.output_item.done", "output_index": n, "item": item} for n, item in enumerate(whole["output"])
    ]
    told.append({"type": "response.completed", "response": whole})
    return [
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': number})}\n\n".encode()
        for number, event in enumerate(told)
    ]


def message(
    text: str, *, model: str = "fake", content: list[dict[str, Any]] | None = None, stop: str = "end_turn"
) -> dict[str, Any]:
    """A message as Anthropic answers."""
    head = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "stop_reason": stop,
        "stop_sequence": None,
    }
    return {
        **head,
        "content": content or [{"type": "text", "text": text}],
        "usage": {"input_tokens": 3, "output_tokens": 5},
    }


def message_events(text: str, *, model: str = "fake") -> list[bytes]:
    """A streamed message, a word an event."""
    start = {**message("", model=model), "content": [], "stop_reason": None}
    deltas = [{"type": "text_delta", "text": f"{word} "} for word in text.split()]
    told: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop"},
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in told]


def _target(request: Request) -> str:
    query: bytes = request.scope["query_string"]
    path: bytes = request.scope["raw_path"].partition(b"?")[0]
    return (path + (b"?" + query if query else b"")).decode()


def _said(path: str, text: str, stream: bool) -> list[bytes]:
    """The words as an answer of the surface that was asked."""
    if path == "/v1/responses":
        return response_events(text) if stream else [json.dumps(response(text)).encode()]
    if path == "/v1/messages":
        return message_events(text) if stream else [json.dumps(message(text)).encode()]
    return events(text) if stream else [completion(text)]


class RecordingUpstream:
    """Start it with `with`; `url` is its base URL with /v1."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.requests: list[Received] = []
        self.cancelled = 0
        self.begun = 0  # pieces of bodies that have come
        self.models: tuple[str, ...] = ("fake", "org/fake-2")
        self.answer: Answer = answer or (lambda received: "Noted.")
        self.port = free_port()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def last(self) -> Received:
        return self.requests[-1]

    def __enter__(self) -> RecordingUpstream:
        app = Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/{path:path}", self._any, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            ]
        )
        config = uvicorn.Config(
            app, host="127.0.0.1", port=self.port, log_config=None, access_log=False, ws="none", lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < deadline, "the recording upstream did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)

    async def _models(self, _: Request) -> Response:
        data = [{"id": name, "object": "model", "created": 1, "owned_by": "fake"} for name in self.models]
        return Response(json.dumps({"object": "list", "data": data}), media_type="application/json")

    async def _any(self, request: Request) -> Response:
        parts: list[bytes] = []
        async for part in request.stream():
            self.begun += 1
            parts.append(part)
        raw = b"".join(parts)
        received = Received(request.url.path, dict(request.headers), raw, request.method, _target(request))
        self.requests.append(received)
        reply = self.answer(received)
        if isinstance(reply, str):
            stream = raw.startswith(b"{") and received.body.get("stream") is True
            kind = "text/event-stream" if stream else "application/json"
            reply = Reply(content_type=kind, chunks=_said(received.path, reply, stream))
        try:
            await self._sleep(request, reply.wait_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        headers = {"content-type": reply.content_type, **reply.headers}
        return StreamingResponse(self._send(request, reply), reply.status, headers)

    async def _send(self, request: Request, reply: Reply) -> AsyncIterator[bytes]:
        sent = 0
        try:
            for chunk in reply.chunks:
                if sent:
                    await asyncio.sleep(reply.pause_s)
                yield chunk
                sent += 1
        finally:
            if sent < len(reply.chunks):
                self.cancelled += 1

    async def _sleep(self, request: Request, seconds: float) -> None:
        """Wait, but notice a client that leaves."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if await request.is_disconnected():
                self.cancelled += 1
                return
            await asyncio.sleep(0.02)
