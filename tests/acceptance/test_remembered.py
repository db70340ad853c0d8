"""The main job, through the front door: what one chat says, a later chat knows."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy import fence
from tests.fakes import Received, RecordingUpstream, Reply, events
from tests.live import LiveProxy, wait_for

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture
def live(data: Path, upstream: RecordingUpstream) -> Iterator[LiveProxy]:
    upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url, "api_key": "upstream-secret"}]
    with LiveProxy(data, upstreams=upstreams) as running:
        yield running


def ask(text: str, system: str = "") -> list[dict[str, Any]]:
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": text}]


def without_blocks(value: Any) -> Any:
    """A request with our blocks taken out again."""
    if isinstance(value, str):
        return fence.strip(value)
    if isinstance(value, list):
        kept = [without_blocks(entry) for entry in value]
        return [
            entry
            for entry in kept
            if entry != {"type": "text", "text": ""} and entry != {"role": "system", "content": ""}
        ]
    if isinstance(value, dict):
        return {name: without_blocks(entry) for name, entry in value.items()}
    return value


def test_a_second_chat_knows_what_the_first_one_said(live: LiveProxy, upstream: RecordingUpstream) -> None:
    client = live.client(live.key())
    client.chat.completions.create(model="any", messages=ask("My dog is called Rex and he loves swimming."))
    stream = client.chat.completions.create(model="any", messages=ask("What is my dog's name?"), stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text.strip() == "Noted."
    assert "Rex" in upstream.last.prompt


async def test_the_async_client_streams_and_remembers(live: LiveProxy, upstream: RecordingUpstream) -> None:
    async with live.async_client(await asyncio.to_thread(live.key)) as client:
        said = ask("I work as a glaciologist.")
        async for _ in await client.chat.completions.create(model="m", messages=said, stream=True):
            pass
        await client.chat.completions.create(model="m", messages=ask("What do I work as?"))
    assert "glaciologist" in upstream.last.prompt


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": False},
        {"temperature": 0.25, "seed": 7, "stop": ["\n"], "metadata": {"a": "b"}, "top_logprobs": 3, "logprobs": True},
        {"extra_body": {"top_k": 40, "provider": {"order": ["x"]}, "thinking": {"type": "enabled"}, "big": 2**70}},
    ],
)
def test_the_request_is_the_clients_but_for_the_block(live: LiveProxy, upstream: RecordingUpstream, extra: Any) -> None:
    client = live.client(live.key())
    client.chat.completions.create(model="m", messages=ask("My favourite colour is teal."))
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "text", "text": "My favourite colour?"},
    ]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    client.chat.completions.create(model="m", messages=messages, **extra)
    sent = {"model": "m", "messages": messages, **{k: v for k, v in extra.items() if k != "extra_body"}}
    assert "teal" in upstream.last.prompt
    assert without_blocks(upstream.last.body) == {**sent, **extra.get("extra_body", {})}


def test_with_memory_off_the_very_same_bytes_go_out(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    live.client(key).chat.completions.create(model="m", messages=ask("My cat is called Ida."))
    raw = b'{ "model":"m",\n "messages" : [ {"role":"user","content":"My cat\\u0027s name?"} ], "n":1.0, "x":1e-7, "x":2 }'
    before = len(live.items(key))
    response = httpx.post(
        f"{live.url}/v1/chat/completions", content=raw, headers={"authorization": f"Bearer {key}", "x-memory": "off"}
    )
    assert response.headers["x-memory-state"] == "off"
    assert upstream.last.raw == raw
    assert len(live.items(key)) == before


def test_only_the_block_is_added_to_the_bytes(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    live.client(key).chat.completions.create(model="m", messages=ask("My cat is called Ida."))
    raw = b'{ "n":1.0, "messages" : [ {"content":"My cat\\u0027s name?", "role":"user"} ],"model":"m", "x":1e-7 }'
    httpx.post(f"{live.url}/v1/chat/completions", content=raw, headers={"authorization": f"Bearer {key}"})
    head, tail = raw.split(b"My cat")
    assert upstream.last.raw.startswith(head)
    assert upstream.last.raw.endswith(b"My cat" + tail)
    assert b"Ida" in upstream.last.raw


def test_the_upstream_never_sees_our_key(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    live.client(key, X_Memory_Session="s", X_Custom="kept").chat.completions.create(
        model="m", messages=ask("hello there")
    )
    assert upstream.last.headers["authorization"] == "Bearer upstream-secret"
    assert upstream.last.headers["x-custom"] == "kept"
    assert key not in json.dumps(upstream.last.headers)
    assert not [name for name in upstream.last.headers if name.startswith("x-memory")]


def test_a_new_session_finds_it_a_tenth_of_a_second_later(live: LiveProxy, upstream: RecordingUpstream) -> None:
    """No executor runs beside this proxy: nothing but the turn log and the working set can know."""
    key = live.key()
    client = live.client(key)
    for word in ("Quillfeather", "Bramblewick", "Oxenholme"):
        client.with_options(default_headers={"x-memory-session": f"say-{word}"}).chat.completions.create(
            model="m", messages=ask(f"I was born in {word} in spring."), stream=True
        ).close()
        for _ in client.chat.completions.create(model="m", messages=ask(f"My sister lives in {word}."), stream=True):
            pass
        time.sleep(0.1)
        client.with_options(default_headers={"x-memory-session": f"ask-{word}"}).chat.completions.create(
            model="m", messages=ask(f"Who lives in {word}?")
        )
        assert f"My sister lives in {word}" in upstream.last.prompt


def test_two_keys_never_share_memory(live: LiveProxy, upstream: RecordingUpstream) -> None:
    keys = [live.key(), live.key()]
    things = ["umbrella", "piano", "kayak", "sextant", "loom", "anvil", "telescope", "harp", "tractor", "canoe",
              "violin", "printer", "lantern", "saddle", "compass", "easel", "trumpet", "sledge", "kettle", "abacus"]  # fmt: skip
    for owner, key in enumerate(keys):
        client = live.client(key, X_Memory_Session="same-session", X_Memory_User="same-user", X_OpenWebUI_User_Id="u1")
        for thing in things:
            client.chat.completions.create(
                model="m", user="same-user", messages=ask(f"My {thing} is called zq{owner}{thing}.")
            )
    leaks = found = 0
    for owner, key in enumerate(keys):
        client = live.client(key, X_Memory_Session="same-session", X_Memory_User="same-user", X_OpenWebUI_User_Id="u1")
        for thing in things:
            client.chat.completions.create(model="m", user="same-user", messages=ask(f"What is my {thing} called?"))
            found += f"zq{owner}{thing}" in upstream.last.prompt
            leaks += f"zq{1 - owner}" in upstream.last.prompt
    assert leaks == 0
    assert found == 40
    assert not [item for item in live.items(keys[0]) if "zq1" in item["text"]]


def test_a_key_with_act_as_user_keeps_its_users_apart(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key("chat", "memory:read", "memory:write", "act_as_user")
    for name in ("ann", "bob"):
        live.client(key, X_Memory_User=name).chat.completions.create(
            model="m", messages=ask(f"My code word is zq{name}.")
        )
    live.client(key, X_Memory_User="ann").chat.completions.create(model="m", messages=ask("What is my code word?"))
    assert "zqann" in upstream.last.prompt
    assert "zqbob" not in upstream.last.prompt


def test_headers_are_found_however_the_configuration_spells_them(data: Path, upstream: RecordingUpstream) -> None:
    entry = {"name": "recording", "kind": "openai", "base_url": upstream.url}
    reading = {"user_headers": ["X-My-User"], "session_headers": ["X-My-Chat"]}
    with LiveProxy(data, upstreams=[entry], sessions=reading) as live:
        key = live.key("chat", "memory:read", "memory:write", "act_as_user")
        for user in ("ines", "jonas"):
            client = live.client(key, X_My_User=user, X_My_Chat="local:1" if user == "jonas" else "1")
            client.chat.completions.create(model="m", messages=ask(f"My dog belongs to {user}."))
            assert client.get("/memory/items", cast_to=object)["data"] == [] or user == "ines"  # type: ignore[index]
        live.client(key, X_My_User="jonas").chat.completions.create(model="m", messages=ask("Whose dog is it?"))
    assert "ines" not in upstream.last.prompt


def test_blocks_of_earlier_turns_stay_where_they_stood(live: LiveProxy, upstream: RecordingUpstream) -> None:
    client = live.client(live.key())
    client.chat.completions.create(model="m", messages=ask("My boat is called Marigold."))
    client.chat.completions.create(model="m", messages=ask("My horse is called Juniper."))
    history = ask("What is my boat called?", system="Be kind.")
    requests: list[list[dict[str, Any]]] = []
    for question in ("And my horse, what is it called?", "Which of the two is faster, boat or horse?"):
        client.chat.completions.create(model="m", messages=history)
        requests.append(upstream.last.messages)
        history = [*history, {"role": "assistant", "content": "Noted."}, {"role": "user", "content": question}]
    client.chat.completions.create(model="m", messages=history)
    requests.append(upstream.last.messages)
    for earlier, later in itertools.pairwise(requests):
        assert later[: len(earlier)] == earlier
    assert "Marigold" in json.dumps(requests[0])
    assert "Juniper" in json.dumps(requests[1][-1])


def test_every_tool_round_of_a_turn_gets_the_same_block(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    client = live.client(key)
    client.chat.completions.create(model="m", messages=ask("My locker number is zq4711."))
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "look", "arguments": "{}"},
        "extra_content": {"g": "s"},
    }

    def answer(received: Received) -> Reply | str:
        if any(message["role"] == "tool" for message in received.messages):
            return "Done, your locker is open."
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        return Reply(chunks=[json.dumps({"id": "c", "object": "chat.completion", "choices": [choice]}).encode()])

    upstream.answer = answer
    messages = ask("Please open my locker, you know its number.")
    first = client.chat.completions.create(model="m", messages=messages, tools=TOOLS)
    one = upstream.last.messages[0]
    assert "zq4711" in json.dumps(one)
    assert len(live.items(key)) == 1
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": "call_1", "content": "ok"},
    ]
    client.chat.completions.create(model="m", messages=messages, tools=TOOLS)
    assert upstream.last.messages[0] == one
    assert upstream.last.messages[1]["tool_calls"][0]["extra_content"] == {"g": "s"}
    said = [item for item in live.items(key) if "open my locker" in item["text"]]
    assert [item["answer"] for item in said] == ["Done, your locker is open."]


def test_retry_regenerate_and_edit_replace_the_turn(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    client = live.client(key)
    first = ask("My plant is a fern.")
    client.chat.completions.create(model="m", messages=first)
    client.chat.completions.create(model="m", messages=first, extra_headers={"x-stainless-retry-count": "1"})
    upstream.answer = lambda _: "A lovely fern."
    client.chat.completions.create(model="m", messages=first)
    assert [(item["text"], item["answer"]) for item in live.items(key)] == [("My plant is a fern.", "A lovely fern.")]
    more = [*first, {"role": "assistant", "content": "A lovely fern."}]
    client.chat.completions.create(
        model="m", messages=[*more, {"role": "user", "content": "It needs watter on Mondays."}]
    )
    client.chat.completions.create(
        model="m", messages=[*more, {"role": "user", "content": "It needs water on Mondays."}]
    )
    assert sorted(item["text"] for item in live.items(key)) == ["It needs water on Mondays.", "My plant is a fern."]
    assert len({item["sources"][0]["session"] for item in live.items(key)}) == 1


def test_chats_that_begin_alike_lose_nothing_to_each_other(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    client = live.client(key)
    upstream.answer = lambda _: "Hello!"
    begun = [*ask("Hi"), {"role": "assistant", "content": "Hello!"}]
    for _ in range(2):
        client.chat.completions.create(model="m", messages=ask("Hi"))
    for text in ("I live in Oslo.", "My cat is called Ida.", "I like one."):
        client.chat.completions.create(model="m", messages=[*begun, {"role": "user", "content": text}])
    assert {"I live in Oslo.", "My cat is called Ida.", "I like one."} <= {item["text"] for item in live.items(key)}


def test_the_same_words_said_again_later_are_another_turn(live: LiveProxy) -> None:
    """A client that names its session and sends no history."""
    key = live.key()
    client = live.client(key, X_Memory_Session="one")
    for text in ("Is it raining?", "yes", "Is it cold?", "yes"):
        client.chat.completions.create(model="m", messages=ask(text))
    assert sorted(item["text"] for item in live.items(key, status="all")) == [
        "Is it cold?",
        "Is it raining?",
        "yes",
        "yes",
    ]


def test_what_comes_back_of_our_blocks_is_not_learned_again(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    client = live.client(key)
    client.chat.completions.create(model="m", messages=ask("My bicycle is a zqpeugeot."))
    client.chat.completions.create(model="m", messages=ask("Which bicycle do I have?"))
    echoed = upstream.last.messages[-1]["content"]
    assert "zqpeugeot" in echoed
    upstream.answer = lambda received: echoed  # an upstream that repeats all it was given
    client.chat.completions.create(model="m", messages=ask(echoed))
    assert len([item for item in live.items(key) if "zqpeugeot" in item["text"] + item["answer"]]) == 1


def test_modes_read_only_and_write_only(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    client = live.client(key)
    client.chat.completions.create(model="m", messages=ask("My tent is blue."), extra_headers={"x-memory": "write"})
    client.chat.completions.create(
        model="m", messages=ask("What colour is my tent?"), extra_headers={"x-memory": "read"}
    )
    assert "blue" in upstream.last.prompt
    client.chat.completions.create(
        model="m", messages=ask("My tent colour, please?"), extra_headers={"x-memory": "write"}
    )
    assert "blue" not in upstream.last.prompt
    assert sorted(item["text"] for item in live.items(key)) == ["My tent colour, please?", "My tent is blue."]


def test_temporary_chats_are_not_stored(live: LiveProxy) -> None:
    key = live.key()
    live.client(key, X_OpenWebUI_Chat_Id="temporary:1").chat.completions.create(
        model="m", messages=ask("My secret is out.")
    )
    assert live.items(key) == []


def test_secrets_are_taken_out_before_they_are_stored(live: LiveProxy, upstream: RecordingUpstream, data: Path) -> None:
    key = live.key()
    live.client(key).chat.completions.create(
        model="m", messages=ask("Use my key sk-proj-zqzqzqzqzqzqzqzq and card 4111 1111 1111 1111 to pay.")
    )
    assert "sk-proj-zqzqzqzqzqzqzqzq" in upstream.last.prompt  # the model may see it; the store may not
    (item,) = live.items(key)
    assert item["text"] == "Use my key [secret removed] and card [secret removed] to pay."


def test_a_hang_up_in_the_middle_is_remembered_as_far_as_it_came(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    events = [b'data: {"choices":[{"index":0,"delta":{"content":"Nice van. "}}]}\n\n'] * 50
    upstream.answer = lambda _: Reply(content_type="text/event-stream", chunks=events, pause_s=0.05)
    stream = live.client(key).chat.completions.create(model="m", messages=ask("I bought a zqvan."), stream=True)
    next(iter(stream))
    stream.close()
    (item,) = wait_for(lambda: live.items(key), "the broken-off turn")
    assert item["text"] == "I bought a zqvan."
    assert item["answer"].startswith("Nice van.")


@pytest.mark.parametrize("stream", [True, False])
def test_a_hang_up_while_the_turn_is_written_writes_it_once(live: LiveProxy, stream: bool) -> None:
    key = live.key()
    live.client(key).chat.completions.create(model="m", messages=ask("My dog is called Rex."))
    with contextlib.closing(sqlite3.connect(live.config.folder / "memrelay.sqlite", isolation_level=None)) as other:
        wait_for(lambda: not live.parts.background.tasks, "the first turn's work")
        other.execute("BEGIN IMMEDIATE")
        body = {"model": "m", "messages": ask("What is my dog called?"), "stream": stream}
        named = {"authorization": f"Bearer {key}"}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{live.url}/v1/chat/completions", json=body, headers=named, timeout=1)
        time.sleep(0.2)
        other.execute("ROLLBACK")
        wait_for(lambda: not live.parts.background.tasks, "the second turn's work")
        assert other.execute("SELECT count(*) FROM history").fetchone() == (0,)
        assert other.execute("SELECT max(uses) FROM memories").fetchone() == (1,)


def test_what_was_said_until_we_are_stopped_is_remembered(data: Path, upstream: RecordingUpstream) -> None:
    pieces = events("One two three four five six seven eight nine ten.")
    upstream.answer = lambda _: Reply(content_type="text/event-stream", chunks=pieces, pause_s=0.2)
    entry = {"name": "recording", "kind": "openai", "base_url": upstream.url}
    body = {"model": "m", "messages": ask("Count to ten."), "stream": True}
    with contextlib.ExitStack() as client, LiveProxy(data, upstreams=[entry]) as live:
        live.stop_after(0.2)
        named = {"authorization": f"Bearer {live.key()}"}
        answer = client.enter_context(httpx.stream("POST", f"{live.url}/v1/chat/completions", json=body, headers=named))
        heard = answer.iter_raw()  # held on to: without it the client hangs up
        assert any(b"two" in chunk for chunk in heard)
    with contextlib.closing(sqlite3.connect(data / "memrelay.sqlite")) as database:
        ((asked, complete),) = database.execute("SELECT user_text, complete FROM turns").fetchall()
    assert (asked, complete) == ("Count to ten.", 0)


def test_the_response_says_what_memory_did(live: LiveProxy) -> None:
    client = live.client(live.key())
    first = client.chat.completions.with_raw_response.create(model="m", messages=ask("My tortoise is called Zeno."))
    assert first.headers["x-memory-state"] == "empty"
    second = client.chat.completions.with_raw_response.create(model="m", messages=ask("What is my tortoise called?"))
    assert second.headers["x-memory-state"] == "hit"
    assert re.fullmatch(r"[0-9a-f-]{36}", second.headers["x-memory-ids"])
    assert int(second.headers["x-memory-tokens"]) > 10
    assert float(second.headers["x-memory-ms"]) > 0
    assert second.headers["x-request-id"].startswith("req_")


def test_a_memory_knows_how_often_it_was_used(live: LiveProxy) -> None:
    key = live.key()
    client = live.client(key)
    client.chat.completions.create(model="m", messages=ask("My drum is called Boom."))
    for _ in range(2):
        client.chat.completions.create(
            model="m", messages=ask("What is my drum called?"), extra_headers={"x-memory": "read"}
        )
    (item,) = wait_for(lambda: [item for item in live.items(key) if item["uses"] == 2], "both uses to be counted")
    assert item["last_used_at"] >= item["created_at"]


def test_chinese_is_remembered(live: LiveProxy, upstream: RecordingUpstream) -> None:
    client = live.client(live.key())
    client.chat.completions.create(model="m", messages=ask("我的猫叫小花，今年三岁。"))
    client.chat.completions.create(model="m", messages=ask("我在上海的一家银行工作。"))
    client.chat.completions.create(model="m", messages=ask("我的猫叫什么名字？"))
    assert "小花" in upstream.last.prompt
