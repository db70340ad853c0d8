"""Responses that are kept here, had again by their ids in OpenAI's shapes: `GET` and `DELETE /v1/responses/{id}`,
`GET …/input_items`, `POST …/cancel`. What an upstream keeps is asked of it (passthrough)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from proxy.auth import Auth, Principal
from proxy.chains import Chains
from proxy.errors import BadRequest, NotFound
from proxy.kept import Kept, Names, Responses
from proxy.metering import Metering

_MOST_LISTED = 100
_KINDS = {"message": "msg", "reasoning": "rs", "function_call": "fc", "function_call_output": "fco"}


class ResponsesApi:
    """The endpoints. Each raises ApiError or DatabaseError, which the app turns into answers."""

    def __init__(self, *, auth: Auth, names: Names, kept: Responses, chains: Chains, metering: Metering) -> None:
        self._auth = auth
        self._kept = kept
        self._chains = chains
        self._metering = metering
        self.ours = names.ours

    async def response(self, request: Request) -> Response:
        """`GET` and `DELETE /v1/responses/{id}`."""
        principal, left = await self._who(request)
        name = request.path_params["id"]
        if request.method == "DELETE":
            if not await self._kept.delete(principal.id, name):
                raise _missing(name)
            self._chains.cancel(name)
            return _json({"id": name, "object": "response", "deleted": True}, left)
        if request.query_params.get("stream", "").lower() in ("true", "1"):
            raise BadRequest("a response that is kept here is not streamed again; ask without stream", param="stream")
        return _json((await self._get(principal, name)).response, left)

    async def input_items(self, request: Request) -> Response:
        """`GET /v1/responses/{id}/input_items`: those of its own request, the last one first."""
        principal, left = await self._who(request)
        query = request.query_params
        kept = await self._get(principal, request.path_params["id"])
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise BadRequest("order must be asc or desc", param="order")
        limit = query.get("limit", "20")
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= _MOST_LISTED):
            raise BadRequest(f"limit must lie between 1 and {_MOST_LISTED}", param="limit")
        items = listed(kept.input, kept.id)[:: 1 if order == "asc" else -1]
        if after := query.get("after"):
            places = [place for place, item in enumerate(items) if item["id"] == after]
            if not places:
                raise BadRequest("after must be the id of an item of this response", param="after")
            items = items[places[0] + 1 :]
        shown = items[: int(limit)]
        ends = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
        return _json({"object": "list", "data": shown, **ends, "has_more": len(items) > len(shown)}, left)

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/responses/{id}/cancel`: one that is made in the background; one that has ended stays as it is."""
        principal, left = await self._who(request)
        name = request.path_params["id"]
        kept = await self._get(principal, name)
        if not kept.response.get("background"):
            raise BadRequest("Cannot cancel a synchronous response.", param="response_id")
        await self._kept.finish(name, {**kept.response, "status": "cancelled"})
        self._chains.cancel(name)
        return _json((await self._get(principal, name)).response, left)

    async def _get(self, principal: Principal, name: str) -> Kept:
        found = await self._kept.get(principal.id, name)
        if found is None:
            raise _missing(name)
        return found

    async def _who(self, request: Request) -> tuple[Principal, Mapping[str, str]]:
        """Who asks, under the limits of the key, and what is left of them."""
        principal = await self._auth.principal(request.headers)
        principal.require("chat")
        left = await self._metering.enter(principal)
        self._metering.leave(principal, upstream="", model="", told=None, answered=False)
        return principal, left


def listed(given: Sequence[Any], name: str) -> list[dict[str, Any]]:
    """The items of a request as OpenAI lists them: each with an id, words as parts. `name`: the response's id."""
    items = [(place, item) for place, item in enumerate(given) if isinstance(item, Mapping)]
    return [_item(item, f"{name}:{place}") for place, item in items]


def _item(item: Mapping[str, Any], place: str) -> dict[str, Any]:
    kind = str(item.get("type") or "message")
    out = {"type": kind, **item}
    out["id"] = item.get("id") or f"{_KINDS.get(kind, 'item')}_{hashlib.sha256(place.encode()).hexdigest()[:32]}"
    if kind == "message":
        out["status"] = item.get("status") or "completed"
        if isinstance(text := item.get("content"), str):
            said = item.get("role") == "assistant"
            part = (
                {"type": "output_text", "text": text, "annotations": []}
                if said
                else {"type": "input_text", "text": text}
            )
            out["content"] = [part]
    return out


def _missing(name: str) -> NotFound:
    return NotFound(f"Response with id '{name}' not found.", param="response_id")


def _json(body: Any, headers: Mapping[str, str]) -> Response:
    return Response(
        json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"), 200, dict(headers), "application/json"
    )
