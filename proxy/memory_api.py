"""The Memory API: list, get, add, change, delete, search, history. Each key sees its own cubes, those it
was granted, and nothing else."""

from __future__ import annotations

import base64
import json
import math
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from memory.agenda import STATES, set_to
from memory.grants import Grants
from memory.memories import Memories
from memory.redact import redact
from memory.retrieve import Question, Retriever
from memory.transfer.cleaning import redacted
from memory.transfer.format import DEEPEST
from memory.types import Hit, Kind, Memory, Status, Trust
from memory.words import whole
from proxy import bodies
from proxy.activating import Activation
from proxy.auth import Auth, Principal, enter
from proxy.blocks import Blocks
from proxy.config import Sessions
from proxy.errors import BadRequest, NotFound
from proxy.kept import erase
from scheduler.triggers import MEMORY_ERASED, MEMORY_WRITTEN, Triggers

_FIELDS: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "kind": (str,),
    "entities": (list,),
    "tags": (list,),
    "event_time": (int, float, type(None)),
    "event_end": (int, float, type(None)),
    "importance": (int, float),
    "pinned": (bool,),
    "attributes": (dict, type(None)),
    "state": (str,),
    "due": (int, float, type(None)),
}
_STANDING = ("state", "due")  # of a task or goal, kept in its attributes
_FAR = 253_402_300_799  # the last second of the year 9999
_LONGEST = 100_000  # characters of a memory's text


class MemoryApi:
    """The endpoints below /v1/memory. Each raises ApiError or DatabaseError, which the app turns into answers."""

    def __init__(
        self,
        *,
        auth: Auth,
        grants: Grants,
        memories: Memories,
        retriever: Retriever,
        blocks: Blocks,
        states: Activation,
        triggers: Triggers,
        settings: Sessions,
        most: int,
        withdrawn: Callable[[str], Awaitable[list[int]]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._auth = auth
        self._grants = grants
        self._memories = memories
        self._retriever = retriever
        self._blocks = blocks
        self._states = states
        self._triggers = triggers
        self._settings = settings
        self._most = most
        self._withdrawn = withdrawn
        self._clock = clock

    async def items(self, request: Request) -> Response:
        """`GET /v1/memory/items` (newest first) and `POST` (add one)."""
        if request.method == "POST":
            return await self._add(request)
        _, cube = await self._who(request, "memory:read")
        query = request.query_params
        limit = _number(query.get("limit", "50"), "limit", 1, 500)
        statuses = () if query.get("status") == "all" else (_status(query.get("status", "active")),)
        found = await self._memories.page(
            cube,
            kinds=[_kind(name) for name in query.get("kind", "").split(",") if name],
            statuses=[status for status in statuses or Status if status is not Status.DELETED],
            tag=query.get("tag"),
            entity=query.get("entity"),
            after=_cursor(query["after"]) if query.get("after") else None,
            limit=limit + 1,
        )
        shown = found[:limit]
        following = _cursor_of(shown[-1]) if len(found) > limit else None
        body = {
            "object": "list",
            "data": [item(m) for m in shown],
            "has_more": following is not None,
            "next": following,
        }
        return _json(body)

    async def _add(self, request: Request) -> Response:
        principal, cube = await self._who(request, "memory:write")
        given = _fields(await self._body(request))
        if not str(given.get("text", "")).strip():
            raise BadRequest("text must not be empty", param="text")
        now = self._clock()
        kind = given.pop("kind", Kind.FACT)
        if kind is Kind.EPISODE:
            raise BadRequest("episodes are recorded from chats; add a fact or another kind", param="kind")
        standing: dict[str, Any] = {name: given.pop(name) for name in _STANDING if name in given}
        memory = Memory(
            id=str(uuid.uuid4()),
            cube=cube,
            kind=kind,
            message_time=now,
            created_at=now,
            valid_from=now,
            trust=Trust.USER,
            **given,
        )
        if standing:
            memory = memory.evolve(**_standing(memory, now, standing))
        stored = await self._memories.add(memory, principal.id)
        await self._triggers.fire(MEMORY_WRITTEN, cube)
        return _json({"id": stored.id, "state": "stored", "item": item(stored)}, 201)

    async def item(self, request: Request) -> Response:
        """`GET`, `PATCH` and `DELETE /v1/memory/items/{id}`."""
        scope = "memory:read" if request.method == "GET" else "memory:write"
        _, cube = await self._who(request, scope)
        wanted = request.path_params["id"]
        if request.method == "DELETE":
            erased = await self._memories.forget(cube, wanted, beside=partial(erase, cube=cube))
            if erased is None:
                raise NotFound(f"there is no memory {wanted[:64]!r}")
            self._blocks.drop(cube, erased)
            await self._states.forget(cube)
            adapters = await self._withdrawn(cube)
            await self._triggers.fire(MEMORY_ERASED, cube)
            return _json(
                {"id": wanted, "object": "memory.deleted", "deleted": True, "erased": erased, "adapters": adapters}
            )
        if request.method == "PATCH":
            given = _fields(await self._body(request))
            changed = await self._memories.change(cube, wanted, lambda old: _with_standing(old, self._clock(), given))
            if changed is None:
                raise NotFound(f"there is no memory {wanted[:64]!r}")
            await self._states.forget(cube)
            await self._triggers.fire(MEMORY_WRITTEN, cube)
            return _json({"id": changed.id, "state": "stored", "item": item(changed)})
        found = await self._memories.get(cube, wanted)
        if found is None:
            raise NotFound(f"there is no memory {wanted[:64]!r}")
        return _json(item(found))

    async def history(self, request: Request) -> Response:
        """`GET /v1/memory/items/{id}/history`, oldest first."""
        _, cube = await self._who(request, "memory:read")
        wanted = request.path_params["id"]
        if await self._memories.get(cube, wanted) is None:
            raise NotFound(f"there is no memory {wanted[:64]!r}")
        changes = [asdict(change) for change in await self._memories.history(cube, wanted)]
        return _json({"object": "list", "data": changes, "has_more": False, "next": None})

    async def undo(self, request: Request) -> Response:
        """`POST /v1/memory/items/{id}/undo`: take back the last change of a memory."""
        _, cube = await self._who(request, "memory:write")
        wanted = request.path_params["id"]
        done = await self._memories.undo(cube, wanted)
        if done is None:
            raise NotFound(f"there is no memory {wanted[:64]!r}")
        await self._states.forget(cube)
        await self._triggers.fire(MEMORY_WRITTEN, cube)
        return _json({"id": wanted, "state": "stored", "item": item(done[0]), "changed": done[1]})

    async def search(self, request: Request) -> Response:
        """`POST /v1/memory/search`: {query, limit?, kinds?, tag?, entity?, since?, until?, as_of?}."""
        _, cube = await self._who(request, "memory:read")
        body = await self._body(request)
        query = body.get("query")
        if not isinstance(query, str) or not query.strip():
            raise BadRequest("query must be a text", param="query")
        kinds = body.get("kinds", [])
        if not isinstance(kinds, list):
            raise BadRequest("kinds must be a list", param="kinds")
        for name in ("tag", "entity"):
            if not isinstance(body.get(name), str | None):
                raise BadRequest(f"{name} must be a text", param=name)
        for name in ("since", "until", "as_of"):
            if not isinstance(body.get(name), int | float | type(None)):
                raise BadRequest(f"{name} must be seconds since the epoch", param=name)
        question = Question(
            text=query,
            now=self._clock(),
            limit=_number(body.get("limit", 10), "limit", 1, 100),
            kinds=[_kind(str(kind)) for kind in kinds],
            entity=body.get("entity"),
            as_of=body.get("as_of"),
            since=body.get("since"),
            until=body.get("until"),
            tag=body.get("tag"),
        )
        result = await self._retriever.retrieve(cube, question)
        data = [hit(found) for found in result.hits]
        return _json({"object": "list", "data": data, "has_more": False, "next": None, "degraded": result.degraded})

    async def _who(self, request: Request, scope: str) -> tuple[Principal, str]:
        plain = {name.lower(): value for name, value in request.headers.items()}
        return await enter(self._auth, self._grants, plain, request.method, scope, self._settings.user_headers)

    async def _body(self, request: Request) -> dict[str, Any]:
        sent = await bodies.read(request.receive, self._most, request.headers.get("content-length"))
        return bodies.parse(bodies.decode(sent, request.headers.get("content-encoding", ""), self._most))


def item(memory: Memory) -> dict[str, Any]:
    """A memory as the API shows it; times are seconds since the epoch (UTC)."""
    shown = asdict(memory)
    shown.pop("rev")
    return {"object": "memory", **shown}


def hit(found: Hit) -> dict[str, Any]:
    """A memory with why it was found."""
    return item(found.memory) | {
        "score": round(found.score, 4),
        "side": found.side,
        "why": found.why,
        "passage": found.passage,
        "replaced": list(dict.fromkeys(text for _, text in found.replaced)),
    }


def _fields(body: dict[str, Any]) -> dict[str, Any]:
    """The editable fields of a request, checked."""
    out: dict[str, Any] = {}
    for name, value in body.items():
        if name not in _FIELDS:
            raise BadRequest(
                f"unknown or read-only field {name[:64]!r}; there are {', '.join(_FIELDS)}", param=name[:64]
            )
        if not isinstance(value, _FIELDS[name]) or (isinstance(value, bool) and bool not in _FIELDS[name]):
            raise BadRequest(f"{name} has the wrong type", param=name, code="invalid_type")
        if isinstance(value, float | int) and not -_FAR <= value <= _FAR:
            raise BadRequest(f"{name} is out of range (times are seconds since the epoch)", param=name)
        out[name] = value
    if not 0 <= out.get("importance", 0.5) <= 1:
        raise BadRequest("importance must lie between 0 and 1", param="importance")
    if out.get("state", "open") not in STATES:
        raise BadRequest(f"state must be one of {', '.join(STATES)}", param="state")
    if (out.get("due") or 0) < 0:
        raise BadRequest("due must not lie before 1970", param="due")
    for name in ("entities", "tags"):
        if name in out:
            if not all(isinstance(entry, str) for entry in out[name]):
                raise BadRequest(f"{name} must be a list of texts", param=name, code="invalid_type")
            out[name] = tuple(whole(entry) for entry in out[name])
    if "attributes" in out:
        _keepable(out["attributes"])
        out["attributes"] = redacted(out["attributes"])
    if "kind" in out:
        out["kind"] = _kind(out["kind"])
    if "text" in out:
        out["text"] = redact(out["text"])
    if len(out.get("text", "")) > _LONGEST:
        raise BadRequest(f"text is longer than {_LONGEST} characters", param="text")
    if "text" in out and not out["text"].strip():
        raise BadRequest("text must not be empty", param="text")
    return out


def _keepable(value: Any, levels: int = DEEPEST + 1) -> None:
    """Raises BadRequest for what is nested too deep, and for numbers that JSON does not have."""
    if levels == 0 or (isinstance(value, float) and not math.isfinite(value)):
        raise BadRequest("attributes are nested too deep, or hold a number that is none", param="attributes")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _keepable(inner, levels - 1)


def _with_standing(old: Memory, now: float, given: dict[str, Any]) -> dict[str, Any]:
    """What a PATCH sets, `state` and `due` where they are kept: in the attributes of a task or goal."""
    plain = {name: value for name, value in given.items() if name not in _STANDING}
    standing = {name: value for name, value in given.items() if name in _STANDING}
    return plain | (_standing(old.evolve(**plain), now, standing) if standing else {})


def _standing(memory: Memory, now: float, given: dict[str, Any]) -> dict[str, Any]:
    try:
        return set_to(memory, now, given)
    except ValueError as error:
        raise BadRequest(str(error), param=next(iter(given))) from None


def _kind(name: str) -> Kind:
    try:
        return Kind(name)
    except ValueError:
        raise BadRequest(f"unknown kind {name[:64]!r}; there are {', '.join(Kind)}", param="kind") from None


def _status(name: str) -> Status:
    try:
        return Status(name)
    except ValueError:
        raise BadRequest(
            f"unknown status {name[:64]!r}; there are {', '.join(Status)} and all", param="status"
        ) from None


def _number(value: Any, name: str, low: int, high: int) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise BadRequest(f"{name} must be a number", param=name, code="invalid_type") from None
    if not low <= number <= high:
        raise BadRequest(f"{name} must lie between {low} and {high}", param=name)
    return number


def _cursor_of(memory: Memory) -> str:
    return base64.urlsafe_b64encode(json.dumps([memory.created_at, memory.id]).encode()).decode()


def _cursor(text: str) -> tuple[float, str]:
    try:
        at, memory = json.loads(base64.urlsafe_b64decode(text.encode()))
        return float(at), whole(str(memory))
    except (ValueError, TypeError, OverflowError):
        raise BadRequest("after must be the `next` of an earlier answer", param="after") from None


def _json(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body, ensure_ascii=False), status, media_type="application/json")
