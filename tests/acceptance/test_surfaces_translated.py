"""Surfaces that an upstream does not speak: asked over responses or messages, it is asked for a chat completion; and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.anthropic_server import AnthropicServer
from tests.fakes import Received, RecordingUpstream, Reply, completion, events
from tests.live import LiveProxy

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"type": "function", "name": "look", "parameters": PARAMETERS, "strict": False}]
ANTHROPICS = [{"name": "look", "description": "Looks.", "input_schema": PARAMETERS}]
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def claude() -> Iterator[AnthropicServer]:
    with AnthropicServer() as running:
        yield running


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, upstream: RecordingUpstream, claude: AnthropicServer
) -> Iterator[LiveProxy]:
    folder = tmp_path_factory.mktemp("translated")
    (folder / "models").symlink_to(models_dir)
    upstreams = [
        {
            "name": "claude",
            "kind": "anthropic",
            "base_url": claude.url,
            "api_key": "sk-ant-test",
            "models": ["claude-*"],
        },
        {"name": "found out", "kind": "openai", "base_url": upstream.url, "models": ["auto"]},
        {"name": "fresh", "kind": "openai", "base_url": upstream.url, "models": ["fresh"]},
        {"name": "chats", "kind": "openai", "base_url": upstream.url, "models": ["*"], "speaks": ["chat"]},
    ]
    with LiveProxy(folder, upstreams=upstreams) as running:
        yield running


@pytest.fixture(autouse=True)
def quiet(upstream: RecordingUpstream, claude: AnthropicServer) -> None:
    upstream.requests.clear()
    upstream.answer = lambda _: "Noted indeed."
    claude.requests.clear()


def chat_with_tools(received: Received) -> Reply:
    """Calls the tool when it was not called yet."""
    if any(message["role"] == "tool" for message in received.messages):
        return Reply(chunks=[completion("By the pond.")])
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"city": "Paris"}'}}
    choice = {
        "index": 0,
        "finish_reason": "tool_calls",
        "message": {"role": "assistant", "content": None, "tool_calls": [call]},
    }
    return Reply(
        chunks=[
            json.dumps(
                {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
            ).encode()
        ]
    )


def responses(live: LiveProxy, key: str, text: str, *, stream: bool, model: str = "m") -> str:
    with live.client(key) as client:
        if not stream:
            return client.responses.create(model=model, input=text).output_text
        with client.responses.stream(model=model, input=text) as told:
            return told.get_final_response().output_text


def messages(live: LiveProxy, key: str, text: str, *, stream: bool, model: str = "m") -> str:
    asked: Any = [{"role": "user", "content": text}]
    with live.anthropic(key) as client:
        if not stream:
            return client.messages.create(model=model, max_tokens=50, messages=asked).content[0].text
        with client.messages.stream(model=model, max_tokens=50, messages=asked) as told:
            return told.get_final_text()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("say", "ask"), [(responses, messages), (messages, responses)])
def test_memory_goes_through_translation(
    live: LiveProxy, upstream: RecordingUpstream, say: Any, ask: Any, stream: bool
) -> None:
    key, other = live.key(), live.key()
    assert say(live, key, "My bittern is called Reed.", stream=stream).strip() == "Noted indeed."
    ask(live, key, "What is my bittern called?", stream=stream)
    assert upstream.last.path == CHAT
    assert "Reed" in upstream.last.prompt
    ask(live, other, "What is my bittern called?", stream=stream)
    assert "Reed" not in upstream.last.prompt
    assert [item["answer"].strip() for item in live.items(key)] == ["Noted indeed."] * 2


def test_tools_of_responses_are_called_and_answered(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    upstream.answer = chat_with_tools
    with live.client(key) as client:
        first = client.responses.create(model="m", input="Where is my bittern?", tools=TOOLS, instructions="Be brief.")
        (call,) = first.output
        assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "look", {"city": "Paris"})
        given: Any = [{"role": "user", "content": "Where is my bittern?"}, call.model_dump(exclude_none=True)]
        given.append({"type": "function_call_output", "call_id": call.call_id, "output": "pond"})
        assert client.responses.create(model="m", input=given, tools=TOOLS).output_text == "By the pond."
    roles = [(message["role"], message.get("tool_call_id")) for message in upstream.last.messages]
    assert roles == [("user", None), ("assistant", None), ("tool", "call_1")]
    assert upstream.requests[0].messages[0] == {"role": "system", "content": "Be brief."}
    assert [(item["text"], item["answer"]) for item in live.items(key)] == [("Where is my bittern?", "By the pond.")]


def test_tools_of_messages_are_called_and_answered(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    upstream.answer = chat_with_tools
    asked: Any = [{"role": "user", "content": "Where is my bittern?"}]
    with live.anthropic(key) as client:
        first = client.messages.create(model="m", max_tokens=50, messages=asked, tools=ANTHROPICS, system="Be brief.")
        (call,) = first.content
        assert (first.stop_reason, call.type, call.name, call.input) == (
            "tool_use",
            "tool_use",
            "look",
            {"city": "Paris"},
        )
        asked += [{"role": "assistant", "content": [call.model_dump(exclude_none=True)]}]
        asked += [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "pond"}]}]
        assert (
            client.messages.create(model="m", max_tokens=50, messages=asked, tools=ANTHROPICS).content[0].text
            == "By the pond."
        )
    assert [message["role"] for message in upstream.last.messages] == ["user", "assistant", "tool"]
    assert [(item["text"], item["answer"]) for item in live.items(key)] == [("Where is my bittern?", "By the pond.")]


def test_what_a_client_sees_of_a_translated_response(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    live.api(key, "POST", "/v1/memory/items", {"kind": "preference", "text": "Prefers short answers."})
    with live.client(key) as client:
        told = client.responses.create(
            model="m", input="Hello", instructions="Be kind.", max_output_tokens=7, temperature=0.5
        )
        assert (told.status, told.instructions, told.object) == ("completed", "Be kind.", "response")
        assert told.id.startswith("resp_")
        assert told.usage.total_tokens == 2
        kinds = [event.type for event in client.responses.create(model="m", input="Hello", stream=True)]
    assert "short answers" in upstream.requests[0].prompt
    assert (upstream.requests[0].body["max_tokens"], upstream.requests[0].body["temperature"]) == (7, 0.5)
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert kinds.count("response.output_text.delta") == 2
    assert kinds.index("response.output_item.added") < kinds.index("response.output_text.delta")


def test_events_are_told_as_they_come(live: LiveProxy, upstream: RecordingUpstream) -> None:
    upstream.answer = lambda _: Reply(content_type="text/event-stream", chunks=events("one two three"), pause_s=0.3)
    body = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "count"}]}
    with httpx.stream(
        "POST", f"{live.url}/v1/messages", json=body, headers={"x-api-key": live.key()}, timeout=20
    ) as answer:
        seen = b""
        for piece in answer.iter_raw():
            seen += piece
            if b"one" in seen:
                break
        assert b"three" not in seen


@pytest.mark.parametrize(
    "given",
    [{"previous_response_id": "resp_0123456789"}, {"conversation": "conv_0123456789"}, {"prompt": {"id": "pmpt_0"}}],
)
def test_what_cannot_be_translated_is_said(live: LiveProxy, given: dict[str, Any]) -> None:
    with live.client(live.key()) as client, pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="m", input="Hello", **given)
    assert raised.value.param == next(iter(given))


def test_an_upstreams_refusal_has_the_surfaces_shape(live: LiveProxy, upstream: RecordingUpstream) -> None:
    told = b'{"error": {"message": "too many", "type": "rate_limit_error", "param": null, "code": "x"}}'
    upstream.answer = lambda _: Reply(429, headers={"retry-after": "7"}, chunks=[told])
    with pytest.raises(openai.RateLimitError, match="too many"):
        responses(live, live.key(), "Hello", stream=False)
    with pytest.raises(anthropic.RateLimitError, match="too many") as raised:
        messages(live, live.key(), "Hello", stream=True)
    assert raised.value.response.headers["retry-after"] == "7"
    assert raised.value.response.json()["error"] == {"type": "rate_limit_error", "message": "too many"}


@pytest.mark.parametrize("end", [b"", b'data: {"error": {"message": "overloaded"}}\n\n'])
def test_a_stream_that_breaks_off_is_no_whole_answer(live: LiveProxy, upstream: RecordingUpstream, end: bytes) -> None:
    key = live.key()
    upstream.answer = lambda _: Reply(content_type="text/event-stream", chunks=[*events("half an")[:3], end])
    with pytest.raises(anthropic.APIError):
        messages(live, key, "Tell me all", stream=True)
    with pytest.raises((openai.APIError, RuntimeError)):
        responses(live, key, "Tell me all", stream=True)


def test_an_answer_that_is_none_is_a_502(live: LiveProxy, upstream: RecordingUpstream) -> None:
    upstream.answer = lambda _: Reply(chunks=[b"[]"])
    with pytest.raises(openai.InternalServerError) as raised:
        responses(live, live.key(), "Hello", stream=False)
    assert (raised.value.status_code, raised.value.code) == (502, "upstream_broken")


@pytest.mark.parametrize("ask", [responses, messages])
def test_an_upstream_without_the_route_is_found_out_once(
    live: LiveProxy, upstream: RecordingUpstream, ask: Any
) -> None:
    key = live.key()

    def answer(received: Received) -> Any:
        return "Noted indeed." if received.path == CHAT else Reply(404, chunks=[b'{"detail":"Not Found"}'])

    upstream.answer = answer
    for _ in range(2):
        assert ask(live, key, "Hello", stream=False, model="auto").strip() == "Noted indeed."
    asked = [received.path for received in upstream.requests]
    assert asked[1:] == [CHAT, CHAT]
    assert asked[0] != CHAT


def test_a_model_that_is_not_there_is_not_taken_for_a_missing_route(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    told = b'{"error": {"message": "The model does not exist", "code": "model_not_found"}}'
    upstream.answer = lambda _: Reply(404, chunks=[told])
    named = {"x-api-key": live.key()}
    answer = httpx.post(f"{live.url}/v1/responses", json={"model": "fresh", "input": "Hello"}, headers=named)
    assert (answer.status_code, answer.content) == (404, told)
    assert [received.path for received in upstream.requests] == ["/v1/responses"]


# --- an upstream of Anthropic's kind ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_is_asked_in_its_own_words(live: LiveProxy, claude: AnthropicServer, stream: bool) -> None:
    key = live.key()
    messages(live, key, "My bittern is called Reed.", stream=stream, model="claude-x")
    messages(live, key, "What is my bittern called?", stream=stream, model="claude-x")
    sent = claude.requests[-1]
    assert "Reed" in json.dumps(sent.body)
    assert (sent.headers["x-api-key"], "authorization" in sent.headers) == ("sk-ant-test", False)
    assert "anthropic-version" in sent.headers
    assert len(live.items(key)) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_is_asked_over_every_other_surface(live: LiveProxy, claude: AnthropicServer, stream: bool) -> None:
    key = live.key()
    assert "bittern" in responses(live, key, "My bittern is called Reed.", stream=stream, model="claude-sonnet-4-5")
    with live.client(key) as client:
        asked: Any = [{"role": "user", "content": "What is my bittern called?"}]
        told = client.chat.completions.create(model="claude-sonnet-4-5", messages=asked, max_tokens=50, stream=stream)
        said = (
            "".join(c.choices[0].delta.content or "" for c in told if c.choices)
            if stream
            else told.choices[0].message.content
        )
    assert "bittern" in said
    assert "Reed" in json.dumps(claude.requests[-1].body)
    assert [set(request.body) >= {"model", "messages", "max_tokens"} for request in claude.requests] == [True, True]
