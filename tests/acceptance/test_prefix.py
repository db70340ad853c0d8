"""Each prompt begins with the one before it, whatever the client does and however the proxy fares."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from proxy import db
from tests.acceptance.test_remembered import TOOLS
from tests.fakes import RecordingUpstream
from tests.live import LiveProxy

FACTS = ("My boat is called Marigold.", "My horse is called Juniper.", "My sister Ada is a judge.", "I live in Porto.")
ASKS = (
    "What is my boat called?",
    "And the horse?",
    "What does Ada do?",
    "Where do I live?",
    "Tell me a joke.",
    "Go on.",
)


def proxy(data: Path, upstream: RecordingUpstream) -> LiveProxy:
    return LiveProxy(data, upstreams=[{"name": "recording", "kind": "openai", "base_url": upstream.url}])


@pytest.fixture
def live(data: Path, upstream: RecordingUpstream) -> Iterator[LiveProxy]:
    with proxy(data, upstream) as running:
        yield running


def learn(live: LiveProxy, key: str) -> None:
    live.api(key, "POST", "/v1/memory/items", {"kind": "identity", "text": "The user is called Ines."})
    for fact in FACTS:
        live.client(key).chat.completions.create(model="m", messages=[{"role": "user", "content": fact}])


def sent(live: LiveProxy, upstream: RecordingUpstream, key: str, history: list[Any], **more: Any) -> list[Any]:
    live.client(key).chat.completions.create(model="m", messages=history, **more)
    return upstream.last.messages


def bare(messages: list[Any]) -> list[Any]:
    """Messages without our blocks, and without the empty line between a block and what the client says."""
    block = r'<memrelay:\w+ n="\w+">.*?</memrelay:\w+ n="\w+">'
    cut = [(m, m.get("content")) for m in messages]
    return [
        m if text is None else {**m, "content": re.sub(rf"\n\n{block}|{block}\n\n", "", text, flags=re.DOTALL)}
        for m, text in cut
    ]


def begin(*said: str) -> list[Any]:
    roles = ("user", "assistant")
    return [
        {"role": "system", "content": "Be kind."},
        *({"role": roles[n % 2], "content": text} for n, text in enumerate(said)),
    ]


def test_a_restart_between_two_turns_changes_nothing(data: Path, upstream: RecordingUpstream) -> None:
    with proxy(data, upstream) as live:
        key = live.key()
        learn(live, key)
        first = sent(live, upstream, key, begin(ASKS[0]))
    with proxy(data, upstream) as live:
        second = sent(live, upstream, key, begin(ASKS[0], "Noted.", ASKS[1]))
    assert second[: len(first)] == first
    assert "Marigold" in json.dumps(first)


def test_two_proxies_answer_one_session(data: Path, upstream: RecordingUpstream) -> None:
    other = data.parent / "other"
    other.mkdir()
    with proxy(data, upstream) as one:
        key = one.key()
        learn(one, key)
        settings = {"database": f"sqlite+aiosqlite:///{data / 'memrelay.sqlite'}", "store": str(data / "lance")}
        (other / "models").symlink_to(data / "models")
        behind = [{"name": "recording", "kind": "openai", "base_url": upstream.url}]
        with LiveProxy(other, upstreams=behind, **settings) as two:
            first = sent(one, upstream, key, begin(ASKS[0]))
            second = sent(two, upstream, key, begin(ASKS[0], "Noted.", ASKS[1]))
            third = sent(one, upstream, key, begin(ASKS[0], "Noted.", ASKS[1], "Noted.", ASKS[2]))
    assert second[: len(first)] == first
    assert third[: len(second)] == second


def test_a_lost_block_breaks_the_prefix_at_its_own_place_and_once(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    learn(live, key)
    sent(live, upstream, key, begin(ASKS[0]))
    before = sent(live, upstream, key, begin(ASKS[0], "Noted.", ASKS[2]))

    async def lose() -> None:
        database = db.open_database(live.config)
        async with database.read() as connection:
            newest = (
                await connection.execute(sa.select(db.blocks.c.anchor).order_by(db.blocks.c.at.desc()).limit(1))
            ).scalar_one()
        await database.write(lambda c: c.execute(sa.delete(db.blocks).where(db.blocks.c.anchor == newest)))
        await database.close()

    asyncio.run(asyncio.sleep(0.3))
    asyncio.run(lose())
    third = sent(live, upstream, key, begin(ASKS[0], "Noted.", ASKS[2], "Noted.", ASKS[3]))
    fourth = sent(live, upstream, key, begin(ASKS[0], "Noted.", ASKS[2], "Noted.", ASKS[3], "Noted.", ASKS[1]))
    assert third[:3] == before[:3]
    assert fourth[: len(third)] == third


def test_an_edit_in_the_middle_keeps_what_stands_before_it(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    learn(live, key)
    whole = begin(ASKS[0], "Noted.", ASKS[1], "Noted.", ASKS[2])
    for length in (2, 4, 6):
        before = sent(live, upstream, key, whole[:length])
    edited = sent(live, upstream, key, [*whole[:3], {"role": "user", "content": "No: in which city do I live?"}])
    assert edited[:3] == before[:3]
    assert "Porto" in json.dumps(edited)


def test_an_answer_made_again_has_the_same_prompt_until_memory_changes(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    key = live.key()
    learn(live, key)
    asked = begin(ASKS[0], "Noted.", "What do you know of my sister?")
    sent(live, upstream, key, asked[:2])
    first = sent(live, upstream, key, asked)
    assert sent(live, upstream, key, asked) == first
    live.api(key, "POST", "/v1/memory/items", {"kind": "fact", "text": "The user's sister Ada has become a minister."})
    again = sent(live, upstream, key, asked)
    assert "minister" in json.dumps(again[-1])
    assert again[:3] == first[:3]


def test_reordered_tools_move_no_block(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    learn(live, key)
    more = {"type": "function", "function": {"name": "hear", "parameters": {"type": "object", "properties": {}}}}
    first = sent(live, upstream, key, begin(ASKS[0]), tools=[*TOOLS, more])
    second = sent(live, upstream, key, begin(ASKS[0], "Noted.", ASKS[1]), tools=[more, *TOOLS])
    assert second[: len(first)] == first
    assert [tool["function"]["name"] for tool in upstream.last.body["tools"]] == ["hear", "look"]


def test_what_an_anthropic_client_has_marked_for_the_cache_stays_as_it_is(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    key = live.key()
    learn(live, key)
    mark = {"cache_control": {"type": "ephemeral"}}
    system = [{"type": "text", "text": "Be kind."}, {"type": "text", "text": "A long manual.", **mark}]
    asked = {"role": "user", "content": [{"type": "text", "text": ASKS[0], **mark}]}
    live.anthropic(key).messages.create(model="m", max_tokens=9, system=system, messages=[asked])
    body = upstream.last.body
    assert body["system"][:2] == system
    assert "Ines" in body["system"][2]["text"]
    assert json.dumps(body).count("cache_control") == 2
    assert body["messages"][0]["content"][-1] == asked["content"][0]
    history = [
        asked,
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": [{"type": "text", "text": ASKS[1], **mark}]},
    ]
    live.anthropic(key).messages.create(model="m", max_tokens=9, system=system, messages=history)
    assert upstream.last.body["system"] == body["system"]
    assert upstream.last.body["messages"][:1] == body["messages"]


def test_a_chain_of_responses_has_the_same_instructions_throughout(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    key, told, before = live.key(), [], None
    learn(live, key)
    for ask in ASKS[:3]:
        more: Any = {"previous_response_id": before} if before else {}
        before = live.client(key).responses.create(model="m", instructions="Be kind.", input=ask, **more).id
        told.append(upstream.last.body["instructions"])
        live.api(key, "POST", "/v1/memory/items", {"kind": "preference", "text": f"The user likes {ask}"})
    assert len(set(told)) == 1
    assert "Ines" in told[0]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_a_client_does_its_words_stay_and_unchanged_turns_keep_their_bytes(
    live: LiveProxy, upstream: RecordingUpstream, seed: int
) -> None:
    chance, key = random.Random(seed), live.key()
    learn(live, key)
    history = begin()
    known: dict[str, Any] = {}  # all that was said up to a message → the message as it went out
    for step in range(14):
        match chance.choice(("ask", "ask", "ask", "again", "edit", "compact", "tool", "learn")):
            case "edit" if len(history) > 3:
                history = history[: chance.randrange(1, len(history) - 1, 2)]
                history.append({"role": "user", "content": f"{chance.choice(ASKS)} ({step})"})
                if (
                    len(history) == 2
                ):  # another first question: another session, which may begin with what is known by now
                    known.clear()
            case "compact" if len(history) > 5:
                history = [history[0], *begin(f"So far: {step} points.", "Understood.")[1:], *history[-1:]]
                known.clear()
            case "again" if len(history) > 1:
                pass
            case "tool":
                history += begin(f"{chance.choice(ASKS)} ({step})")[1:]
                call = {"id": f"c{step}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
                sent(live, upstream, key, history, tools=TOOLS)
                history += [
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": f"c{step}", "content": "seen"},
                ]
            case "learn":
                live.api(key, "POST", "/v1/memory/items", {"kind": "goal", "text": f"The user wants a {step}th cat."})
                continue
            case _:
                history += begin(f"{chance.choice(ASKS)} ({step})")[1:]
        out = sent(live, upstream, key, history, tools=TOOLS)
        assert bare(out) == history
        for place in range(len(out) - 1):
            said = json.dumps(history[: place + 1])
            # a question that is not the newest any more, and was asked in these very words behind these very words
            assert known.setdefault(said, out[place]) == out[place]
        if history[-1]["role"] == "user":
            known[json.dumps(history)] = out[-1]
        history.append({"role": "assistant", "content": "Noted."})
        if chance.random() < 0.2:
            history.pop()
