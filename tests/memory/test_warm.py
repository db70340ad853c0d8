"""Warm cubes: what was loaded is not thrown away, and nothing is loaded that cannot be kept."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from memory.index import Index
from memory.memories import Memories, digest
from memory.models import Embedder
from memory.retrieve import Question, Result, Retriever
from memory.shelf import BUSY_S, Shelf
from memory.sql import Database
from memory.store import IndexBroken, Piece, Store
from memory.types import Kind, Memory
from memory.warm import LOOK_S, PIECE
from tests.memory.make import CUBE, NOW, OWNER, memory


class Slow(Store):
    """A store that counts how often a cube is read whole, gives its rows when it may, and can be out of reach."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.read: Counter[str] = Counter()
        self.gate, self.asked = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.away = False

    async def pieces(self, cube: str, generation: int) -> list[Piece]:
        self.asked.set()
        await self.gate.wait()
        if self.away:
            raise IndexBroken("out of reach")
        self.read[cube] += 1
        return await super().pieces(cube, generation)


@dataclass
class World:
    """Cubes with an index, and a store that is watched."""

    database: Database
    store: Slow
    embedder: Embedder
    threads: ThreadPoolExecutor

    async def remember(self, *texts: str, cube: str = CUBE) -> None:
        for text in texts:
            await Memories(self.database).add(memory(text=text, cube=cube), OWNER)
        await Index(self.database, self.store, self.embedder).catch_up(cube)

    def proxy(self, **options: float) -> Retriever:
        return Retriever(self.database, self.store, self.embedder, self.threads, **options)  # type: ignore[arg-type]


async def ask(proxy: Retriever, cube: str = CUBE, text: str = "How is my dog called?") -> tuple[list[str], str | None]:
    result: Result = await proxy.retrieve(cube, Question(text, NOW))
    return [hit.passage for hit in result.hits], result.degraded


@pytest.fixture
def world(database: Database, data: Path, embedder: Embedder, threads: ThreadPoolExecutor) -> World:
    return World(database, Slow(str(data / "lance")), embedder, threads)


async def test_a_cube_goes_on_loading_when_its_question_is_given_up(world: World) -> None:
    await world.remember("My dog is called Rex.")
    proxy = world.proxy()
    world.store.gate.clear()
    questions = [asyncio.create_task(ask(proxy)) for _ in range(3)]
    await world.store.asked.wait()
    for question in questions:
        question.cancel()
    await asyncio.gather(*questions, return_exceptions=True)
    world.store.gate.set()
    await proxy.loaded()
    assert await ask(proxy) == (["My dog is called Rex."], None)
    assert world.store.read[CUBE] == 1


async def test_those_who_wait_for_a_cube_share_its_loading(world: World) -> None:
    await world.remember("My dog is called Rex.")
    proxy = world.proxy()
    assert await asyncio.gather(*(ask(proxy) for _ in range(5))) == [(["My dog is called Rex."], None)] * 5
    assert world.store.read[CUBE] == 1


async def test_an_index_that_can_be_read_again_is_used_again(world: World) -> None:
    await world.remember("My dog is called Rex.")
    proxy, world.store.away = world.proxy(again_s=0), True
    assert await ask(proxy) == (["My dog is called Rex."], "index")
    await proxy.loaded()
    assert await ask(proxy) == (["My dog is called Rex."], "index")
    await proxy.loaded()
    world.store.away = False
    await ask(proxy)
    await proxy.loaded()
    assert await ask(proxy) == (["My dog is called Rex."], None)


async def test_an_index_that_cannot_be_read_is_not_tried_at_every_question(world: World) -> None:
    await world.remember("My dog is called Rex.")
    proxy, world.store.away = world.proxy(), True
    await ask(proxy)
    world.store.asked.clear()
    assert await ask(proxy) == (["My dog is called Rex."], "index")
    await proxy.loaded()
    assert not world.store.asked.is_set()


@pytest.mark.parametrize(("budget", "reads"), [(1, {}), (130 * PIECE, {"c1": 1}), (1 << 30, {"c1": 1, "c2": 1})])
async def test_large_cubes_do_not_push_each_other_out_at_every_question(
    world: World, budget: int, reads: dict[str, int]
) -> None:
    for cube in ("c1", "c2"):
        await world.remember(f"My dog of {cube} is called Rex.", *(f"Note {n}." for n in range(120)), cube=cube)
    proxy = world.proxy(at_once=0, budget=budget)
    for _ in range(3):
        for cube in ("c1", "c2"):
            found, degraded = await ask(proxy, cube)
            assert (found[0], degraded) == (f"My dog of {cube} is called Rex.", None)
            await proxy.loaded()
    assert world.store.read == reads


@dataclass
class Thing:
    size: int


def test_who_was_asked_longest_ago_leaves_first() -> None:
    shelf: Shelf[Thing] = Shelf(10)
    for cube in ("a", "b", "a", "c"):
        shelf.put(cube, Thing(4))
    assert [cube for cube in "abc" if shelf.get(cube)] == ["a", "c"]
    shelf.put("d", Thing(99))
    assert [cube for cube in "abcd" if shelf.get(cube)] == ["d"]


def test_a_cube_in_use_keeps_its_room_until_it_is_not() -> None:
    now = [0.0]
    shelf: Shelf[Thing] = Shelf(10, lambda: now[0])
    shelf.put("a", Thing(7))
    assert (shelf.room("a"), shelf.room("b")) == (10, 3)
    now[0] = BUSY_S + 1
    assert shelf.room("b") == 10


class Watched:
    """The embedder, and how many texts it was given."""

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner
        self.texts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def embed(self, texts: Sequence[str]) -> Any:
        return self._inner.embed(texts)

    def embed_query(self, text: str) -> Any:
        return self._inner.embed_query(text)

    def encode(self, texts: list[str]) -> Any:
        self.texts += len(texts)
        return self._inner.encode(texts)  # type: ignore[attr-defined]

    def encode_query(self, text: str) -> Any:
        return self._inner.encode_query(text)  # type: ignore[attr-defined]


@pytest.fixture
def watched(world: World) -> Watched:
    world.embedder = watched = Watched(world.embedder)
    return watched


def fresh(text: str) -> Memory:
    return memory(text=text, kind=Kind.EPISODE, message_time=time.time())


async def test_a_fresh_turn_waits_for_its_vectors_while_its_own_conversation_goes_on(
    world: World, watched: Watched
) -> None:
    await world.remember("My cat is called Tom.")
    proxy = world.proxy(fresh_s=60.0)
    await ask(proxy)
    await Memories(world.database).add(fresh("I own a hound whose name is Rex."), OWNER)
    before = watched.texts
    seen = [digest("I own a hound whose name is Rex.")]
    await proxy.retrieve(CUBE, Question("How is my dog called?", NOW, seen=seen))
    assert watched.texts == before
    found, _ = await ask(proxy)  # another conversation
    assert "I own a hound whose name is Rex." in found
    assert watched.texts == before + 1
    await proxy.close()


async def test_what_somebody_else_has_embedded_is_not_embedded_again(world: World, watched: Watched) -> None:
    await world.remember("My cat is called Tom.")
    proxy = world.proxy(fresh_s=60.0)
    await ask(proxy)
    await Memories(world.database).add(fresh("I own a hound whose name is Rex."), OWNER)
    await proxy.warm(CUBE)
    await Index(world.database, world.store, watched).catch_up(CUBE)
    before = watched.texts
    assert "I own a hound whose name is Rex." in (await ask(proxy))[0]
    assert watched.texts == before
    await proxy.close()


async def test_a_users_fresh_words_go_by_the_vectors_that_they_had_as_a_question(
    world: World, watched: Watched
) -> None:
    await world.remember("My cat is called Tom.")
    proxy, said = world.proxy(fresh_s=60.0), "I own a hound whose name is Rex."
    proxy.give_way(lambda: True)  # nothing is done behind the scenes
    await proxy.retrieve(CUBE, Question(said, NOW, spoken=True))
    await Memories(world.database).add(fresh(said), OWNER)
    before = watched.texts
    assert said in (await ask(proxy))[0], "found by meaning: no word of the question stands there"
    assert watched.texts == before
    lent = await _vector(proxy, said)
    await Memories(world.database).add(fresh("The hall is painted green."), OWNER)  # and stays so whatever comes
    assert said in (await ask(proxy))[0]
    assert np.array_equal(await _vector(proxy, said), lent)
    await proxy.close()


async def test_lent_vectors_give_way_to_the_pieces_own(world: World, watched: Watched) -> None:
    await world.remember("My cat is called Tom.")
    proxy, said = world.proxy(fresh_s=0.5), "I own a hound whose name is Rex."
    proxy.give_way(lambda: True)
    await proxy.retrieve(CUBE, Question(said, NOW, spoken=True))
    await Memories(world.database).add(fresh(said), OWNER)
    assert said in (await ask(proxy))[0]
    lent = await _vector(proxy, said)
    await Index(world.database, world.store, world.embedder).catch_up(CUBE)
    before = watched.texts
    async with asyncio.timeout(20):
        while np.array_equal(await _vector(proxy, said), lent):
            await asyncio.sleep(0.1)
            assert said in (await ask(proxy))[0]
    (row,) = [p for p in await world.store.pieces(CUBE, 1) if said in p.text]
    assert np.allclose(await _vector(proxy, said), row.vector)
    assert watched.texts == before, "the executor's vectors are taken"
    await proxy.close()


async def test_words_that_nobody_asked_are_embedded_for_another_conversation(world: World, watched: Watched) -> None:
    await world.remember("My cat is called Tom.")
    proxy = world.proxy(fresh_s=60.0)
    await proxy.retrieve(CUBE, Question("I own a hound whose name is Rex.", NOW))  # looked up, not said
    await Memories(world.database).add(fresh("I own a hound whose name is Rex."), OWNER)
    before = watched.texts
    assert "I own a hound whose name is Rex." in (await ask(proxy))[0]
    assert watched.texts == before + 1
    await proxy.close()


async def _vector(proxy: Retriever, text: str) -> NDArray[np.float32]:
    info = await proxy._cubes.get(CUBE)
    assert info is not None
    view = await proxy._warm.whole(info)
    assert view is not None
    (found,) = [p.vector for p in view.living() if text in p.text]
    assert found is not None
    return found


async def test_a_quiet_cube_is_embedded_behind_the_scenes_and_a_busy_proxy_waits(
    world: World, watched: Watched
) -> None:
    await world.remember("My cat is called Tom.")
    proxy = world.proxy(fresh_s=60.0)
    busy = True
    proxy.give_way(lambda: busy)
    await ask(proxy)
    await Memories(world.database).add(fresh("I own a hound whose name is Rex."), OWNER)
    before = watched.texts
    await proxy.warm(CUBE)
    assert "I own a hound whose name is Rex." not in (await ask(proxy))[0]
    await asyncio.sleep(3 * LOOK_S)
    assert watched.texts == before, "chats come first"
    busy = False
    async with asyncio.timeout(20):
        while watched.texts == before:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert "I own a hound whose name is Rex." in (await ask(proxy))[0]
    assert watched.texts == before + 1
    await proxy.close()
