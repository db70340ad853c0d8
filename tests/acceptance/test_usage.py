"""Usage, limits and a client's own upstream key, through the front door."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from proxy import db
from proxy.keys import Keys, digest
from tests.fakes import Received, RecordingUpstream, Reply, completion, events, message, response, response_events
from tests.live import LiveProxy, wait_for

ASKED: Any = [{"role": "user", "content": "Hello"}]
CHAT = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 60}}
RESPONSE = {"input_tokens": 100, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 60}}
MESSAGE = {"input_tokens": 30, "output_tokens": 5, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 10}


def start(data: Path, upstream: RecordingUpstream, **config: Any) -> LiveProxy:
    entry = {"name": "first", "kind": "openai", "base_url": upstream.url, "api_key": "operators"}
    entry["prices"] = {"m*": {"input": 1000.0, "cached": 100.0, "output": 0.0}}
    return LiveProxy(data, upstreams=[entry], **config)


@pytest.fixture
def live(data: Path, upstream: RecordingUpstream) -> Iterator[LiveProxy]:
    with start(data, upstream) as running:
        yield running


def counted(received: Received) -> Reply:
    """An answer with usage, on whichever surface."""
    stream = received.body.get("stream") is True
    if received.path == "/v1/responses":
        whole = [json.dumps(response("Noted.", usage=RESPONSE)).encode()]
        chunks = response_events("Noted.", usage=RESPONSE) if stream else whole
    elif received.path == "/v1/messages":
        chunks = [json.dumps({**message("Noted."), "usage": MESSAGE}).encode()]
    elif received.path == "/v1/embeddings":
        chunks = [json.dumps({"data": [], "usage": {"prompt_tokens": 100}}).encode()]
    else:
        told = b"data: " + json.dumps({"id": "c1", "choices": [], "usage": CHAT}).encode() + b"\n\n"
        *said, done = events("Noted.")
        chunks = [*said, told, done]
        if not stream:
            chunks = [json.dumps({**json.loads(completion("Noted.")), "usage": CHAT}).encode()]
    return Reply(content_type="text/event-stream" if stream else "application/json", chunks=chunks)


def used(live: LiveProxy, key: str) -> dict[str, Any]:
    status, body = live.api(key, "GET", "/v1/usage")
    assert status == 200
    total: dict[str, Any] = body["total"]
    return total


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_cached_tokens_are_read_back_on_every_surface(
    live: LiveProxy, upstream: RecordingUpstream, path: str, stream: bool
) -> None:
    if stream and path == "/v1/messages":
        pytest.skip("its events carry their usage in two places: see test_usage_of_a_streamed_message")
    upstream.answer, key = counted, live.key()
    body = {"model": "m", "messages": ASKED, "input": "Hello", "max_tokens": 9, "stream": stream}
    named = {"authorization": f"Bearer {key}"}
    reply = httpx.post(f"{live.url}{path}", json=body, headers=named, timeout=30)
    assert reply.content == b"".join(counted(upstream.last).chunks) or path == "/v1/responses"
    total = used(live, key)
    assert (total["requests"], total["prompt"], total["cached"], total["completion"]) == (1, 100, 60, 5)
    assert total["cost"] == pytest.approx((40 * 1000 + 60 * 100) / 1e6)


def test_usage_of_a_streamed_message(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    with live.anthropic(key).messages.stream(model="m", max_tokens=9, messages=ASKED) as stream:
        stream.until_done()
    total = used(live, key)
    assert (total["unknown"], total["completion"]) == (0, 5)


def test_a_stream_that_was_not_asked_for_usage_stays_as_it_is_and_counts_as_unknown(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    key = live.key()
    list(live.client(key).chat.completions.create(model="m", messages=ASKED, stream=True))
    assert "stream_options" not in upstream.last.body
    assert (used(live, key)["requests"], used(live, key)["unknown"], used(live, key)["prompt"]) == (1, 1, 0)


def test_what_is_passed_through_counts_and_a_failed_call_does_not(live: LiveProxy, upstream: RecordingUpstream) -> None:
    upstream.answer, key = counted, live.key()
    live.api(key, "POST", "/v1/embeddings", {"model": "m", "input": "x"})
    upstream.answer = lambda received: Reply(status=400, chunks=[b"{}"])
    live.api(key, "POST", "/v1/chat/completions", {"model": "m", "messages": ASKED})
    assert (used(live, key)["requests"], used(live, key)["prompt"]) == (1, 100)


# --- answers made in the background -----------------------------------------------------------------------------------------


class Making:
    """An upstream's answers to a request that runs in the background: `status` and usage as they are by then."""

    def __init__(self) -> None:
        self.made = response("By the pond.", usage=RESPONSE)
        self.status = "queued"

    def __call__(self, received: Received) -> Reply:
        if "stream=true" in received.target:
            events = [{"type": "response.completed", "response": self.made}]
            return Reply(
                content_type="text/event-stream", chunks=[f"data: {json.dumps(e)}\n\n".encode() for e in events]
            )
        running = {"status": self.status, "output": [], "usage": None}
        over = self.status in ("completed", "incomplete")
        return Reply(chunks=[json.dumps({**self.made, **({"status": self.status} if over else running)}).encode()])


async def principal_of(live: LiveProxy, key: str) -> str:
    database = db.open_database(live.config)
    try:
        found = await Keys(database).find(digest(key))
    finally:
        await database.close()
    assert found is not None
    return found.principal


def begin(live: LiveProxy, key: str) -> str:
    """A response that is made in the background; returns its id."""
    begun = live.client(key).responses.create(model="m", input="Where is my otter?", background=True)
    settled(live)
    return begun.id


def settled(live: LiveProxy) -> None:
    wait_for(lambda: not live.parts.background.tasks, "what is written behind requests")


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_made_in_the_background_counts_once_when_it_is_had(
    live: LiveProxy, upstream: RecordingUpstream, streamed: bool
) -> None:
    upstream.answer = making = Making()
    made = live.key()
    fetched = live.key(principal=asyncio.run(principal_of(live, made)))
    name = begin(live, made)
    live.client(fetched).responses.retrieve(name)
    settled(live)
    total = used(live, made)
    assert (total["requests"], total["unknown"], total["prompt"]) == (1, 1, 0)
    making.status = "completed"
    for _ in range(3):
        if streamed:
            list(live.client(fetched).responses.retrieve(name, stream=True))
        else:
            live.client(fetched).responses.retrieve(name)
        settled(live)
    total = used(live, made)
    assert (total["requests"], total["unknown"], total["prompt"], total["cached"]) == (1, 0, 100, 60)
    assert total["cost"] == pytest.approx((40 * 1000 + 60 * 100) / 1e6)
    _, body = live.api(made, "GET", "/v1/usage")
    assert len(body["data"]) == 1, "of the key that asked, not of the one that fetched"
    assert 'memrelay_tokens_total{kind="prompt",upstream="first"} 100.0' in httpx.get(f"{live.url}/metrics").text


@pytest.mark.parametrize("before", [0, 1])
def test_an_answer_made_in_the_background_counts_once_over_a_restart(
    data: Path, upstream: RecordingUpstream, before: int
) -> None:
    upstream.answer = making = Making()
    with start(data, upstream) as live:
        key = live.key()
        name = begin(live, key)
        making.status = "incomplete"
        for _ in range(before):
            live.client(key).responses.retrieve(name)
    with start(data, upstream) as live:
        live.client(key).responses.retrieve(name)
        settled(live)
        total = used(live, key)
    assert (total["requests"], total["unknown"], total["prompt"], total["completion"]) == (1, 0, 100, 5)


def test_what_is_had_again_is_not_counted_again(data: Path, upstream: RecordingUpstream) -> None:
    upstream.answer = counted
    with start(data, upstream, quota={"tokens_per_minute": 150}) as live:
        key = live.key()
        made = live.client(key).responses.create(model="m", input="Hello")
        upstream.answer = lambda _: Reply(
            chunks=[json.dumps({**response("Noted.", usage=RESPONSE), "id": made.id}).encode()]
        )
        for _ in range(3):
            live.client(key).responses.retrieve(made.id)
            live.client(key).chat.completions.list(model="m")
        assert (used(live, key)["requests"], used(live, key)["prompt"]) == (1, 100)


def test_a_models_name_that_nothing_can_store_costs_neither_turn_nor_usage(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    upstream.answer, key = (lambda _: Reply(chunks=[completion("Noted.")])), live.key()
    body = b'{"model": "m\\ud800\\u0000", "messages": [{"role": "user", "content": "My dog is called Rex."}]}'
    named = {"authorization": f"Bearer {key}"}
    assert httpx.post(f"{live.url}/v1/chat/completions", content=body, headers=named, timeout=30).status_code == 200
    assert [item["text"] for item in live.items(key, kind="episode")] == ["My dog is called Rex."]
    live.client(key).chat.completions.create(model="m", messages=ASKED)
    assert used(live, key)["requests"] == 2


def test_a_key_sees_its_own_usage_and_an_admin_all(live: LiveProxy) -> None:
    one, two, admin = live.key(), live.key(), live.key("admin")
    for key in (one, two):
        live.client(key).chat.completions.create(model="m", messages=ASKED)
    assert [used(live, key)["requests"] for key in (one, two, admin)] == [1, 1, 2]
    _, body = live.api(admin, "GET", "/v1/usage")
    other = body["data"][0]["key"], body["data"][1]["key"]
    assert sum(live.api(one, "GET", f"/v1/usage?key={name}")[1]["total"]["requests"] for name in other) == 1
    assert live.api(one, "GET", "/v1/usage?since=yesterday")[0] == 400


def test_a_limit_is_refused_in_each_surfaces_own_shape(data: Path, upstream: RecordingUpstream) -> None:
    with start(data, upstream, quota={"requests_per_minute": 1}) as live:
        key = live.key()
        reply = live.client(key).chat.completions.with_raw_response.create(model="m", messages=ASKED)
        assert reply.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as refused:
            live.client(key).chat.completions.create(model="m", messages=ASKED)
        assert refused.value.code == "rate_limit_exceeded"
        assert 50 <= int(refused.value.response.headers["retry-after"]) <= 60
        assert refused.value.response.headers["x-ratelimit-limit-requests"] == "1"
        with pytest.raises(anthropic.RateLimitError) as too_many:
            live.anthropic(key).messages.create(model="m", max_tokens=9, messages=ASKED)
        assert too_many.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]
        with pytest.raises(openai.RateLimitError):
            live.client(key).embeddings.create(model="m", input="x")
        counted = httpx.get(f"{live.url}/metrics", timeout=30).text
    assert 'memrelay_refused_total{code="rate_limit_exceeded"} 3.0' in counted
    assert len(upstream.requests) == 1


def test_a_refused_request_frees_its_place(data: Path, upstream: RecordingUpstream) -> None:
    with start(data, upstream, quota={"concurrent": 1}) as live:
        client = live.client(live.key())
        upstream.answer = lambda received: Reply(status=400, chunks=[b"{}"])
        for _ in range(2):
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(model="m", messages=ASKED)
        upstream.answer = lambda received: "Noted."
        client.chat.completions.create(model="m", messages=ASKED)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/embeddings"])
def test_a_list_of_models_holds_everywhere(data: Path, upstream: RecordingUpstream, path: str) -> None:
    with start(data, upstream) as live:
        key = live.key(models=["m-1"])
        body = {"messages": ASKED, "input": "x", "max_tokens": 9}
        assert live.api(key, "POST", path, {**body, "model": "m-1"})[0] == 200
        assert live.api(key, "POST", path, {**body, "model": "m-2"})[0] == 404
    assert len(upstream.requests) == 1


def test_a_clients_own_upstream_key_takes_the_place_of_the_configured_one(
    live: LiveProxy, upstream: RecordingUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    own = {"X_Upstream_Authorization": "Bearer clients-own"}
    key = live.key("chat", "upstream_key")
    live.client(key, **own).chat.completions.create(model="m", messages=ASKED)
    assert upstream.last.headers["authorization"] == "Bearer clients-own"
    assert "x-upstream-authorization" not in upstream.last.headers
    live.client(key, **own).post("/moderations", body={"model": "m", "input": "x"}, cast_to=object)
    assert upstream.last.headers["authorization"] == "Bearer clients-own"
    live.client(key).chat.completions.create(model="m", messages=ASKED)
    assert upstream.last.headers["authorization"] == "Bearer operators"
    assert "clients-own" not in caplog.text


@pytest.mark.parametrize("told", ["Bearer clients-own", "bearer clients-own", "BEARER  clients-own", "clients-own"])
def test_a_clients_own_key_is_told_as_the_upstream_wants_it(data: Path, upstream: RecordingUpstream, told: str) -> None:
    entry = {"name": "claude", "kind": "anthropic", "base_url": upstream.url, "api_key": "operators"}
    body = {"model": "m", "max_tokens": 9, "messages": ASKED}
    with LiveProxy(data, upstreams=[entry]) as live:
        key = live.key("chat", "upstream_key")
        named = {"authorization": f"Bearer {key}", "x-upstream-authorization": told}
        assert httpx.post(f"{live.url}/v1/messages", json=body, headers=named, timeout=30).status_code == 200
    assert upstream.last.headers["x-api-key"] == "clients-own"
    assert "authorization" not in upstream.last.headers


def test_without_the_scope_an_own_upstream_key_is_refused(live: LiveProxy, upstream: RecordingUpstream) -> None:
    client = live.client(live.key("chat"), X_Upstream_Authorization="Bearer clients-own")
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model="m", messages=ASKED)
    assert upstream.requests == []
