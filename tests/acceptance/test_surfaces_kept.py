"""Responses whose history the upstream keeps: the request brings only what is new, and is still one conversation."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.fakes import Received, RecordingUpstream, Reply, response, response_events
from tests.live import LiveProxy

TOOLS = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}]
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "c1",
    "name": "look",
    "arguments": "{}",
    "status": "completed",
}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "by the pond"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, upstream: RecordingUpstream
) -> Iterator[LiveProxy]:
    folder = tmp_path_factory.mktemp("kept")
    (folder / "models").symlink_to(models_dir)
    with LiveProxy(folder, upstreams=[{"name": "recording", "kind": "openai", "base_url": upstream.url}]) as running:
        yield running


@pytest.fixture(autouse=True)
def quiet(upstream: RecordingUpstream) -> None:
    upstream.answer = lambda _: "Noted."


def create(live: LiveProxy, key: str, given: Any, *, stream: bool = False, **more: Any) -> str:
    """One request; returns the response's id."""
    with live.client(key) as client:
        said = client.responses.create(model="m", input=given, stream=stream, **more)
        if not stream:
            return said.id
        return [event.response.id for event in said if event.type == "response.completed"].pop()


def calls(stream: bool) -> Reply:
    if stream:
        return Reply(content_type="text/event-stream", chunks=response_events("", output=[CALL]))
    return Reply(chunks=[json.dumps(response("", output=[CALL])).encode()])


def sessions(live: LiveProxy, key: str) -> set[str]:
    return {source["session"] for item in live.items(key, kind="episode") for source in item["sources"]}


@pytest.mark.parametrize("named", ["\ud800", "resp\ud800_1", "\x00"])
@pytest.mark.parametrize("field", ["previous_response_id", "conversation"])
def test_an_id_that_nothing_can_keep_is_one_that_nobody_knows(live: LiveProxy, field: str, named: str) -> None:
    key = live.key()
    live.api(key, "POST", "/v1/memory/items", {"text": "My otter is called Ludo."})
    body = json.dumps({"model": "m", "input": "How is my otter called?", field: named})
    with_key = {"authorization": f"Bearer {key}"}
    answer = httpx.post(f"{live.url}/v1/responses", content=body, headers=with_key)
    assert (answer.status_code, answer.headers["x-memory-state"]) == (200, "hit")


@pytest.mark.parametrize("stream", [False, True])
def test_a_chain_of_responses_is_one_session(live: LiveProxy, upstream: RecordingUpstream, stream: bool) -> None:
    key = live.key()
    live.api(key, "POST", "/v1/memory/items", {"kind": "preference", "text": "Prefers short answers."})
    first = create(live, key, "My otter is called Ludo.", stream=stream)
    begun = upstream.last.body["instructions"]
    live.api(key, "POST", "/v1/memory/items", {"kind": "preference", "text": "Dislikes liquorice."})
    second = create(live, key, "And my crane is called Pip.", previous_response_id=first, stream=stream)
    assert upstream.last.body["instructions"] == begun
    create(live, key, "What is my crane called?", previous_response_id=second, stream=stream)
    assert len(live.items(key, kind="episode")) == 3
    assert len(sessions(live, key)) == 1
    create(live, key, "My newt is called Fig.", stream=stream)
    assert len(sessions(live, key)) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_round_that_brings_only_its_result_is_the_same_turn(
    live: LiveProxy, upstream: RecordingUpstream, stream: bool
) -> None:
    key = live.key()
    live.api(key, "POST", "/v1/memory/items", {"kind": "preference", "text": "Prefers short answers."})
    create(live, key, "My otter is called Ludo.")
    upstream.answer = lambda _: calls(stream)
    first = create(live, key, "Where is my otter Ludo now?", tools=TOOLS, stream=stream)
    assert "memrelay:recall" in upstream.last.body["input"]
    second = create(live, key, [RESULT], previous_response_id=first, tools=TOOLS, stream=stream)
    assert len(live.items(key, kind="episode")) == 1
    upstream.answer = lambda _: "By the pond."
    create(live, key, [RESULT], previous_response_id=second, tools=TOOLS, stream=stream)
    assert upstream.last.body["input"] == [RESULT]
    assert "short answers" in upstream.last.body["instructions"]
    turns = {item["text"]: item["answer"].strip() for item in live.items(key, kind="episode")}
    assert turns == {"My otter is called Ludo.": "Noted.", "Where is my otter Ludo now?": "By the pond."}


def test_a_conversation_that_the_upstream_keeps_is_one_session(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    for text in ("My otter is called Ludo.", "Yes.", "Yes."):
        create(live, key, text, conversation="conv_0123456789abcdef", store=False)
    upstream.answer = lambda _: calls(False)
    create(live, key, "Where is my otter?", conversation={"id": "conv_0123456789abcdef"}, tools=TOOLS)
    upstream.answer = lambda _: "By the pond."
    create(live, key, [RESULT], conversation="conv_0123456789abcdef", tools=TOOLS)
    said = [item["text"] for item in live.items(key, kind="episode")]
    assert sorted(said) == ["My otter is called Ludo.", "Where is my otter?", "Yes.", "Yes."]
    assert len(sessions(live, key)) == 1


def test_nobody_goes_on_from_anothers_response(live: LiveProxy, upstream: RecordingUpstream) -> None:
    mine, theirs = live.key(), live.key()
    first = create(live, mine, "My otter is called Ludo.")
    before = len(upstream.requests)
    with pytest.raises(openai.NotFoundError):
        create(live, theirs, "What is it called?", previous_response_id=first)
    assert len(upstream.requests) == before
    create(live, mine, "What is it called?", previous_response_id=first)


def test_no_spelling_of_an_id_leads_to_anothers_response(live: LiveProxy, upstream: RecordingUpstream) -> None:
    first = live.client(live.key()).responses.create(model="m", input="Hello").id
    named = {"authorization": f"Bearer {live.key()}"}
    asked = f'{{"model":"m","input":"Hi","previous_response_id":"{first}"}}'
    before = len(upstream.requests)
    for body in (
        asked.replace("resp_", "resp\\u005f"),
        asked.replace('"resp_', '"\\u0072esp_'),
        asked.encode("utf-16"),
    ):
        answer = httpx.post(f"{live.url}/v1/responses", content=body, headers=named, timeout=30)
        assert answer.status_code == 404
    assert len(upstream.requests) == before


def test_asking_again_from_the_same_answer_is_the_same_turn(live: LiveProxy) -> None:
    key = live.key()
    first = create(live, key, "My otter is called Ludo.")
    for _ in range(2):
        create(live, key, "Tell me a story about it.", previous_response_id=first)
    assert len(live.items(key, kind="episode")) == 2


def test_what_nobody_here_has_heard_may_stand_before(live: LiveProxy) -> None:
    key = live.key()
    second = create(live, key, "My otter is called Ludo.", previous_response_id="resp_from_before_memrelay")
    create(live, key, "It is two years old.", previous_response_id=second)
    assert len(live.items(key, kind="episode")) == 2
    assert len(sessions(live, key)) == 1


def test_an_erased_memory_is_in_no_link(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    upstream.answer = lambda _: calls(False)
    first = create(live, key, "Where is my zqotter now?", tools=TOOLS)
    live.api(key, "DELETE", "/v1/memory")
    upstream.answer = lambda _: "By the pond."
    create(live, key, [RESULT], previous_response_id=first, tools=TOOLS)
    assert live.items(key) == []


def test_a_stored_prompt_keeps_its_own_instructions(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    live.api(key, "POST", "/v1/memory/items", {"kind": "preference", "text": "Prefers short answers."})
    create(live, key, "Hello", prompt={"id": "pmpt_0123456789"})
    assert "instructions" not in upstream.last.body
    told, asked = upstream.last.body["input"]
    assert (told["role"], asked["role"]) == ("developer", "user")
    assert "short answers" in told["content"]
    assert asked["content"].endswith("Hello")


def test_a_stored_prompt_may_name_the_model(live: LiveProxy, upstream: RecordingUpstream) -> None:
    raw = b'{"prompt": {"id": "pmpt_0123456789"}, "input": "Hello"}'
    named = {"authorization": f"Bearer {live.key()}", "x-memory": "off"}
    assert httpx.post(f"{live.url}/v1/responses", content=raw, headers=named).status_code == 200
    assert upstream.last.raw == raw


def test_an_answer_made_in_the_background_is_remembered_when_it_is_had(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    key, other = live.key(), live.key()
    made = response("By the pond.")
    states = iter(["queued", "in_progress", "completed", "completed"])

    def answer(_: Received) -> Reply:
        state = next(states)
        return Reply(
            chunks=[json.dumps(made if state == "completed" else {**made, "status": state, "output": []}).encode()]
        )

    upstream.answer = answer
    assert create(live, key, "Where is my otter Ludo?", background=True) == made["id"]
    with live.client(key) as client:
        assert client.responses.retrieve(made["id"]).status == "in_progress"
        assert live.items(key) == []
        assert client.responses.retrieve(made["id"]).output_text == "By the pond."
        client.responses.retrieve(made["id"])
    assert [(item["text"], item["answer"]) for item in live.items(key)] == [("Where is my otter Ludo?", "By the pond.")]
    assert live.items(other) == []


def test_the_question_of_a_tool_round_is_erased_with_its_memory(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    upstream.answer = lambda _: calls(False)
    first = create(live, key, "My locker opens with heron4711.", tools=TOOLS)
    upstream.answer = lambda _: "Noted."
    create(live, key, [RESULT], previous_response_id=first, tools=TOOLS)
    (episode,) = live.items(key, kind="episode")
    assert live.api(key, "DELETE", f"/v1/memory/items/{episode['id']}")[0] == 200
    database = sqlite3.connect(live.config.folder / "memrelay.sqlite")
    assert "heron4711" not in "".join(text for (text,) in database.execute("SELECT asked FROM links"))
    database.close()
