"""The endpoints below /v1/memory/adapters: which adapters a cube has, whether they are used, and to have one trained or dropped.

Where `parametric.enabled` is off, nothing is trained or used, and only looking and dropping is possible.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from memory.adapters.files import Folder
from memory.adapters.table import DROPPED, READY, Adapter, Adapters, Choice
from memory.grants import Grants
from proxy import bodies
from proxy.auth import Auth, enter
from proxy.config import Sessions
from proxy.errors import BadRequest, Conflict, NotFound, Unavailable
from scheduler.jobs import JobQueue, QueueError

TRAIN, PRIORITY = "train", 9
STRONGEST = 2.0


class AdaptersApi:
    """Each method answers one route. Each raises ApiError or DatabaseError, which the app turns into answers."""

    def __init__(
        self,
        *,
        auth: Auth,
        grants: Grants,
        adapters: Adapters,
        folder: Folder,
        queue: JobQueue,
        enabled: bool,
        settings: Sessions,
        most: int,
    ) -> None:
        self._auth = auth
        self._grants = grants
        self._adapters = adapters
        self._folder = folder
        self._queue = queue
        self._enabled = enabled
        self._settings = settings
        self._most = most

    async def adapters(self, request: Request) -> Response:
        """`GET /v1/memory/adapters` (the newest first, and what is used), `POST` (have one trained now) and `PATCH` (`use`,
        `version`, `scale`)."""
        cube = await self._cube(request)
        if request.method == "POST":
            return await self._train(cube)
        if request.method == "PATCH":
            await self._choose(cube, _fields(await self._body(request)))
        return _json(await self._state(cube))

    async def adapter(self, request: Request) -> Response:
        """`GET` and `DELETE /v1/memory/adapters/{version}`."""
        cube = await self._cube(request)
        wanted = request.path_params["version"]
        found = await self._adapters.get(cube, int(wanted)) if wanted.isdecimal() and len(wanted) < 9 else None
        if found is None:
            raise NotFound(f"there is no adapter {wanted[:64]!r}")
        if request.method == "DELETE":
            gone = await drop(self._adapters, self._folder, cube, found.version)
            return _json({"object": "adapter.deleted", "version": found.version, "deleted": bool(gone)})
        return _json(shown(found) | {"rests_on": await self._adapters.rests_on(cube, found.version)})

    async def _train(self, cube: str) -> Response:
        self._refuse_when_off()
        if not (await self._adapters.choice(cube)).on:
            raise Conflict("adapters are off for this memory: PATCH /v1/memory/adapters with use: true first")
        try:
            job = await self._queue.put(TRAIN, f"{cube}.adapter", {"force": "yes"}, priority=PRIORITY)
        except QueueError as error:
            raise Unavailable("the queue cannot be reached") from error
        return _json({"object": "job", "id": job, "task": TRAIN, "state": "waiting"}, 202)

    async def _choose(self, cube: str, given: dict[str, Any]) -> None:
        before = await self._adapters.choice(cube)
        on, version, scale = (
            given.get("use", before.on),
            given.get("version", before.version),
            given.get("scale", before.scale),
        )
        if not isinstance(on, bool):
            raise BadRequest("use must be true or false", param="use")
        if on:
            self._refuse_when_off()
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale <= STRONGEST:
            raise BadRequest(f"scale must be more than 0 and at most {STRONGEST}", param="scale")
        if version is not None:
            whole = isinstance(version, int) and not isinstance(version, bool)
            found = await self._adapters.get(cube, version) if whole else None
            if found is None or found.state != READY:
                raise BadRequest("version must be null (the newest) or one that is ready", param="version")
        await self._adapters.choose(cube, Choice(on, version, float(scale)))

    async def _state(self, cube: str) -> dict[str, Any]:
        choice = await self._adapters.choice(cube)
        current = await self._adapters.current(cube) if self._enabled else None
        every = await self._adapters.every(cube)
        return {
            "object": "list",
            "enabled": self._enabled,
            "use": choice.on,
            "version": choice.version,
            "scale": choice.scale,
            "current": current.version if current else None,
            "data": [shown(one) for one in every],
        }

    def _refuse_when_off(self) -> None:
        if not self._enabled:
            raise Conflict("this installation trains no adapters (parametric.enabled)", code="parametric_off")

    async def _body(self, request: Request) -> dict[str, Any]:
        sent = await bodies.read(request.receive, self._most, request.headers.get("content-length"))
        return bodies.parse(bodies.decode(sent, request.headers.get("content-encoding", ""), self._most))

    async def _cube(self, request: Request) -> str:
        plain = {name.lower(): value for name, value in request.headers.items()}
        scope = "memory:read" if request.method == "GET" else "memory:write"
        _, cube = await enter(self._auth, self._grants, plain, request.method, scope, self._settings.user_headers)
        return cube


async def drop(adapters: Adapters, folder: Folder, cube: str, version: int | None) -> list[int]:
    """Drop one version, or all, with their files; those that were there."""
    gone = await adapters.drop(cube, version, "asked for")
    await asyncio.to_thread(folder.keep_only, cube, await adapters.standing(cube))
    return gone


def shown(adapter: Adapter) -> dict[str, Any]:
    """A version as the API shows it."""
    plain = asdict(adapter)
    if adapter.state == DROPPED:
        plain.pop("memories")
    return {"object": "adapter", **{name: value for name, value in plain.items() if name != "cube"}}


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    for name in given:
        if name not in ("use", "version", "scale"):
            raise BadRequest(f"unknown field {str(name)[:64]!r}", param=str(name)[:64])
    return given


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, media_type="application/json")
