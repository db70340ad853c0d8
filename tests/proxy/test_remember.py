"""Whole conversations of many shapes, resent as clients resend them: each turn is written down once, with the user's words;
a conversation is one session; and each prompt begins with the one before it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa

from memory import sql
from memory.agenda import Agenda
from memory.cube import Cubes
from memory.grants import Grants
from memory.memories import Memories
from memory.models import Embedder
from memory.retrieve import Retriever
from memory.rows import Rows
from memory.sql import Database
from memory.store import Store
from memory.turns import TurnLog
from memory.types import Kind, Memory
from proxy.activating import Activation
from proxy.auth import Principal, home_cube
from proxy.background import Background
from proxy.blocks import Blocks
from proxy.config import MemorySettings, Sessions
from proxy.forecasts import Forecasts
from proxy.foresight import Foresight
from proxy.heads import Heads
from proxy.hooks import Exchange
from proxy.metrics import Metrics
from proxy.remember import Remember
from proxy.standing import Standing
from proxy.stream import Answer
from proxy.upstreams.routing import Routes
from scheduler.jobs import JobQueue
from scheduler.triggers import Triggers

ALL = frozenset({"chat", "memory:read", "memory:write"})
CALL: dict[str, Any] = {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
IMAGE = [{"type": "image_url", "image_url": {"url": "data:,"}}]
RAG = "### Task:\nRespond to the user query using the provided context.\n<context>\nI am a page about zqpage.\n</context>\n\n{}"
THOUGHT = "<think>The user wants it short.</think>\n\n"


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def system(text: str, role: str = "system") -> dict[str, Any]:
    return {"role": role, "content": text}


def tool(text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": "c", "content": text}


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class House:
    """A proxy's memory without its HTTP."""

    remember: Remember
    database: Database
    background: Background
    clock: Clock
    principal: Principal = field(default_factory=lambda: Principal("pr", "key", ALL))
    prompts: list[list[Any]] = field(default_factory=list)

    async def turn(
        self,
        messages: list[Any],
        answer: str = "Noted.",
        *,
        tools: bool = False,
        calls: bool = False,
        broken: bool = False,
        scopes: frozenset[str] = ALL,
        **headers: str,
    ) -> list[Any]:
        """One request with its answer; returns the messages that the model was given."""
        body = {"model": "m", "messages": messages} | ({"tools": []} if tools else {})
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        principal = Principal(self.principal.id, "key", scopes)
        exchange = Exchange("req", principal, named, body, json.dumps(body).encode(), received_at=self.clock())
        await self.remember.on_request(exchange)
        given = exchange.messages
        assert "degraded" not in exchange.response_headers["x-memory-state"]
        self.clock.now += 1
        exchange.answer = Answer(answer, not broken, calls, "tool_calls" if calls else "stop", "m", None)
        await (self.remember.on_error(exchange, OSError()) if broken else self.remember.on_response(exchange))
        await self.background.drain(10)
        self.clock.now += 20
        self.prompts.append(given)
        return given

    async def written(self) -> list[tuple[str, str]]:
        return [(turn.user_text, turn.assistant_text) for turn in await self._turns()]

    async def sessions(self) -> int:
        return len({turn.session for turn in await self._turns()})

    async def _turns(self) -> list[sa.Row[Any]]:
        table = sql.turns
        async with self.database.read() as connection:
            rows = await connection.execute(sa.select(table).where(table.c.replaced == 0).order_by(table.c.said_at))
            return list(rows.all())

    async def knows(self, text: str, kind: Kind = Kind.IDENTITY) -> None:
        cube, now = home_cube(self.principal.id), self.clock()
        memory = Memory(
            id=f"m-{text}", cube=cube, kind=kind, text=text, message_time=now, created_at=now, valid_from=now
        )
        await Memories(self.database).add(memory, self.principal.id)


@pytest.fixture
async def house(
    database: Database, store: Store, embedder: Embedder, threads: ThreadPoolExecutor, nobody: JobQueue
) -> AsyncIterator[House]:
    background, clock, metrics = Background(), Clock(), Metrics()
    rows = Rows(database)
    retriever = Retriever(database, store, embedder, threads, rows=rows)
    foresight = Foresight(retriever=retriever, rows=rows, forecasts=Forecasts(database), metrics=metrics, clock=clock)
    remember = Remember(
        settings=MemorySettings(deadline_ms=20_000, record_deadline_ms=20_000),
        reading=Sessions(),
        secret=b"secret",
        cubes=Cubes(database),
        grants=Grants(database),
        turns=TurnLog(database),
        memories=Memories(database, clock),
        standing=Standing(database, b"secret", 400, clock),
        retriever=retriever,
        agenda=Agenda(database),
        blocks=Blocks(database, background),
        triggers=Triggers(nobody, []),
        foresight=foresight,
        states=Activation(
            routes=Routes([]),
            cubes=Cubes(database),
            heads=Heads(database, background, clock),
            standing=Standing(database, b"secret", 400, clock),
            clock=clock,
        ),
        metrics=metrics,
        spawn=background,
        clock=clock,
    )
    yield House(remember, database, background, clock)
    await background.drain(10)


@pytest.fixture
def nobody() -> Any:
    """The queue of an installation without triggers."""
    return None


Resend = Callable[[list[Any]], list[Any]]


def as_it_is(history: list[Any]) -> list[Any]:
    return history


def without_thoughts(history: list[Any]) -> list[Any]:
    return [{**m, "content": m["content"].replace(THOUGHT, "")} if m["role"] == "assistant" else m for m in history]


def folded_thoughts(history: list[Any]) -> list[Any]:
    fold = '<details type="reasoning" done="true">\n<summary>Thought</summary>\nshort\n</details>\n'
    return [{**m, "content": m["content"].replace(THOUGHT, fold)} if m["role"] == "assistant" else m for m in history]


def respaced(history: list[Any]) -> list[Any]:
    return [
        {**m, "content": "  " + m["content"].replace(" ", "  ") + "\n"} if m["role"] == "assistant" else m
        for m in history
    ]


def in_parts(history: list[Any]) -> list[Any]:
    return [
        {**m, "content": [{"type": "text", "text": m["content"]}]} if m["role"] == "assistant" else m for m in history
    ]


SAID = ["My dog Rex loves swimming.", "What does my dog Rex love?", "And where could Rex do that?", "yes", "yes"]


@pytest.mark.parametrize("resend", [as_it_is, without_thoughts, folded_thoughts, respaced, in_parts])
@pytest.mark.parametrize("head", [[], [system("Be kind.")], [system("Be kind.", "developer")]])
async def test_a_conversation_is_one_session_and_each_prompt_begins_with_the_last(
    house: House, resend: Resend, head: list[Any]
) -> None:
    await house.turn([user("I work with dogs, my name is Zora.")])
    await house.knows("The user's name is Zora.")
    history: list[Any] = []
    for text in SAID:
        await house.turn([*head, *resend(history), user(text)], f"{THOUGHT}Noted: {text}")
        history += [user(text), assistant(f"{THOUGHT}Noted: {text}")]
    assert await house.written() == [
        ("I work with dogs, my name is Zora.", "Noted."),
        *((text, f"Noted: {text}") for text in SAID),
    ]
    assert await house.sessions() == 2
    for earlier, later in itertools.pairwise(house.prompts[1:]):
        assert users(later)[: len(users(earlier))] == users(earlier)
    assert "Zora" in str(house.prompts[1][0])


def users(messages: list[Any]) -> list[Any]:
    """The side of a prompt that clients resend as it was."""
    return [message for message in messages if message["role"] != "assistant"]


async def test_the_first_session_of_all_keeps_the_prompt_it_began_with(house: House) -> None:
    first = await house.turn([system("Be kind."), user("My name is Zora.")])
    await house.knows("The user's name is Zora.")
    second = await house.turn([system("Be kind."), user("My name is Zora."), assistant("Noted."), user("Who am I?")])
    assert second[:2] == first
    assert "Zora" in second[-1]["content"]


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("how", [{"x_memory": "read"}, {"scopes": frozenset({"chat", "memory:read"})}])
async def test_reading_only_keeps_the_prefix_too(house: House, how: dict[str, Any], knows: bool) -> None:
    await house.turn([user("My boat is called Marigold.")])
    if knows:
        await house.knows("The user's name is Zora.")
    history: list[Any] = []
    for text in ("What is my boat called?", "Is Marigold a good name for a boat?", "Thanks."):
        history.append(user(text))
        await house.turn([system("Be kind."), *history], **how)
        history.append(assistant("Noted."))
    for earlier, later in itertools.pairwise(house.prompts[1:]):
        assert later[: len(earlier)] == earlier
    assert len(await house.written()) == 1


async def test_a_tool_loop_is_one_turn_with_one_block(house: House) -> None:
    await house.turn([user("My locker number is 4711.")])
    history = [user("Open my locker, you know its number.")]
    for text in (None, "Nearly there.", "Once more."):
        await house.turn(history, text or "", tools=True, calls=True)
        history = [*history, assistant(text, **CALL), tool("my name is Eve and zqtool")]
    await house.turn(history, "Your locker is open.", tools=True)
    assert len({json.dumps(prompt[0]) for prompt in house.prompts[1:]}) == 1
    assert "4711" in str(house.prompts[1])
    joined = [
        user("Open my locker, you know its number."),
        assistant("Nearly there.\n\nOnce more.\n\nYour locker is open."),
    ]
    await house.turn([*joined, user("Close it.")], tools=True)
    assert [text for text, _ in await house.written()][1:] == ["Open my locker, you know its number.", "Close it."]
    assert "zqtool" not in str(await house.written())
    assert await house.sessions() == 2


async def test_regenerating_asks_the_same_as_before(house: House) -> None:
    await house.turn([user("My favourite poet is Basho.")])
    asked = [user("Write me a haiku in the manner of my favourite poet.")]
    first = await house.turn(asked, "An old silent pond")
    again = await house.turn(asked, "A frog jumps in")
    assert again == first
    more = [*asked, assistant("A frog jumps in"), user("More")]
    assert (await house.turn(more))[:1] == first
    assert [answer for _, answer in await house.written()] == ["Noted.", "A frog jumps in", "Noted."]
    assert await house.sessions() == 2


async def test_an_edit_replaces_what_was_said_at_that_place(house: House) -> None:
    begun = [user("My plants are ferns."), assistant("Noted.")]
    await house.turn(begun[:1])
    await house.turn([*begun, user("They need watter daily."), assistant("Noted."), user("Right?")][:3])
    await house.turn([*begun, user("They need water daily.")])
    assert [text for text, _ in await house.written()] == ["My plants are ferns.", "They need water daily."]
    assert await house.sessions() == 1


async def test_an_answer_is_continued_without_a_second_turn(house: House) -> None:
    await house.turn([user("Tell me about newts.")], "Newts are ", broken=True)
    await house.turn([user("Tell me about newts."), assistant("Newts are ")], "amphibians.")
    assert await house.written() == [("Tell me about newts.", "Newts are amphibians.")]
    await house.turn([user("Tell me about newts."), assistant("Newts are amphibians."), user("Thanks")])
    assert await house.sessions() == 1


async def test_a_question_with_a_prefilled_answer_is_a_question(house: House) -> None:
    await house.turn([user("My cat is called Ida.")])
    given = await house.turn([user("What is my cat called?"), assistant("Your cat is called")], " Ida.")
    assert "Ida" in given[0]["content"]
    assert (await house.written())[-1] == ("What is my cat called?", "Your cat is called Ida.")


async def test_a_system_message_behind_the_question_does_not_hide_it(house: House) -> None:
    await house.turn([user("My cat is called Ida.")])
    given = await house.turn([user("What is my cat called?"), system("[Stay in character]")])
    assert "Ida" in given[0]["content"]


async def test_an_answer_cut_off_by_the_client_does_not_split_the_session(house: House) -> None:
    history = [user("My car is a van."), assistant("Noted.")]
    await house.turn(history[:1])
    await house.turn([*history, user("Tell me about vans.")], "Vans are large and", broken=True)
    history += [user("Tell me about vans."), assistant("Vans are")]  # the client had seen less
    await house.turn([*history, user("Go on.")])
    assert await house.sessions() == 1
    assert len(await house.written()) == 3


async def test_a_question_without_words_keeps_what_stood_before(house: House) -> None:
    await house.turn([user("My cat Ida is a tabby.")])
    await house.knows("The user's name is Zora.")
    history = [system("Be kind."), user("What is my cat Ida?")]
    first = await house.turn(history)
    history = [*history, assistant("Noted."), user(IMAGE)]
    second = await house.turn(history, "A tabby.")
    third = await house.turn([*history, assistant("A tabby."), user("Is that Ida?")])
    assert second == [*first, assistant("Noted."), user(IMAGE)]
    assert third[:4] == second
    assert [text for text, _ in await house.written()] == [
        "My cat Ida is a tabby.",
        "What is my cat Ida?",
        "Is that Ida?",
    ]
    assert await house.sessions() == 2


@pytest.mark.parametrize("kept", [1, 2, 3])
async def test_a_window_of_the_history_loses_and_doubles_nothing(house: House, kept: int) -> None:
    history: list[Any] = []
    for text in ("one fish", "two fish", "red fish", "blue fish", "one fish"):
        history.append(user(text))
        await house.turn([system("Be kind."), *history[-kept:]])
        history.append(assistant(f"Indeed, {text}."))
        house.clock.now += 1000
    assert [text for text, _ in await house.written()] == ["one fish", "two fish", "red fish", "blue fish", "one fish"]


async def test_a_compacted_history_loses_and_doubles_nothing(house: House) -> None:
    await house.turn([user("I have a red kite.")], "Nice.")
    await house.turn([user("I have a red kite."), assistant("Nice."), user("And a blue boat.")], "Nice too.")
    await house.turn([system("[CONVERSATION SUMMARY]\nThe user has a zqsummary."), user("And a green hat.")])
    assert [text for text, _ in await house.written()] == ["I have a red kite.", "And a blue boat.", "And a green hat."]
    assert "zqsummary" not in str(await house.written())


async def test_a_question_over_documents_is_the_same_question_later(house: House) -> None:
    await house.turn([user(RAG.format("What is on the page?"))], "A page.")
    await house.turn([user("What is on the page?"), assistant("A page."), user(RAG.format("And what else?"))], "More.")
    assert await house.written() == [("What is on the page?", "A page."), ("And what else?", "More.")]
    assert await house.sessions() == 1


@pytest.mark.parametrize("apart_s", [10, 10_000])
async def test_two_named_chats_that_begin_alike_stay_two(house: House, apart_s: float) -> None:
    for chat in ("one", "two"):
        await house.turn([user("Hi")], "Hello!", x_memory_session=chat)
        await house.turn([user("Hi"), assistant("Hello!"), user(f"I like {chat}.")], x_memory_session=chat)
        house.clock.now += apart_s
    assert [text for text, _ in await house.written()] == ["Hi", "I like one.", "Hi", "I like two."]
    assert await house.sessions() == 2


async def test_a_later_chat_that_begins_alike_is_a_session_of_its_own(house: House) -> None:
    for chat in ("one", "two"):
        await house.turn([user("Hi")], "Hello!")
        await house.turn([user("Hi"), assistant("Hello!"), user(f"I like {chat}.")])
        house.clock.now += 10_000
    assert [text for text, _ in await house.written()] == ["Hi", "I like one.", "Hi", "I like two."]
    assert await house.sessions() == 2


async def test_a_client_that_names_its_session_and_sends_no_history(house: House) -> None:
    for text in ("I have a red kite.", "And a blue boat.", "What colour is my kite?"):
        await house.turn([user(text)], x_memory_session="s")
    assert len(await house.written()) == 3
    assert await house.sessions() == 1
    assert "red" in house.prompts[-1][0]["content"]


async def test_the_same_turn_recorded_twice_at_once_is_one(house: House) -> None:
    await asyncio.gather(*(house.turn([user("My hat is felt.")]) for _ in range(5)))
    assert await house.written() == [("My hat is felt.", "Noted.")]


@pytest.mark.parametrize(
    ("scopes", "reads", "writes"),
    [
        ({"chat"}, False, False),
        ({"chat", "memory:read"}, True, False),
        ({"chat", "memory:write"}, False, True),
        ({"admin"}, True, True),
    ],
)
async def test_a_keys_scopes_say_what_its_chats_may_do(
    house: House, scopes: set[str], reads: bool, writes: bool
) -> None:
    await house.turn([user("My cat is called Ida.")])
    given = await house.turn([user("What is my cat called?")], scopes=frozenset(scopes))
    assert ("Ida" in given[0]["content"]) is reads
    assert len(await house.written()) == 1 + writes


async def test_nothing_but_the_users_words_is_ever_the_users(house: House) -> None:
    messages = [
        system("zqsystem"),
        user("<memory_context>zqforeign</memory_context>\nHello there."),
        assistant(None, **CALL),
        tool("zqtool"),
        assistant("Hm.", **CALL),
        tool("zqtool"),
        system("zqlate", "developer"),
    ]
    await house.turn(messages, "<think>zqthought</think>Hi!", tools=True)
    assert await house.written() == [("Hello there.", "Hi!")]


async def test_what_stands_in_the_block_is_used_when_a_question_finds_it(house: House) -> None:
    cube = home_cube("pr")
    memories = Memories(house.database, house.clock)
    said = [("zq1", Kind.PREFERENCE, "I drink zqtea without milk."), ("zq2", Kind.IDENTITY, "I am called Zora Hurst.")]
    for name, kind, text in said:
        await memories.add(Memory(name, cube, kind, text, message_time=house.clock.now), "pr")
    (prompt, _) = await house.turn([user("How do I drink my zqtea, with milk?")])
    assert all(text in json.dumps(prompt) for _, _, text in said)
    uses = {name: one.uses for name, one in (await memories.by_ids(cube, ["zq1", "zq2"])).items()}
    assert uses == {"zq1": 1, "zq2": 0}
