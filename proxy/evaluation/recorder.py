"""Real servers on free loopback ports, for measurements that go through the front door: ASGI applications under uvicorn in this
event loop, and an upstream that keeps what it was sent. Knows nothing of memory.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

Says = Callable[[dict[str, Any]], dict[str, Any]]  # a request's body → the message that answers it


class Upstream:
    """An OpenAI-compatible server. `bodies` are the chats it was sent, parsed, oldest first."""

    def __init__(self, says: Says) -> None:
        self._says = says
        self.bodies: list[dict[str, Any]] = []
        self.app = Starlette(routes=[Route("/v1/chat/completions", self._chat, methods=["POST"])])

    async def _chat(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.bodies.append(body)
        message = self._says(body)
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": "tool_calls" if message.get("tool_calls") else "stop",
        }
        answer = {"id": f"chat-{len(self.bodies)}", "object": "chat.completion", "created": 1, "model": body["model"]}
        return Response(json.dumps({**answer, "choices": [choice]}), media_type="application/json")


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """The URL at which `app` is served while the context lasts. Raises RuntimeError when it cannot start."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, log_level="warning", access_log=False, ws="none"))
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            while not server.started:
                if running.done():
                    raise RuntimeError("the server did not start")
                await asyncio.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running
