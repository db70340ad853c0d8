"""The edge: what clients may send, what upstreams may answer, and what happens when either goes away."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brotli
import httpx
import openai
import pytest
import zstandard

from tests.fakes import RecordingUpstream, Reply, completion
from tests.live import LiveProxy, wait_for

HELLO = {"model": "m", "messages": [{"role": "user", "content": "Hello, my hamster is called Bo."}]}


@pytest.fixture
def live(data: Path, upstream: RecordingUpstream) -> Iterator[LiveProxy]:
    upstreams = [
        {"name": "recording", "kind": "openai", "base_url": upstream.url, "models": ["m", "fake", "org/*"]},
        {"name": "nobody", "kind": "openai", "base_url": "http://127.0.0.1:9/v1", "models": ["gone"]},
    ]
    with LiveProxy(data, upstreams=upstreams, limits={"body_bytes": 200_000}) as running:
        yield running


def post(
    live: LiveProxy, body: Any, key: str | None = None, path: str = "/v1/chat/completions", **headers: str
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"authorization": f"Bearer {key or live.key()}", "content-type": "application/json"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{live.url}{path}", content=content, headers=named, timeout=30)


# --- bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b'{"model": "m", "messages": [', {}, 400, "invalid_json"),
        (b"", {}, 400, "invalid_json"),
        (b"[1, 2]", {}, 400, "invalid_json"),
        (b"\xff\xfe\x00", {}, 400, "invalid_json"),
        (b"[" * 50_000, {}, 400, "invalid_json"),
        ({"messages": []}, {}, 400, "missing_required_parameter"),
        ({"model": 7, "messages": []}, {}, 400, "missing_required_parameter"),
        ({"model": "m"}, {}, 400, "invalid_type"),
        ({"model": "m", "messages": "hi"}, {}, 400, "invalid_type"),
        ({"model": "unknown", "messages": []}, {}, 404, "model_not_found"),
        (b"x" * 300_000, {}, 413, "body_too_large"),
        (gzip.compress(b"x" * 10_000_000), {"content_encoding": "gzip"}, 413, "body_too_large"),
        (zstandard.compress(b"x" * 10_000_000), {"content_encoding": "zstd"}, 413, "body_too_large"),
        (brotli.compress(b"x" * 10_000_000), {"content_encoding": "br"}, 413, "body_too_large"),
        (zlib.compress(b"x" * 10_000_000), {"content_encoding": "deflate"}, 413, "body_too_large"),
        (b"not gzip", {"content_encoding": "gzip"}, 400, "invalid_encoding"),
        (b"not zstd", {"content_encoding": "zstd"}, 400, "invalid_encoding"),
        (b"not brotli", {"content_encoding": "br"}, 400, "invalid_encoding"),
        (gzip.compress(b'{"model": "m"}')[:-9], {"content_encoding": "gzip"}, 400, "invalid_encoding"),
        (brotli.compress(b'{"model": "m", "messages": []}')[:-3], {"content_encoding": "br"}, 400, "invalid_encoding"),
        (b"{}", {"content_encoding": "compress"}, 415, "unsupported_encoding"),
        (HELLO, {"x_memory": "sometimes"}, 400, None),
    ],
)
def test_bad_input_gets_a_clear_error(
    live: LiveProxy, upstream: RecordingUpstream, body: Any, headers: dict[str, str], status: int, code: str | None
) -> None:
    response = post(live, body, **headers)
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert response.headers["x-request-id"].startswith("req_")
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("zstd", zstandard.compress), ("br", brotli.compress), ("deflate", zlib.compress)],
)
def test_compressed_bodies_are_read(live: LiveProxy, upstream: RecordingUpstream, encoding: str, compress: Any) -> None:
    raw = json.dumps(HELLO).encode()
    assert post(live, compress(raw), content_encoding=encoding).status_code == 200
    assert upstream.last.raw == raw
    assert "content-encoding" not in upstream.last.headers


@pytest.mark.parametrize(
    "body", [{"messages": [1, None, "x"]}, {"messages": [{}]}, {"messages": []}, {"messages": [{"role": []}]}]
)
def test_odd_messages_are_the_upstreams_affair(
    live: LiveProxy, upstream: RecordingUpstream, body: dict[str, Any]
) -> None:
    assert post(live, {"model": "m", **body}).status_code == 200
    assert upstream.last.body == {"model": "m", **body}


def test_lone_surrogates_and_nul_are_no_reason_to_fail(live: LiveProxy) -> None:
    key = live.key()
    body = b'{"model": "m", "messages": [{"role": "user", "content": "odd \\ud800 and \\u0000 text"}]}'
    assert post(live, body, key).status_code == 200
    assert [item["text"] for item in live.items(key)] == ["odd ? and  text"]


# --- keys -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "sk-something-else", "sk-mem-" + "A" * 38])
def test_without_a_good_key_nothing_goes(live: LiveProxy, upstream: RecordingUpstream, key: str) -> None:
    with live.client(key or "none") as client, pytest.raises(openai.AuthenticationError) as raised:
        client.chat.completions.create(**HELLO)
    assert raised.value.code == "invalid_api_key"
    assert upstream.requests == []


def test_a_revoked_key_stops_at_the_next_request(live: LiveProxy) -> None:
    key = live.key("chat")
    assert post(live, HELLO, key).status_code == 200
    live.revoke(key)
    assert post(live, HELLO, key).status_code == 401


def test_a_key_without_the_scope_is_refused(live: LiveProxy) -> None:
    response = post(live, HELLO, live.key("memory:read"))
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "insufficient_scope"


def test_a_key_without_memory_scopes_chats_without_memory(live: LiveProxy) -> None:
    key = live.key("chat")
    assert post(live, HELLO, key).status_code == 200
    assert live.api(key, "GET", "/v1/memory/items")[0] == 403


def test_anthropics_header_carries_a_key_too(live: LiveProxy) -> None:
    response = httpx.post(f"{live.url}/v1/chat/completions", json=HELLO, headers={"x-api-key": live.key()})
    assert response.status_code == 200


# --- what upstreams answer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(429, headers={"retry-after": "7", "x-ratelimit-remaining-requests": "0"}, chunks=[b'{"error":{"message":"slow"}}']),
         openai.RateLimitError),
        (Reply(400, chunks=[b'{"error": {"message":"bad","type":"invalid_request_error","param":"n","code":"x"}}']),
         openai.BadRequestError),
        (Reply(502, content_type="text/html", chunks=[b"<html>Bad gateway</html>"]), openai.InternalServerError),
        (Reply(401, chunks=[b'{"error": {"message":"upstream key"}}']), openai.AuthenticationError),
    ],
)  # fmt: skip
def test_an_upstreams_error_arrives_as_it_was(
    live: LiveProxy, upstream: RecordingUpstream, reply: Reply, error: Any
) -> None:
    key = live.key()
    upstream.answer = lambda _: reply
    with pytest.raises(error):
        live.client(key).chat.completions.create(**HELLO)
    response = post(live, HELLO, key)
    assert (response.status_code, response.content) == (reply.status, reply.chunks[0])
    assert response.headers["content-type"] == reply.content_type
    assert {name: response.headers[name] for name in reply.headers} == reply.headers
    assert live.items(key) == []


def test_an_unreachable_upstream_is_a_502(live: LiveProxy) -> None:
    response = post(live, {**HELLO, "model": "gone"})
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_unreachable"


ODD_STREAM = [
    b": keep-alive\n\n",
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"vendor":1.0}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"reasoning_content":"hm"}},{"index":1,"delta":{"content":"two"}}]}\r\n\r\n',
    b'event: message\ndata: {"choices":[{"index":0,"delta":{"content":"o', b'ne"},"logprobs":null}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: {"choices":[],"usage":{"total_tokens":3}}\n\nda',
    b"ta: [DONE]\n\n",
]  # fmt: skip


def test_an_odd_stream_passes_byte_for_byte(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    upstream.answer = lambda _: Reply(content_type="text/event-stream", chunks=ODD_STREAM, pause_s=0.01)
    assert post(live, {**HELLO, "stream": True}, key).content == b"".join(ODD_STREAM)
    assert [item["answer"] for item in live.items(key)] == ["one"]


def test_chunks_arrive_as_they_are_sent(live: LiveProxy, upstream: RecordingUpstream) -> None:
    upstream.answer = lambda _: Reply(content_type="text/event-stream", chunks=ODD_STREAM[:4], pause_s=0.3)
    named = {"authorization": f"Bearer {live.key()}"}
    with httpx.stream(
        "POST", f"{live.url}/v1/chat/completions", json={**HELLO, "stream": True}, headers=named
    ) as response:
        chunks = response.iter_raw()
        assert next(chunks) == ODD_STREAM[0]
        assert upstream.cancelled == 0


def test_an_upstream_that_compresses_all_the_same_is_passed_on_and_understood(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    key = live.key()
    packed = gzip.compress(completion("Packed answer."))
    upstream.answer = lambda _: Reply(headers={"content-encoding": "gzip"}, chunks=[packed])
    assert post(live, HELLO, key).json()["choices"][0]["message"]["content"] == "Packed answer."
    assert [item["answer"] for item in live.items(key)] == ["Packed answer."]


def test_an_error_in_the_middle_of_a_stream_reaches_the_client(live: LiveProxy, upstream: RecordingUpstream) -> None:
    broken = [ODD_STREAM[1], b'data: {"error": {"message": "overloaded", "type": "server_error"}}\n\n']
    upstream.answer = lambda _: Reply(content_type="text/event-stream", chunks=broken)
    stream = live.client(live.key()).chat.completions.create(**HELLO, stream=True)
    with pytest.raises(openai.APIError, match="overloaded"):
        list(stream)


# --- hanging up -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_hanging_up_before_the_first_byte_cancels_the_upstream(
    live: LiveProxy, upstream: RecordingUpstream, stream: bool
) -> None:
    upstream.answer = lambda _: Reply(wait_s=20, chunks=[completion("late")])
    with pytest.raises(openai.APITimeoutError):
        live.client(live.key()).with_options(timeout=0.5).chat.completions.create(**HELLO, stream=stream)
    wait_for(lambda: upstream.cancelled == 1, "the upstream to see the hang-up", 3)


def test_hanging_up_in_the_middle_cancels_the_upstream(live: LiveProxy, upstream: RecordingUpstream) -> None:
    upstream.answer = lambda _: Reply(content_type="text/event-stream", chunks=[ODD_STREAM[1]] * 400, pause_s=0.05)
    stream = live.client(live.key()).chat.completions.create(**HELLO, stream=True)
    next(iter(stream))
    stream.close()
    wait_for(lambda: upstream.cancelled == 1, "the upstream to see the hang-up", 3)


# --- other routes ---------------------------------------------------------------------------------------------------------


def test_models_are_what_requests_would_reach(live: LiveProxy) -> None:
    client = live.client(live.key())
    assert [model.id for model in client.models.list()] == ["fake", "org/fake-2"]
    assert client.models.retrieve("org/fake-2").id == "org/fake-2"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_health_ready_and_metrics(live: LiveProxy) -> None:
    key = live.key()
    post(live, HELLO, key)
    assert live.api("", "GET", "/health") == (200, {"status": "ok"})
    assert live.api("", "GET", "/ready")[1]["database"] == "ok"
    text = httpx.get(f"{live.url}/metrics").text
    assert 'memrelay_requests_total{route="chat",status="200"} 1.0' in text
    assert 'memrelay_turns_total{outcome="stored"} 1.0' in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/v1/memory/nothing", 404), ("POST", "/health", 405)],
)
def test_unknown_routes_answer_in_the_same_shape(live: LiveProxy, method: str, path: str, status: int) -> None:
    found, body = live.api(live.key(), method, path)
    assert found == status
    assert set(body["error"]) == {"message", "type", "param", "code"}
