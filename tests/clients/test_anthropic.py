"""Anthropic's client on /v1/messages: streams, tools, thinking, cached prompts, counted tokens; same answers, same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic, AnthropicError

from tests.clients import acting
from tests.clients.compare import differences, with_blocks
from tests.fakes import Received, RecordingUpstream, Reply
from tests.live import LiveProxy

WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather at a place.",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    "cache_control": {"type": "ephemeral"},
}
MARKED: Any = [{"type": "text", "text": "You are terse. " * 50, "cache_control": {"type": "ephemeral"}}]
PICTURE: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


def upstreams_answer(received: Received) -> Reply:
    if received.path.endswith("/count_tokens"):
        return Reply(chunks=[b'{"input_tokens": 7}'])
    if received.path.endswith("/batches"):
        return Reply(404, chunks=[b'{"type": "error", "error": {"type": "not_found_error", "message": "no batches"}}'])
    return acting.answer(received)


@pytest.fixture
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream(upstreams_answer) as running:
        yield running


@pytest.fixture
def live(data: Path, upstream: RecordingUpstream) -> Iterator[LiveProxy]:
    upstreams = [{"name": "recording", "kind": "anthropic", "base_url": upstream.url.removesuffix("/v1")}]
    with LiveProxy(data, upstreams=upstreams) as running:
        yield running


def everything(client: Anthropic) -> list[Any]:
    """Each feature once; what the client made of the answers."""
    told: list[Any] = []

    def ask(*content: Any, **more: Any) -> Any:
        asked = {"model": "claude", "max_tokens": 99, "messages": [{"role": "user", "content": list(content)}], **more}
        message = client.messages.create(**asked)
        told.append(message.model_dump())
        return message

    text: Any = {"type": "text", "text": "Tell me about kites."}
    ask(text)
    ask(
        text,
        system="Be brief.",
        extra_body={"temperature": 0.50, "top_k": 3},
        stop_sequences=["kites"],
        metadata={"user_id": "u1"},
    )
    ask(PICTURE, {**text, "cache_control": {"type": "ephemeral"}}, system=MARKED)
    ask(text, thinking={"type": "enabled", "budget_tokens": 1024})
    asked = ask({"type": "text", "text": "What is the weather in 'Oslo'?"}, tools=[WEATHER])
    result: Any = {
        "type": "tool_result",
        "tool_use_id": asked.content[0].id,
        "content": [{"type": "text", "text": "Rain"}],
    }
    rounds: Any = [
        {"role": "user", "content": "What is the weather in 'Oslo'?"},
        {"role": "assistant", "content": asked.content},
        {"role": "user", "content": [result]},
    ]
    told.append(client.messages.create(model="claude", max_tokens=9, tools=[WEATHER], messages=rounds).model_dump())
    for more in (
        {},
        {"tools": [WEATHER], "tool_choice": {"type": "any"}},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    ):
        with client.messages.stream(
            model="claude", max_tokens=99, messages=[{"role": "user", "content": [text]}], **more
        ) as stream:  # type: ignore[arg-type]
            told.append([event.type for event in stream])
            told.append(stream.get_final_message().model_dump())
    told.append(
        client.messages.count_tokens(
            model="claude", system=MARKED, messages=[{"role": "user", "content": "Hi"}]
        ).input_tokens
    )
    with pytest.raises(AnthropicError) as refused:
        client.messages.batches.create(requests=[])
    told.append(str(refused.value))
    return told


@pytest.fixture
def direct(upstream: RecordingUpstream) -> tuple[list[Any], list[Received]]:
    with Anthropic(base_url=upstream.url.removesuffix("/v1"), api_key="sk-direct", max_retries=0, timeout=60) as client:
        told = everything(client)
    received, upstream.requests[:] = list(upstream.requests), []
    return told, received


def test_without_memory_nothing_is_different(
    direct: tuple[list[Any], list[Received]], live: LiveProxy, upstream: RecordingUpstream
) -> None:
    told, received = direct
    with live.anthropic(live.key(), x_memory="off") as client:
        assert everything(client) == told
    assert differences(received, upstream.requests) == []


def test_with_memory_nothing_is_different_but_the_block(
    direct: tuple[list[Any], list[Received]], live: LiveProxy, upstream: RecordingUpstream
) -> None:
    told, received = direct
    key = live.key()
    assert live.api(key, "POST", "/v1/memory/items", {"kind": "preference", "text": "I prefer metric units."})[0] < 300
    with live.anthropic(key) as client:
        assert everything(client) == told
    assert differences(received, upstream.requests, blocks=True) == []
    assert with_blocks(upstream.requests) == 9
