"""`GET /v1/memory/tiers`: which memory of the caller's cube is where in this process now, what it is worth, and why."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import asdict
from starlette.requests import Request
from starlette.responses import Response

from memory.census import Census, Count
from memory.cube import Cubes
from memory.grants import ARCHIVED, ERASED, Grants
from memory.index import INDEXED
from memory.memories import Change, Memories
from memory.retrieve import Retriever
from memory.types import Memory, Status
from memory.words import tokens
from proxy import worth
from proxy.activating import Activation, Keeping
from proxy.auth import Auth, enter
from proxy.blocks import Begun, Blocks
from proxy.config import MemorySettings, Sessions
from proxy.errors import BadRequest
from proxy.foresight import Foresight
from proxy.keeping import Kept
from proxy.whereabouts import Whereabouts
from scheduler.policy import Placement, Tier, explain, value

_LONGEST_CURSOR = 400


class TiersApi:
    """One route. Raises ApiError or DatabaseError, which the app turns into answers."""

    def __init__(
        self,
        *,
        auth: Auth,
        grants: Grants,
        cubes: Cubes,
        memories: Memories,
        census: Census,
        retriever: Retriever,
        kept: Kept,
        blocks: Blocks,
        foresight: Foresight,
        states: Activation,
        settings: MemorySettings,
        reading: Sessions,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._auth = auth
        self._grants = grants
        self._cubes = cubes
        self._memories = memories
        self._census = census
        self._retriever = retriever
        self._kept = kept
        self._blocks = blocks
        self._foresight = foresight
        self._states = states
        self._settings = settings
        self._reading = reading
        self._clock = clock

    async def tiers(self, request: Request) -> Response:
        """`tier` (kv, ram, index, archive), `limit` (1 to 500), `after` (the `next` of an earlier answer); newest first."""
        plain = {name.lower(): value for name, value in request.headers.items()}
        names = self._reading.user_headers
        _, cube = await enter(self._auth, self._grants, plain, request.method, "memory:read", names)
        query = request.query_params
        wanted, limit = _tier(query.get("tier")), _number(query.get("limit", "50"))
        after = _cursor(query["after"]) if query.get("after") else None
        now = await self._now(cube)
        if now is None:
            return _json({"object": "list", "cube": None, "tiers": [], "data": [], "has_more": False, "next": None})
        found = await self._page(now, wanted, after, limit + 1)
        shown = found[:limit]
        kept = await self._states.kept_of(cube)
        return _json(
            {
                "object": "list",
                "cube": self._cube(now),
                "tiers": await self._tiers(now, kept),
                "states": [self._keeper(one) for one in kept],
                "data": await self._told(now, shown),
                "has_more": len(found) > limit,
                "next": _cursor_of(shown[-1]) if len(found) > limit else None,
            }
        )

    async def _now(self, cube: str) -> Whereabouts | None:
        info = await self._cubes.get(cube)
        if info is None or info.status == ERASED:
            return None
        nothing: tuple[Begun, float] = (Begun("", "", (), 0), 0.0)
        if info.status == ARCHIVED:
            return Whereabouts(self._clock(), info, None, *nothing)
        begun = await self._blocks.newest(cube) or nothing
        return Whereabouts(self._clock(), info, self._retriever.held(cube), *begun)

    async def _page(
        self, now: Whereabouts, wanted: Tier | None, after: tuple[float, str] | None, limit: int
    ) -> list[Memory]:
        statuses: Sequence[Status] = (*INDEXED, Status.ARCHIVED) if wanted is None or now.asleep else INDEXED
        ids, without = now.those(wanted)
        if wanted is Tier.KV:
            statuses = (Status.ACTIVE,)
        elif wanted is Tier.ARCHIVE and not now.asleep:
            statuses = (Status.ARCHIVED,)
        return await self._memories.page(
            now.info.id, statuses=statuses, ids=ids, without=without, after=after, limit=limit
        )

    def _cube(self, now: Whereabouts) -> dict[str, Any]:
        held = now.held
        whole = held is not None and held.whole
        size = held.size if held is not None and whole else now.info.indexed_rows * worth.PIECE
        here, why = self._kept.where(now.info.id, size, held.age_s if held is not None and whole else None)
        return {
            "id": now.info.id,
            "in_memory": "whole" if whole else "part" if held is not None else "no",
            "bytes": 0 if held is None else held.size,
            "value": round(here.value.total, 4),
            "why": why,
        }

    @staticmethod
    def _keeper(kept: Keeping) -> dict[str, Any]:
        """What models have computed of the cube, at one upstream."""
        room = asdict(kept.room) if kept.room is not None else None
        return {"upstream": kept.upstream, "room": room, "data": [asdict(state) for state in kept.states]}

    async def _tiers(self, now: Whereabouts, kept: Sequence[Keeping]) -> list[dict[str, Any]]:
        indexed, archived = await self._census.indexed(now.info.id), await self._census.archived(now.info.id)
        if now.asleep:
            indexed, archived = Count(), Count(indexed.items + archived.items, indexed.bytes + archived.bytes)
        block = await self._memories.page(now.info.id, ids=now.in_block, limit=max(len(now.in_block), 1))
        held = now.held
        there = indexed.items if held is not None and held.whole else len(held.memories) if held is not None else 0
        ram = Count(max(there - len(block), 0), held.size if held is not None else 0)
        index = Count(max(indexed.items - len(block) - ram.items, 0), indexed.bytes)
        stable = now.begun.stable
        return [
            {
                **_counted(Tier.KV, Count(len(block), len(stable.encode()))),
                "tokens": tokens(stable),
                "budget_tokens": self._settings.stable_tokens,
                "session": now.begun.session or None,
                "states": sum(len(one.states) for one in kept),
                "state_bytes": sum(state.bytes for one in kept for state in one.states),
            },
            {
                **_counted(Tier.RAM, ram),
                "budget_bytes": self._settings.warm_mb << 20,
                "all_cubes_bytes": self._retriever.held_bytes,
            },
            _counted(Tier.INDEX, index),
            _counted(Tier.ARCHIVE, archived),
        ]

    async def _told(self, now: Whereabouts, shown: Sequence[Memory]) -> list[dict[str, Any]]:
        away = [memory.id for memory in shown if memory.status is Status.ARCHIVED]
        put_away = await self._census.put_away(now.info.id, away) if away else {}
        chances = await self._chances(now.info.id)
        # of what is not among the likeliest it is only known that it is no likelier than they
        least = min(chances.values(), default=None)
        return [self._one(now, m, put_away.get(m.id), chances.get(m.id, least)) for m in shown]

    async def _chances(self, cube: str) -> dict[str, float]:
        """Memory → the chance that the next turn of a running session, or the next session's opening, needs it."""
        opening = await self._foresight.of_opening(cube)
        foreseen = [*(opening.foreseen if opening else ())]
        for session in self._foresight.sessions(cube):
            foreseen += self._foresight.of_session(cube, session)
        chances: dict[str, float] = {}
        for one in foreseen:
            chances[one.memory] = max(one.chance, chances.get(one.memory, 0.0))
        return chances

    @staticmethod
    def _one(now: Whereabouts, memory: Memory, put_away: Change | None, chance: float | None) -> dict[str, Any]:
        tier, figures = now.tier(memory), worth.item(memory, expected=chance)
        found = value(figures, now.at)
        since, because = now.reason(memory, put_away)
        return {
            "object": "memory.tier",
            "id": memory.id,
            "kind": memory.kind.value,
            "status": memory.status.value,
            "tier": tier.value,
            "since": since,
            "indexed": memory.status in INDEXED and memory.rev <= now.info.indexed_rev,
            "bytes": worth.in_ram(memory),
            "value": round(found.total, 4),
            "frequency": round(found.frequency, 4),
            "recency": round(found.recency, 4),
            "relevance": round(found.relevance, 4),
            "expected": figures.expected,
            "uses": memory.uses,
            "last_used_at": memory.last_used_at,
            "pinned": memory.pinned,
            "why": explain(Placement(memory.id, tier, since, found), figures, because),
        }


def _counted(tier: Tier, count: Count) -> dict[str, Any]:
    return {"tier": tier.value, "items": count.items, "bytes": count.bytes}


def _tier(name: str | None) -> Tier | None:
    try:
        return None if name is None else Tier(name)
    except ValueError:
        raise BadRequest(f"unknown tier {str(name)[:64]!r}; there are {', '.join(Tier)}", param="tier") from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 6 or not 1 <= int(text) <= 500:
        raise BadRequest("limit must be a number from 1 to 500", param="limit")
    return int(text)


def _cursor_of(memory: Memory) -> str:
    return base64.urlsafe_b64encode(json.dumps([memory.created_at, memory.id]).encode()).decode()


def _cursor(text: str) -> tuple[float, str]:
    try:
        at, memory = json.loads(base64.urlsafe_b64decode(text[:_LONGEST_CURSOR].encode()))
        return float(at), str(memory)
    except (ValueError, TypeError):
        raise BadRequest("after must be the `next` of an earlier answer", param="after") from None


def _json(body: Any) -> Response:
    return Response(json.dumps(body, ensure_ascii=False), media_type="application/json")
