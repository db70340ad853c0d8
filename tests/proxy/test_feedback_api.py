"""`POST /v1/memory/feedback`, through the front door."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import RecordingUpstream
from tests.live import LiveProxy


@pytest.fixture
def live(data: Path, upstream: RecordingUpstream) -> Iterator[LiveProxy]:
    upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url}]
    with LiveProxy(data, upstreams=upstreams) as running:
        yield running


def give(live: LiveProxy, key: str, **body: Any) -> tuple[int, Any]:
    return live.api(key, "POST", "/v1/memory/feedback", body)


def add(live: LiveProxy, key: str, text: str = "My dog is called Rex.", **more: Any) -> str:
    status, body = live.api(key, "POST", "/v1/memory/items", {"text": text, **more})
    assert status == 201
    return str(body["id"])


def test_useful_raises_and_not_useful_lowers(live: LiveProxy) -> None:
    key = live.key()
    memory = add(live, key)
    status, body = give(live, key, memory=memory, useful=False, reason="beside the point")
    assert (status, body["action"], body["state"]) == (200, "lowered", "stored")
    assert body["data"][0]["confidence"] == pytest.approx(0.7)
    _, body = give(live, key, memory=memory, useful=True)
    assert body["action"] == "raised"
    assert body["data"][0]["confidence"] == pytest.approx(0.76)
    _, history = live.api(key, "GET", f"/v1/memory/items/{memory}/history")
    assert [entry["action"] for entry in history["data"]] == ["feedback", "feedback"]


def test_a_correction_holds_at_the_next_question(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    memory = add(live, key, "My dog is called Rex.", kind="identity")
    status, body = give(live, key, memory=memory, correction="My dog is called Bello.", reason="wrong")
    assert (status, body["action"]) == (200, "superseded")
    assert body["data"][0]["supersedes"] == memory
    ask = [{"role": "user", "content": "What is my dog called?"}]
    live.client(key).chat.completions.create(model="m", messages=ask)  # type: ignore[arg-type]
    assert "Bello" in upstream.last.prompt
    assert "Rex" not in upstream.last.prompt


def test_what_is_wrong_is_archived_and_not_found_again(live: LiveProxy) -> None:
    key = live.key()
    memory = add(live, key)
    assert give(live, key, memory=memory, reason="wrong")[1]["action"] == "archived"
    assert live.search(key, "What is my dog called?") == []
    assert [item["id"] for item in live.items(key, status="archived")] == [memory]


def test_feedback_on_a_request_moves_what_was_shown_for_it(live: LiveProxy) -> None:
    key = live.key()
    memory = add(live, key)
    other = add(live, key, "The moon landing was in 1969.")
    response = live.client(key).chat.completions.with_raw_response.create(
        model="m", messages=[{"role": "user", "content": "What is my dog called?"}]
    )
    assert memory in response.headers["x-memory-ids"]
    status, body = give(live, key, request=response.headers["x-request-id"], useful=False)
    assert (status, body["action"]) == (200, "lowered")
    assert memory in {item["id"] for item in body["data"]}
    assert live.api(key, "GET", f"/v1/memory/items/{other}")[1]["confidence"] == 1.0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "memory"),
        ({"memory": "a", "request": "b", "useful": True}, "memory"),
        ({"memory": "a"}, "useful"),
        ({"memory": "a", "reason": "meh"}, "useful"),
        ({"request": "a", "reason": "wrong"}, "useful"),
        ({"request": "a", "correction": "x"}, "correction"),
        ({"memory": "a", "useful": True, "correction": "x"}, "useful"),
        ({"memory": "a", "useful": "yes"}, "useful"),
        ({"memory": 7, "useful": True}, "memory"),
        ({"memory": "a", "correction": " "}, "correction"),
        ({"memory": "a", "correction": "x" * 3000}, "correction"),
        ({"memory": "a", "useful": True, "stars": 5}, "stars"),
    ],
)
def test_what_cannot_be_meant_is_refused(live: LiveProxy, body: dict[str, Any], param: str) -> None:
    status, answer = give(live, live.key(), **body)
    assert (status, answer["error"]["type"], answer["error"]["param"]) == (400, "invalid_request_error", param)


def test_other_peoples_memories_and_requests_are_not_there(live: LiveProxy) -> None:
    memory = add(live, live.key())
    stranger = live.key()
    assert give(live, stranger, memory=memory, useful=False)[0] == 404
    assert give(live, stranger, request="nothing", useful=False)[0] == 404


def test_an_archived_memory_and_a_repeated_correction_are_refused(live: LiveProxy) -> None:
    key = live.key()
    memory = add(live, key)
    assert give(live, key, memory=memory, correction="my dog is called rex")[0] == 400
    give(live, key, memory=memory, reason="wrong")
    assert give(live, key, memory=memory, useful=True)[0] == 409


def test_an_episode_cannot_be_corrected(live: LiveProxy) -> None:
    key = live.key()
    said: Any = [{"role": "user", "content": "I live in Oslo."}]
    live.client(key).chat.completions.create(model="m", messages=said)
    (episode,) = live.items(key, kind="episode")
    assert give(live, key, memory=episode["id"], correction="I live in Bergen.")[0] == 400


def test_feedback_needs_the_scope_to_write(live: LiveProxy) -> None:
    assert give(live, live.key("chat", "memory:read"), memory="a", useful=True)[0] == 403


def test_secrets_in_a_correction_are_taken_out(live: LiveProxy) -> None:
    key = live.key()
    memory = add(live, key)
    _, body = give(live, key, memory=memory, correction="My key is sk-abcdefghijklmnopqrstuvwx now.")
    assert "sk-abc" not in body["data"][0]["text"]
