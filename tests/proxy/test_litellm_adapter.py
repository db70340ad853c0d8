"""The litellm upstream against a server that speaks only Anthropic's protocol."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from proxy.errors import UpstreamTimeout, UpstreamUnreachable
from proxy.upstreams.litellm_adapter import LitellmUpstream
from proxy.upstreams.port import Call, Reply
from tests.anthropic_server import CACHED_TOKENS, INPUT_TOKENS, OUTPUT_TOKENS, AnthropicServer

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture(scope="module")
def provider() -> Iterator[AnthropicServer]:
    with AnthropicServer() as server:
        yield server


@pytest.fixture
def server(provider: AnthropicServer) -> AnthropicServer:
    provider.requests.clear()
    provider.gone.clear()
    return provider


@pytest.fixture
async def upstream(server: AnthropicServer) -> AsyncIterator[LitellmUpstream]:
    made = upstream_to(server.url)
    yield made
    await made.close()


def upstream_to(url: str, **overrides: Any) -> LitellmUpstream:
    settings = {"name": "claude", "provider": "anthropic", "api_key": "sk-test", "base_url": url, "timeout_s": 10.0}
    return LitellmUpstream(**{**settings, **overrides})


def call(text: str = "hello", *, path: str = "/chat/completions", **fields: Any) -> Call:
    body = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": text}], **fields}
    return Call("POST", path, json.dumps(body).encode(), [], stream=bool(fields.get("stream")))


async def read(reply: Reply) -> bytes:
    body = b"".join([chunk async for chunk in reply.chunks()])
    await reply.close()
    return body


async def answer(upstream: LitellmUpstream, sent: Call) -> Any:
    reply = await upstream.send(sent)
    body = await read(reply)
    assert reply.status == 200, body
    return json.loads(body)


def frames(body: bytes) -> list[Any]:
    lines = body.decode().removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") for line in lines)
    return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


def text_of(events: list[Any]) -> str:
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])


async def test_a_plain_answer_is_openai_json_with_usage(upstream: LitellmUpstream, server: AnthropicServer) -> None:
    completion = await answer(upstream, call(temperature=0.5, max_tokens=99))
    assert completion["object"] == "chat.completion"
    assert completion["model"] == "claude-sonnet-4-5"
    assert completion["choices"][0]["message"] == {"role": "assistant", "content": "You said: hello"}
    assert completion["choices"][0]["finish_reason"] == "stop"
    prompt = INPUT_TOKENS + CACHED_TOKENS
    usage = completion["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, OUTPUT_TOKENS)
    assert usage["total_tokens"] == prompt + OUTPUT_TOKENS
    assert usage["prompt_tokens_details"]["cached_tokens"] == CACHED_TOKENS
    assert server.requests[0].headers["x-api-key"] == "sk-test"
    assert (server.requests[0].body["temperature"], server.requests[0].body["max_tokens"]) == (0.5, 99)


async def test_the_provider_prefix_is_not_doubled(upstream: LitellmUpstream, server: AnthropicServer) -> None:
    await answer(upstream, call(model="anthropic/claude-sonnet-4-5"))
    assert server.requests[0].body["model"] == "claude-sonnet-4-5"


async def test_provider_headers_come_along(upstream: LitellmUpstream) -> None:
    reply = await upstream.send(call())
    assert dict(reply.headers) == {
        "content-type": "application/json",
        "request-id": "req_1",
        "anthropic-ratelimit-requests-remaining": "99",
    }


async def test_a_stream_is_server_sent_events(upstream: LitellmUpstream) -> None:
    reply = await upstream.send(call(stream=True))
    assert (reply.status, dict(reply.headers)["content-type"]) == (200, "text/event-stream")
    *events, done = frames(await read(reply))
    assert done == "[DONE]"
    assert text_of(events) == "You said: hello "
    assert [event["choices"][0]["finish_reason"] for event in events] == [None, None, None, "stop"]
    assert all(event["object"] == "chat.completion.chunk" and "usage" not in event for event in events)
    assert len({event["id"] for event in events}) == 1


async def test_usage_is_streamed_only_when_asked_for(upstream: LitellmUpstream) -> None:
    reply = await upstream.send(call(stream=True, stream_options={"include_usage": True}))
    *_, last, done = frames(await read(reply))
    assert done == "[DONE]"
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens"] == INPUT_TOKENS + CACHED_TOKENS
    assert last["usage"]["completion_tokens"] == OUTPUT_TOKENS
    assert "cost" not in last["usage"]


async def test_chunks_arrive_as_the_provider_sends_them(upstream: LitellmUpstream, server: AnthropicServer) -> None:
    sending = asyncio.create_task(upstream.send(call("/slow", stream=True)))
    server.step()
    chunks = (await asyncio.wait_for(sending, 5)).chunks()
    assert text_of(frames(await asyncio.wait_for(anext(chunks), 5))) == "You "
    following = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0.1)
    assert not following.done()
    server.step()
    assert text_of(frames(await asyncio.wait_for(following, 5))) == "said: "
    server.step()
    assert frames(b"".join([chunk async for chunk in chunks]))[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_call_makes_the_round_trip(
    upstream: LitellmUpstream, server: AnthropicServer, stream: bool
) -> None:
    reply = await upstream.send(call("/tool please", tools=[WEATHER], tool_choice="auto", stream=stream))
    body = await read(reply)
    events = [event for event in frames(body)[:-1] if event["choices"]] if stream else [json.loads(body)]
    parts = [
        part
        for event in events
        for part in event["choices"][0]["delta" if stream else "message"].get("tool_calls") or []
    ]
    assert (parts[0]["id"], parts[0]["function"]["name"]) == ("toolu_1", "weather")
    assert json.loads("".join(part["function"]["arguments"] for part in parts)) == {"city": "Paris"}
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"

    called = {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    history = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "rain"},
    ]
    completion = await answer(upstream, call(messages=history, tools=[WEATHER]))
    assert completion["choices"][0]["message"]["content"] == "You said: rain"
    _, asked, told = server.requests[-1].body["messages"]
    assert asked["content"][0] == {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}
    assert (told["role"], told["content"][0]["tool_use_id"]) == ("user", "toolu_1")


async def test_roles_and_images_are_translated(upstream: LitellmUpstream, server: AnthropicServer) -> None:
    image = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    history = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": image},
    ]
    await answer(upstream, call(messages=history))
    sent = server.requests[0].body
    assert sent["system"] == [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]
    assert sent["messages"][2]["content"][1]["source"] == {
        "type": "base64",
        "media_type": "image/png",
        "data": PIXEL.partition(",")[2],
    }


async def test_a_response_format_reaches_the_provider(upstream: LitellmUpstream, server: AnthropicServer) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    await answer(upstream, call(response_format=wanted))
    assert '"a"' in json.dumps(server.requests[0].body["output_format"])
    assert "response_format" not in server.requests[0].body


async def test_fields_litellm_does_not_know_are_passed_on(upstream: LitellmUpstream, server: AnthropicServer) -> None:
    await answer(upstream, call(top_k=5, frobnicate={"a": 1}, verbosity="low", seed=3, metadata={"user_id": "u1"}))
    sent = server.requests[0].body
    assert (sent["top_k"], sent["frobnicate"], sent["verbosity"], sent["seed"]) == (5, {"a": 1}, "low", 3)
    assert sent["metadata"] == {"user_id": "u1"}


async def test_neutral_values_and_nulls_are_left_out(upstream: LitellmUpstream, server: AnthropicServer) -> None:
    await answer(upstream, call(n=1, presence_penalty=0, frequency_penalty=0.0, store=False, top_p=None))
    assert server.requests[0].body.keys() <= {"model", "messages", "max_tokens"}


STEERING = """api_base base_url api_key mock_response fallbacks custom_llm_provider extra_headers client num_retries
aws_bedrock_runtime_endpoint vertex_credentials model_id _skip_mcp_handler region""".split()


@pytest.mark.parametrize("name", STEERING)
async def test_a_client_cannot_steer_litellm(server: AnthropicServer, name: str) -> None:
    upstream = upstream_to(server.url, extra={"region": "here"})
    reply = await upstream.send(call(**{name: "http://127.0.0.1:9"}))
    assert (reply.status, json.loads(await read(reply))["error"]["param"]) == (400, name)
    assert server.requests == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("word", "status", "kind", "message"),
    [
        ("/429", 429, "rate_limit_error", "Slow down"),
        ("/529", 529, "overloaded_error", "Overloaded"),
        ("/400", 400, "invalid_request_error", "temperature: too hot"),
    ],
)
async def test_a_refusal_keeps_status_and_words_after_one_attempt(
    upstream: LitellmUpstream, server: AnthropicServer, word: str, status: int, kind: str, message: str, stream: bool
) -> None:
    reply = await upstream.send(call(word, stream=stream))
    error = {"message": message, "type": kind, "param": None, "code": None}
    assert (reply.status, json.loads(await read(reply))) == (status, {"error": error})
    limits = {"retry-after": "7", "anthropic-ratelimit-requests-remaining": "0"} if status == 429 else {}
    assert dict(reply.headers) == {"content-type": "application/json", **limits}
    assert len(server.requests) == 1


@pytest.mark.parametrize("word", ["/drop", "/eof", "/overloaded"])
async def test_a_stream_that_breaks_ends_with_an_error_and_without_done(
    upstream: LitellmUpstream, server: AnthropicServer, word: str
) -> None:
    *events, last = frames(await read(await upstream.send(call(word, stream=True))))
    assert text_of(events) == "You said: "
    assert [event["choices"][0]["finish_reason"] for event in events] == [None, None]
    assert last["error"]["message"]
    assert len(server.requests) == 1


async def test_a_silent_provider_is_a_timeout(server: AnthropicServer) -> None:
    upstream = upstream_to(server.url, timeout_s=0.2)
    with pytest.raises(UpstreamTimeout):
        await upstream.send(call("/hang"))
    assert len(server.requests) == 1
    await upstream.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_nobody_there_is_unreachable(stream: bool) -> None:
    upstream = upstream_to("http://127.0.0.1:9")
    with pytest.raises(UpstreamUnreachable, match="ConnectionRefusedError"):
        await upstream.send(call(stream=stream))
    await upstream.close()


async def test_a_redirect_is_not_followed(upstream: LitellmUpstream, server: AnthropicServer) -> None:
    with pytest.raises(UpstreamUnreachable):
        await upstream.send(call("/redirect"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reset_connection_is_not_tried_again(stream: bool) -> None:
    attempts = 0

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        await reader.readuntil(b"\r\n\r\n")
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    listener = await asyncio.start_server(reset, "127.0.0.1", 0)
    upstream = upstream_to(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    with pytest.raises(UpstreamUnreachable):
        await upstream.send(call(stream=stream))
    assert attempts == 1
    await upstream.close()
    listener.close()


@pytest.mark.parametrize(("word", "stream"), [("/hang", False), ("/hang", True), ("/slow", True)])
async def test_cancelling_send_hangs_up(
    upstream: LitellmUpstream, server: AnthropicServer, word: str, stream: bool
) -> None:
    sending = asyncio.create_task(upstream.send(call(word, stream=stream)))
    async with asyncio.timeout(5):
        while not server.requests:  # noqa: ASYNC110  (they are counted in the server's thread)
            await asyncio.sleep(0.01)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert await asyncio.to_thread(server.gone.wait, 5)


async def test_closing_a_reply_early_hangs_up(upstream: LitellmUpstream, server: AnthropicServer) -> None:
    server.step()
    reply = await upstream.send(call("/slow", stream=True))
    chunks = reply.chunks()
    assert text_of(frames(await anext(chunks))) == "You "
    gc.disable()  # the hang-up must be ours, not the collector's
    try:
        await reply.close()
        assert await asyncio.to_thread(server.gone.wait, 5)
    finally:
        gc.enable()


async def test_nothing_else_is_offered(upstream: LitellmUpstream) -> None:
    reply = await upstream.send(call(path="/rerank"))
    assert (reply.status, json.loads(await read(reply))["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model": 1}', b'{"model": "m"}', b"\xff"])
async def test_a_body_that_is_no_request_is_a_400(upstream: LitellmUpstream, body: bytes) -> None:
    assert (await upstream.send(Call("POST", "/chat/completions", body, []))).status == 400


async def test_models_are_the_configured_names() -> None:
    upstream = upstream_to("", model_names=["claude-sonnet-4-5", "*"])
    assert await upstream.models() == [
        {"id": "claude-sonnet-4-5", "object": "model", "created": 0, "owned_by": "anthropic"}
    ]


SCRIPT = """
import asyncio, json, logging, sys
logging.basicConfig(level=logging.DEBUG)
def watch(event, args):
    if event == "socket.getaddrinfo" and args[0] not in ("127.0.0.1", None):
        print("outside:", args[0]); sys.stdout.flush()
    if event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] != "127.0.0.1":
        print("outside:", args[1]); sys.stdout.flush()
sys.addaudithook(watch)
from proxy.upstreams.litellm_adapter import LitellmUpstream
from proxy.upstreams.port import Call
assert "litellm" not in sys.modules
async def main():
    upstream = LitellmUpstream(name="c", provider="anthropic", api_key="k", base_url=sys.argv[1], timeout_s=10)
    body = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "the secret word /400"}]}
    for stream in (False, True):
        reply = await upstream.send(Call("POST", "/chat/completions", json.dumps(body | {"stream": stream}).encode(), []))
        assert reply.status == 400
    await upstream.close()
asyncio.run(main())
"""


async def test_a_fresh_import_connects_nowhere_and_logs_no_text(server: AnthropicServer) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LITELLM")}
    run = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", SCRIPT, server.url],
        capture_output=True,
        text=True,
        env=clean,
        timeout=60,
    )
    assert (run.stdout, run.returncode) == ("", 0), run.stderr
    assert "secret" not in run.stderr
    assert len(server.requests) == 2


async def test_without_litellm_the_error_says_what_to_install() -> None:
    code = """
import asyncio, sys
sys.modules["litellm"] = None
from proxy.errors import UpstreamUnreachable
from proxy.upstreams.litellm_adapter import LitellmUpstream
from proxy.upstreams.port import Call
try:
    asyncio.run(LitellmUpstream(name="c", provider="anthropic").send(Call("POST", "/chat/completions", b"{}", [])))
except UpstreamUnreachable as error:
    print(error.message)
"""
    run = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'memrelay[providers]'" in run.stdout
