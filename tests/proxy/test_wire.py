"""The byte pipe to an OpenAI-compatible server, against a server that says exactly what a test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from memory.models import ChatModelError
from proxy.errors import Unavailable, UpstreamTimeout, UpstreamUnreachable
from proxy.upstreams.model import UpstreamModel
from proxy.upstreams.port import Call, UpstreamBroken
from proxy.upstreams.routing import Routes
from proxy.upstreams.wire import LocalUpstream, WireUpstream
from tests.fakes import free_port


@dataclass
class Server:
    """A bare TCP server: answers each request with `answer`'s bytes, then keeps or cuts the connection."""

    answer: Callable[[bytes], bytes]
    close: bool = False
    pause_s: float = 0.0
    idle_s: float | None = None
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                async with asyncio.timeout(self.idle_s):
                    head = await reader.readuntil(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
                self.heads.append(head)
                self.bodies.append(body)
                await asyncio.sleep(self.pause_s)
                writer.write(self.answer(head))
                await writer.drain()
                if self.close:
                    return
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def serving(server: Server, **options: float) -> AsyncIterator[WireUpstream]:
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    upstream = WireUpstream(
        "wire", f"http://127.0.0.1:{server.port}/v1/", api_key="secret", headers={"x-ours": "1"}, **options
    )  # type: ignore[arg-type]
    try:
        yield upstream
    finally:
        await upstream.close()
        listening.close()
        await listening.wait_closed()


def response(body: bytes = b"{}", *headers: bytes, status: bytes = b"200 OK") -> bytes:
    named = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(named) + b"\r\n\r\n" + body


def call(*headers: tuple[str, str], query: str = "", path: str = "/chat/completions") -> Call:
    return Call("POST", path, b'{"model": "m"}', headers, query=query)


async def read(upstream: WireUpstream, one: Call | None = None) -> bytes:
    reply = await upstream.send(one or call())
    try:
        return b"".join([chunk async for chunk in reply.chunks()])
    finally:
        await reply.close()


async def test_bytes_and_headers_go_out_as_they_are() -> None:
    server = Server(lambda head: response(b" { }\n"))
    async with serving(server) as upstream:
        sent = [("user-agent", "me/1"), ("x-name", "J\u00fcrgen"), ("x-ours", "theirs"), ("x-long", "y" * 50_000)]
        assert await read(upstream, call(*sent)) == b" { }\n"
    head = server.heads[0].lower()
    assert server.bodies == [b'{"model": "m"}']
    assert b"authorization: bearer secret\r\n" in head
    assert b"user-agent: me/1\r\n" in head
    assert b"accept-encoding: identity\r\n" in head
    assert b"x-ours: 1\r\n" in head
    assert b"theirs" not in head
    assert b"y" * 50_000 in head
    assert head.count(b"host:") == head.count(b"content-length:") == head.count(b"user-agent:") == 1
    assert b"content-type" not in head


@pytest.mark.parametrize("query", ["api-version=2026-01-01", "a=%2Fb%20c&d=e+f&g=&h", "x=%C3%BC&x=%zz", "a='b'&c=[d]"])
async def test_the_query_goes_out_as_it_came(query: str) -> None:
    server = Server(lambda head: response())
    async with serving(server) as upstream:
        await read(upstream, call(query=query))
    assert server.heads[0].split(b"\r\n")[0] == f"POST /v1/chat/completions?{query} HTTP/1.1".encode()


async def test_a_long_header_of_the_upstream_is_no_fault() -> None:
    server = Server(lambda head: response(b"{}", b"x-policy: " + b"p" * 30_000))
    async with serving(server) as upstream:
        reply = await upstream.send(call())
        assert dict(reply.headers)["x-policy"] == "p" * 30_000
        await reply.close()


@pytest.mark.parametrize("close", [True, False])
async def test_a_server_that_drops_idle_connections_is_asked_again(close: bool) -> None:
    server = Server(lambda head: response(b"hello"), close=close, idle_s=0.05)
    async with serving(server) as upstream:
        for pause in (0, 0, 0.001, 0.01, 0.049, 0.05, 0.051, 0.1):
            await asyncio.sleep(pause)
            assert await read(upstream) == b"hello"


async def test_a_connection_that_is_kept_is_used_again() -> None:
    server = Server(lambda head: response(b"hello"))
    async with serving(server) as upstream:
        for _ in range(5):
            await read(upstream)
    assert server.connections == 1


async def test_a_server_that_fails_is_asked_once() -> None:
    server = Server(lambda head: response(b"hello") if len(server.heads) == 1 else b"", pause_s=0.0)
    async with serving(server) as upstream:
        await read(upstream)
        server.close, server.pause_s = True, 1.1
        with pytest.raises(UpstreamUnreachable):
            await read(upstream)
    assert len(server.heads) == 2


@pytest.mark.parametrize(
    "answer",
    [
        response(b"x" * 10).replace(b"length: 10", b"length: 99"),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n",
    ],
)
async def test_a_body_that_breaks_off_is_broken(answer: bytes) -> None:
    async with serving(Server(lambda head: answer, close=True)) as upstream:
        with pytest.raises((UpstreamBroken, UpstreamUnreachable)):
            await read(upstream)


async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    async with serving(Server(lambda head: b"HTTP/1.1 200 OK\r\n\r\nhello", close=True)) as upstream:
        assert await read(upstream) == b"hello"


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
async def test_what_is_no_answer_is_unreachable(answer: bytes) -> None:
    async with serving(Server(lambda head: answer, close=True)) as upstream:
        with pytest.raises(UpstreamUnreachable):
            await read(upstream)


async def test_nobody_there() -> None:
    for kind, error in ((WireUpstream, UpstreamUnreachable), (LocalUpstream, Unavailable)):
        upstream = kind("gone", f"http://127.0.0.1:{free_port()}/v1")
        with pytest.raises(error):
            await upstream.send(call())
        await upstream.close()


async def test_silence_has_an_end() -> None:
    async with serving(Server(lambda head: response(), pause_s=5), timeout_s=0.1) as upstream:
        with pytest.raises(UpstreamTimeout):
            await upstream.send(call())
    half = response(b"x" * 10).replace(b"length: 10", b"length: 99")
    async with serving(Server(lambda head: half), timeout_s=0.1) as upstream:
        with pytest.raises(UpstreamBroken, match="silent"):
            await read(upstream)


async def test_redirects_and_cookies_are_not_followed() -> None:
    moved = response(b"", b"location: http://127.0.0.1:9/", b"set-cookie: a=b", status=b"307 Temporary Redirect")
    server = Server(lambda head: moved)
    async with serving(server) as upstream:
        assert (await upstream.send(call())).status == 307
        await read(upstream)
    assert b"cookie" not in server.heads[1].lower()


async def test_closing_early_cuts_the_connection() -> None:
    gone = asyncio.Event()

    async def forever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await reader.readexactly(14)
        await reader.read()
        gone.set()
        writer.close()

    listening = await asyncio.start_server(forever, "127.0.0.1", 0)
    upstream = WireUpstream("wire", f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1")
    reply = await upstream.send(call())
    assert await anext(reply.chunks()) == b"hello"
    await reply.close()
    await asyncio.wait_for(gone.wait(), 2)
    await upstream.close()
    listening.close()
    await listening.wait_closed()


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (b'{"object": "list", "data": [{"id": "a"}, {"id": 7}, 7, {}]}', ["a"]),
        (b'{"data": []}', []),
        (b'{"data": 7}', None),
        (b"[]", None),
        (b"<html>", None),
        (b"\xff", None),
    ],
)
async def test_models_are_listed_or_the_upstream_is_unreachable(body: bytes, ids: list[str] | None) -> None:
    async with serving(Server(lambda head: response(body))) as upstream:
        if ids is None:
            with pytest.raises(UpstreamUnreachable):
                await upstream.models()
        else:
            assert [model["id"] for model in await upstream.models()] == ids


@pytest.mark.parametrize(
    ("answer", "error", "retryable"),
    [
        (response(b'{"choices": []}'), None, False),
        (response(b"[]"), "the answer is not a JSON object", True),
        (response(b"<html>"), "the answer is not JSON", True),
        (response(b"{}", status=b"429 Too Many"), "status 429", True),
        (response(b"{}", status=b"500 Oops"), "status 500", True),
        (response(b"{}", status=b"400 Bad"), "status 400", False),
        (response(b"x" * 9).replace(b"length: 9", b"length: 99"), "the answer broke off", True),
        (b"", "upstream_unreachable", True),
    ],
)
async def test_an_upstream_as_a_model_for_memory(answer: bytes, error: str | None, retryable: bool) -> None:
    async with serving(Server(lambda head: answer, close=True)) as upstream:
        model = UpstreamModel(Routes([(upstream, ("m",))]), "m")
        if error is None:
            assert await model.complete({"messages": []}) == {"choices": []}
            return
        with pytest.raises(ChatModelError, match=error) as raised:
            await model.complete({"messages": []})
        assert raised.value.retryable is retryable
