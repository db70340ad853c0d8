"""`GET /v1/memory/tasks`: what is open, done or cancelled in a cube, by due date."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from memory.agenda import KINDS, STATES, Agenda, Item, place
from memory.grants import Grants
from memory.types import Kind
from proxy.auth import Auth, enter
from proxy.config import Sessions
from proxy.errors import BadRequest
from proxy.memory_api import item

_LONGEST_CURSOR = 400


class AgendaApi:
    """One route. Raises ApiError or DatabaseError, which the app turns into answers."""

    def __init__(
        self,
        *,
        auth: Auth,
        grants: Grants,
        agenda: Agenda,
        settings: Sessions,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._auth = auth
        self._grants = grants
        self._agenda = agenda
        self._settings = settings
        self._clock = clock

    async def tasks(self, request: Request) -> Response:
        """`state` (open, done, cancelled, all), `kind` (task, goal), `due_before` and `due_after` (seconds since the epoch; only
        what has a due date), `limit` (1 to 500), `after` (the `next` of an earlier answer). What has no due date comes last."""
        plain = {name.lower(): value for name, value in request.headers.items()}
        names = self._settings.user_headers
        _, cube = await enter(self._auth, self._grants, plain, request.method, "memory:read", names)
        query = request.query_params
        limit = _number(query.get("limit", "50"))
        found = await self._agenda.page(
            cube,
            self._clock(),
            states=_states(query.get("state", "open")),
            kinds=_kinds(query.get("kind", "")),
            due_before=_time(query.get("due_before"), "due_before"),
            due_after=_time(query.get("due_after"), "due_after"),
            after=_cursor(query["after"]) if query.get("after") else None,
            limit=limit + 1,
        )
        following = _cursor_of(found[limit - 1]) if len(found) > limit else None
        body = {
            "object": "list",
            "data": [shown(one) for one in found[:limit]],
            "has_more": following is not None,
            "next": following,
        }
        return Response(json.dumps(body, ensure_ascii=False), media_type="application/json")


def shown(one: Item) -> dict[str, Any]:
    """A task or goal as the API shows it: the memory, and how it stands."""
    return item(one.memory) | {
        "state": one.state,
        "due": one.due,
        "overdue": one.overdue,
        "when": one.when,
        "repeats": one.repeats.words() if one.repeats else None,
        "urgency": round(one.urgency, 4),
        "feedback": [asdict(report) for report in one.feedback],
    }


def _states(name: str) -> tuple[str, ...]:
    if name == "all":
        return STATES
    if name not in STATES:
        raise BadRequest(f"unknown state {name[:64]!r}; there are {', '.join(STATES)} and all", param="state")
    return (name,)


def _kinds(name: str) -> tuple[Kind, ...]:
    if not name:
        return KINDS
    if name not in KINDS:
        raise BadRequest(f"unknown kind {name[:64]!r}; there are {', '.join(KINDS)}", param="kind")
    return (Kind(name),)


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


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 6 or not 1 <= int(text) <= 500:
        raise BadRequest("limit must be a number from 1 to 500", param="limit")
    return int(text)


def _cursor_of(one: Item) -> str:
    due, said, memory = place(one)
    return base64.urlsafe_b64encode(json.dumps([None if math.isinf(due) else due, said, memory]).encode()).decode()


def _cursor(text: str) -> tuple[float, float, str]:
    try:
        due, said, memory = json.loads(base64.urlsafe_b64decode(text[:_LONGEST_CURSOR].encode()))
        return math.inf if due is None else float(due), float(said), str(memory)
    except (ValueError, TypeError):
        raise BadRequest("after must be the `next` of an earlier answer", param="after") from None
