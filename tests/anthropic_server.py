"""A provider that speaks Anthropic's protocol and nothing else, on a free loopback port; it has no model.

In: `POST /v1/messages`. Out: an answer that repeats the last user text, or what a word in that text asks for (`MODES`).
`requests` holds what came in, `gone` is set when a client hung up before the answer was complete.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

INPUT_TOKENS, CACHED_TOKENS, OUTPUT_TOKENS = 11, 4, 5

MODES = {
    "/429": "rate limited, with retry-after",
    "/529": "overloaded",
    "/400": "refused as a bad request",
    "/drop": "streams two words, then cuts the connection",
    "/eof": "streams two words, then ends cleanly without message_stop",
    "/overloaded": "streams two words, then an error event",
    "/slow": "waits for `step()` before each word",
    "/hang": "never answers",
    "/redirect": "sends the client elsewhere",
    "/tool": "calls the first tool of the request with {'city': 'Paris'}",
}


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived."""

    headers: dict[str, str]
    body: dict[str, Any]


class AnthropicServer:
    """`with AnthropicServer() as server:` serves at `server.url` from a thread of its own."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.gone = threading.Event()
        app = Starlette(routes=[Route("/v1/messages", self._messages, methods=["POST"])])
        options = {"loop": "asyncio", "ws": "none", "lifespan": "off", "log_level": "critical"}
        self._server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, **options))  # type: ignore[arg-type]
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._ready = threading.Event()

    def start(self) -> Self:
        """Returns once the port is open."""
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def stop(self) -> None:
        """Ends every open answer and joins the thread."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)

    def step(self, count: int = 1) -> None:
        """Let `/slow` streams send so many more words."""
        for _ in range(count):
            self._loop.call_soon_threadsafe(self._steps.release)

    __enter__ = start

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _serve(self) -> None:
        self._loop, self._steps = asyncio.get_running_loop(), asyncio.Semaphore(0)
        serving = asyncio.create_task(self._server.serve())
        while not self._server.started:  # noqa: ASYNC110  (uvicorn has no event for it)
            await asyncio.sleep(0.005)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        self._ready.set()
        await serving

    async def _messages(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(Received(dict(request.headers), body))
        asked = _asked(body)
        if "/429" in asked:
            limits = {"retry-after": "7", "anthropic-ratelimit-requests-remaining": "0", "set-cookie": "a=b"}
            return _error(429, "rate_limit_error", "Slow down", limits)
        if "/529" in asked:
            return _error(529, "overloaded_error", "Overloaded", {})
        if "/400" in asked:
            return _error(400, "invalid_request_error", "temperature: too hot", {})
        if "/redirect" in asked:
            return Response(status_code=307, headers={"location": f"{self.url}/elsewhere"})
        if "/hang" in asked:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.gone.set()
        headers = {"request-id": "req_1", "anthropic-ratelimit-requests-remaining": "99"}
        content = _content(body, asked)
        if body.get("stream"):
            events = self._events(body["model"], content, asked)
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        stop = "tool_use" if content["type"] == "tool_use" else "end_turn"
        message = _message(body["model"], [content], stop, _usage(OUTPUT_TOKENS))
        return JSONResponse(message, headers=headers)

    async def _events(self, model: str, content: dict[str, Any], asked: str) -> AsyncIterator[bytes]:
        done = False
        try:
            yield _event("message_start", message=_message(model, [], None, _usage(1)))
            tool = content["type"] == "tool_use"
            empty: dict[str, object] = {"input": {}} if tool else {"text": ""}
            yield _event("content_block_start", index=0, content_block=content | empty)
            yield _event("ping")
            for number, part in enumerate(_parts(content)):
                if number == 2 and (cut := {"/drop", "/eof", "/overloaded"} & set(asked.split())):
                    if "/drop" in cut:
                        raise ConnectionAbortedError  # uvicorn closes the socket without the final chunk
                    if "/overloaded" in cut:
                        yield _event("error", error={"type": "overloaded_error", "message": "Overloaded"})
                    done = True
                    return
                if "/slow" in asked:
                    await self._steps.acquire()
                delta = (
                    {"type": "input_json_delta", "partial_json": part} if tool else {"type": "text_delta", "text": part}
                )
                yield _event("content_block_delta", index=0, delta=delta)
            yield _event("content_block_stop", index=0)
            stop = {"stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None}
            yield _event("message_delta", delta=stop, usage={"output_tokens": OUTPUT_TOKENS})
            yield _event("message_stop")
            done = True
        finally:
            if not done:
                self.gone.set()


def _asked(body: dict[str, Any]) -> str:
    """The text of the last user message; what a tool answered counts as text."""
    content = next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user")
    if isinstance(content, str):
        return content
    texts = [part.get("text") or part.get("content") or "" for part in content]
    return " ".join(text if isinstance(text, str) else json.dumps(text) for text in texts)


def _content(body: dict[str, Any], asked: str) -> dict[str, Any]:
    if "/tool" in asked and body.get("tools"):
        name = body["tools"][0]["name"]
        return {"type": "tool_use", "id": "toolu_1", "name": name, "input": {"city": "Paris"}}
    return {"type": "text", "text": f"You said: {asked}"}


def _parts(content: dict[str, Any]) -> list[str]:
    if content["type"] == "text":
        return [f"{word} " for word in content["text"].split()]
    whole = json.dumps(content["input"])
    return [whole[:5], whole[5:]]


def _usage(output: int) -> dict[str, int]:
    cached = {"cache_read_input_tokens": CACHED_TOKENS, "cache_creation_input_tokens": 0}
    return {"input_tokens": INPUT_TOKENS, "output_tokens": output, **cached}


def _message(model: str, content: list[dict[str, Any]], stop: str | None, usage: dict[str, int]) -> dict[str, Any]:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": model}
    return {**head, "content": content, "stop_reason": stop, "stop_sequence": None, "usage": usage}


def _event(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def _error(status: int, kind: str, message: str, headers: dict[str, str]) -> Response:
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return JSONResponse(body, status, headers)
