"""The endpoints below /v1/cubes: the cubes that a key may use, their manifests, and who else may use them.

What is asked of a cube that is another's is answered as if it were not there. Only its owner changes, shares, archives or
erases a cube.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from memory.cube import Cube, Cubes
from memory.erase import Receipt, Receipts
from memory.grants import ACTIVE, ARCHIVED, CubeRefused, Grant, Grants, Level
from memory.words import whole
from proxy import bodies
from proxy.auth import Auth, Principal, access, home_cube, refusal
from proxy.config import Sessions
from proxy.errors import BadRequest, Forbidden, NotFound, Unavailable
from proxy.lifecycle import Lifecycle

_LONGEST_NAME = 200  # characters


class CubesApi:
    """Each method answers one route. Each raises ApiError or DatabaseError, which the app turns into answers."""

    def __init__(
        self,
        *,
        auth: Auth,
        cubes: Cubes,
        grants: Grants,
        receipts: Receipts,
        lifecycle: Lifecycle,
        settings: Sessions,
        most: int,
    ) -> None:
        self._auth = auth
        self._cubes = cubes
        self._grants = grants
        self._receipts = receipts
        self._lifecycle = lifecycle
        self._settings = settings
        self._most = most

    async def cubes(self, request: Request) -> Response:
        """`GET /v1/cubes` (owned and granted ones) and `POST` (make a further one)."""
        principal = await self._principal(request)
        if request.method == "GET":
            return await self._list(request, principal)
        given = _fields(await self._body(request), ("name", "quota", "ttl_s"))
        if not given.get("name"):
            raise BadRequest("a cube needs a name", param="name")
        made = await self._lifecycle.create(principal.id, **given)
        return _json(manifest(made, Level.OWNER, {}), 201)

    async def _list(self, request: Request, principal: Principal) -> Response:
        given = request.query_params.get("limit", "100")
        if not given.isdecimal() or not 1 <= int(given) <= 500:
            raise BadRequest("limit must be a number between 1 and 500", param="limit")
        limit = int(given)
        found = await self._lifecycle.of(principal.id, after=request.query_params.get("after"), limit=limit + 1)
        data = [manifest(owned.info, owned.level, owned.memories) for owned in found[:limit]]
        more = len(found) > limit
        return _json({"object": "list", "data": data, "has_more": more, "next": data[-1]["id"] if more else None})

    async def cube(self, request: Request) -> Response:
        """`GET`, `PATCH` and `DELETE /v1/cubes/{id}`. Of a home cube only what is in it is deleted."""
        principal = await self._principal(request)
        info, level = await self._find(request, principal, owner=request.method != "GET")
        if request.method == "DELETE":
            home = info.id == home_cube(principal.id)
            return _json(signed(await self._lifecycle.erase(info.id, principal.id, keep=home)), 202)
        if request.method == "PATCH":
            given = _fields(await self._body(request), ("name", "quota", "ttl_s", "status"))
            changed = await self._lifecycle.change(info.id, given)
            if changed is None:
                raise refusal(CubeRefused("unknown"))
            info = changed
        counts = await self._cubes.counts([info.id])
        return _json(manifest(info, level, counts[info.id]) | {"bytes": await self._cubes.size(info.id)})

    async def grants(self, request: Request) -> Response:
        """`GET /v1/cubes/{id}/grants` and `POST` {principal, level}."""
        principal = await self._principal(request)
        info, _ = await self._find(request, principal, owner=True)
        if request.method == "GET":
            data = [shown(grant) for grant in await self._grants.of(info.id)]
            return _json({"object": "list", "data": data, "has_more": False, "next": None})
        body = await self._body(request)
        whom = body.get("principal")
        if not isinstance(whom, str) or not whom or whom == principal.id:
            raise BadRequest("principal must be the id of another principal", param="principal")
        if body.get("level") not in (Level.READ, Level.WRITE):
            raise BadRequest("level must be read or write", param="level")
        given = await self._lifecycle.grant(info.id, whom, Level(body["level"]))
        if given is None:
            raise NotFound(f"there is no principal {whom[:64]!r}", param="principal")
        return _json(shown(given), 201)

    async def grant(self, request: Request) -> Response:
        """`DELETE /v1/cubes/{id}/grants/{principal}`."""
        principal = await self._principal(request)
        info, _ = await self._find(request, principal, owner=True)
        whom = request.path_params["principal"]
        if not await self._lifecycle.revoke(info.id, whom):
            raise NotFound(f"this cube was not granted to {whom[:64]!r}")
        return _json({"object": "cube.grant.deleted", "cube": info.id, "principal": whom, "deleted": True})

    async def fuse(self, request: Request) -> Response:
        """`POST /v1/cubes/{id}/fuse` {from, archive_source?}: copy another cube into this one."""
        principal = await self._principal(request)
        info, level = await self._find(request, principal, owner=False)
        body = await self._body(request)
        source, archive = body.get("from"), body.get("archive_source", False)
        if not isinstance(source, str) or not source or source == info.id:
            raise BadRequest("from must be the id of another cube", param="from")
        if not isinstance(archive, bool):
            raise BadRequest("archive_source must be true or false", param="archive_source", code="invalid_type")
        if level is Level.READ:
            raise Forbidden("this key was granted reading this cube, not writing", code="cube_read_only")
        principal.require("memory:read")
        found = await self._grants.standing(source, principal.id)
        if found is None:
            raise refusal(CubeRefused("unknown"), param="from")
        if archive and found.level is not Level.OWNER:
            raise _not_the_owner()
        if info.status == ARCHIVED:
            raise refusal(CubeRefused("archived"))
        done = await self._lifecycle.fuse(info.id, source, principal.id, archive_source=archive)
        if done.done is None and not done.job:
            raise Unavailable("the job queue cannot be reached at the moment")
        shown = {"object": "cube.fusion", "cube": info.id, "from": source, "archive_source": archive}
        if done.done is None:
            return _json({**shown, "state": "pending", "job": done.job}, 202)
        return _json({**shown, "state": "done", "counts": asdict(done.done)})

    async def everything(self, request: Request) -> Response:
        """`DELETE /v1/memory`: erase all that the key's cube (or the one it names) holds; answers with a receipt."""
        principal = await self._principal(request)
        plain = {name.lower(): value for name, value in request.headers.items()}
        found = await access(self._grants, principal, plain, {}, self._settings.user_headers)
        if found.level is not Level.OWNER:
            raise _not_the_owner()
        return _json(signed(await self._lifecycle.erase(found.cube, principal.id, keep=True)), 202)

    async def receipt(self, request: Request) -> Response:
        """`GET /v1/memory/receipts/{id}`: whether all is gone."""
        principal = await self._principal(request)
        found = await self._receipts.get(request.path_params["id"])
        if found is None or found.owner != principal.id:
            raise NotFound("there is no such receipt")
        return _json(signed(found))

    async def _principal(self, request: Request) -> Principal:
        principal = await self._auth.principal(request.headers)
        principal.require("memory:read" if request.method == "GET" else "memory:write")
        return principal

    async def _find(self, request: Request, principal: Principal, *, owner: bool) -> tuple[Cube, Level]:
        """The cube of the path with what the principal may do. Raises NotFound; Forbidden when only the owner may."""
        wanted = request.path_params["id"]
        found = await self._grants.standing(wanted, principal.id)
        info = await self._cubes.get(wanted)
        if found is None or info is None:
            raise refusal(CubeRefused("unknown"))
        if owner and found.level is not Level.OWNER:
            raise _not_the_owner()
        return info, found.level

    async def _body(self, request: Request) -> dict[str, Any]:
        sent = await bodies.read(request.receive, self._most, request.headers.get("content-length"))
        body = bodies.parse(bodies.decode(sent, request.headers.get("content-encoding", ""), self._most))
        return {name: _storable(value) if isinstance(value, str) else value for name, value in body.items()}


def manifest(info: Cube, level: Level, memories: dict[str, int]) -> dict[str, Any]:
    """A cube as the API shows it; times are seconds since the epoch (UTC)."""
    return {
        "object": "cube",
        "id": info.id,
        "name": info.name,
        "owner": info.owner,
        "level": level.value,
        "status": info.status,
        "created_at": info.created_at,
        "archived_at": info.archived_at,
        "memories": {"total": sum(memories.values()), **memories},
        "quota": info.quota,
        "ttl_s": info.ttl_s,
        "embedder": info.embedder or None,
        "revision": info.rev,
    }


def shown(grant: Grant) -> dict[str, Any]:
    """A grant as the API shows it."""
    return {"object": "cube.grant", **asdict(grant)}


def signed(receipt: Receipt) -> dict[str, Any]:
    """A receipt as the API shows it; `counts`: table → rows erased."""
    return {"object": "erasure", **asdict(receipt), "state": receipt.state}


def _not_the_owner() -> Forbidden:
    return Forbidden("only the owner of a cube may do this", code="not_the_owner")


def _fields(body: dict[str, Any], allowed: tuple[str, ...]) -> dict[str, Any]:
    """The editable fields of a request, checked."""
    for name, value in body.items():
        if name not in allowed:
            raise BadRequest(
                f"unknown or read-only field {name[:64]!r}; there are {', '.join(allowed)}", param=name[:64]
            )
        if name == "name" and not (isinstance(value, str) and value and len(value) <= _LONGEST_NAME):
            raise BadRequest(f"name must be a text of at most {_LONGEST_NAME} characters", param=name)
        if name == "status" and value not in (ACTIVE, ARCHIVED):
            raise BadRequest("status must be active or archived", param=name)
        if name == "quota" and not (value is None or (_is_number(value, int) and 1 <= value < 1 << 31)):
            raise BadRequest("quota must be a number of memories, at least 1, or null", param=name)
        if name == "ttl_s" and not (value is None or (_is_number(value, int | float) and value >= 1)):
            raise BadRequest("ttl_s must be a number of seconds, at least 1, or null", param=name)
    return body


def _storable(text: str) -> str:
    """Text that every database takes."""
    return whole(text).replace("\x00", "").strip()


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)


def _json(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body, ensure_ascii=False), status, media_type="application/json")
