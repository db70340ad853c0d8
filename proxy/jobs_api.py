"""The jobs of a memory over HTTP: list them, look at one, put a failed one in again, take a waiting one out.

A key sees the jobs of the cube that it asks for (its own, or the one that `X-Memory-Cube` names); one with the scope admin those
of any cube. Knows the queue by its port alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from memory.grants import Grants
from proxy.auth import Auth, enter
from proxy.config import Sessions
from proxy.errors import BadRequest, Conflict, NotFound, Unavailable
from scheduler.jobs import STATES, Job, JobQueue, QueueError

EVERY = "all"  # in place of a cube: the jobs of all of them, for admins


class JobsApi:
    """The routes below /v1/memory/jobs. Raises ApiError or DatabaseError, which the app turns into answers."""

    def __init__(self, *, auth: Auth, grants: Grants, queue: JobQueue, settings: Sessions) -> None:
        self._auth = auth
        self._grants = grants
        self._queue = queue
        self._settings = settings

    async def jobs(self, request: Request) -> Response:
        """`GET /v1/memory/jobs`, newest first: `state` (one or several with commas), `task`, `cube` (admins: any, or all),
        `limit` (1 to 500), `after` (the `next` of an earlier answer)."""
        query = request.query_params
        cube = await self._cube(request, query.get("cube", ""))
        limit = _number(query.get("limit", "50"))
        states = tuple(name for name in query.get("state", "").split(",") if name)
        for name in states:
            if name not in STATES:
                raise BadRequest(f"unknown state {name[:64]!r}; there are {', '.join(STATES)}", param="state")
        try:
            after = await self._known(query["after"], cube) if query.get("after") else ""
            found = await self._queue.jobs(
                cube, states=states, task=query.get("task") or None, limit=limit + 1, after=after
            )
        except QueueError as error:
            raise _away() from error
        following = found[limit - 1].id if len(found) > limit else None
        return _json(
            {
                "object": "list",
                "data": [shown(job) for job in found[:limit]],
                "has_more": following is not None,
                "next": following,
            }
        )

    async def job(self, request: Request) -> Response:
        """`GET /v1/memory/jobs/{id}`, `POST /v1/memory/jobs/{id}/retry` and `…/cancel`."""
        plain = {name.lower(): value for name, value in request.headers.items()}
        scope = "memory:read" if request.method == "GET" else "memory:write"
        names = self._settings.user_headers
        principal, cube = await enter(self._auth, self._grants, plain, request.method, scope, names)
        wanted, _, action = request.path_params["id"].partition("/")
        try:
            found = await self._queue.get(wanted)
            if found is None or (found.cube != cube and not principal.has("admin")):
                raise NotFound(f"there is no job {wanted[:100]!r}")
            if request.method == "GET" and not action:
                return _json(shown(found))
            if request.method == "POST" and action == "retry":
                again = await self._queue.retry(wanted)
                if again is None:
                    raise Conflict(f"a job that is {found.state} cannot be retried")
                return _json({"id": again, "state": "waiting"})
            if request.method == "POST" and action == "cancel":
                if not await self._queue.cancel(wanted):
                    raise Conflict(f"a job that is {found.state} cannot be cancelled")
                return _json({"id": wanted, "state": "cancelled"})
        except QueueError as error:
            raise _away() from error
        raise NotFound("there is no such route")

    async def _cube(self, request: Request, named: str) -> str | None:
        """Whose jobs are asked for; None for everybody's. Raises Forbidden."""
        plain = {name.lower(): value for name, value in request.headers.items()}
        names = self._settings.user_headers
        principal, cube = await enter(self._auth, self._grants, plain, request.method, "memory:read", names)
        if named in ("", cube):
            return cube
        principal.require("admin")
        return None if named == EVERY else named

    async def _known(self, job: str, cube: str | None) -> str:
        found = await self._queue.get(job)
        if found is None or (cube is not None and found.cube != cube):
            raise BadRequest("after must be the `next` of an earlier answer", param="after")
        return job


def shown(job: Job) -> dict[str, Any]:
    """A job as the API shows it; times are seconds since the epoch (UTC)."""
    return {"object": "memory.job", **asdict(job)}


def _away() -> Unavailable:
    return Unavailable("the job queue cannot be reached at the moment")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 6 or not 1 <= int(text) <= 500:
        raise BadRequest("limit must be a number from 1 to 500", param="limit")
    return int(text)


def _json(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body, ensure_ascii=False), status, media_type="application/json")
