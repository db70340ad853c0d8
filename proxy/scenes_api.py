"""`GET /v1/memory/scenes`: what is foreseen, how surely, and why; for the next turn of a session or for the next session."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from memory.grants import Grants
from memory.rows import Rows
from memory.types import Memory, stable_id
from proxy.auth import Auth, enter
from proxy.config import Sessions
from proxy.errors import NotFound
from proxy.forecasts import Forecasts
from proxy.foresight import Foresight
from proxy.predicting import Predictor
from scheduler.scenes import Arrival, Foreseen, Scene, scenes


class ScenesApi:
    """One route. Raises ApiError or DatabaseError, which the app turns into answers."""

    def __init__(
        self,
        *,
        auth: Auth,
        grants: Grants,
        foresight: Foresight,
        forecasts: Forecasts,
        predictor: Predictor,
        rows: Rows,
        settings: Sessions,
    ) -> None:
        self._auth = auth
        self._grants = grants
        self._foresight = foresight
        self._forecasts = forecasts
        self._predictor = predictor
        self._rows = rows
        self._settings = settings

    async def scenes(self, request: Request) -> Response:
        """`session` (as the client names it, or as a memory's source says): what its next turn will need, as this process
        foresees it. Without it: what the opening of the next session will need, and when that is expected; foreseen anew when
        something was written since."""
        plain = {name.lower(): value for name, value in request.headers.items()}
        names = self._settings.user_headers
        _, cube = await enter(self._auth, self._grants, plain, request.method, "memory:read", names)
        session = request.query_params.get("session", "")
        arrival: Arrival | None = None
        if session:
            foreseen = self._of_session(cube, session)
        else:
            forecast = await self._forecasts.of(cube)
            fresh = (
                await self._predictor.predict(cube)
                if forecast is None or await self._changed(cube, forecast.rev)
                else forecast
            )
            foreseen, arrival = (fresh.foreseen, fresh.arrival) if fresh else ((), None)
        known = await self._rows.by_ids(cube, [one.memory for one in foreseen])
        there = [one for one in foreseen if one.memory in known]
        topics = await self._forecasts.topics(cube, list(known))
        body: dict[str, Any] = {
            "object": "list",
            "data": [_scene(scene, there, known) for scene in scenes(there, topics)],
            "has_more": False,
            "next": None,
            "occasion": "turn" if session else "opening",
            "sessions": self._foresight.sessions(cube),
            "arrival": {"at": arrival.at, "chance": arrival.chance} if arrival else None,
        }
        return Response(json.dumps(body, ensure_ascii=False), media_type="application/json")

    def _of_session(self, cube: str, session: str) -> Sequence[Foreseen]:
        for one in (session, stable_id(cube, "session", session)):
            if one in self._foresight.sessions(cube):
                return self._foresight.of_session(cube, one)
        raise NotFound(f"nothing is foreseen for the session {session[:64]!r}", param="session")

    async def _changed(self, cube: str, rev: int) -> bool:
        return await self._forecasts.revision(cube) != rev


def _scene(scene: Scene, foreseen: Sequence[Foreseen], known: dict[str, Memory]) -> dict[str, Any]:
    of = {one.memory: one for one in foreseen}
    memories = [
        {
            "id": memory,
            "kind": known[memory].kind.value,
            "text": known[memory].text,
            "chance": of[memory].chance,
            "why": dict(of[memory].why),
        }
        for memory in scene.memories
    ]
    return {
        "object": "memory.scene",
        "topic": scene.topic or None,
        "chance": scene.chance,
        "reasons": list(scene.reasons),
        "memories": memories,
    }
