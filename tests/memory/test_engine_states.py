"""The engine with saved states and the real small model: what is restored gives the same answers, and only to its own cube."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from memory.activation.states import Budgets
from memory.activation.store import States
from memory.engine.chat import Chat, read
from memory.engine.engine import NOBODY, Engine
from memory.engine.errors import Busy
from memory.engine.generation import Generation
from memory.engine.settings import EngineSettings, bundled_model
from memory.engine.slots import Owner, Work
from memory.engine.waiting import Waiting

ENDLESS: dict[str, Any] = {"max_tokens": None, "logit_bias": {"2": -100}}  # 2 would end the answer


def memory(whose: str = "Ann") -> str:
    """About 100 tokens that say who somebody is."""
    return f"You help {whose}. " + " ".join(f"{whose} counted {i} birds on day {i * 3}." for i in range(7))


def chat(question: str = "How many birds were there on day 6?", *, system: str = memory(), **body: Any) -> Chat:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return read({"messages": messages, "temperature": 0, "max_tokens": 16} | body)


def mine(cube: str = "ann", session: str = "s1", **more: Any) -> Owner:
    return Owner(cube, session, **more)


@asynccontextmanager
async def running(root: Path, *, ram: int = 2**28, disk: int = 2**28, **overrides: Any) -> AsyncIterator[Engine]:
    """An engine over the states in `root`, with one slot, so that every conversation takes another's place."""
    states = States(root, Budgets(ram, disk), settle_s=0.0)
    said = {"context": 1024, "slots": 1, "threads": 1, "save_from": 16} | overrides
    engine = Engine(EngineSettings(bundled_model(), "small", **said), states)
    engine.start()
    await engine.ready()
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.close)
        await asyncio.to_thread(states.close)


async def answer(engine: Engine, asked: Chat, owner: Owner = NOBODY) -> tuple[str, Generation]:
    generation = await engine.generate(asked, owner)
    return "".join([delta.text async for delta in generation.deltas()]), generation


async def displace(engine: Engine) -> None:
    """Another conversation takes the slot."""
    await answer(engine, chat("Hi.", system="Be brief.", max_tokens=1))


@pytest.fixture(scope="module")
def cold() -> str:
    engine = Engine(EngineSettings(bundled_model(), "small", context=1024, slots=1, threads=1))
    engine.start()
    asyncio.run(engine.ready())
    text, _ = asyncio.run(answer(engine, chat()))
    engine.close()
    return text


def prompt_of(generation: Generation) -> int:
    """Of a prompt, two tokens are always read anew."""
    return generation.prompt_tokens - 2


async def test_conversation_comes_back_into_a_slot_that_was_given_away(tmp_path: Path, cold: str) -> None:
    async with running(tmp_path) as engine:
        await answer(engine, chat(), mine())
        await displace(engine)
        text, generation = await answer(engine, chat(), mine())
    assert (text, generation.cached_tokens, generation.cached_from) == (cold, prompt_of(generation), "ram")


async def test_conversation_comes_back_after_a_restart(tmp_path: Path, cold: str) -> None:
    async with running(tmp_path) as engine:
        await answer(engine, chat(), mine())
    async with running(tmp_path) as engine:
        text, generation = await answer(engine, chat(), mine())
        await displace(engine)
        _, second = await answer(engine, chat(), mine())
    assert (text, generation.cached_tokens, generation.cached_from) == (cold, prompt_of(generation), "disk")
    assert second.cached_from == "ram"


async def test_conversation_is_saved_when_it_rests(tmp_path: Path) -> None:
    async with running(tmp_path, save_after_s=0.0) as engine:
        await answer(engine, chat(), mine())
        async with asyncio.timeout(10):
            while not engine.states.held("ann"):  # noqa: ASYNC110 - another thread's
                await asyncio.sleep(0.005)
        assert [held.session for held in engine.states.held("ann")] == ["s1"]


async def test_prefix_is_built_ahead_and_used(tmp_path: Path, cold: str) -> None:
    messages = [{"role": "system", "content": memory()}]
    async with running(tmp_path) as engine:
        built = await engine.build(mine(), messages)
        again = await engine.build(mine(), messages)
        text, generation = await answer(engine, chat(), mine(session="new"))
    assert (built.present, again.present, again.held.key) == (False, True, built.held.key)
    assert (text, generation.cached_tokens, generation.cached_from) == (cold, built.held.tokens, "ram")
    assert generation.prompt_tokens - built.held.tokens < 30


async def test_prefix_begins_with_what_an_older_one_has(tmp_path: Path, cold: str) -> None:
    async with running(tmp_path) as engine:
        await engine.build(mine(), [{"role": "system", "content": memory() + " Ann likes tea."}])
        await engine.build(mine(), [{"role": "system", "content": memory()}])
        text, generation = await answer(engine, chat(), mine())
    assert (text, generation.cached_from) == (cold, "ram")


async def test_prefix_waits_for_chats_and_is_there_afterwards(tmp_path: Path) -> None:
    async with running(tmp_path, build_wait_s=0.3) as engine:
        generation = await engine.generate(chat("Tell me a story.", **ENDLESS), mine())
        for _ in range(2):
            with pytest.raises(Busy):
                await engine.build(mine(), [{"role": "system", "content": memory()}])
        generation.cancel()
        async with asyncio.timeout(10):
            while not engine.states.held("ann"):  # noqa: ASYNC110 - another thread's
                await asyncio.sleep(0.005)


async def test_another_cube_begins_cold(tmp_path: Path) -> None:
    async with running(tmp_path, slots=2) as engine:
        await answer(engine, chat(), mine())
        for other in (mine(cube="bob"), Owner()):
            _, generation = await answer(engine, chat(), other)
            assert (generation.cached_tokens, generation.cached_from) == (0, "")


async def test_chat_without_a_session_goes_by_states_and_saves_none(tmp_path: Path) -> None:
    async with running(tmp_path) as engine:
        await engine.build(mine(), [{"role": "system", "content": memory()}])
        _, generation = await answer(engine, chat(), mine(session=""))
        await displace(engine)
        assert generation.cached_from == "ram"
        assert [held.sort for held in engine.states.held("ann")] == ["prefix"]


async def test_four_users_at_once_get_nothing_of_each_other(tmp_path: Path) -> None:
    """Each has a word of their own in memory; with states mixed up, answers or counts would differ from those given alone."""
    words = ("quokka", "zephyr", "obelisk", "marzipan")
    asked = [
        chat("What is my secret word?", system=f"The secret word of this user is {word}. " + memory(word))
        for word in words
    ]
    async with running(tmp_path, slots=2) as engine:
        alone = [(await answer(engine, one))[0] for one in asked]
        for _ in range(2):
            together = await asyncio.gather(
                *(answer(engine, one, mine(word)) for one, word in zip(asked, words, strict=True))
            )
            texts = [text for text, _ in together]
            assert texts == alone
        assert all(generation.cached_tokens == prompt_of(generation) for _, generation in together)
    said = [{word for word in words if word in text} for text in texts]
    assert all(found <= {word} for found, word in zip(said, words, strict=True))
    assert any(said)


def damage(root: Path, cut: int) -> None:
    """Take the last bytes of ann's only file away; if they are many, put zeros there."""
    [path] = root.glob("ann/*.kv")
    raw = path.read_bytes()
    path.write_bytes(raw[:cut] + b"\0" * (-cut if cut < -1 else 0))


@pytest.mark.parametrize("cut", [-1, -(2**20)])
async def test_damaged_state_is_not_used_and_is_made_again(tmp_path: Path, cold: str, cut: int) -> None:
    async with running(tmp_path) as engine:
        await answer(engine, chat(), mine())
    damage(tmp_path, cut)
    async with running(tmp_path) as engine:
        text, generation = await answer(engine, chat(), mine())
        assert (text, generation.cached_tokens) == (cold, 0)
        assert sum(engine.states.sums().damaged.values()) == 1
    async with running(tmp_path) as engine:
        _, generation = await answer(engine, chat(), mine())
        assert generation.cached_from == "disk"


@pytest.mark.parametrize("setting", [{"slots": 2}, {"kv_type": "q8_0"}, {"exact": False}])
async def test_state_of_other_settings_is_not_used(tmp_path: Path, setting: dict[str, Any]) -> None:
    async with running(tmp_path) as engine:
        await answer(engine, chat(max_tokens=1), mine())
    async with running(tmp_path, **setting) as engine:
        _, generation = await answer(engine, chat(max_tokens=1), mine())
        assert (generation.cached_tokens, sum(engine.states.sums().damaged.values())) == (0, 1)


async def test_forgotten_cube_begins_cold_everywhere(tmp_path: Path, cold: str) -> None:
    async with running(tmp_path, slots=2) as engine:
        await answer(engine, chat(), mine())
        await engine.build(mine(), [{"role": "system", "content": memory()}])
        forgotten = await engine.forget("ann")
        text, generation = await answer(engine, chat(), mine())
    assert (forgotten["states"], forgotten["slots"]) == (1, 1)
    assert (text, generation.cached_tokens) == (cold, 0)


async def test_answer_goes_on_while_its_cube_is_forgotten_but_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as engine:
        generation = await engine.generate(chat("Tell me a story.", max_tokens=40, logit_bias={"2": -100}), mine())
        deltas = generation.deltas()
        await anext(deltas)
        await engine.forget("ann")
        assert [delta.finish async for delta in deltas][-1] == "length"
        await displace(engine)
        assert engine.states.held("ann") == []


async def test_hang_up_while_a_state_is_read_from_its_file_frees_the_slot(tmp_path: Path, cold: str) -> None:
    async with running(tmp_path) as engine:
        await answer(engine, chat(), mine())
    async with running(tmp_path, ram=0) as engine:
        for _ in range(20):
            (await engine.generate(chat(), mine())).cancel()
        text, _ = await answer(engine, chat(), mine())
        assert await asyncio.to_thread(engine.drain, 10)
        assert (text, engine.state.busy) == (cold, 0)


async def test_engine_whose_folder_cannot_be_used_answers_without_states(tmp_path: Path, cold: str) -> None:
    (tmp_path / "kv").write_text("a file stands in the way")
    async with running(tmp_path / "kv") as engine:
        text, generation = await answer(engine, chat(), mine())
        assert (text, generation.cached_tokens, engine.states) == (cold, 0, None)


def work(cube: str) -> Work:
    return Work(*(None,) * 5, Owner(cube))  # type: ignore[arg-type]


def test_waiting_cubes_take_turns() -> None:
    waiting = Waiting()
    many = [work("a") for _ in range(4)]
    for one in (*many, other := work("b")):
        waiting.add(one)
    order = []
    while (turn := waiting.first([])) is not None:
        waiting.take(turn)
        order.append(turn)
    assert order == [many[0], other, *many[1:]]


def test_cube_with_fewer_slots_comes_first() -> None:
    waiting = Waiting()
    waiting.add(work("a"))
    waiting.add(few := work("b"))
    assert waiting.first(["a", "a", "b"]) is few
    assert (len(waiting.remove(lambda one: one is few)), len(waiting)) == (1, 1)
