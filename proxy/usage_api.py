"""`GET /v1/usage`: what keys have used, by day, upstream and model. An admin sees all keys, others those of their own principal."""

from __future__ import annotations

import re

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from proxy.auth import Auth
from proxy.errors import BadRequest
from proxy.keys import Keys
from proxy.usage import COUNTS, Usage

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class UsageApi:
    """The route."""

    def __init__(self, *, auth: Auth, keys: Keys, usage: Usage) -> None:
        self._auth = auth
        self._keys = keys
        self._usage = usage

    async def usage(self, request: Request) -> Response:
        """Query: `since` and `until` (days as 2026-11-23, UTC, both included), `key`. Another's key is as one that is not there."""
        principal = await self._auth.principal(request.headers)
        days = {name: request.query_params.get(name, "") for name in ("since", "until")}
        for name, value in days.items():
            if value and not _DAY.fullmatch(value):
                raise BadRequest(f"{name} must be a day such as 2026-11-23", param=name)
        every = await self._keys.every()
        seen = {key.id for key in every if principal.has("admin") or key.principal == principal.id} | {principal.key}
        named = request.query_params.get("key")
        wanted = None if named is None and principal.has("admin") else sorted(seen & {named} if named else seen)
        rows = await self._usage.rows(keys=wanted, first=days["since"], last=days["until"] or "~")
        total = {name: sum(row[name] for row in rows) for name in COUNTS}
        body = {"object": "list", "data": rows, "total": total, "has_more": False, "next": None}
        return Response(msgspec.json.encode(body), media_type="application/json")
