"""What must never be lost between a client and its upstream: bytes, connections, one's own answer, and the end of a turn."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import openai
import pytest

from proxy import db
from proxy.keys import Keys
from tests.fakes import Received, RecordingUpstream, Reply, completion, events, message_events, response_events
from tests.hooks import recorder
from tests.live import LiveProxy, wait_for

HELLO = {"model": "m", "messages": [{"role": "user", "content": "Hello, my hamster is called Bo."}]}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture
def live(data: Path, upstream: RecordingUpstream) -> Iterator[LiveProxy]:
    with LiveProxy(data, upstreams=[{"name": "recording", "kind": "openai", "base_url": upstream.url}]) as running:
        yield running


class RawUpstream:
    """A TCP server that answers every request with the bytes it is given, then cuts the connection."""

    def __init__(self, answer: Callable[[], bytes]) -> None:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                length = 0
                while (line := self.rfile.readline()) not in (b"\r\n", b""):
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                self.rfile.read(length)
                self.wfile.write(answer())

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> RawUpstream:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


def post(
    live: LiveProxy, key: str, body: Any = HELLO, path: str = "/v1/chat/completions", **more: Any
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"authorization": f"Bearer {key}", **more.pop("headers", {})}
    return httpx.post(f"{live.url}{path}", content=content, headers=named, timeout=30, **more)


# --- upstreams that go away -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [b"", b'data: {"choi', b"data: [DO"])
def test_a_stream_that_is_cut_ends_with_an_error_and_what_came_is_kept(data: Path, tail: bytes) -> None:
    said = events("Nice hamster, really")[:-2]
    with (
        RawUpstream(lambda: HEAD + chunked(*said, *([tail] if tail else []))) as raw,
        LiveProxy(data, upstreams=[{"name": "raw", "kind": "openai", "base_url": raw.url}]) as live,
    ):
        key = live.key()
        text = post(live, key, {**HELLO, "stream": True}).content
        assert text.startswith(b"".join(said))
        last = text.strip().split(b"\n\n")[-1]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_broken"
        assert b"[DONE]" not in text
        assert [item["answer"] for item in live.items(key)] == ["Nice hamster, really"]
        stream = live.client(key).chat.completions.create(**HELLO, stream=True)
        with pytest.raises((openai.APIError, json.JSONDecodeError)):
            list(stream)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/responses", response_events("Nice hamster, really")),
        ("/v1/messages", message_events("Nice hamster, really")),
    ],
)
def test_a_cut_stream_of_another_surface_ends_with_an_error_of_its_kind(
    data: Path, path: str, said: list[bytes]
) -> None:
    body = {
        "model": "m",
        "stream": True,
        "input": "My hamster is Bo.",
        "messages": [{"role": "user", "content": "My hamster is Bo."}],
    }
    with (
        RawUpstream(lambda: HEAD + chunked(*said[:6], b'data: {"ty')) as raw,
        LiveProxy(data, upstreams=[{"name": "raw", "kind": "openai", "base_url": raw.url}]) as live,
    ):
        key = live.key()
        text = post(live, key, body, path=path).content
        assert text.startswith(b"".join(said[:6]))
        last = text.strip().split(b"\n\n")[-1]
        assert last.startswith(b"event: error\ndata: ")
        assert json.loads(last.partition(b"data: ")[2])["type"] == "error"
        assert len(live.items(key)) == 1


def test_an_answer_that_is_cut_is_a_502_and_no_turn(data: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n" + completion("Nice")
    with (
        RawUpstream(lambda: answer) as raw,
        LiveProxy(data, upstreams=[{"name": "raw", "kind": "openai", "base_url": raw.url}]) as live,
    ):
        key = live.key()
        response = post(live, key)
        assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_broken")
        assert live.items(key) == []


def test_an_upstream_that_closes_after_each_answer_is_no_fault(data: Path) -> None:
    body = completion("Nice")
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with (
        RawUpstream(lambda: answer) as raw,
        LiveProxy(data, upstreams=[{"name": "raw", "kind": "openai", "base_url": raw.url}]) as live,
        httpx.Client(headers={"authorization": f"Bearer {live.key()}"}) as client,
    ):
        statuses = [client.post(f"{live.url}/v1/chat/completions", json=HELLO).status_code for _ in range(20)]
    assert statuses == [200] * 20


def test_an_error_with_status_200_is_no_turn(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    upstream.answer = lambda _: Reply(chunks=[b'{"error": {"message": "no credits", "code": 402}}'])
    assert post(live, key).json()["error"]["code"] == 402
    assert live.items(key) == []


# --- bytes ----------------------------------------------------------------------------------------------------------------


def test_every_byte_of_an_answer_arrives_however_it_was_cut(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key, dice = live.key(), random.Random(5)
    whole = b"".join(events("我的猫叫小花 😀 and more"))
    for _ in range(8):
        cuts = sorted(dice.sample(range(len(whole)), 12))
        chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        upstream.answer = lambda _, chunks=chunks: Reply(content_type="text/event-stream", chunks=chunks, pause_s=0.001)
        assert post(live, key, {**HELLO, "stream": True}).content == whole
    assert [item["answer"] for item in live.items(key)] == ["我的猫叫小花 😀 and more"]


def test_the_turn_is_there_when_the_end_is(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    said = events("Nice")
    upstream.answer = lambda _: Reply(
        content_type="text/event-stream", chunks=[*said[:-1], b"data: [D", b"ONE]\n\n"], pause_s=0.05
    )
    named = {"authorization": f"Bearer {key}"}
    seen = b""
    with httpx.stream(
        "POST", f"{live.url}/v1/chat/completions", json={**HELLO, "stream": True}, headers=named
    ) as response:
        for chunk in response.iter_raw():
            seen += chunk
            if b"[D" in seen:
                assert len(live.items(key)) == 1
                break
    assert seen.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"\x00\xff" * 999, b'{"choices": 7}', b"[1]", b'{"choices": [{"message": 7}]}']
)
def test_an_answer_that_nobody_understands_passes_all_the_same(
    live: LiveProxy, upstream: RecordingUpstream, body: bytes
) -> None:
    upstream.answer = lambda _: Reply(chunks=[body] if body else [], content_type="application/octet-stream")
    response = post(live, live.key())
    assert (response.status_code, response.content) == (200, body)
    assert response.headers["content-type"] == "application/octet-stream"


def test_an_odd_request_loses_no_byte(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    post(live, key)
    raw = b'{"x":{"messages":[{"content":"no"}]},"messages":[],"m\\u0065ssages" :[{"content":"What is my hamster called?" ,'
    raw += b'"role":"user"}],"model":"m","n":1.00}'
    post(live, key, raw)
    head, tail = raw.split(b"What is")
    assert upstream.last.raw.startswith(head)
    assert upstream.last.raw.endswith(b"What is" + tail)
    assert b"Bo" in upstream.last.raw


def test_a_large_image_passes_quickly_with_memory_on(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    post(live, key)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 20_000_000}}
    content = [image, {"type": "text", "text": "Is this my hamster Bo?"}]
    response = post(live, key, {"model": "m", "messages": [{"role": "user", "content": content}]})
    assert response.headers["x-memory-state"] == "hit"
    assert upstream.last.messages[0]["content"][1:] == content
    assert float(response.headers["x-memory-ms"]) < 2500


# --- headers --------------------------------------------------------------------------------------------------------------


def test_headers_come_once_and_are_the_right_ones(live: LiveProxy, upstream: RecordingUpstream) -> None:
    theirs = {"server": "theirs", "date": "then", "keep-alive": "timeout=5", "set-cookie": "a=b", "x-request-id": "req_theirs",
              "openai-processing-ms": "7", "x-ratelimit-remaining-tokens": "9"}  # fmt: skip
    upstream.answer = lambda _: Reply(headers=theirs, chunks=[completion("Nice")])
    connection = http.client.HTTPConnection("127.0.0.1", live.port)
    connection.request("POST", "/v1/chat/completions", json.dumps(HELLO), {"authorization": f"Bearer {live.key()}"})
    response = connection.getresponse()
    names = [name.lower() for name, _ in response.getheaders()]
    response.read()
    connection.close()
    assert len(names) == len(set(names))
    assert not {"keep-alive", "set-cookie"} & set(names)
    assert response.headers["x-request-id"] == "req_theirs"
    assert response.headers["openai-processing-ms"] == "7"
    assert response.headers["server"] != "theirs"
    assert response.headers["date"] != "then"


def test_long_and_odd_headers_and_the_query_travel_on(live: LiveProxy, upstream: RecordingUpstream) -> None:
    named = {"x-long": "y" * 30_000, "x-odd": "Zoë".encode(), "openai-organization": "org", "x-memory-task": ""}
    assert post(live, live.key(), path="/v1/chat/completions?api-version=1&x=%2F", headers=named).status_code == 200
    assert upstream.last.headers["x-long"] == "y" * 30_000
    assert upstream.last.headers["openai-organization"] == "org"
    assert "cookie" not in upstream.last.headers


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "GET", "TRACE"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/memory/items", "/health", "/nothing"])
def test_no_method_makes_a_route_fall_over(shared: LiveProxy, method: str, path: str) -> None:
    response = httpx.request(method, f"{shared.url}{path}")
    assert response.status_code < 500
    if response.status_code >= 400 and method != "HEAD":
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[LiveProxy]:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "models").symlink_to(models_dir)
    with LiveProxy(
        folder, upstreams=[{"name": "gone", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"}]
    ) as running:
        yield running


# --- many at once ---------------------------------------------------------------------------------------------------------


def echo(received: Received) -> Reply:
    """A stream made of the question's own number."""
    number = received.messages[-1]["content"].rpartition("number ")[2]
    return Reply(content_type="text/event-stream", chunks=events(f"answer {number} " * 5), pause_s=0.002)


async def stream(session: aiohttp.ClientSession, live: LiveProxy, key: str, number: int) -> bytes:
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": f"This is number {number}"}]}
    named = {"authorization": f"Bearer {key}"}
    async with session.post(f"{live.url}/v1/chat/completions", json=body, headers=named) as response:
        return await response.read()


async def test_a_hundred_streams_at_once_each_get_their_own(live: LiveProxy, upstream: RecordingUpstream) -> None:
    upstream.answer = echo
    keys = [await asyncio.to_thread(live.key) for _ in range(4)]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        answers = await asyncio.gather(*(stream(session, live, keys[n % 4], n) for n in range(100)))
    assert answers == [b"".join(events(f"answer {n} " * 5)) for n in range(100)]
    await asyncio.to_thread(wait_for, lambda: not live.parts.background.tasks, "every turn to be written")
    for owner, key in enumerate(keys):
        items = await asyncio.to_thread(live.items, key)
        assert sorted(item["text"] for item in items) == sorted(f"This is number {n}" for n in range(owner, 100, 4))
        assert all(item["answer"].split()[1] == item["text"].split()[-1] for item in items)


async def test_clients_that_hang_up_leave_nothing_behind(live: LiveProxy, upstream: RecordingUpstream) -> None:
    endless = [b'data: {"choices":[{"index":0,"delta":{"content":"la "}}]}\n\n'] * 1000
    upstream.answer = lambda _: Reply(content_type="text/event-stream", chunks=endless, pause_s=0.02)
    key, dice = await asyncio.to_thread(live.key), random.Random(1)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def leave(number: int) -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stream(session, live, key, number), 0.8 + dice.random() / 2)

        await asyncio.gather(*(leave(n) for n in range(40)))
    await asyncio.to_thread(wait_for, lambda: upstream.cancelled == len(upstream.requests), "the upstream to see it")
    await asyncio.to_thread(wait_for, lambda: not live.parts.background.tasks, "the background to be empty")
    items = await asyncio.to_thread(live.items, key)
    assert len(items) == len({item["text"] for item in items})
    assert all(set(item["answer"].split()) == {"la"} for item in items)
    upstream.answer = echo
    async with aiohttp.ClientSession() as session:
        assert await stream(session, live, key, 7) == b"".join(events("answer 7 " * 5))


# --- hooks and keys -------------------------------------------------------------------------------------------------------


def test_hooks_run_in_their_order_and_one_may_refuse(data: Path, upstream: RecordingUpstream) -> None:
    upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url}]
    recorder.seen.clear()
    with LiveProxy(data, upstreams=upstreams, hooks=["tests.hooks:recorder", "tests.hooks.Bouncer"]) as live:
        key = live.key()
        response = post(live, key)
        assert response.headers["x-recorder"] == "was here"
        assert upstream.last.messages[-1]["content"].endswith("called Bo.\n\n(be polite)")
        refused = post(live, key, {"model": "m", "messages": [{"role": "user", "content": "a forbidden thing"}]})
        assert (refused.status_code, refused.json()["error"]["message"]) == (403, "not here")
        upstream.answer = lambda _: Reply(500, chunks=[b"{}"])
        assert post(live, key).status_code == 500
    assert len(upstream.requests) == 2
    assert recorder.seen == ["request m", "response Noted.", "request m", "error 0", "request m", "error 500"]


def key_for(live: LiveProxy, *models: str) -> str:
    """A key that may use these models only."""

    async def make() -> str:
        database = db.open_database(live.config)
        try:
            return (await Keys(database).create("limited", models=models)).secret
        finally:
            await database.close()

    return asyncio.run(make())


def test_a_keys_models_are_the_ones_it_sees_and_may_use(live: LiveProxy) -> None:
    key = live.key()
    with live.client(key) as client:
        assert [model.id for model in client.models.list()] == ["fake", "org/fake-2"]
    limited = key_for(live, "org/*")
    with live.client(limited) as client:
        assert [model.id for model in client.models.list()] == ["org/fake-2"]
        assert client.models.retrieve("org/fake-2").id == "org/fake-2"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("fake")
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(**{**HELLO, "model": "fake"})
        assert client.chat.completions.create(**{**HELLO, "model": "org/fake-2"}).choices[0].message.content == "Noted."
