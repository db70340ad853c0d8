"""Responses that the upstream cannot keep: chained, had again, deleted and made in the background, with OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from memory.sql import Database
from proxy import db, kept
from proxy.hooks import Exchange
from tests.acceptance.test_surfaces_translated import TOOLS, chat_with_tools
from tests.anthropic_server import AnthropicServer
from tests.fakes import Received, RecordingUpstream, Reply, completion
from tests.live import LiveProxy, wait_for

UNKNOWN = "previous_response_not_found"


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
    folder = tmp_path_factory.mktemp("kept-here")
    (folder / "models").symlink_to(models_dir)
    with LiveProxy(folder, upstreams=upstreams(upstream, claude.url)) as running:
        yield running


@pytest.fixture(autouse=True)
def quiet(upstream: RecordingUpstream) -> None:
    upstream.requests.clear()
    upstream.answer = lambda _: "Noted."


def upstreams(upstream: RecordingUpstream, claude: str = "http://127.0.0.1:9") -> list[dict[str, Any]]:
    return [
        {"name": "claude", "kind": "anthropic", "base_url": claude, "api_key": "sk-ant-test", "models": ["claude-*"]},
        {"name": "native", "kind": "openai", "base_url": upstream.url, "models": ["native"]},
        {"name": "chats", "kind": "openai", "base_url": upstream.url, "models": ["*"], "speaks": ["chat"]},
    ]


def create(live: LiveProxy, key: str, given: Any, *, stream: bool = False, headers: Any = None, **more: Any) -> Any:
    """One request; returns the response."""
    with live.client(key, **(headers or {})) as client:
        said = client.responses.create(**{"model": "m", "input": given, "stream": stream, **more})
        if not stream:
            return said
        return [event.response for event in said if event.type == "response.completed"].pop()


def said(upstream: RecordingUpstream) -> list[tuple[str, str]]:
    """What the upstream was last sent, without what memory has added."""
    out = []
    for message in upstream.last.messages:
        content = message.get("content")
        text = content if isinstance(content, str) else "".join(part["text"] for part in content or ())
        out.append((message["role"], text.rpartition("</memrelay:recall>")[2].strip()))
    return [(role, text) for role, text in out if role != "system"]


def stored(live: LiveProxy) -> bytes:
    """All that the table holds."""
    database = sqlite3.connect(live.config.folder / "memrelay.sqlite")
    try:
        return b"".join(a + b for a, b in database.execute("SELECT input, response FROM responses"))
    finally:
        database.close()


def sessions(live: LiveProxy, key: str) -> set[str]:
    return {source["session"] for item in live.items(key, kind="episode") for source in item["sources"]}


def refused(live: LiveProxy, key: str, previous: str) -> str:
    with pytest.raises(openai.BadRequestError) as raised:
        create(live, key, "And now?", previous_response_id=previous)
    assert raised.value.param == "previous_response_id"
    return str(raised.value.code)


@pytest.mark.parametrize("stream", [False, True])
def test_a_chain_of_three_brings_all_that_was_said(live: LiveProxy, upstream: RecordingUpstream, stream: bool) -> None:
    key = live.key()
    first = create(live, key, "My otter is called Ludo.", stream=stream, instructions="Be brief.")
    assert (first.store, first.previous_response_id) == (True, None)
    second = create(live, key, "And my crane is called Pip.", previous_response_id=first.id, stream=stream)
    assert second.previous_response_id == first.id
    create(live, key, "What is my crane called?", previous_response_id=second.id, stream=stream)
    assert said(upstream) == [
        ("user", "My otter is called Ludo."),
        ("assistant", "Noted."),
        ("user", "And my crane is called Pip."),
        ("assistant", "Noted."),
        ("user", "What is my crane called?"),
    ]
    assert "Be brief." not in upstream.last.prompt
    turns = sorted(item["text"] for item in live.items(key, kind="episode"))
    assert turns == ["And my crane is called Pip.", "My otter is called Ludo.", "What is my crane called?"]
    assert len(sessions(live, key)) == 1


def test_memory_is_found_for_the_new_question_and_what_stood_before_stays(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    key = live.key()
    live.api(key, "POST", "/v1/memory/items", {"text": "My otter is called Ludo."})
    first = create(live, key, "How is my otter called?")
    asked = upstream.last.messages[-1]["content"]
    assert "memrelay:recall" in json.dumps(asked)
    live.api(key, "POST", "/v1/memory/items", {"text": "My otter Ludo eats perch."})
    create(live, key, "What does my otter Ludo eat?", previous_response_id=first.id)
    begun, _, now = upstream.last.messages
    assert begun["content"] == asked  # to the byte, so that prompt caches hold
    assert "perch" in json.dumps(now)
    assert b"memrelay:" not in stored(live)


@pytest.mark.parametrize("stream", [False, True])
def test_a_tools_result_finds_its_call(live: LiveProxy, upstream: RecordingUpstream, stream: bool) -> None:
    key = live.key()
    live.api(key, "POST", "/v1/memory/items", {"text": "My bittern lives by the reeds."})
    upstream.answer = chat_with_tools if not stream else _streamed_tools
    first = create(live, key, "Where is my bittern?", tools=TOOLS, stream=stream)
    (call,) = [item for item in first.output if item.type == "function_call"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "pond"}
    asked = upstream.last.messages[-1]
    told = create(live, key, [result], tools=TOOLS, previous_response_id=first.id, stream=stream)
    assert told.output_text.strip() == "By the pond."
    roles = [(message["role"], message.get("tool_call_id")) for message in upstream.last.messages]
    assert roles == [("user", None), ("assistant", None), ("tool", call.call_id)]
    assert upstream.last.messages[0]["content"] == asked["content"]  # the same block in every round
    turns = [(item["text"], item["answer"].strip()) for item in live.items(key, kind="episode")]
    assert turns == [("Where is my bittern?", "By the pond.")]
    create(live, key, "Thanks.", previous_response_id=told.id)
    assert [message["role"] for message in upstream.last.messages][-2:] == ["assistant", "user"]
    assert len(sessions(live, key)) == 1


def _streamed_tools(received: Received) -> Reply | str:
    if any(message["role"] == "tool" for message in received.messages):
        return "By the pond."
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    chunks = [
        {"index": 0, "delta": {"role": "assistant", "tool_calls": [call]}, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "tool_calls"},
    ]
    told = [
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [one]} for one in chunks
    ]
    events = [f"data: {json.dumps(event)}\n\n".encode() for event in told]
    return Reply(content_type="text/event-stream", chunks=[*events, b"data: [DONE]\n\n"])


def test_reasoning_comes_back_with_its_call(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()

    def thinking(received: Received) -> Reply:
        reply = chat_with_tools(received)
        told = json.loads(reply.chunks[0])
        told["choices"][0]["message"]["reasoning_content"] = "The pond, surely."
        return Reply(chunks=[json.dumps(told).encode()])

    upstream.answer = thinking
    first = create(live, key, "Where is my bittern?", tools=TOOLS)
    assert [item.type for item in first.output] == ["reasoning", "function_call"]
    result = {"type": "function_call_output", "call_id": "call_1", "output": "pond"}
    create(live, key, [result], tools=TOOLS, previous_response_id=first.id)
    (calling,) = [message for message in upstream.last.messages if message["role"] == "assistant"]
    assert (calling["reasoning_content"], len(calling["tool_calls"])) == ("The pond, surely.", 1)


def test_several_calls_find_their_results(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()

    def calling(received: Received) -> Reply:
        if any(message["role"] == "tool" for message in received.messages):
            return Reply(chunks=[completion("In both.")])
        made = [
            {
                "id": f"call_{place}",
                "type": "function",
                "function": {"name": "look", "arguments": f'{{"city": "{place}"}}'},
            }
            for place in ("Bonn", "Rome")
        ]
        told = json.loads(completion(""))
        told["choices"][0] |= {
            "finish_reason": "tool_calls",
            "message": {"role": "assistant", "content": None, "tool_calls": made},
        }
        return Reply(chunks=[json.dumps(told).encode()])

    upstream.answer = calling
    first = create(live, key, "Where does it rain?", tools=TOOLS)
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"} for call in first.output]
    assert create(live, key, results, tools=TOOLS, previous_response_id=first.id).output_text == "In both."
    question, asked, *told = upstream.last.messages
    assert (question["role"], [call["id"] for call in asked["tool_calls"]]) == ("user", ["call_Bonn", "call_Rome"])
    assert [message["tool_call_id"] for message in told] == ["call_Bonn", "call_Rome"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_chain_goes_over_two_translations_too(live: LiveProxy, claude: AnthropicServer, stream: bool) -> None:
    key = live.key()
    first = create(live, key, "My otter is called Ludo.", model="claude-x", stream=stream)
    create(live, key, "What is it called?", model="claude-x", stream=stream, previous_response_id=first.id)
    sent = claude.requests[-1].body["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert "Ludo" in json.dumps(sent[0])


def test_a_hook_may_say_that_nothing_is_stored(live: LiveProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(exchange: Exchange) -> None:
        exchange.replace({**exchange.body, "store": False})

    monkeypatch.setattr(live.parts.hooks, "on_request", refuse)
    key = live.key()
    told = create(live, key, "Hello")
    assert (told.store, refused(live, key, told.id)) == (False, UNKNOWN)


def test_two_chains_do_not_mix(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    one, other = create(live, key, "My otter is called Ludo."), create(live, key, "My newt is called Fig.")
    create(live, key, "Go on with the otter.", previous_response_id=one.id, headers={"x_memory": "off"})
    assert "Fig" not in upstream.last.prompt
    create(live, key, "Go on with the newt.", previous_response_id=other.id)
    create(live, key, "Go on with the otter, please.", previous_response_id=one.id)
    assert len(live.items(key, kind="episode")) == 4
    assert len(sessions(live, key)) == 2


def test_nobody_has_or_follows_anothers_response(live: LiveProxy, upstream: RecordingUpstream) -> None:
    mine, theirs = live.key(), live.key()
    first = create(live, mine, "My otter is called Ludo.")
    before = len(upstream.requests)
    assert refused(live, theirs, first.id) == UNKNOWN
    assert refused(live, mine, live.parts.names.new()) == UNKNOWN
    assert refused(live, mine, "resp_0123456789abcdef") == UNKNOWN
    with live.client(theirs) as client:
        for ask in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
            with pytest.raises(openai.NotFoundError):
                ask(first.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.cancel(first.id)
    assert len(upstream.requests) == before
    create(live, mine, "What is it called?", previous_response_id=first.id)


def test_what_is_not_to_be_stored_is_not(live: LiveProxy) -> None:
    key = live.key()
    for more in ({"store": False}, {"headers": {"x_openwebui_chat_id": "temporary:1"}}):
        told = create(live, key, "My zqheron is called Ida.", **more)
        assert told.store is False
        assert refused(live, key, told.id) == UNKNOWN
    assert b"zqheron" not in stored(live)


def test_without_memory_it_is_kept_all_the_same(live: LiveProxy, upstream: RecordingUpstream) -> None:
    for key, headers in ((live.key("chat"), {}), (live.key(), {"x_memory": "off"})):
        first = create(live, key, "My otter is called Ludo.", headers=headers)
        create(live, key, "And?", previous_response_id=first.id, headers=headers)
        assert "Ludo" in upstream.last.prompt


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_is_had_again_and_deleted(live: LiveProxy, upstream: RecordingUpstream, stream: bool) -> None:
    key = live.key()
    first = create(live, key, "My zqotter is called Ludo.", stream=stream, metadata={"a": "b"})
    second = create(live, key, "And?", previous_response_id=first.id)
    asked = len(upstream.requests)
    with live.client(key) as client:
        assert client.responses.retrieve(first.id) == first
        with pytest.raises(openai.BadRequestError):
            client.responses.retrieve(first.id, stream=True)
        assert live.api(key, "DELETE", f"/v1/responses/{first.id}") == (
            200,
            {"id": first.id, "object": "response", "deleted": True},
        )
        for ask in (client.responses.retrieve, client.responses.delete):
            with pytest.raises(openai.NotFoundError):
                ask(first.id)
    assert b"zqotter" not in stored(live)
    assert refused(live, key, second.id) == UNKNOWN
    assert len(upstream.requests) == asked


def test_input_items_are_listed_page_by_page(live: LiveProxy) -> None:
    key = live.key()
    given: Any = [{"role": "user", "content": f"word {number}"} for number in range(5)]
    given.append({"role": "user", "content": [{"type": "input_text", "text": "word 5"}]})
    first = create(live, key, given)
    with live.client(key) as client:
        page = client.responses.input_items.list(first.id, limit=4)
        assert (len(page.data), page.has_more) == (4, True)
        assert [item.content[0].text for item in page] == [f"word {number}" for number in range(5, -1, -1)]
        up = list(client.responses.input_items.list(first.id, order="asc", limit=2))
        assert [item.content[0].text for item in up] == [f"word {number}" for number in range(6)]
        assert {(item.type, item.role, item.status) for item in up} == {("message", "user", "completed")}
        for wrong in ({"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "msg_0"}):
            with pytest.raises(openai.BadRequestError):
                client.responses.input_items.list(first.id, **wrong)


def test_what_an_upstream_keeps_stays_there(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key, before = live.key(), stored(live)
    told = create(live, key, "Hello", model="native")
    create(live, key, "And?", model="native", previous_response_id=told.id)
    assert upstream.last.body["previous_response_id"] == told.id
    assert stored(live) == before
    live.api(key, "GET", f"/v1/responses/{told.id}")
    assert upstream.last.path == f"/v1/responses/{told.id}"


def test_an_upstream_that_keeps_responses_may_go_on_with_one_of_ours(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    key = live.key()
    first = create(live, key, "My otter is called Ludo.")
    create(live, key, "And?", model="native", previous_response_id=first.id)
    assert "previous_response_id" not in upstream.last.body
    assert [item["role"] for item in upstream.last.body["input"]] == ["user", "assistant", "user"]


def test_what_is_too_large_is_not_kept_and_says_so(
    live: LiveProxy, upstream: RecordingUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = live.key()
    monkeypatch.setattr(kept, "MOST", 20_000)
    upstream.answer = lambda _: "word " * 5000
    for stream in (False, True):
        told = create(live, key, "Tell me all.", stream=stream)
        assert told.store is False
        assert refused(live, key, told.id) == UNKNOWN


def test_a_chain_has_a_limit(live: LiveProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    key = live.key()
    monkeypatch.setattr(kept, "LONGEST_CHAIN", 2)
    last = create(live, key, "One.")
    last = create(live, key, "Two.", previous_response_id=last.id)
    last = create(live, key, "Three.", previous_response_id=last.id)
    assert refused(live, key, last.id) == "previous_response_too_long"


# --- erasing ------------------------------------------------------------------------------------------------------------------


def test_a_response_goes_with_its_cube(live: LiveProxy) -> None:
    key, other = live.key(), live.key()
    create(live, other, "My zqcrane is called Pip.")
    first = create(live, key, "My zqotter is called Ludo.")
    create(live, key, "And the zqotter?", previous_response_id=first.id)
    status, receipt = live.api(key, "DELETE", "/v1/memory")
    assert (status, receipt["counts"]["responses"]) == (202, 2)
    assert b"zqotter" not in stored(live)
    assert b"zqcrane" in stored(live)
    assert refused(live, key, first.id) == UNKNOWN


def test_a_response_goes_with_its_turn(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    upstream.answer = chat_with_tools
    first = create(live, key, "Where is my zqbittern?", tools=TOOLS)
    result = {"type": "function_call_output", "call_id": "call_1", "output": "zqpond"}
    second = create(live, key, [result], tools=TOOLS, previous_response_id=first.id)
    upstream.answer = lambda _: "Noted."
    create(live, key, "My newt is called Fig.", previous_response_id=second.id)
    apart = create(live, key, "My crane is called Pip.")
    (turn,) = [item for item in live.items(key, kind="episode") if "zqbittern" in item["text"]]
    assert live.api(key, "DELETE", f"/v1/memory/items/{turn['id']}")[0] == 200
    assert b"zqbittern" not in stored(live)
    assert b"zqpond" not in stored(live)
    assert b"Fig" in stored(live)
    create(live, key, "And?", previous_response_id=apart.id)


def test_after_a_while_it_is_gone(live: LiveProxy) -> None:
    key = live.key()
    first = create(live, key, "My zqold otter is called Ludo.")
    _sql(live, "UPDATE responses SET at = at - 31 * 86400 WHERE id = ?", first.id)
    assert refused(live, key, first.id) == UNKNOWN
    assert live.api(key, "GET", f"/v1/responses/{first.id}")[0] == 404

    async def sweep() -> None:
        database: Database = db.open_database(live.config)
        try:
            await kept.purge(database, time.time() - 30 * 86400)
        finally:
            await database.close()

    asyncio.run(sweep())
    assert b"zqold" not in stored(live)


def _sql(live: LiveProxy, statement: str, *values: Any) -> None:
    database = sqlite3.connect(live.config.folder / "memrelay.sqlite", timeout=10)
    with database:
        database.execute(statement, values)
    database.close()


# --- in the background --------------------------------------------------------------------------------------------------------


class Slow:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, _: Received) -> Reply:
        return Reply(chunks=[completion("By the pond.")], wait_s=0 if self.go.is_set() else 30)


def test_a_response_is_made_in_the_background(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    upstream.answer = lambda _: Reply(chunks=[completion("By the pond.")], wait_s=0.5)
    first = create(live, key, "My otter is called Ludo.")
    told = create(live, key, "Where is my otter?", background=True, previous_response_id=first.id)
    assert (told.status, told.background, told.output, told.store) == ("queued", True, [], True)
    assert refused(live, key, told.id) == "previous_response_not_completed"
    with live.client(key) as client:
        assert client.responses.retrieve(told.id).status == "in_progress"
        wait_for(lambda: client.responses.retrieve(told.id).status == "completed", "the response")
        had = client.responses.retrieve(told.id)
        assert (had.output_text, had.background, had.previous_response_id) == ("By the pond.", True, first.id)
        assert client.responses.cancel(told.id).status == "completed"
    assert [item["answer"] for item in live.items(key, kind="episode")] == ["By the pond."] * 2
    create(live, key, "Thanks.", previous_response_id=told.id)
    assert len(upstream.last.messages) == 5
    assert len(sessions(live, key)) == 1


def test_the_background_is_counted_when_it_ends(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()

    def used() -> tuple[int, int, int]:
        total = live.api(key, "GET", "/v1/usage")[1]["total"]
        return total["requests"], total["unknown"], total["completion"]

    told = json.loads(completion("By the pond.")) | {
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    }
    upstream.answer = lambda _: Reply(chunks=[json.dumps(told).encode()], wait_s=0.3)
    made = create(live, key, "Where is my otter?", background=True)
    assert used() == (0, 0, 0)
    wait_for(lambda: used() == (1, 0, 5), "the usage")
    with live.client(key) as client:
        assert client.responses.retrieve(made.id).usage.output_tokens == 5
    assert used() == (1, 0, 5)


def test_a_response_in_the_background_is_cancelled(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key, before = live.key(), upstream.cancelled
    upstream.answer = Slow()
    with live.client(key) as client:
        told = client.responses.create(model="m", input="Where is my otter?", background=True)
        wait_for(lambda: upstream.requests, "the upstream to be asked")
        assert client.responses.cancel(told.id).status == "cancelled"
        wait_for(lambda: upstream.cancelled > before, "the upstream to be left")
        assert client.responses.retrieve(told.id).status == "cancelled"
        upstream.answer = lambda _: "Noted."
        at_once = client.responses.create(model="m", input="Where is my newt?")
        with pytest.raises(openai.BadRequestError, match="synchronous"):
            client.responses.cancel(at_once.id)
    assert [item["text"] for item in live.items(key, kind="episode")] == ["Where is my newt?"]


def test_what_fails_in_the_background_is_told(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    upstream.answer = lambda _: Reply(429, chunks=[b'{"error": {"message": "too many"}}'])
    told = create(live, key, "Where is my otter?", background=True)
    with live.client(key) as client:
        wait_for(lambda: client.responses.retrieve(told.id).status == "failed", "the failure")
        assert client.responses.retrieve(told.id).error.code == "server_error"
    assert live.items(key, kind="episode") == []


@pytest.mark.parametrize("more", [{"store": False}, {"stream": True}])
def test_the_background_needs_what_is_kept(live: LiveProxy, more: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        create(live, live.key(), "Hello", background=True, **more)


def test_a_restart_is_told(data: Path, upstream: RecordingUpstream) -> None:
    upstream.answer = Slow()
    proxy = LiveProxy(data, upstreams=upstreams(upstream))
    with proxy:
        key = proxy.key()
        told, held = (create(proxy, key, "Where is my otter?", background=True) for _ in range(2))
        wait_for(lambda: len(upstream.requests) == 2, "the upstream to be asked")
    _sql(proxy, "UPDATE responses SET held_until = 5 WHERE id = ?", held.id)  # as after a kill
    with proxy, proxy.client(key) as client:
        for name in (told.id, held.id):
            ended = client.responses.retrieve(name)
            assert (ended.status, "stopped" in ended.error.message) == ("failed", True)


def test_nothing_is_kept_where_nothing_shall_be(data: Path, upstream: RecordingUpstream) -> None:
    with LiveProxy(data, upstreams=upstreams(upstream), responses={"keep_days": 0}) as proxy:
        key = proxy.key()
        told = create(proxy, key, "Hello")
        assert (told.store, refused(proxy, key, told.id)) == (False, UNKNOWN)
        assert httpx.get(f"{proxy.url}/v1/responses/{told.id}").status_code == 401
