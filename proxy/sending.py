"""Answering over ASGI: errors of our own, the head of an upstream's answer, pieces of its body, and noticing a hang-up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from starlette.types import Receive, Send

from proxy import headers
from proxy.bodies import ClientGone
from proxy.errors import ApiError
from proxy.surface import CHAT, Surface
from proxy.upstreams.port import Reply

log = logging.getLogger(__name__)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, or cancel it when the client hangs up (then raises ClientGone)."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            await asyncio.wait({working})
            raise ClientGone
        working.result()
    finally:
        leaving.cancel()
        if not working.done():  # we are cancelled ourselves
            working.cancel()
            await asyncio.wait({working})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_error(
    send: Send, error: ApiError, request_id: str, extra: dict[str, str] | None = None, *, surface: Surface = CHAT
) -> None:
    """An error of our own, in the surface's shape."""
    if error.status >= 500:
        log.warning("%s: %s %s", request_id, error.status, error.code)
    named = {"content-type": "application/json", "x-request-id": request_id, **(extra or {}), **error.headers}
    start = [(name.encode(), value.encode("latin-1", "replace")) for name, value in named.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": start})
    await send({"type": "http.response.body", "body": surface.error(error, request_id)})


def start(reply: Reply, request_id: str, added: Mapping[str, str]) -> dict[str, Any]:
    """The head of an upstream's answer, with headers of ours that it does not have."""
    passed = headers.to_client(reply.headers)
    names = {name for name, _ in passed}
    own = {"x-request-id": request_id, **added}
    passed += [(n.encode(), v.encode("latin-1", "replace")) for n, v in own.items() if n.encode() not in names]
    return {"type": "http.response.start", "status": reply.status, "headers": passed}


async def more(send: Send, chunk: bytes) -> None:
    """One piece of a body that goes on."""
    if chunk:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})


def header(reply: Reply, name: str) -> str:
    """The value of an answer's header; empty when there is none."""
    return next((value for key, value in reply.headers if key.lower() == name), "")
