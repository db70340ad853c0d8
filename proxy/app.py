"""The proxy as an ASGI application: its parts, its routes, what goes wrong. Importing this module does nothing."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from memory.grants import CubeRefused
from memory.sql import DatabaseError
from proxy.auth import refusal
from proxy.config import Config
from proxy.errors import ApiError, MethodNotAllowed, NotFound
from proxy.front import Front
from proxy.parts import assemble


def build(
    config: Config, *, engine_port: int = 0, clock: Callable[[], float] = time.time, alone: bool = False
) -> Starlette:
    """The proxy as an ASGI application; its parts are made at start-up and closed at shutdown. `alone`: see assemble."""
    front = Front(clock)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        parts = await assemble(config, engine_port=engine_port, clock=clock, alone=alone)
        app.state.parts = parts
        front.open(parts)
        try:
            yield
        finally:
            front.draining = True
            await parts.close()

    def json_error(error: ApiError, request: Request) -> Response:
        named = {"x-request-id": request.headers.get("x-request-id", ""), **error.headers}
        return Response(error.body(), error.status, {k: v for k, v in named.items() if v}, "application/json")

    async def on_error(request: Request, error: Exception) -> Response:
        if isinstance(error, ApiError):
            return json_error(error, request)
        if isinstance(error, CubeRefused):
            return json_error(refusal(error), request)
        if isinstance(error, DatabaseError):
            broken = ApiError("memory cannot be reached at the moment", code="memory_unavailable")
            broken.status = 503
            return json_error(broken, request)
        status = getattr(error, "status_code", 500)
        known = {404: NotFound("there is no such route"), 405: MethodNotAllowed("this route has no such method")}
        return json_error(known.get(status) or ApiError("internal error"), request)

    return Starlette(
        routes=front.routes(),
        lifespan=lifespan,
        middleware=_browsers(config.server.cors_origins),
        exception_handlers={
            ApiError: on_error,
            DatabaseError: on_error,
            CubeRefused: on_error,
            404: on_error,
            405: on_error,
        },
    )


def _browsers(origins: Sequence[str]) -> list[Middleware]:
    """Lets pages of these origins call: keys travel in a header, so there are no credentials in the browser's sense, and
    whatever headers an SDK sends are welcome."""
    if not origins:
        return []
    every = ["*"]
    return [
        Middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=every, allow_headers=every, expose_headers=every
        )
    ]
