"""Every other `/v1/…`: embeddings, completions, audio, images, files, stored responses …, passed through without memory.

Bytes go out as they come in and back as they come out; a body is held only where it must be read: JSON, for its `model`, and
lists, from which what other keys made is cut. A body that is passed piece by piece names its model near its beginning.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from memory.sql import DatabaseError
from proxy import allowed, bodies, headers, objects
from proxy.auth import Auth, Principal, own_key
from proxy.bodies import ClientGone
from proxy.config import Limits
from proxy.errors import ApiError, BadRequest, MethodNotAllowed, NotFound, TooLarge, UpgradeRequired
from proxy.forms import Ids, form_model
from proxy.hooks import Exchange
from proxy.incoming import Incoming
from proxy.messages import MESSAGES
from proxy.metering import Metering, Tail
from proxy.metrics import Metrics
from proxy.objects import Objects
from proxy.responses import RESPONSES
from proxy.sending import header, more, send_error, start, unless_gone
from proxy.splice import without
from proxy.surface import CHAT
from proxy.upstreams.port import Call, Reply, Upstream, UpstreamBroken, served_by
from proxy.upstreams.routing import Routes

log = logging.getLogger(__name__)
Heard = Callable[[Exchange], Awaitable[None]]  # told of an answer that was made in the background
_A_RESPONSE = re.compile(r"/v1/responses/[^/]+")
_OURS = ("memory", "cubes", "kv")  # never an upstream's, or of an engine that knows no keys
_KNOWN = frozenset(
    "embeddings completions audio images files moderations responses messages conversations batches".split()
)
_STATELESS = frozenset("embeddings completions audio images moderations rerank score tokenize detokenize".split())
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_PEEK = 1 << 16  # bytes of a multipart body in which its model is looked for
_MOST_HELD = 16 << 20  # bytes of an answer that is read before it goes on


class PassThrough:
    """The routes that no other takes, as an ASGI application."""

    def __init__(
        self,
        *,
        auth: Auth,
        routes: Routes,
        kept: Objects,
        heard: Heard,
        metrics: Metrics,
        metering: Metering,
        limits: Limits,
    ) -> None:
        self._auth = auth
        self._heard = heard
        self._routes = routes
        self._objects = kept
        self._metrics = metrics
        self._metering = metering
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        request_id = f"req_{uuid.uuid4().hex}"
        family = scope["path"].split("/")[2]
        status = 500
        try:
            status = await self._pass(request, family, request_id, send)
        except ApiError as error:
            status = error.status
            await send_error(send, error, request_id, surface=MESSAGES if family == "messages" else CHAT)
        except ClientGone:
            status = 499
        finally:
            self._metrics.requests.labels(family if family in _KNOWN else "other", str(status)).inc()

    async def _pass(self, request: Request, family: str, request_id: str, send: Send) -> int:
        path: str = request.scope["path"]
        if request.headers.get("upgrade", "").lower() == "websocket":
            raise UpgradeRequired("WebSockets are not served here; ask over HTTP")
        # a path that climbs would leave the upstream's /v1 with our credentials
        if family in _OURS or {".", ".."} & set(re.split(r"[/\\]", path)):
            raise NotFound("there is no such route")
        if request.method not in _METHODS:
            raise MethodNotAllowed("this method is not passed on", headers={"allow": ", ".join(_METHODS)})
        principal = await self._auth.principal(request.headers)
        principal.require("chat")
        held, body = await self._read(request, principal)
        named = {*objects.told(path, *request.query_params.values()), *objects.named(held)}
        keeper = await self._objects.require(principal.id, {*named, *_in_body(request, held)})
        if principal.models is not None:
            owned = await self._objects.require(principal.id, objects.told(path))
            allowed.check_passed_on(principal, request, held, owned=bool(owned))
        model = _model(request, held, whole=body.ended.is_set())
        upstream = self._route(request, principal, model, keeper)
        credential = own_key(principal, request.headers, upstream)
        if keeper or credential:  # for that upstream and no other
            upstream = self._routes.alone(upstream)
        sent = headers.to_upstream(request.scope["headers"], self._auth.private)
        if not body.ended.is_set() and (length := request.headers.get("content-length")):
            sent.append(("content-length", length))
        call = Call(
            request.method,
            _raw_path(request),
            held if body.ended.is_set() else self._looked_into(request, principal, body),
            sent,
            query=request.scope["query_string"].decode("latin-1"),
            credential=credential,
        )
        left = await self._metering.enter(principal)
        filtered = request.method == "GET" and not keeper
        answer = _Answer(self._objects, principal.id, upstream, family, filtered=filtered, named=named)
        stored = path.rpartition("/")[2] if request.method == "GET" and _A_RESPONSE.fullmatch(path) else ""
        if stored:
            plain = {name.lower(): value for name, value in request.headers.items()}
            exchange = Exchange(request_id, principal, plain, {}, b"{}", time.time(), RESPONSES)
            answer.heard = lambda held: self._had_later(exchange, stored, held)
        answer.added |= left
        try:
            await unless_gone(body.watch, self._answer(upstream, call, body, answer, request_id, send))
        finally:
            asked, told = request.method not in ("GET", "HEAD"), answer.tail.usage()
            if stored and not answer.is_json:  # had as a stream
                self._metering.had(stored, told)
            self._metering.leave(
                principal,
                upstream=answer.upstream.name,
                model=model,
                told=told if asked else None,  # what is only had again was counted when it was made
                answered=asked and bool(model) and answer.status < 400,
            )
        return answer.status

    async def _had_later(self, exchange: Exchange, stored: str, held: bytes) -> None:
        """An answer that was made in the background; memory's faults are not its client's."""
        told = _parsed(held)
        if told.get("status") not in ("queued", "in_progress"):
            self._metering.had(stored, told.get("usage"))
        listener = exchange.surface.listener(sse=False, encoding="")
        listener.feed(held)
        exchange.answer = listener.answer()
        try:
            await self._heard(exchange)
        except (ApiError, DatabaseError) as error:
            log.warning("%s: an answer had later was not remembered (%s)", exchange.id, type(error).__name__)

    async def _read(self, request: Request, principal: Principal) -> tuple[bytes, Incoming]:
        """What must be looked into: all of a body that is JSON, packed, or sent by a key that may not use every model; else
        its beginning. And the body itself, which has ended when all of it was read."""
        length, kind = request.headers.get("content-length", ""), _kind(request)
        encoding = request.headers.get("content-encoding", "")
        if encoding or principal.models is not None or "json" in kind or "urlencoded" in kind or not kind:
            most = self._limits.body_bytes
            held = bodies.decode(await bodies.read(request.receive, most, length), encoding, most)
            return held, Incoming(request.receive, most, ended=True)
        most = self._limits.upload_bytes
        if length.isdigit() and int(length) > most:
            raise TooLarge(f"the body is larger than {most} bytes")
        body = Incoming(request.receive, most)
        return await body.peek(_PEEK), body

    async def _looked_into(self, request: Request, principal: Principal, body: Incoming) -> AsyncIterator[bytes]:
        """A body on its way, cut off before a form ends that names what is another's."""
        ids, known = Ids(), set[str]()
        async for chunk in body.chunks():
            if "multipart/" in _kind(request) and (found := ids.feed(chunk) - known):
                known |= found
                try:
                    await self._objects.require(principal.id, found)
                except ApiError as error:
                    body.failure = error
                    raise
            yield chunk

    def _route(self, request: Request, principal: Principal, model: str, keeper: str) -> Upstream:
        if model:
            upstream = self._routes.of(model)
            principal.may_use(model)
            return upstream
        return self._routes.named(keeper) or self._routes.first(
            "anthropic" if request.scope["path"].startswith("/v1/messages/") else "openai"
        )

    async def _answer(
        self, upstream: Upstream, call: Call, body: Incoming, answer: _Answer, request_id: str, send: Send
    ) -> None:
        started = time.perf_counter()
        try:
            reply = await upstream.send(call)
        except ApiError:
            if body.failure is not None:  # it was we who stopped sending
                raise body.failure from None
            raise
        self._metrics.first_byte.observe(time.perf_counter() - started)
        answer.status = reply.status
        answer.upstream = served_by(reply, upstream)
        try:
            await answer.pass_on(reply, request_id, send)
        finally:
            await reply.close()


class _Answer:
    """One answer on its way back."""

    def __init__(
        self, kept: Objects, principal: str, upstream: Upstream, family: str, *, filtered: bool, named: Collection[str]
    ) -> None:
        self._objects = kept
        self._named = named
        self._principal = principal
        self.upstream = upstream
        self._claims = family not in _STATELESS
        self._filtered = filtered
        self.heard: Callable[[bytes], Awaitable[None]] | None = None
        self.status = 500
        self.is_json = False
        self.added: dict[str, str] = {}  # to the headers
        self.tail = Tail()

    async def pass_on(self, reply: Reply, request_id: str, send: Send) -> None:
        """Send the answer, byte for byte but for what is another's in a list. Raises ApiError before its first byte only."""
        chunks = reply.chunks()
        first = b""
        is_json = self.is_json = reply.status < 300 and "json" in header(reply, "content-type")
        try:
            if is_json and (self._claims or self._filtered or self.heard):
                first = await _hold(chunks)
        except UpstreamBroken as error:
            raise _broken(error) from error
        if is_json and self.heard is not None:
            await self.heard(first)
        if is_json and self._filtered:
            first = await self._mine(first)
        elif is_json and self._claims:
            self._claim(first)
        await send(start(reply, request_id, {"x-memory-upstream": self.upstream.name, **self.added}))
        self.tail.feed(first)
        await more(send, first)
        try:
            async for chunk in chunks:
                self.tail.feed(chunk)
                await more(send, chunk)
        except UpstreamBroken as error:
            log.warning("%s: %s", request_id, error)
            raise ConnectionAbortedError from error  # so that the client sees that it is not complete
        await send({"type": "http.response.body", "body": b""})

    def _claim(self, held: bytes) -> None:
        made = _parsed(held).get("id")
        if (
            isinstance(made, str) and made not in self._named
        ):  # what was there before it was asked for is nobody's making
            self._objects.claim(made, self._principal, self.upstream.name)

    async def _mine(self, held: bytes) -> bytes:
        """A list without what other principals have made."""
        listed = _parsed(held).get("data")
        if not isinstance(listed, list):
            return held
        names = {
            place: str(entry["id"]) for place, entry in enumerate(listed) if isinstance(entry, dict) and "id" in entry
        }
        owners = await self._objects.owners(names.values())
        others = [
            place for place, name in names.items() if name in owners and owners[name].principal != self._principal
        ]
        return without(held, "data", others) if others else held


async def _hold(chunks: AsyncIterator[bytes]) -> bytes:
    """All of a small answer, the beginning of a large one."""
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > _MOST_HELD:
            break
    return b"".join(parts)


def _parsed(held: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(held)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def _asked(held: bytes) -> dict[str, Any]:
    """A request's body; empty when it is no JSON object."""
    try:
        return bodies.parse(held)
    except BadRequest:
        return {}


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").lower()


def _in_body(request: Request, held: bytes) -> set[str]:
    """What the fields of a body, or of its beginning, may name."""
    kind = _kind(request)
    if "multipart/" in kind:
        return Ids().feed(held)
    if "urlencoded" in kind:
        return {value.strip() for _, value in parse_qsl(held.decode("latin-1"))}
    return objects.in_fields(held) if "json" in kind or not kind else set()


def _model(request: Request, held: bytes, *, whole: bool) -> str:
    """The model that a request names, in its body or its query; empty when it names none. Raises BadRequest."""
    kind = request.headers.get("content-type", "")
    if "multipart/" in _kind(request):
        return form_model(held, kind) or request.query_params.get("model", "")
    model = _asked(held).get("model") if whole else None
    return model if isinstance(model, str) else request.query_params.get("model", "")


def _raw_path(request: Request) -> str:
    """The path below /v1 as the client wrote it, escapes and all. Raises NotFound."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    path = raw.decode("latin-1").partition("?")[0]
    if not path.startswith(
        "/v1/"
    ):  # behind an upstream's address, an escaped slash would end neither its name nor its port
        raise NotFound("there is no such route")
    return path.removeprefix("/v1")


def _broken(error: UpstreamBroken) -> ApiError:
    broken = ApiError(str(error), code="upstream_broken")
    broken.status, broken.type = 502, "upstream_error"
    return broken
