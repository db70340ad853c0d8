"""Whose saved KV states a local model's engine may go by, and what of it the client is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import Received, RecordingUpstream, Reply, completion
from tests.live import LiveProxy


def restores(_: Received) -> Reply:
    """An engine that says that it has restored 57 tokens."""
    return Reply(headers={"x-memory-kv": "restored:57", "x-memory-kv-source": "disk"}, chunks=[completion("Noted.")])


@pytest.fixture
def live(data: Path, upstream: RecordingUpstream) -> Iterator[LiveProxy]:
    upstream.answer = restores
    other = {"name": "other", "kind": "openai", "base_url": upstream.url, "models": ["gpt-*"]}
    local = {"name": "local", "kind": "llama"}
    with LiveProxy(data, engine_port=upstream.port, upstreams=[other, local]) as running:
        yield running


def ask(live: LiveProxy, key: str, model: str = "local", **headers: str) -> Any:
    client = live.client(key, **headers)
    said: Any = [{"role": "user", "content": "My boat is called Wren."}]
    return client.chat.completions.with_raw_response.create(model=model, messages=said).headers


def given(upstream: RecordingUpstream) -> tuple[str | None, str | None]:
    return upstream.last.headers.get("x-memory-cube"), upstream.last.headers.get("x-memory-session")


def test_a_local_engine_is_told_cube_and_session_and_the_client_what_was_restored(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    key = live.key()
    told = ask(live, key, X_Memory_Session="one")
    cube, session = given(upstream)
    assert cube == live.items(key)[0]["cube"]
    assert session
    assert session == live.items(key)[0]["sources"][0]["session"]
    assert told["x-memory-kv"] == "restored:57"
    assert told["x-memory-kv-source"] == "disk"


def test_two_users_are_two_cubes(live: LiveProxy, upstream: RecordingUpstream) -> None:
    ask(live, live.key())
    mine = given(upstream)
    ask(live, live.key())
    assert mine[0] != given(upstream)[0]


def test_a_chat_that_may_not_be_written_down_is_not_saved_as_a_state_either(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    ask(live, live.key(), X_Memory="read")
    cube, session = given(upstream)
    assert cube
    assert session is None


@pytest.mark.parametrize("headers", [{"X_Memory": "off"}, {"X_Memory": "write"}, {"X_Memory_Task": "title"}])
def test_without_memory_no_state_is_gone_by(live: LiveProxy, upstream: RecordingUpstream, headers: Any) -> None:
    ask(live, live.key(), **headers)
    assert given(upstream) == (None, None)


def test_a_client_cannot_name_a_cube_to_the_engine(live: LiveProxy, upstream: RecordingUpstream) -> None:
    mine, theirs = live.key(), live.key()
    ask(live, theirs)
    foreign = given(upstream)[0]
    assert foreign
    before = len(upstream.requests)
    body = {"model": "local", "messages": [{"role": "user", "content": "Hello?"}]}
    assert live.api(mine, "POST", "/v1/chat/completions", body, cube=foreign)[0] == 404
    assert len(upstream.requests) == before


def test_another_kind_is_told_nothing_and_not_believed(live: LiveProxy, upstream: RecordingUpstream) -> None:
    told = ask(live, live.key(), model="gpt-4")
    assert given(upstream) == (None, None)
    assert "x-memory-kv" not in told


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/kv"),
        ("GET", "/v1/kv/states?model=local"),
        ("POST", "/v1/kv/states"),
        ("DELETE", "/v1/kv/cubes/theirs?model=local"),
        ("GET", "/v1/k%76/states?model=local"),
        ("GET", "/v1/kv%2Fstates?model=local"),
        ("GET", "/v1//kv/states?model=local"),
        ("GET", "/v1/KV/states?model=local"),
        ("GET", "/v1/kv%252fstates?model=local"),
        ("GET", "/v1/later/states?model=local"),
        ("GET", "/v1/embeddings/kv?model=local"),
    ],
)
def test_no_client_reaches_what_the_engine_has_for_us(
    live: LiveProxy, upstream: RecordingUpstream, method: str, path: str
) -> None:
    body = {"model": "local", "cube": "theirs", "messages": []} if method == "POST" else None
    assert live.api(live.key("chat"), method, path, body)[0] == 404
    assert upstream.requests == []


def test_what_the_engine_has_for_clients_is_passed_on(live: LiveProxy, upstream: RecordingUpstream) -> None:
    assert live.api(live.key("chat"), "POST", "/v1/embeddings", {"model": "local", "input": "x"})[0] == 200
    assert upstream.last.path == "/v1/embeddings"
