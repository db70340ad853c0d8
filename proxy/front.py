"""The routes of the proxy, and what answers them once the parts are there."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from memory.grants import CubeRefused
from memory.sql import DatabaseError
from proxy import apis
from proxy.apis import Apis
from proxy.auth import cube_of
from proxy.chat import Chat
from proxy.errors import ApiError, BadRequest, NotFound
from proxy.messages import MESSAGES, listing
from proxy.parts import Parts
from proxy.passthrough import PassThrough
from proxy.responses import RESPONSES
from proxy.status import Status
from proxy.surface import CHAT, Surface
from scheduler.executor import where

log = logging.getLogger(__name__)
SURFACES = (CHAT, RESPONSES, MESSAGES)
_OTHERS = "others"


class Front:
    """The routes, and what they need once the parts are there."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._parts: Parts | None = None
        self._surfaces: dict[str, ASGIApp] = {}
        self._apis: Apis | None = None
        self.draining = False

    def open(self, parts: Parts) -> None:
        """Take the parts."""
        self._parts = parts
        self._surfaces = {
            surface.name: Chat(
                surface,
                auth=parts.auth,
                routes=parts.routes,
                hooks=parts.hooks,
                kept=parts.objects,
                chains=parts.chains,
                metrics=parts.metrics,
                metering=parts.metering,
                spawn=parts.background,
                most=parts.config.limits.body_bytes,
                clock=self._clock,
            )
            for surface in SURFACES
        }
        self._surfaces[_OTHERS] = PassThrough(
            auth=parts.auth,
            routes=parts.routes,
            kept=parts.objects,
            heard=parts.remember.had_later,
            metrics=parts.metrics,
            metering=parts.metering,
            limits=parts.config.limits,
        )
        self._apis = apis.make(parts, self._clock)

    @property
    def parts(self) -> Parts:
        """The parts; there are none before start-up has ended."""
        if self._parts is None:
            raise RuntimeError("the app has not started")
        return self._parts

    def routes(self) -> list[Route]:
        """Every route of the proxy."""
        memory, cubes, feedback, graph = (self._to(name) for name in ("memory", "cubes", "feedback", "graph"))
        agenda, jobs, transfer = (self._to(name) for name in ("agenda", "jobs", "transfer"))
        scenes, tiers, adapters = self._to("scenes"), self._to("tiers"), self._to("adapters")
        return [
            *(Route(f"/v1{surface.path}", self._surface(surface)) for surface in SURFACES),
            Route("/v1/responses/{id}", self._kept("response"), methods=["GET", "DELETE"]),
            Route("/v1/responses/{id}/input_items", self._kept("input_items"), methods=["GET"]),
            Route("/v1/responses/{id}/cancel", self._kept("cancel"), methods=["POST"]),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{model:path}", self.model, methods=["GET"]),
            Route("/v1/memory/items", memory("items"), methods=["GET", "POST"]),
            Route("/v1/memory/items/{id}", memory("item"), methods=["GET", "PATCH", "DELETE"]),
            Route("/v1/memory/items/{id}/history", memory("history"), methods=["GET"]),
            Route("/v1/memory/items/{id}/undo", memory("undo"), methods=["POST"]),
            Route("/v1/memory/search", memory("search"), methods=["POST"]),
            Route("/v1/memory/tiers", tiers("tiers"), methods=["GET"]),
            Route("/v1/memory/adapters", adapters("adapters"), methods=["GET", "POST", "PATCH"]),
            Route("/v1/memory/adapters/{version}", adapters("adapter"), methods=["GET", "DELETE"]),
            Route("/v1/memory/graph", graph("graph"), methods=["GET"]),
            Route("/v1/memory/tasks", agenda("tasks"), methods=["GET"]),
            Route("/v1/memory/scenes", scenes("scenes"), methods=["GET"]),
            Route("/v1/memory/feedback", feedback("give"), methods=["POST"]),
            Route("/v1/memory/export", transfer("export"), methods=["GET"]),
            Route("/v1/memory/import", transfer("take_in"), methods=["POST"]),
            Route("/v1/memory/jobs", jobs("jobs"), methods=["GET"]),
            Route("/v1/memory/jobs/{id:path}", jobs("job"), methods=["GET", "POST"]),
            Route("/v1/memory", cubes("everything"), methods=["DELETE"]),
            Route("/v1/memory/receipts/{id}", cubes("receipt"), methods=["GET"]),
            Route("/v1/cubes", cubes("cubes"), methods=["GET", "POST"]),
            Route("/v1/cubes/{id}", cubes("cube"), methods=["GET", "PATCH", "DELETE"]),
            Route("/v1/cubes/{id}/fuse", cubes("fuse"), methods=["POST"]),
            Route("/v1/cubes/{id}/grants", cubes("grants"), methods=["GET", "POST"]),
            Route("/v1/cubes/{id}/grants/{principal}", cubes("grant"), methods=["DELETE"]),
            Route("/v1/usage", self._to("usage")("usage"), methods=["GET"]),
            Route("/v1/{path:path}", _Whole(self._to_surface(_OTHERS))),
            Route("/health", self.health, methods=["GET"]),
            Route("/ready", self.ready, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    def _surface(self, surface: Surface) -> ASGIApp:
        """A surface takes POST; other methods are for what the upstream keeps there (`GET /v1/chat/completions` lists it)."""
        post, others = self._to_surface(surface.name), self._to_surface(_OTHERS)

        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            await (post if scope["method"] == "POST" else others)(scope, receive, send)

        return _Whole(endpoint)

    def _kept(self, name: str) -> ASGIApp:
        """A response that is kept here is ours to show; any other is where its upstream keeps it."""
        others, ours = self._to_surface(_OTHERS), self._to("responses")(name)

        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            if self._apis is None or not self._apis.responses.ours(scope["path_params"]["id"]):
                await others(scope, receive, send)
                return
            status = 500
            try:
                response = await ours(Request(scope, receive))
                status = response.status_code
            except ApiError as error:
                status = error.status
                raise
            finally:
                self.parts.metrics.requests.labels(RESPONSES.name, str(status)).inc()
            await response(scope, receive, send)

        return _Whole(endpoint)

    def _to_surface(self, name: str) -> ASGIApp:
        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            await self._surfaces[name](scope, receive, send)

        return endpoint

    def _to(self, api: str) -> Callable[[str], Callable[[Request], Awaitable[Response]]]:
        """Endpoints that are methods of the API of this name, which is there once the app has started."""

        def named(name: str) -> Callable[[Request], Awaitable[Response]]:
            async def endpoint(request: Request) -> Response:
                _without_nul(request)
                try:
                    response: Response = await getattr(getattr(self._apis, api), name)(request)
                except (ApiError, DatabaseError, CubeRefused):
                    raise
                except Exception as error:  # the route's edge: what nobody foresaw gets an answer of the usual shape
                    log.error("%s %s failed: %s\n%s", request.method, name, type(error).__name__, where(error))
                    raise ApiError("internal error", code="internal_error") from None
                return response

            return endpoint

        return named

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`: what the upstreams offer and the key may use."""
        principal = await self.parts.auth.principal(request.headers)
        if principal.has("memory:read"):  # a frontend that is opened asks for the models first
            home = cube_of(principal, request.headers, {}, self.parts.config.sessions.user_headers)
            self.parts.background(self.parts.foresight.opens(home, "looked_in"))
        listed = [model for model in await self.parts.routes.models() if _may(principal, str(model["id"]))]
        return _json(listing(listed) if "anthropic-version" in request.headers else {"object": "list", "data": listed})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{id}`; ids may hold slashes."""
        principal = await self.parts.auth.principal(request.headers)
        wanted = request.path_params["model"]
        for model in await self.parts.routes.models():
            if model["id"] == wanted and _may(principal, wanted):
                return _json(model)
        raise NotFound(f"the model {wanted[:200]!r} does not exist", param="model", code="model_not_found")

    async def health(self, _: Request) -> Response:
        """`GET /health`: the process lives."""
        return _json({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        """`GET /ready`: whether chats can be served (503 if not), and how the other processes are."""
        found = await Status(self.parts.config.folder, self.parts.database).look()
        serving = found.database == "ok" and not self.draining
        body = {"status": found.status if serving else "draining" if self.draining else "unavailable", **found.detail}
        return _json(body, 200 if serving else 503)

    async def metrics(self, _: Request) -> Response:
        """`GET /metrics` for Prometheus."""
        return Response(await self.parts.scrape.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


class _Whole:
    """An ASGI endpoint that takes every method."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _without_nul(request: Request) -> None:
    """No id and no cursor holds NUL, which PostgreSQL cannot even look for. Raises NotFound, BadRequest."""
    if any("\x00" in str(value) for value in request.path_params.values()):
        raise NotFound("there is nothing of this name")
    for name, value in request.query_params.multi_items():
        if "\x00" in value:
            raise BadRequest("a parameter may not hold NUL", param=name)


def _may(principal: Any, model: str) -> bool:
    try:
        principal.may_use(model)
    except ApiError:
        return False
    return True


def _json(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body, ensure_ascii=False), status, media_type="application/json")
