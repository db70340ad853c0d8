"""The same memory over every surface: chat completions, responses and Anthropic's messages, with the SDKs people use."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
import zstandard

from tests.fakes import RecordingUpstream, Reply, message, message_events, response, response_events
from tests.live import LiveProxy, wait_for

TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
MARK = b"<memrelay:"


@pytest.fixture(scope="module")
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, upstream: RecordingUpstream
) -> Iterator[LiveProxy]:
    folder = tmp_path_factory.mktemp("surfaces")
    (folder / "models").symlink_to(models_dir)
    with LiveProxy(folder, upstreams=[{"name": "recording", "kind": "openai", "base_url": upstream.url}]) as running:
        yield running


@pytest.fixture(autouse=True)
def quiet(upstream: RecordingUpstream) -> None:
    upstream.requests.clear()
    upstream.answer = lambda _: "Noted."


def over_chat(live: LiveProxy, key: str, text: str, stream: bool = False, **headers: str) -> str:
    with live.client(key, **headers) as client:
        said = client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}], stream=stream)
        if not stream:
            return said.choices[0].message.content or ""
        return "".join(chunk.choices[0].delta.content or "" for chunk in said)


def over_responses(live: LiveProxy, key: str, text: str, stream: bool = False, **headers: str) -> str:
    with live.client(key, **headers) as client:
        said = client.responses.create(model="m", input=text, stream=stream)
        if not stream:
            return said.output_text
        return "".join(event.delta for event in said if event.type == "response.output_text.delta")


def over_messages(live: LiveProxy, key: str, text: str, stream: bool = False, **headers: str) -> str:
    with live.anthropic(key, **headers) as client:
        asked = [{"role": "user", "content": text}]
        said = client.messages.create(model="m", max_tokens=9, messages=asked, stream=stream)
        if not stream:
            return said.content[0].text
        return "".join(event.delta.text for event in said if event.type == "content_block_delta")


SURFACES: dict[str, Callable[..., str]] = {"chat": over_chat, "responses": over_responses, "messages": over_messages}
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}


def post(live: LiveProxy, key: str, path: str, raw: bytes, **headers: str) -> httpx.Response:
    named = {"authorization": f"Bearer {key}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{live.url}{path}", content=raw, headers=named, timeout=30)


@pytest.mark.parametrize("asked", SURFACES)
@pytest.mark.parametrize("said", SURFACES)
def test_what_was_said_over_one_surface_is_known_over_every_other(
    live: LiveProxy, upstream: RecordingUpstream, said: str, asked: str
) -> None:
    key, other = live.key(), live.key()
    assert SURFACES[said](live, key, "My heron is called Stilts.").strip() == "Noted."
    SURFACES[asked](live, key, "What is my heron called?", stream=True)
    assert upstream.last.path == PATHS[asked]
    assert "Stilts" in upstream.last.prompt
    turns = sorted((item["text"], item["answer"]) for item in live.items(key))
    assert turns == [("My heron is called Stilts.", "Noted."), ("What is my heron called?", "Noted.")]
    SURFACES[asked](live, other, "What is my heron called?", stream=True)
    assert "Stilts" not in upstream.last.prompt


# streams as no server writes them; `|` is where they are cut, `~` a carriage return
ODD = {
    "responses": b""": keep-alive

|event: response.created
data: {"type":"response.created","response":{"id":"resp_odd","status":"in_progress"},"x":1.0}

|data: {"type":"response.output_text.delta","delta":"o","obfuscation":"zz"}~
~
|event: response.output_text.delta
data: {"type":"response.output_text.delta","del|ta":"ne"}

|event: vendor.thing
data: {"type":"vendor.thing","n":1e2}

|event: response.completed
data: {"type":"response.completed","response":{"id":"resp_odd","status":"comp|leted","output":[{"type":"message",
data: "role":"assistant","content":[{"type":"output_text","text":"one"}]}]}}
|
""",
    "messages": b"""\xef\xbb\xbf: hello

|event: message_start
data: {"type":"message_start","message":{"id":"m","model":"x","usage":{"input_tokens":1.0}}}

|event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}

|event: content_block_delta~
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"o"}}~
~
|data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta",|"text":"ne"}}

event: ping
data: {"type": "ping"}

|event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}

event: mess|age_stop
data: {"type":"message_stop"|}

""",
}


def cut(surface: str) -> list[bytes]:
    return ODD[surface].replace(b"~\n", b"\r\n").split(b"|")


@pytest.mark.parametrize("surface", ODD)
def test_an_odd_stream_passes_byte_for_byte_and_is_understood(
    live: LiveProxy, upstream: RecordingUpstream, surface: str
) -> None:
    key = live.key()
    upstream.answer = lambda _: Reply(content_type="text/event-stream", chunks=cut(surface), pause_s=0.01)
    body = {
        "model": "m",
        "stream": True,
        "input": "Hello there",
        "messages": [{"role": "user", "content": "Hello there"}],
    }
    assert post(live, key, PATHS[surface], json.dumps(body).encode()).content == b"".join(cut(surface))
    assert [item["answer"] for item in live.items(key)] == ["one"]


@pytest.mark.parametrize("surface", ["responses", "messages"])
def test_the_turn_is_there_when_the_end_is(live: LiveProxy, upstream: RecordingUpstream, surface: str) -> None:
    key = live.key()
    end = b"}\n\n" if surface == "messages" else b"leted"
    upstream.answer = lambda _: Reply(content_type="text/event-stream", chunks=cut(surface), pause_s=0.02)
    body = {
        "model": "m",
        "stream": True,
        "input": "Hello there",
        "messages": [{"role": "user", "content": "Hello there"}],
    }
    seen = b""
    with httpx.stream(
        "POST", f"{live.url}{PATHS[surface]}", json=body, headers={"authorization": f"Bearer {key}"}
    ) as answer:
        for chunk in answer.iter_raw():
            seen += chunk
            if b'status":"completed' in seen or seen.endswith(b'"message_stop"}\n\n'):
                assert len(live.items(key)) == 1
    assert end in seen


RAW: dict[str, bytes] = {
    "responses": b'{ "model":"m",\n"input":[{"type":"message","role":"user","content":[{"type":"input_text",'
    b'"text":"What is my \\u0068eron called?"},{"type":"input_image","image_url":"data:image/png;base64,AAAA"}],"vendor":1.00}],'
    b'"instructions":"Be brief.","temperature":1.0,"metadata":{"input":"no"},"n\\u0065w":[1e-7]}',
    "messages": b'{"messages" :[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png",'
    b'"data":"AAAA"}},{"type":"text","text":"What is my heron called?","cache_control":{"type":"ephemeral"}}]}],'
    b'"max_tokens":9,"model":"m","system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral","ttl":"1h"}}],'
    b'"thinking":{"type":"enabled"},"x":1.0}',
}  # fmt: skip


@pytest.mark.parametrize("surface", RAW)
def test_with_memory_off_the_very_bytes_go_out(live: LiveProxy, upstream: RecordingUpstream, surface: str) -> None:
    key = live.key()
    over_chat(live, key, "My heron is called Stilts.")
    assert post(live, key, PATHS[surface], RAW[surface], x_memory="off").headers["x-memory-state"] == "off"
    assert upstream.last.raw == RAW[surface]


@pytest.mark.parametrize("surface", RAW)
def test_with_memory_on_only_the_blocks_are_added(live: LiveProxy, upstream: RecordingUpstream, surface: str) -> None:
    key = live.key()
    over_chat(live, key, "My name is Ingrid. My heron is called Stilts.")
    live.api(key, "POST", "/v1/memory/items", {"kind": "preference", "text": "Prefers short answers."})
    assert post(live, key, PATHS[surface], RAW[surface]).headers["x-memory-state"] == "hit"
    sent = upstream.last.raw
    assert b"Stilts" in sent
    rest = iter(sent)
    assert all(byte in rest for byte in RAW[surface])
    added = upstream.last.body
    if surface == "responses":
        assert added["instructions"].startswith("Be brief.\n\n<memrelay:stable")
        assert [part["type"] for part in added["input"][0]["content"]] == ["input_text", "input_text", "input_image"]
        assert "memrelay:recall" in added["input"][0]["content"][0]["text"]
    else:
        assert added["system"][0] == {
            "type": "text",
            "text": "Be brief.",
            "cache_control": {"type": "ephemeral", "ttl": "1h"},
        }
        assert "memrelay:stable" in added["system"][1]["text"]
        kinds = [(part["type"], "cache_control" in part) for part in added["messages"][0]["content"]]
        assert kinds == [("image", False), ("text", False), ("text", True)]


def test_a_packed_request_is_read_on_every_surface(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    for surface in ("responses", "messages"):
        raw = json.dumps({"model": "m", "input": "Hello", "messages": [{"role": "user", "content": "Hello"}]}).encode()
        packed = zstandard.compress(raw)  # as Codex sends its requests
        assert post(live, key, PATHS[surface], packed, content_encoding="zstd", x_memory="off").status_code == 200
        assert upstream.last.raw == raw


def test_a_leading_developer_item_takes_the_standing_memory(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    live.api(key, "POST", "/v1/memory/items", {"kind": "preference", "text": "Prefers short answers."})
    told = {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]}
    with live.client(key) as client:
        client.responses.create(model="m", input=[told, {"role": "user", "content": "Hello"}])
    sent = upstream.last.body
    assert "instructions" not in sent
    assert [part["type"] for part in sent["input"][0]["content"]] == ["input_text", "input_text"]
    assert "short answers" in sent["input"][0]["content"][1]["text"]


def test_hanging_up_keeps_what_came(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    upstream.cancelled = 0
    chunks = [*message_events("la " * 400)]
    upstream.answer = lambda _: Reply(content_type="text/event-stream", chunks=chunks, pause_s=0.05)
    with live.anthropic(key) as client:
        asked: Any = [{"role": "user", "content": "Sing to me."}]
        with client.messages.create(model="m", max_tokens=9, messages=asked, stream=True) as stream:
            for event in stream:
                if event.type == "content_block_delta":
                    break
    wait_for(lambda: upstream.cancelled == 1, "the upstream to see the hang-up", 3)
    wait_for(lambda: bool(live.items(key)), "what came to be written", 3)
    assert live.items(key)[0]["answer"].startswith("la")


@pytest.mark.parametrize("given", [None, "", "Be brief."])
def test_standing_memory_finds_a_place_whatever_was_told(
    live: LiveProxy, upstream: RecordingUpstream, given: str | None
) -> None:
    key = live.key()
    live.api(key, "POST", "/v1/memory/items", {"kind": "preference", "text": "Prefers short answers."})
    for surface, field in (("responses", "instructions"), ("messages", "system")):
        body = {"model": "m", field: given, "input": "Hello?", "messages": [{"role": "user", "content": "Hello?"}]}
        assert post(live, key, PATHS[surface], json.dumps(body).encode()).status_code == 200
        told = upstream.last.body[field]
        assert told.startswith(given or "<memrelay")
        assert "short answers" in told


def test_tool_rounds_of_a_message_keep_the_block_and_are_one_turn(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    over_messages(live, key, "My heron is called Stilts.")
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    asked: list[Any] = [{"role": "user", "content": "Where is my heron Stilts now?"}]
    words = [{"type": "text", "text": "Let me look."}, call]
    upstream.answer = lambda _: Reply(chunks=[json.dumps(message("", content=words, stop="tool_use")).encode()])
    client = live.anthropic(key)
    client.messages.create(model="m", max_tokens=9, tools=[TOOL], messages=asked)
    first = upstream.last.body["messages"][0]
    assert "memrelay:recall" in first["content"]
    assert len(live.items(key)) == 1
    upstream.answer = lambda _: "By the pond."
    asked += [{"role": "assistant", "content": words}]
    asked += [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "pond"}]}]
    client.messages.create(model="m", max_tokens=9, tools=[TOOL], messages=asked)
    assert upstream.last.body["messages"] == [first, *asked[1:]]
    turns = [(item["text"], item["answer"]) for item in live.items(key, kind="episode")]
    assert ("Where is my heron Stilts now?", "By the pond.") in turns
    assert len(turns) == 2


@pytest.mark.parametrize("surface", ["responses", "messages"])
def test_each_prompt_begins_with_the_one_before_it(live: LiveProxy, upstream: RecordingUpstream, surface: str) -> None:
    key = live.key()
    over_chat(live, key, "My heron is called Stilts and eats eels.")
    live.api(key, "POST", "/v1/memory/items", {"kind": "preference", "text": "Prefers short answers."})
    field, kind = ("input", "input_text") if surface == "responses" else ("messages", "text")
    history: list[Any] = []
    sent: list[list[Any]] = []
    for text in ("What is my heron called?", "And what does it eat?", "Is that good for a heron?"):
        history.append({"role": "user", "content": [{"type": kind, "text": text}]})
        body = {"model": "m", "max_tokens": 9, field: history, "store": False}
        assert post(live, key, PATHS[surface], json.dumps(body).encode()).headers["x-memory-state"] == "hit"
        told = upstream.last.body
        sent.append([told.get("instructions"), told.get("system"), *told[field]])
        history.append({"role": "assistant", "content": "Noted."})
        live.api(key, "POST", "/v1/memory/items", {"kind": "preference", "text": f"Likes {text}"})
    assert sent[1][: len(sent[0])] == sent[0]
    assert sent[2][: len(sent[1])] == sent[1]
    assert sum("memrelay:recall" in str(message) for message in sent[2]) >= 2


def test_words_beside_a_tools_result_keep_it_first(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    over_messages(live, key, "My heron is called Stilts.")
    result = {"type": "tool_result", "tool_use_id": "t", "content": "x"}
    asked = [{"role": "user", "content": [result, {"type": "text", "text": "What is my heron called?"}]}]
    live.anthropic(key).messages.create(model="m", max_tokens=9, messages=asked)
    assert [part["type"] for part in upstream.last.body["messages"][0]["content"]] == ["tool_result", "text", "text"]


def test_tool_rounds_of_a_response_keep_the_block_and_are_one_turn(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    key = live.key()
    over_responses(live, key, "My heron is called Stilts.")
    items = response("Let me look.")["output"]
    items.append(
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "c1",
            "name": "look",
            "arguments": "{}",
            "status": "completed",
        }
    )
    upstream.answer = lambda _: Reply(chunks=[json.dumps(response("", output=items)).encode()])
    client = live.client(key)
    tools = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}]
    asked: list[Any] = [{"role": "user", "content": "Where is my heron Stilts now?"}]
    client.responses.create(model="m", input=asked, tools=tools, store=False)
    first = upstream.last.body["input"][0]
    assert "memrelay:recall" in first["content"]
    upstream.answer = lambda _: "By the pond."
    asked += [*items, {"type": "function_call_output", "call_id": "c1", "output": "pond"}]
    client.responses.create(model="m", input=asked, tools=tools, store=False)
    assert upstream.last.body["input"] == [first, *asked[1:]]
    turns = [(item["text"], item["answer"]) for item in live.items(key, kind="episode")]
    assert ("Where is my heron Stilts now?", "By the pond.") in turns
    assert len(turns) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_errors_of_ours_have_anthropics_shape_on_its_surface(live: LiveProxy, stream: bool) -> None:
    client = live.anthropic("sk-mem-" + "A" * 38)
    with pytest.raises(anthropic.AuthenticationError) as raised:
        client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}], stream=stream)
    told = raised.value.response.json()
    assert set(told) == {"type", "error", "request_id"}
    assert (told["type"], told["error"]["type"]) == ("error", "authentication_error")


def test_the_sdks_headers_travel_on_and_our_key_does_not(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    with live.anthropic(key, anthropic_beta="context-1m-2025-08-07", anthropic_version="2023-06-01") as client:
        client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
    assert upstream.last.headers["anthropic-version"] == "2023-06-01"
    assert upstream.last.headers["anthropic-beta"] == "context-1m-2025-08-07"
    assert key not in str(upstream.last.headers)


def test_an_upstreams_error_in_the_middle_of_a_stream_reaches_the_client(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    key = live.key()
    error = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    upstream.answer = lambda _: Reply(content_type="text/event-stream", chunks=[message_events("a b")[0], error])
    with pytest.raises(anthropic.APIError, match="Overloaded"):
        over_messages(live, key, "Hello", stream=True)
    failed = response("", status="failed", output=[], error={"code": "server_error", "message": "sorry"})
    end = {"type": "response.failed", "sequence_number": 9, "response": failed}
    chunks = [response_events("a")[0], b"event: response.failed\ndata: " + json.dumps(end).encode() + b"\n\n"]
    upstream.answer = lambda _: Reply(content_type="text/event-stream", chunks=chunks)
    assert over_responses(live, key, "Hello", stream=True) == ""
    assert live.items(key) == []


@pytest.mark.parametrize(
    ("surface", "body"),
    [
        ("responses", {"input": "Your task is to create a detailed summary of the conversation so far, paying close attention "
                                "to the user's explicit requests and your previous actions."}),
        ("responses", {"input": "my parrot is Kiwi", "text": {"format": {"type": "json_schema", "name": "topic_title"}}}),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Please write a 5-10 word title the "
                                                                 "following conversation:\n\nUser: my parrot is Kiwi"}]}]}),
        ("messages", {"system": [{"type": "text", "text": "Summarize this coding conversation in under 50 characters."}],
                      "messages": [{"role": "user", "content": "my parrot is Kiwi"}]}),
    ],
)  # fmt: skip
def test_background_calls_pass_untouched_and_leave_nothing(
    live: LiveProxy, upstream: RecordingUpstream, surface: str, body: dict[str, Any]
) -> None:
    key = live.key()
    over_chat(live, key, "My parrot is called Kiwi.")
    raw = json.dumps({"model": "m", **body}).encode()
    assert post(live, key, PATHS[surface], raw).headers["x-memory-state"] == "off"
    assert upstream.last.raw == raw
    assert len(live.items(key, kind="episode")) == 1


def test_what_agents_put_around_a_question_is_not_remembered(live: LiveProxy) -> None:
    key = live.key()
    reminder = "<system-reminder>\nThe zqfile was changed.\n</system-reminder>"
    parts = [{"type": "text", "text": reminder}, {"type": "text", "text": "My kestrel is called Ansel."}]
    live.anthropic(key).messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": parts}])
    read = "# AGENTS.md instructions for /home/zq\n\n<INSTRUCTIONS>\nzqrules\n</INSTRUCTIONS>"
    around = "<environment_context>\n  <cwd>/home/zq</cwd>\n</environment_context>"
    items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]} for text in
             (read, around, "My lathe is blue.")]  # fmt: skip
    live.client(key).responses.create(model="m", input=items, store=False)
    texts = [item["text"] for item in live.items(key, kind="episode")]
    assert sorted(texts) == ["My kestrel is called Ansel.", "My lathe is blue."]


@pytest.mark.parametrize(
    ("surface", "raw", "status"),
    [
        ("responses", b'{"model": "m", "input": 7}', 400),
        ("responses", b'{"model": 7, "input": "hi"}', 400),
        ("responses", b"[1", 400),
        ("messages", b'{"model": "m", "messages": "hi"}', 400),
        ("messages", b"", 400),
    ],
)
def test_bad_input_gets_a_clear_error(
    live: LiveProxy, upstream: RecordingUpstream, surface: str, raw: bytes, status: int
) -> None:
    answer = post(live, live.key(), PATHS[surface], raw)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert upstream.requests == []


@pytest.mark.parametrize("surface", ["responses", "messages"])
def test_metrics_tell_the_surfaces_apart(live: LiveProxy, surface: str) -> None:
    SURFACES[surface](live, live.key(), "Hello")
    assert f'memrelay_requests_total{{route="{surface}",status="200"}}' in httpx.get(f"{live.url}/metrics").text


def test_a_client_sees_the_sdks_own_errors(live: LiveProxy, upstream: RecordingUpstream) -> None:
    upstream.answer = lambda _: Reply(429, headers={"retry-after": "7"}, chunks=[b'{"error":{"message":"slow"}}'])
    with pytest.raises(openai.RateLimitError):
        over_responses(live, live.key(), "Hello")
    with pytest.raises(anthropic.RateLimitError):
        over_messages(live, live.key(), "Hello")


def test_the_readmes_lines_for_other_clients_work(live: LiveProxy, upstream: RecordingUpstream) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text.partition("## Surfaces")[2], re.DOTALL)
    assert len(blocks) == 2
    key, names = live.key(), {}
    for block in blocks:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(block.replace("http://127.0.0.1:8000", live.url).replace("sk-mem-…", key), names)
        names["client"].close()
        assert said.getvalue() == "Noted.\n"
        assert "4711" in upstream.last.prompt
