"""The whole path of a chat, top to bottom: who → what → hooks → upstream → the answer, untouched, back.

The client may hang up at any time; then the upstream's work is cancelled at once, in whatever phase it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from proxy import allowed, bodies, headers, objects
from proxy.auth import Auth, Principal, own_key
from proxy.blocks import Spawn
from proxy.bodies import ClientGone
from proxy.chains import Chains
from proxy.errors import ApiError, NotFound
from proxy.hooks import Exchange, Hooks
from proxy.metering import Metering
from proxy.metrics import Metrics
from proxy.objects import Objects
from proxy.responses import RESPONSES
from proxy.sending import header, more, send_error, start, unless_gone
from proxy.surface import Surface
from proxy.upstreams.port import KEEPS_STATES, KV_HEADERS, Call, Reply, Upstream, UpstreamBroken, later_of, served_by
from proxy.upstreams.routing import Routes

log = logging.getLogger(__name__)
_AFTER_DONE_S = 0.05  # what an upstream may still send behind [DONE]


class Chat:
    """One surface (`POST /v1/chat/completions`, `/v1/responses`, `/v1/messages`) as an ASGI application."""

    def __init__(
        self,
        surface: Surface,
        *,
        auth: Auth,
        routes: Routes,
        hooks: Hooks,
        kept: Objects,
        chains: Chains,
        metrics: Metrics,
        metering: Metering,
        spawn: Spawn,
        most: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._surface = surface
        self._auth = auth
        self._routes = routes
        self._hooks = hooks
        self._objects = kept
        self._chains = chains
        self._metrics = metrics
        self._metering = metering
        self._most = most
        self._spawn = spawn
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one chat."""
        request = Request(scope, receive)
        request_id = f"req_{uuid.uuid4().hex}"
        exchange, status, entered = None, 500, False
        try:
            exchange, upstream = await self._accept(request, request_id)
            exchange.response_headers.update(await self._metering.enter(exchange.principal))
            entered = True
            await unless_gone(receive, self._answer(exchange, upstream, request, send))
            status = exchange.status
        except ApiError as error:
            status = error.status
            added = exchange.response_headers if exchange else None
            await send_error(send, error, request_id, added, surface=self._surface)
        except ClientGone as gone:
            status = 499
            if exchange is not None:
                self._spawn(self._hooks.on_error(exchange, gone))
        except asyncio.CancelledError:  # we are stopped before the answer has ended
            status = 499
            if exchange is not None:
                self._spawn(self._hooks.on_error(exchange, ClientGone()))
            raise
        finally:
            if exchange is not None and entered and "later" not in exchange.notes:
                self._leave(exchange)
            self._metrics.requests.labels(self._surface.name, str(status)).inc()

    def _leave(self, exchange: Exchange) -> None:
        """Count what the request used."""
        background = self._surface is RESPONSES and exchange.body.get("background") is True and not _is_ours(exchange)
        self._metering.leave(
            exchange.principal,
            upstream=exchange.upstream,
            model=exchange.model,
            told=exchange.answer.usage if exchange.answer else None,
            injected=int(exchange.response_headers.get("x-memory-tokens", 0)),
            answered=bool(exchange.upstream) and exchange.status < 400,
            later=exchange.answer.id if background and exchange.answer else "",
        )

    async def _accept(self, request: Request, request_id: str) -> tuple[Exchange, Upstream]:
        principal = await self._auth.principal(request.headers)
        principal.require("chat")
        sent = await bodies.read(request.receive, self._most, request.headers.get("content-length"))
        raw = bodies.decode(sent, request.headers.get("content-encoding", ""), self._most)
        body = bodies.parse(raw)
        follows = self._chains.follows(body) if self._surface is RESPONSES else ""
        names = {*objects.named(raw, self._surface.kinds), self._surface.goes_on(body)} - {"", follows}
        keeper = await self._objects.require(principal.id, names) if names else ""
        upstream = self._upstream(principal, raw, body, keeper)
        credential = own_key(principal, request.headers, upstream)
        if names or credential:  # for that upstream and no other
            upstream = self._routes.alone(upstream)
        self._surface.check(body)
        plain = {name.lower(): value for name, value in request.headers.items()}
        exchange = Exchange(request_id, principal, plain, body, raw, self._clock(), self._surface)
        if self._surface is RESPONSES:
            await self._chains.go_on(exchange)
        return exchange, upstream

    def _upstream(self, principal: Principal, raw: bytes, body: dict[str, Any], keeper: str) -> Upstream:
        """Where the request goes. A response need not name a model (a stored prompt may, or what stands before it): then
        to where that lies, else to the first upstream of kind openai; for a key that may use every model."""
        if body.get("model") is None and principal.models is None and self._surface is RESPONSES:
            with contextlib.suppress(NotFound):
                return self._routes.named(keeper) or self._routes.first()
        upstream = self._routes.of(body.get("model"))
        principal.may_use(body["model"])
        allowed.check(principal, raw, body)
        return upstream

    async def _answer(self, exchange: Exchange, upstream: Upstream, request: Request, send: Send) -> None:
        try:
            await self._hooks.on_request(exchange)
            reply = await self._call(exchange, upstream, request)
        except ApiError as error:
            await self._hooks.on_error(exchange, error)
            raise
        try:
            if _is_sse(reply):
                await self._stream(exchange, reply, send)
            else:
                await self._whole(exchange, reply, send)
        finally:
            await reply.close()
            made = exchange.answer is not None and exchange.answer.id and self._surface.keeps(exchange.body)
            if made and exchange.answer is not None and not _is_ours(exchange):
                self._objects.claim(exchange.answer.id, exchange.principal.id, exchange.upstream)

    async def _call(self, exchange: Exchange, upstream: Upstream, request: Request) -> Reply:
        started = time.perf_counter()
        call = Call(
            "POST",
            self._surface.path,
            exchange.raw,
            headers.to_upstream(request.scope["headers"], self._auth.private),
            stream=exchange.body.get("stream") is True,
            query=request.url.query,
            cube=exchange.cube,
            session=exchange.session,
            adapter=exchange.adapter,
            told_as=self._chains.told_as(exchange),
        )
        if credential := request.headers.get(headers.OWN_KEY, ""):
            call = replace(call, credential=credential)
        reply = await upstream.send(call)
        serving = served_by(reply, upstream)
        exchange.response_headers["x-memory-upstream"] = exchange.upstream = serving.name
        if serving.kind in KEEPS_STATES:
            proven = {name: value for name in KV_HEADERS if (value := header(reply, name))}
            exchange.response_headers.update(proven)
            self._metrics.began(proven)
        self._metrics.first_byte.observe(time.perf_counter() - started)
        exchange.status = reply.status
        return reply

    async def _whole(self, exchange: Exchange, reply: Reply, send: Send) -> None:
        heard = self._surface.listener(sse=False, encoding=header(reply, "content-encoding"))
        chunks: list[bytes] = []
        try:
            async for chunk in reply.chunks():
                heard.feed(chunk)
                chunks.append(chunk)
        except UpstreamBroken as error:
            await self._hooks.on_error(exchange, error)
            broken = ApiError(str(error), code="upstream_broken")
            broken.status, broken.type = 502, "upstream_error"
            exchange.status = 502
            await send_error(send, broken, exchange.id, exchange.response_headers, surface=self._surface)
            return
        body = b"".join(chunks)
        if reply.status >= 400:
            await self._hooks.on_error(exchange, UpstreamBroken(f"status {reply.status}"))
        elif later := later_of(reply):
            await self._begin(exchange, later, body)
        else:
            exchange.answer = heard.answer()
            await self._hooks.on_response(exchange)
            body = await self._chains.keep(exchange, body)
        await send(start(reply, exchange.id, exchange.response_headers))
        await send({"type": "http.response.body", "body": body})

    async def _begin(self, exchange: Exchange, later: Callable[[], Awaitable[Reply]], begun: bytes) -> None:
        """Have the answer made in the background. Raises Unavailable."""
        await self._chains.begin(exchange, later, bodies.parse(begun), lambda: self._leave(exchange))
        exchange.notes["later"] = True

    async def _stream(self, exchange: Exchange, reply: Reply, send: Send) -> None:
        heard = self._surface.listener(sse=True, encoding=header(reply, "content-encoding"))
        await send(start(reply, exchange.id, exchange.response_headers))
        chunks = reply.chunks()
        shown = held = b""
        try:
            async for chunk in chunks:
                heard.feed(chunk)
                # the end is held back until the turn is durable; what stands before it goes out now
                shown, held = self._surface.split(held + chunk, heard.done)
                await more(send, shown)
                if heard.done:
                    break
        except UpstreamBroken as error:
            exchange.answer = heard.answer(broken=True)
            await self._hooks.on_error(exchange, error)
            gap = b"" if shown.endswith((b"\n", b"\r")) else b"\n\n"
            await send({"type": "http.response.body", "body": gap + self._surface.broken(str(error))})
            return
        except asyncio.CancelledError:
            exchange.answer = heard.answer(broken=True)
            raise
        exchange.answer = heard.answer()
        await self._hooks.on_response(exchange)
        held = await self._chains.keep(exchange, held)
        if heard.done:
            held += await _rest(chunks)
        await send({"type": "http.response.body", "body": held})


async def _rest(chunks: Any) -> bytes:
    """What comes behind [DONE]; nearly always nothing."""
    out = b""
    try:
        async with asyncio.timeout(_AFTER_DONE_S):
            async for chunk in chunks:
                out += chunk
    except (TimeoutError, UpstreamBroken):
        pass
    return out


def _is_ours(exchange: Exchange) -> bool:
    """Whether the answer is a response that its upstream does not keep."""
    return exchange.answer is not None and bool(exchange.answer.id) and exchange.answer.id == exchange.told_as.name


def _is_sse(reply: Reply) -> bool:
    return reply.status < 400 and header(reply, "content-type").lower().startswith("text/event-stream")
