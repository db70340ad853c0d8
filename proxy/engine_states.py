"""The engine's saved KV states over HTTP (loopback): have a prefix computed, list them, forget a cube's.

    POST   /v1/kv/states  {"cube", "messages", "tools"?, "adapter"?} → {"key", "tokens", "bytes", "state": "built" | "present"}
    GET    /v1/kv/states?cube=
    GET    /v1/kv
    DELETE /v1/kv/cubes/{cube}

Also what a chat says of whose it is (request headers x-memory-cube, -session, -adapter), and with what it began (answer headers
x-memory-kv, x-memory-kv-source; x-memory-adapter: the version that it was answered with, or none, if one was wanted).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from memory.activation.folder import is_cube
from memory.activation.states import Budgets
from memory.activation.store import States
from memory.adapters.files import Folder
from memory.engine.adapters import Adapters
from memory.engine.engine import Engine
from memory.engine.generation import Generation
from memory.engine.settings import EngineSettings
from memory.engine.slots import Owner
from proxy.config import Config
from proxy.errors import BadRequest
from proxy.saved import worth


class Prefix(msgspec.Struct, frozen=True):
    """What is asked to be computed ahead."""

    cube: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []
    adapter: str = ""
    model: str = ""


def states(config: Config) -> States | None:
    """The store of the configuration's engine; None when none is wanted."""
    wanted = config.engine
    if not wanted.kv:
        return None
    return States(config.folder / "kv", Budgets(wanted.kv_ram_mb * 2**20, wanted.kv_disk_mb * 2**20), worth=worth)


def owner(headers: Mapping[bytes, bytes]) -> Owner:
    """Whose chat it is. Raises BadRequest."""
    cube, session, adapter = (
        headers.get(name, b"").decode("latin-1")
        for name in (b"x-memory-cube", b"x-memory-session", b"x-memory-adapter")
    )
    if cube and not is_cube(cube):
        raise BadRequest("x-memory-cube does not name a cube", param="x-memory-cube", code="invalid_value")
    return Owner(cube, session if cube else "", adapter)


def begun(generation: Generation, wanted: str = "") -> list[tuple[bytes, bytes]]:
    """The answer headers that say with what it began, and under which adapter if one was wanted; known from the first piece on."""
    under = [(b"x-memory-adapter", generation.adapter.encode() or b"none")] if wanted else []
    if not generation.cached_tokens:
        return [(b"x-memory-kv", b"cold"), *under]
    restored = f"restored:{generation.cached_tokens}".encode()
    return [(b"x-memory-kv", restored), (b"x-memory-kv-source", generation.cached_from.encode()), *under]


def adapters(config: Config, settings: EngineSettings) -> Adapters | None:
    """The adapters of the configuration's engine; None when they are off."""
    wanted = config.parametric
    return Adapters(Folder(config.adapters), settings.model_path, wanted.cache_mb << 20) if wanted.enabled else None


class StatesApi:
    """The routes over one engine. Engine errors are raised as they are."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/v1/kv", self.sums, methods=["GET"]),
            Route("/v1/kv/states", self.build, methods=["POST"]),
            Route("/v1/kv/states", self.every, methods=["GET"]),
            Route("/v1/kv/cubes/{cube}", self.forget, methods=["DELETE"]),
        ]

    async def sums(self, _: Request) -> Response:
        """Budgets, what is held, what has happened since the start."""
        store, state = self._engine.states, self._engine.state
        body: dict[str, Any] = {"object": "kv", "status": state.status, "enabled": store is not None}
        body |= {"building": state.building}
        if store is not None:
            told = asdict(store.sums())
            budgets = told.pop("budgets")
            body |= told | {"ram_budget": budgets["ram"], "disk_budget": budgets["disk"]}
        return _json(body)

    async def every(self, request: Request) -> Response:
        """The states of a cube, or all of them."""
        store = self._engine.states
        held = store.held(request.query_params.get("cube")) if store is not None else []
        return _json({"object": "list", "data": [asdict(one) for one in held]})

    async def build(self, request: Request) -> Response:
        """Compute a prefix, behind all chats."""
        try:
            asked = msgspec.json.decode(await request.body(), type=Prefix)
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"the body cannot be read: {error}", code="invalid_json") from error
        if not is_cube(asked.cube):
            raise BadRequest("cube does not name a cube", param="cube", code="invalid_value")
        built = await self._engine.build(Owner(asked.cube, "", asked.adapter), asked.messages, asked.tools)
        held = built.held
        state = "present" if built.present else "built"
        return _json({"key": held.key, "tokens": held.tokens, "bytes": held.bytes, "state": state})

    async def forget(self, request: Request) -> Response:
        """Forget all that was computed for a cube."""
        cube = request.path_params["cube"]
        if not is_cube(cube):
            raise BadRequest("not the name of a cube", param="cube", code="invalid_value")
        return _json({"object": "kv.forgotten", "cube": cube, **await self._engine.forget(cube)})


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
