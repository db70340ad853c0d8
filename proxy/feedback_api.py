"""`POST /v1/memory/feedback`: what the user says of a memory, or of all that were shown for one answer."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from memory.feedback import Feedback, says_nothing_new
from memory.grants import Grants
from memory.memories import Memories
from memory.redact import redact
from memory.sql import Database
from memory.turns import TurnLog
from memory.types import Kind, Memory, Status
from proxy import bodies
from proxy.activating import Activation
from proxy.auth import Auth, enter
from proxy.blocks import shown_for
from proxy.config import Sessions
from proxy.errors import BadRequest, Conflict, NotFound
from proxy.memory_api import item
from scheduler.triggers import FEEDBACK_GIVEN, MEMORY_WRITTEN, Triggers

_FIELDS: dict[str, type] = {"memory": str, "request": str, "useful": bool, "correction": str, "reason": str}
_LONGEST = {"memory": 200, "request": 200, "correction": 2000, "reason": 500}
_GONE = ("wrong", "outdated")  # reasons that take a memory out


_TAKES_BACK = ("archived", "superseded")  # then nothing may be left of it that a model has computed


class FeedbackApi:
    """The endpoint. Raises ApiError or DatabaseError, which the app turns into answers."""

    def __init__(
        self,
        *,
        auth: Auth,
        grants: Grants,
        database: Database,
        memories: Memories,
        turns: TurnLog,
        states: Activation,
        triggers: Triggers,
        settings: Sessions,
        most: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._auth = auth
        self._grants = grants
        self._database = database
        self._memories = memories
        self._turns = turns
        self._feedback = Feedback(database, clock)
        self._states = states
        self._triggers = triggers
        self._settings = settings
        self._most = most

    async def give(self, request: Request) -> Response:
        """{memory: id | request: x-request-id, useful?: bool, correction?: text, reason?: text}."""
        plain = {name.lower(): value for name, value in request.headers.items()}
        names = self._settings.user_headers
        _, cube = await enter(self._auth, self._grants, plain, request.method, "memory:write", names)
        sent = await bodies.read(request.receive, self._most, request.headers.get("content-length"))
        given = _checked(bodies.parse(bodies.decode(sent, request.headers.get("content-encoding", ""), self._most)))
        if "request" in given:
            action, changed = await self._of_answer(cube, given)
        else:
            action, changed = await self._of_memory(cube, given)
        if changed:
            if action in _TAKES_BACK:
                await self._states.forget(cube)
            await self._triggers.fire(MEMORY_WRITTEN, cube)
            await self._triggers.fire(FEEDBACK_GIVEN, cube)
        body = {"object": "memory.feedback", "state": "stored", "action": action, "data": [item(m) for m in changed]}
        return Response(json.dumps(body, ensure_ascii=False), media_type="application/json")

    async def _of_answer(self, cube: str, given: dict[str, Any]) -> tuple[str, list[Memory]]:
        turn = await self._turns.of_request(cube, given["request"])
        if turn is None:
            raise NotFound(f"there is no remembered answer to a request {given['request']!r}")
        shown = dict.fromkeys(await shown_for(self._database, turn), 1.0)
        useful = bool(given["useful"])
        done = await self._feedback.judge(cube, shown, useful, by=_occasion(), reason=given.get("reason", ""))
        return "raised" if useful else "lowered", done

    async def _of_memory(self, cube: str, given: dict[str, Any]) -> tuple[str, list[Memory]]:
        wanted, reason = given["memory"], given.get("reason", "")
        known = await self._memories.get(cube, wanted)
        if known is None:
            raise NotFound(f"there is no memory {wanted!r}")
        if known.status is not Status.ACTIVE:
            raise Conflict(f"the memory is {known.status.value}; only active ones take feedback")
        if "correction" in given:
            if known.kind is Kind.EPISODE:
                raise BadRequest("an episode is what was said; correct what was learned from it", param="memory")
            if says_nothing_new(known, given["correction"]):
                raise BadRequest("the correction says what the memory says", param="correction")
            outdated = reason == "outdated"
            new = await self._feedback.correct(cube, wanted, given["correction"], outdated=outdated, reason=reason)
            action, changed = "superseded", new
        elif reason in _GONE:
            action, changed = "archived", await self._feedback.reject(cube, wanted, reason)
        else:
            judged = await self._feedback.judge(cube, {wanted: 1.0}, given["useful"], by=_occasion(), reason=reason)
            action, changed = "raised" if given["useful"] else "lowered", judged[0] if judged else None
        if changed is None:
            raise Conflict("the memory has just been changed; look at it again")
        return action, [changed]


def _occasion() -> str:
    return str(uuid.uuid4())


def _checked(body: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in body.items() if value is not None}
    for name, value in given.items():
        if name not in _FIELDS:
            raise BadRequest(f"unknown field {name[:64]!r}; there are {', '.join(_FIELDS)}", param=name[:64])
        if not isinstance(value, _FIELDS[name]):
            raise BadRequest(f"{name} has the wrong type", param=name, code="invalid_type")
        if isinstance(value, str) and not value.strip():
            raise BadRequest(f"{name} must not be empty", param=name)
        if isinstance(value, str) and len(value) > _LONGEST[name]:
            raise BadRequest(f"{name} is longer than {_LONGEST[name]} characters", param=name)
    if ("memory" in given) == ("request" in given):
        raise BadRequest("name either a memory or a request (its x-request-id)", param="memory")
    if given.get("useful") and ("correction" in given or given.get("reason") in _GONE):
        raise BadRequest("what is useful is neither wrong nor in need of a correction", param="useful")
    if "request" in given and "correction" in given:
        raise BadRequest("a correction needs the memory that it corrects", param="correction")
    says = "useful" in given or ("memory" in given and ("correction" in given or given.get("reason") in _GONE))
    if not says:
        raise BadRequest('say useful: true or false, a correction, or the reason "wrong" or "outdated"', param="useful")
    if "correction" in given:
        given["correction"] = " ".join(redact(given["correction"]).split())
    return given
