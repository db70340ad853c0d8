"""The engine process's HTTP face: the OpenAI wire on loopback, over one memory.engine Engine.

Bodies in, JSON or server-sent events out; no keys, and of memory only what has been computed of it (engine_states.py). A client
that hangs up, at any moment, ends its work within one batch. `run` is the whole process; `build` is the app alone, over an
engine that somebody else starts and closes.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from memory.activation.store import States
from memory.engine.adapters import Adapters
from memory.engine.chat import read
from memory.engine.engine import Engine
from memory.engine.errors import Busy, EngineError, InvalidChat, NoModel, NotReady
from memory.engine.generation import Delta, TokenLogprob
from memory.engine.reply import Reply
from memory.engine.settings import EngineSettings
from memory.engine.slots import Owner
from proxy.engine_embeddings import EmbeddingsApi
from proxy.engine_states import StatesApi, begun, owner
from proxy.errors import ApiError, BadRequest, MethodNotAllowed, NotFound, TooLarge, Unavailable

log = logging.getLogger(__name__)

BODY_BYTES = 32 * 2**20
SSE = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
JSON = [(b"content-type", b"application/json")]


def run(settings: EngineSettings, host: str = "127.0.0.1", port: int = 8001, states: States | None = None) -> None:
    """Serve until a signal ends the process. Raises NoModel when the model cannot be loaded."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, host, port, states))


async def serve(
    settings: EngineSettings, host: str, port: int, states: States | None = None, adapters: Adapters | None = None
) -> None:
    """The same inside a running event loop. The port answers at once; /health says when the model is loaded."""
    engine = Engine(settings, states, adapters)
    config = uvicorn.Config(
        build(engine),
        host=host,
        port=port,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _stay)
    engine.start()
    serving = asyncio.create_task(server.serve())
    try:
        await engine.ready()
        log.info("model %s is ready on %s:%d", settings.model_name, host, port)
        await serving
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        await asyncio.to_thread(engine.close)
        if states is not None:
            await asyncio.to_thread(states.close)


def _stay() -> None:
    """uvicorn stops at a signal, and then raises it again: that must not end the process before the states are written."""


def build(engine: Engine) -> Starlette:
    """The app over `engine`, which may still be loading."""

    async def health(_: Request) -> Response:
        state = engine.state
        status = {"ready": "ok"}.get(state.status, state.status)
        body = {"status": status, "model": engine.settings.model_name, "slots": state.slots}
        body |= {"busy": state.busy, "waiting": state.waiting}
        return _json(body, 200 if status == "ok" else 503)

    async def models(_: Request) -> Response:
        model = {"id": engine.settings.model_name, "object": "model", "created": started, "owned_by": "memrelay"}
        return _json({"object": "list", "data": [model]})

    started = int(time.time())
    return Starlette(
        routes=[
            Route("/v1/chat/completions", ChatCompletions(engine), methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
            *EmbeddingsApi(engine).routes(),
            *StatesApi(engine).routes(),
        ],
        exception_handlers={
            ApiError: _refuse,
            EngineError: _refuse,
            HTTPException: _refuse,
            Exception: _refuse,
        },
    )


class ChatCompletions:
    """POST /v1/chat/completions, as a plain ASGI app: only there can a hang-up be seen while an answer is made."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read_body(receive)
        if body is None:
            return
        answer = asyncio.create_task(self._answer(body, owner(dict(scope["headers"])), send))
        gone = asyncio.create_task(_hung_up(receive))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not answer.done():
                answer.cancel()
            await asyncio.gather(answer, gone, return_exceptions=True)
        if not answer.cancelled():
            answer.result()

    async def _answer(self, body: bytes, whose: Owner, send: Send) -> None:
        try:
            chat = read(_decoded(body))
            generation = await self._engine.generate(chat, whose)
        except EngineError as error:
            raise _as_api_error(error) from error
        reply = Reply(self._engine.settings.model_name, chat, generation)
        try:
            wanted = whose.adapter
            await (_stream(reply, send, wanted) if chat.stream else _whole(reply, send, wanted))
        finally:
            generation.cancel()


async def _whole(reply: Reply, send: Send, wanted: str) -> None:
    texts: list[str] = []
    logprobs: list[TokenLogprob] = []
    finish = ""
    try:
        async for delta in reply.generation.deltas():
            texts.append(delta.text)
            logprobs.extend(delta.logprobs)
            finish = delta.finish or finish
    except EngineError as error:
        raise _as_api_error(error) from error
    body = msgspec.json.encode(reply.whole("".join(texts), logprobs, finish))
    await send({"type": "http.response.start", "status": 200, "headers": JSON + begun(reply.generation, wanted)})
    await send({"type": "http.response.body", "body": body})


async def _stream(reply: Reply, send: Send, wanted: str) -> None:
    """Headers go out with the first piece, so that what fails before it is still answered with a status."""
    deltas = reply.generation.deltas()
    try:
        first = await anext(deltas)
    except EngineError as error:
        raise _as_api_error(error) from error
    await send({"type": "http.response.start", "status": 200, "headers": SSE + begun(reply.generation, wanted)})
    await _send_event(send, reply.chunk({"role": "assistant", "content": ""}))
    try:
        async for delta in _chain(first, deltas):
            for chunk in reply.chunks(delta):
                await _send_event(send, chunk)
    except EngineError as error:
        await send(_part(b"data: " + _as_api_error(error).body() + b"\n\n", more=False))
        return
    if reply.chat.include_usage:
        await _send_event(send, reply.usage_chunk())
    await send(_part(b"data: [DONE]\n\n", more=False))


async def _chain(first: Delta, rest: AsyncIterator[Delta]) -> AsyncIterator[Delta]:
    yield first
    async for delta in rest:
        yield delta


async def _send_event(send: Send, value: dict[str, Any]) -> None:
    await send(_part(b"data: " + msgspec.json.encode(value) + b"\n\n", more=True))


def _part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _read_body(receive: Receive) -> bytes | None:
    """The request's body; None when the client left before it was complete. Raises TooLarge."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_BYTES:
            raise TooLarge(f"a body may have at most {BODY_BYTES} bytes")
        if not message.get("more_body", False):
            return b"".join(parts)


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not JSON: {error}", code="invalid_json") from error


def _as_api_error(error: EngineError) -> ApiError:
    if isinstance(error, InvalidChat):
        return BadRequest(str(error), param=error.param, code=error.code)
    if isinstance(error, NotReady | Busy):
        return Unavailable(str(error), code=error.code, headers={"retry-after": "1"})
    if isinstance(error, NoModel):
        return Unavailable(str(error), code=error.code)
    return ApiError(str(error), code=error.code)


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _refuse(request: Request, error: Exception) -> Response:
    """Any error in OpenAI's shape. Starlette's own are: no such path, wrong method."""
    if isinstance(error, HTTPException):
        wrong_method = error.status_code == MethodNotAllowed.status
        error = (MethodNotAllowed if wrong_method else NotFound)(f"not served: {request.method} {request.url.path}")
    if isinstance(error, EngineError):
        error = _as_api_error(error)
    known = error if isinstance(error, ApiError) else ApiError("the engine failed; its log says why")
    return Response(known.body(), known.status, known.headers, "application/json")
