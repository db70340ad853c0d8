"""`GET /v1/memory/graph`: what lies around a name, a memory or a topic; which names and topics there are."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from memory.grants import Grants
from memory.graph import Graph
from memory.memories import Memories
from memory.nodes import ENTITY, TOPIC
from memory.types import Kind, Status
from memory.walk import Narrowed, Part, Walk
from proxy.auth import Auth, enter
from proxy.config import Sessions
from proxy.errors import BadRequest, NotFound
from proxy.memory_api import item

_DEEPEST = 4
_NODES = (ENTITY, TOPIC)


class GraphApi:
    """One route. Raises ApiError or DatabaseError, which the app turns into answers."""

    def __init__(
        self, *, auth: Auth, grants: Grants, memories: Memories, graph: Graph, walk: Walk, settings: Sessions
    ) -> None:
        self._auth = auth
        self._grants = grants
        self._memories = memories
        self._graph = graph
        self._walk = walk
        self._settings = settings

    async def graph(self, request: Request) -> Response:
        """`entity`, `memory` or `topic` with `depth` (1 to 4): what is around it. None of them: the entities (or, with
        `kind=topic`, the topics) that most memories lead to. `kind`, `tag`, `since`, `until` and `status` narrow the memories."""
        cube = await self._cube(request)
        query = request.query_params
        limit, depth = (
            _number(query.get("limit", "50"), "limit", 500),
            _number(query.get("depth", "1"), "depth", _DEEPEST),
        )
        kinds = [name for name in query.get("kind", "").split(",") if name]
        wanted = Narrowed(
            kinds=[_kind(name) for name in kinds if name not in _NODES],
            tag=query.get("tag"),
            since=_time(query.get("since"), "since"),
            until=_time(query.get("until"), "until"),
            statuses=_statuses(query.get("status", "active")),
        )
        start = await self._start(cube, query)
        if start is None:
            listed = TOPIC if TOPIC in kinds else ENTITY
            part = await self._walk.most(cube, listed, limit=limit, wanted=wanted)
        else:
            part = await self._walk.around(cube, start, depth=depth, limit=limit, wanted=wanted)
        return Response(json.dumps(_shown(part), ensure_ascii=False), media_type="application/json")

    async def _start(self, cube: str, query: Any) -> str | None:
        given = [name for name in ("entity", "memory", "topic") if query.get(name)]
        if len(given) > 1:
            raise BadRequest("entity, memory and topic exclude each other", param=given[1])
        if not given:
            return None
        name, value = given[0], str(query[given[0]])
        if name == "entity":
            found = await self._graph.entity(cube, value)
        elif name == "memory":
            found = value if await self._memories.get(cube, value) else None
        else:
            found = await self._walk.topic(cube, value)
        if found is None:
            raise NotFound(f"there is no {name} {value[:64]!r}")
        return found

    async def _cube(self, request: Request) -> str:
        plain = {name.lower(): value for name, value in request.headers.items()}
        names = self._settings.user_headers
        _, cube = await enter(self._auth, self._grants, plain, request.method, "memory:read", names)
        return cube


def _shown(part: Part) -> dict[str, Any]:
    nodes: list[dict[str, Any]] = [{"type": node.kind, **asdict(node)} for node in part.nodes]
    nodes += [{"type": "memory", **item(memory)} for memory in part.memories]
    return {"object": "graph", "nodes": nodes, "edges": [asdict(edge) for edge in part.edges]}


def _kind(name: str) -> Kind:
    try:
        return Kind(name)
    except ValueError:
        known = ", ".join((*Kind, *_NODES))
        raise BadRequest(f"unknown kind {name[:64]!r}; there are {known}", param="kind") from None


def _statuses(name: str) -> list[Status]:
    shown: list[Status] = [status for status in Status if status is not Status.DELETED]
    if name == "all":
        return shown
    if name not in shown:
        raise BadRequest(f"unknown status {name[:64]!r}; there are {', '.join(shown)} and all", param="status")
    return [Status(name)]


def _number(text: str, name: str, most: int) -> int:
    if not text.isdecimal() or len(text) > 6 or not 1 <= int(text) <= most:
        raise BadRequest(f"{name} must be a number from 1 to {most}", param=name)
    return int(text)


def _time(text: str | None, name: str) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e12:
        raise BadRequest(f"{name} must be seconds since the epoch", param=name)
    return value
