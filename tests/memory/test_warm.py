"""Warm cubes: what was loaded is not thrown away, and nothing is loaded that cannot be kept."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from memory.index import Index
from memory.memories import Memories
from memory.models import Embedder
from memory.retrieve import Question, Result, Retriever
from memory.shelf import BUSY_S, Shelf
from memory.sql import Database
from memory.store import IndexBroken, Piece, Store
from memory.warm import PIECE
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
