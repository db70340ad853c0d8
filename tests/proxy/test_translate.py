"""Requests of other surfaces as chat completions, and streams of chat completions as theirs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.errors import BadRequest
from proxy.upstreams.litellm_surfaces import translate
from proxy.upstreams.port import Call, UpstreamBroken
from proxy.upstreams.translate import Held, Translating
from tests.fakes import completion, events

HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "text", "text": "Where?", "cache_control": {"type": "ephemeral"}}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "tool_use", "id": "t1", "name": "look", "input": {}},
        ],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "pond"}]},
]


def chat_of(path: str, body: dict[str, Any], **how: bool) -> dict[str, Any]:
    chat: dict[str, Any] = json.loads(translate(path, json.dumps({"model": "m", **body}).encode(), **how).body)
    return chat


class Scripted:
    """An upstream that answers as a test tells it."""

    def __init__(self, *replies: tuple[int, str, list[bytes]], kind: str = "openai") -> None:
        self.name, self.kind = "scripted", kind
        self.calls: list[Call] = []
        self._replies = list(replies)

    async def send(self, call: Call) -> Any:
        self.calls.append(call)
        status, kind, chunks = self._replies.pop(0)
        return Open(status, [("content-type", kind), ("retry-after", "7")], chunks)

    async def models(self) -> list[dict[str, object]]:
        return []

    async def close(self) -> None:
        return None


class Open(Held):
    """A reply in pieces."""

    def __init__(self, status: int, headers: Any, pieces: list[bytes]) -> None:
        super().__init__(status, headers, b"")
        self._pieces = pieces

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


JSON, SSE = "application/json", "text/event-stream; charset=utf-8"


async def told(upstream: Translating, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    reply = await upstream.send(Call("POST", path, json.dumps(body).encode(), []))
    return reply.status, b"".join([chunk async for chunk in reply.chunks()])


def test_only_what_the_server_knows_is_sent() -> None:
    asked = {"messages": HISTORY, "max_tokens": 9, "top_k": 5, "system": "s", "stop_sequences": ["x"]}
    chat = chat_of("/messages", asked)
    assert [message["role"] for message in chat["messages"]] == ["system", "user", "assistant", "tool"]
    assert (chat["max_tokens"], chat["top_k"], chat["stop"]) == (9, 5, ["x"])
    assert "thinking_blocks" not in str(chat)
    assert "cache_control" not in str(chat)
    assert chat["messages"][2]["tool_calls"][0]["id"] == chat["messages"][3]["tool_call_id"] == "t1"


def test_openais_own_servers_get_openais_own_words() -> None:
    chat = chat_of("/messages", {"messages": HISTORY, "max_tokens": 9, "top_k": 5}, to_openai=True)
    assert chat["max_completion_tokens"] == 9
    assert not {"max_tokens", "top_k"} & set(chat)
    assert "reasoning_content" not in str(chat)


def test_a_provider_behind_litellm_gets_its_signed_thoughts_back() -> None:
    chat = chat_of("/messages", {"messages": HISTORY, "max_tokens": 9}, to_litellm=True)
    assert chat["messages"][1]["thinking_blocks"][0]["signature"] == "s"


def test_a_responses_request_as_a_chat() -> None:
    items = [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "See:"}, {"type": "input_image", "image_url": "data:,"}],
        },
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "pond"},
    ]
    given = {
        "instructions": "Be brief.",
        "reasoning": {"effort": "low", "summary": "auto"},
        "max_output_tokens": 7,
        "stream": True,
    }
    chat = chat_of("/responses", {"input": items, **given, "text": {"format": {"type": "json_object"}}})
    assert [message["role"] for message in chat["messages"]] == ["system", "user", "assistant", "tool"]
    assert [part["type"] for part in chat["messages"][1]["content"]] == ["text", "image_url"]
    assert "index" not in chat["messages"][2]["tool_calls"][0]
    assert (chat["max_tokens"], chat["reasoning_effort"], chat["stream"]) == (7, "low", True)
    assert chat["response_format"]["type"] == "json_object"
    assert not {"reasoning_summary", "custom_llm_provider"} & set(chat)


@pytest.mark.parametrize("body", [{"messages": []}, {"messages": 7}, {}, {"messages": [7]}])
def test_what_is_no_request_is_refused_without_repeating_it(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as raised:
        chat_of("/messages", {**body, "max_tokens": 9})
    assert "7" not in raised.value.message


@pytest.mark.parametrize("cut", range(1, 60, 7))
@pytest.mark.parametrize("path", ["/responses", "/messages"])
async def test_a_stream_may_be_cut_anywhere(path: str, cut: int) -> None:
    whole = b"".join(events("我的猫叫小花 and more"))
    pieces = [whole[at : at + cut] for at in range(0, len(whole), cut)]
    native = Scripted((200, SSE, pieces))
    body = {
        "model": "m",
        "max_tokens": 9,
        "stream": True,
        "input": "hi",
        "messages": [{"role": "user", "content": "hi"}],
    }
    status, out = await told(Translating(native, native, frozenset({"chat"})), path, body)
    said = [json.loads(line[6:]) for line in out.split(b"\n") if line.startswith(b"data: ")]
    deltas = [
        event["delta"] if path == "/responses" else event["delta"].get("text", "") for event in said if "delta" in event
    ]
    assert (status, "".join(deltas).strip()) == (200, "我的猫叫小花 and more")
    assert said[-1]["type"] in ("response.completed", "message_stop")


@pytest.mark.parametrize("path", ["/responses", "/messages"])
async def test_a_stream_without_its_end_is_broken(path: str) -> None:
    native = Scripted((200, SSE, events("half an")[:3]))
    body = {
        "model": "m",
        "max_tokens": 9,
        "stream": True,
        "input": "hi",
        "messages": [{"role": "user", "content": "hi"}],
    }
    with pytest.raises(UpstreamBroken):
        await told(Translating(native, native, frozenset({"chat"})), path, body)


async def test_a_missing_route_is_tried_again_after_a_while() -> None:
    missing = (404, "text/plain", [b"404 page not found"])
    native = Scripted(missing, (200, JSON, [completion("a")]), (200, JSON, [completion("b")]), (200, JSON, [b"{}"]))
    now = [0.0]
    upstream = Translating(native, native, None, clock=lambda: now[0])
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    for _ in range(2):
        assert (await told(upstream, "/messages", body))[0] == 200
    now[0] = 601
    assert await told(upstream, "/messages", body) == (200, b"{}")
    asked = [call.path for call in native.calls]
    assert asked == ["/messages", "/chat/completions", "/chat/completions", "/messages"]


@pytest.mark.parametrize(
    "refusal",
    [
        b'{"error": {"message": "The model `m` does not exist"}}',
        b'{"error": {"message": "Previous_response resp_1 not found"}}',
    ],
)
async def test_what_is_named_and_missing_is_no_missing_route(refusal: bytes) -> None:
    native = Scripted((404, JSON, [refusal]))
    assert await told(Translating(native, native, None), "/responses", {"model": "m", "input": "hi"}) == (404, refusal)
