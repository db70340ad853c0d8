"""The composition root: everything is made here, once, and handed down. Importing this module does nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from memory import rerank
from memory.agenda import Agenda
from memory.census import Census
from memory.cube import Cubes
from memory.embedders import Embedders
from memory.erase import Receipts
from memory.grants import CubeRefused, Grants
from memory.graph import Graph
from memory.memories import Memories
from memory.models import Embedder
from memory.retrieve import Retriever
from memory.rows import Rows
from memory.sql import Database, DatabaseError
from memory.store import Store
from memory.turns import TurnLog
from memory.walk import Walk
from proxy import db, hooks, rules
from proxy.agenda_api import AgendaApi
from proxy.auth import Auth, cube_of, refusal
from proxy.blocks import Blocks, visits
from proxy.chat import Chat
from proxy.config import Config
from proxy.cubes_api import CubesApi
from proxy.errors import ApiError, MethodNotAllowed, NotFound, UpgradeRequired
from proxy.feedback_api import FeedbackApi
from proxy.forecasts import Forecasts
from proxy.foresight import Foresight
from proxy.graph_api import GraphApi
from proxy.hooks import Hooks
from proxy.jobs_api import JobsApi
from proxy.keeping import Kept
from proxy.keys import Keys
from proxy.lifecycle import Lifecycle
from proxy.memory_api import MemoryApi
from proxy.messages import MESSAGES, listing
from proxy.metrics import Metrics
from proxy.mover import Mover
from proxy.objects import Objects
from proxy.passthrough import PassThrough
from proxy.predicting import Due, Predictor
from proxy.prefill import EnginePrefill
from proxy.remember import Remember
from proxy.responses import RESPONSES
from proxy.scenes_api import ScenesApi
from proxy.scrape import Scrape
from proxy.sending import send_error
from proxy.status import Status
from proxy.surface import CHAT, Surface
from proxy.tiers_api import TiersApi
from proxy.transfer_api import TransferApi
from proxy.upstreams import routing
from proxy.upstreams.routing import Routes
from scheduler.executor import where
from scheduler.jobs import JobQueue
from scheduler.queue import DbosQueue
from scheduler.triggers import Triggers

log = logging.getLogger(__name__)
VISITS_S = 60 * 86400.0  # what began before is not looked at to say which cubes are in use
SURFACES = (CHAT, RESPONSES, MESSAGES)
_OTHERS = "others"


@dataclass(slots=True)
class Background:
    """Work that outlives the request that began it; contains its failures, and is waited for at shutdown."""

    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def __call__(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` to its end."""
        task = asyncio.create_task(_contained(work))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def drain(self, timeout_s: float) -> int:
        """Wait for what is running; returns how many were given up."""
        deadline = time.monotonic() + timeout_s
        while self.tasks and time.monotonic() < deadline:
            await asyncio.wait(set(self.tasks), timeout=max(0.0, deadline - time.monotonic()))
        return len(self.tasks)


async def _contained(work: Coroutine[Any, Any, Any]) -> None:
    try:
        await work
    except Exception as error:  # nobody waits for it: log it here or nowhere
        log.error("background work failed: %s\n%s", type(error).__name__, where(error))


@dataclass(frozen=True, slots=True)
class Parts:
    """What the proxy process is made of."""

    config: Config
    database: Database
    store: Store
    threads: ThreadPoolExecutor
    embedder: Embedder
    retriever: Retriever
    kept: Kept
    memories: Memories
    cubes: Cubes
    grants: Grants
    receipts: Receipts
    lifecycle: Lifecycle
    turns: TurnLog
    keys: Keys
    auth: Auth
    blocks: Blocks
    objects: Objects
    remember: Remember
    foresight: Foresight
    rows: Rows
    routes: Routes
    hooks: Hooks
    queue: JobQueue
    triggers: Triggers
    metrics: Metrics
    scrape: Scrape
    background: Background
    close: Callable[[], Awaitable[None]]


async def assemble(
    config: Config,
    *,
    engine_port: int = 0,
    clock: Callable[[], float] = time.time,
    alone: bool = False,
) -> Parts:
    """Make the parts. The database must have been brought up to date. `alone`: nobody works off the queue, and no time but the
    given clock's passes: nothing is put into the queue, and whoever assembles lets the foresight tick."""
    database = db.open_database(config)
    store = Store(config.store_root)
    settings = config.memory
    embedders = Embedders(database, config.folder / "models", threads=settings.embedder_threads)
    embedder = await embedders.current(settings.embedder)
    reranker = (
        await asyncio.to_thread(rerank.make, settings.reranker, threads=settings.embedder_threads)
        if settings.reranker
        else None
    )
    threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embed")
    await asyncio.get_running_loop().run_in_executor(threads, embedder.embed_query, "warm up")
    background, metrics = Background(), Metrics()
    queue = DbosQueue(config.queue_url)
    cubes, memories, turns = Cubes(database), Memories(database, clock), TurnLog(database)
    grants = Grants(database, clock)
    kept = Kept(clock)
    kept.visited(await visits(database, clock() - VISITS_S))
    rows = Rows(database, budget=settings.rows_mb << 20, counted=metrics.rows_read_ahead)
    retriever = Retriever(
        database,
        store,
        embedder,
        threads,
        rows=rows,
        reranker=reranker,
        earlier=embedders.earlier,
        budget=settings.warm_mb << 20,
        keeping=kept,
    )
    blocks = Blocks(database, background)
    added = hooks.load(config.hooks)
    table = [] if alone else rules.table(config, added)
    fired = Triggers(queue, table, metrics.triggered)
    foresight = Foresight(
        retriever=retriever,
        rows=rows,
        forecasts=Forecasts(database),
        metrics=metrics,
        urgent=Due(Agenda(database)),
        expects=kept.expects,
        clock=clock,
    )
    remember = Remember(
        settings=config.memory,
        reading=config.sessions,
        secret=await db.shared_secret(database),
        cubes=cubes,
        grants=grants,
        turns=turns,
        memories=memories,
        retriever=retriever,
        agenda=Agenda(database),
        blocks=blocks,
        foresight=foresight,
        triggers=fired,
        metrics=metrics,
        spawn=background,
        clock=clock,
    )
    run = Hooks([*added, remember], lambda name: metrics.hook_failures.labels(name).inc())
    routes = routing.make(config, engine_port)
    foresight.hand_over(EnginePrefill(routes), remember.stable_block)
    keys = Keys(database, clock)

    looking = asyncio.create_task(asyncio.sleep(0) if alone else foresight.run())

    async def close() -> None:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await routes.close()
        given_up = await background.drain(15)
        if given_up:
            log.warning("%d background tasks were given up", given_up)
        await queue.close()
        await retriever.close()
        threads.shutdown(wait=False)
        await database.close()

    return Parts(
        config=config,
        database=database,
        store=store,
        threads=threads,
        embedder=embedder,
        retriever=retriever,
        kept=kept,
        memories=memories,
        cubes=cubes,
        grants=grants,
        receipts=Receipts(database),
        lifecycle=Lifecycle(database, cubes, grants, blocks, fired, foresight.let_go, clock),
        turns=turns,
        keys=keys,
        auth=Auth(keys, clock),
        blocks=blocks,
        objects=Objects(database, background, clock),
        remember=remember,
        foresight=foresight,
        rows=rows,
        routes=routes,
        hooks=run,
        queue=queue,
        triggers=fired,
        metrics=metrics,
        scrape=Scrape(metrics.registry, config.folder / "metrics", queue, {rule.task for rule in table}, clock),
        background=background,
        close=close,
    )


def build(config: Config, *, engine_port: int = 0, clock: Callable[[], float] = time.time) -> Starlette:
    """The proxy as an ASGI application; its parts are made at start-up and closed at shutdown."""
    front = Front(clock)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        parts = await assemble(config, engine_port=engine_port, clock=clock)
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


class Front:
    """The routes, and what they need once the parts are there."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._parts: Parts | None = None
        self._surfaces: dict[str, ASGIApp] = {}
        self._memory: MemoryApi | None = None
        self._cubes: CubesApi | None = None
        self._feedback: FeedbackApi | None = None
        self._graph: GraphApi | None = None
        self._agenda: AgendaApi | None = None
        self._jobs: JobsApi | None = None
        self._transfer: TransferApi | None = None
        self._scenes: ScenesApi | None = None
        self._tiers: TiersApi | None = None
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
                metrics=parts.metrics,
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
            limits=parts.config.limits,
        )
        self._memory = MemoryApi(
            auth=parts.auth,
            grants=parts.grants,
            memories=parts.memories,
            retriever=parts.retriever,
            blocks=parts.blocks,
            triggers=parts.triggers,
            settings=parts.config.sessions,
            most=parts.config.limits.body_bytes,
            clock=self._clock,
        )

        self._cubes = CubesApi(
            auth=parts.auth,
            cubes=parts.cubes,
            grants=parts.grants,
            receipts=parts.receipts,
            lifecycle=parts.lifecycle,
            settings=parts.config.sessions,
            most=parts.config.limits.body_bytes,
        )
        self._graph = GraphApi(
            auth=parts.auth,
            grants=parts.grants,
            memories=parts.memories,
            graph=Graph(parts.database),
            walk=Walk(parts.database),
            settings=parts.config.sessions,
        )
        self._agenda = AgendaApi(
            auth=parts.auth,
            grants=parts.grants,
            agenda=Agenda(parts.database),
            settings=parts.config.sessions,
            clock=self._clock,
        )
        self._jobs = JobsApi(auth=parts.auth, grants=parts.grants, queue=parts.queue, settings=parts.config.sessions)
        self._feedback = FeedbackApi(
            auth=parts.auth,
            grants=parts.grants,
            database=parts.database,
            memories=parts.memories,
            turns=parts.turns,
            triggers=parts.triggers,
            settings=parts.config.sessions,
            most=parts.config.limits.body_bytes,
            clock=self._clock,
        )
        forecasts = Forecasts(parts.database)
        self._scenes = ScenesApi(
            auth=parts.auth,
            grants=parts.grants,
            foresight=parts.foresight,
            forecasts=forecasts,
            predictor=Predictor(
                cubes=parts.cubes,
                turns=parts.turns,
                retriever=parts.retriever,
                forecasts=forecasts,
                clock=self._clock,
                urgent=Due(Agenda(parts.database)),
            ),
            rows=parts.rows,
            settings=parts.config.sessions,
        )
        self._tiers = TiersApi(
            auth=parts.auth,
            grants=parts.grants,
            cubes=parts.cubes,
            memories=parts.memories,
            census=Census(parts.database),
            retriever=parts.retriever,
            kept=parts.kept,
            blocks=parts.blocks,
            foresight=parts.foresight,
            settings=parts.config.memory,
            reading=parts.config.sessions,
            clock=self._clock,
        )
        self._transfer = TransferApi(
            auth=parts.auth,
            grants=parts.grants,
            mover=Mover(parts.config, parts.database, parts.triggers, parts.embedder, self._clock),
            settings=parts.config.sessions,
            most=parts.config.limits.import_bytes,
        )

    @property
    def parts(self) -> Parts:
        """The parts; there are none before start-up has ended."""
        if self._parts is None:
            raise RuntimeError("the app has not started")
        return self._parts

    def routes(self) -> list[Route]:
        """Every route of the proxy."""
        memory, cubes = self._to(lambda: self._memory), self._to(lambda: self._cubes)
        feedback, graph = self._to(lambda: self._feedback), self._to(lambda: self._graph)
        agenda, jobs = self._to(lambda: self._agenda), self._to(lambda: self._jobs)
        transfer, scenes = self._to(lambda: self._transfer), self._to(lambda: self._scenes)
        return [
            *(Route(f"/v1{surface.path}", _Post(self._to_surface(surface.name), surface)) for surface in SURFACES),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{model:path}", self.model, methods=["GET"]),
            Route("/v1/memory/items", memory("items"), methods=["GET", "POST"]),
            Route("/v1/memory/items/{id}", memory("item"), methods=["GET", "PATCH", "DELETE"]),
            Route("/v1/memory/items/{id}/history", memory("history"), methods=["GET"]),
            Route("/v1/memory/items/{id}/undo", memory("undo"), methods=["POST"]),
            Route("/v1/memory/search", memory("search"), methods=["POST"]),
            Route("/v1/memory/tiers", self._to(lambda: self._tiers)("tiers"), methods=["GET"]),
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
            Route("/v1/{path:path}", _Whole(self._to_surface(_OTHERS))),
            Route("/health", self.health, methods=["GET"]),
            Route("/ready", self.ready, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    def _to_surface(self, name: str) -> ASGIApp:
        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            await self._surfaces[name](scope, receive, send)

        return endpoint

    def _to(self, api: Callable[[], Any]) -> Callable[[str], Callable[[Request], Awaitable[Response]]]:
        """Endpoints that are methods of `api`, which is there once the app has started."""

        def named(name: str) -> Callable[[Request], Awaitable[Response]]:
            async def endpoint(request: Request) -> Response:
                try:
                    response: Response = await getattr(api(), name)(request)
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


class _Post:
    """An ASGI endpoint that takes POST only; everything about the body is its own affair."""

    def __init__(self, app: ASGIApp, surface: Surface) -> None:
        self._app = app
        self._surface = surface

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            refused: ApiError = MethodNotAllowed("this route takes POST", headers={"allow": "POST"})
            if (b"upgrade", b"websocket") in scope["headers"]:
                refused = UpgradeRequired("WebSockets are not served here; ask over HTTP")
            await send_error(send, refused, "", surface=self._surface)
            return
        await self._app(scope, receive, send)


def _may(principal: Any, model: str) -> bool:
    try:
        principal.may_use(model)
    except ApiError:
        return False
    return True


def _json(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body, ensure_ascii=False), status, media_type="application/json")
