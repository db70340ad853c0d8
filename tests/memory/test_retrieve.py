"""Retrieval: what was written is found at once, what was erased never, whatever state the index is in."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory.cube import Cubes
from memory.index import Index
from memory.memories import Memories, digest
from memory.models import Embedder
from memory.retrieve import Question, Retriever
from memory.sql import Database
from memory.store import Found, Piece, Store
from memory.types import Kind, Memory, Status
from memory.warm import EMBED_NOW
from tests.memory.make import CUBE, NOW, OWNER, learned_from, memory, put, turn


class Mirrored:
    """Another embedder: the same vectors, turned round."""

    id = "mirrored"
    dimensions = 384

    def __init__(self, real: Embedder) -> None:
        self._real = real

    def embed(self, texts: Any) -> Any:
        return np.ascontiguousarray(self._real.embed(texts)[:, ::-1])

    def embed_query(self, text: str) -> Any:
        return self.embed([text])[0]


class Interrupted(Store):
    """A store in which something happens, once, between a search and what is made of it."""

    meanwhile: Callable[[], Awaitable[Any]] | None = None

    async def search(self, *args: Any, **options: Any) -> list[Found]:
        found = await super().search(*args, **options)
        await self._interrupt()
        return found

    async def pieces(self, cube: str, generation: int) -> list[Piece]:
        found = await super().pieces(cube, generation)
        await self._interrupt()
        return found

    async def _interrupt(self) -> None:
        if (happens := self.meanwhile) is not None:
            self.meanwhile = None
            await happens()


class Mind:
    """A cube with the memories, the index and any number of proxies that read it."""

    def __init__(self, database: Database, store: Store, embedder: Embedder, threads: ThreadPoolExecutor) -> None:
        self.database, self.embedder, self._threads = database, embedder, threads
        self.memories = Memories(database)
        self.index = Index(database, store, embedder)
        self.retriever = self.proxy()

    def proxy(self, embedder: Embedder | None = None, **options: Any) -> Retriever:
        """One more process's reading side."""
        lance = str(Path(self.index._store.root))
        return Retriever(self.database, Store(lance), embedder or self.embedder, self._threads, **options)

    async def add(self, text: str, **fields: Any) -> Memory:
        return await self.memories.add(memory(text=text, **fields), OWNER)

    async def ask(self, text: str, retriever: Retriever | None = None, **fields: Any) -> list[str]:
        result = await (retriever or self.retriever).retrieve(CUBE, Question(text, NOW, **fields))
        return [hit.passage for hit in result.hits]


@pytest.fixture
def mind(database: Database, store: Store, embedder: Embedder, threads: ThreadPoolExecutor) -> Mind:
    return Mind(database, store, embedder, threads)


async def test_a_write_is_found_before_there_is_an_index(mind: Mind) -> None:
    await mind.add("My dog is called Rex.")
    assert await mind.ask("What is the name of my dog?") == ["My dog is called Rex."]


@pytest.mark.parametrize("indexed", [True, False])
async def test_a_write_is_found_beside_an_index(mind: Mind, indexed: bool) -> None:
    await mind.add("My dog is called Rex.")
    await mind.index.catch_up(CUBE)
    await mind.add("My cat is called Tom.")
    if indexed:
        await mind.index.catch_up(CUBE)
    assert set(await mind.ask("How are my dog and my cat called?")) == {
        "My dog is called Rex.",
        "My cat is called Tom.",
    }


@pytest.mark.parametrize("warm", [True, False])
async def test_a_changed_memory_is_never_shown_as_it_was(mind: Mind, warm: bool) -> None:
    known = await mind.add("My dog is called Rex.")
    await mind.index.catch_up(CUBE)
    if warm:
        await mind.ask("dog")
    await mind.memories.change(CUBE, known.id, {"text": "My dog is called Bello."})
    assert await mind.ask("What is the name of my dog?") == ["My dog is called Bello."]
    assert await mind.ask("Rex") == []


@pytest.mark.parametrize("status", [Status.ARCHIVED, Status.SUPERSEDED, Status.MERGED])
@pytest.mark.parametrize("indexed", [True, False])
async def test_only_active_memories_are_shown(mind: Mind, status: Status, indexed: bool) -> None:
    known = await mind.add("My dog is called Rex.")
    await mind.index.catch_up(CUBE)
    await put(mind.database, known.evolve(status=status))
    if indexed:
        await mind.index.catch_up(CUBE)
    assert await mind.ask("What is the name of my dog?") == []


async def test_a_forgotten_memory_is_gone_at_once(mind: Mind) -> None:
    known = await mind.add("My dog is called Rex.")
    await mind.index.catch_up(CUBE)
    assert await mind.ask("dog")
    await mind.memories.forget(CUBE, known.id)
    assert await mind.ask("dog") == []
    await mind.index.catch_up(CUBE)
    assert await mind.ask("dog") == []


async def test_other_cubes_are_not_read(mind: Mind) -> None:
    await mind.add("My dog is called Rex.", cube="c2")
    await mind.index.catch_up("c2")
    assert await mind.ask("dog") == []
    await mind.add("I have a dog, too.")
    assert await mind.ask("dog") == ["I have a dog, too."]


async def test_a_generation_may_be_replaced_while_a_proxy_holds_the_old_one(mind: Mind) -> None:
    await mind.add("My dog is called Rex.")
    await mind.index.catch_up(CUBE)
    await mind.ask("dog")
    for _ in range(3):
        await mind.index.rebuild(CUBE)
        result = await mind.retriever.retrieve(CUBE, Question("dog", NOW))
        assert ([hit.passage for hit in result.hits], result.degraded) == (["My dog is called Rex."], None)


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("way", ["catch_up", "rebuild"])
async def test_what_the_index_takes_over_during_a_question_is_still_found(
    mind: Mind, data: Path, way: str, large: bool
) -> None:
    await mind.add("I like tea.")
    await mind.index.catch_up(CUBE)
    await mind.add("My dog is called Rex.")
    store = Interrupted(str(data / "lance"))
    proxy = Retriever(mind.database, store, mind.embedder, mind._threads, at_once=0 if large else 100)

    async def meanwhile() -> None:
        await getattr(mind.index, way)(CUBE)
        if large:  # another question learns of the newer index (while a cube is loaded, questions wait)
            await mind.ask("tea", proxy)

    store.meanwhile = meanwhile
    assert await mind.ask("dog", proxy) == ["My dog is called Rex."]
    await proxy.loaded()


async def test_what_the_index_takes_over_after_it_was_searched_is_still_found(mind: Mind, data: Path) -> None:
    """A cube that is not loaded: another question lets go of what is new, as the index holds it by now."""
    await mind.add("I like tea.")
    await mind.index.catch_up(CUBE)
    await mind.add("My dog is called Rex.")
    store, loading = Interrupted(str(data / "lance")), asyncio.Event()
    proxy = Retriever(mind.database, store, mind.embedder, mind._threads, at_once=0)

    async def meanwhile() -> None:
        await mind.index.catch_up(CUBE)
        await mind.ask("tea", proxy)
        loading.set()

    held = store.pieces

    async def pieces(cube: str, generation: int) -> list[Piece]:
        await loading.wait()
        return await held(cube, generation)

    store.pieces = pieces  # type: ignore[method-assign]
    store.meanwhile = meanwhile
    assert await mind.ask("dog", proxy) == ["My dog is called Rex."]
    await proxy.loaded()


@pytest.mark.parametrize("harm", ["lost", "zeroed"])
async def test_a_damaged_index_costs_no_memory(mind: Mind, data: Path, harm: str) -> None:
    import shutil

    await mind.add("My dog is called Rex.")
    await mind.index.catch_up(CUBE)
    if harm == "lost":
        shutil.rmtree(data / "lance")
    for file in [file for file in (data / "lance").rglob("*") if file.is_file()]:
        file.write_bytes(b"\0" * file.stat().st_size)
    result = await mind.proxy().retrieve(CUBE, Question("dog", NOW))
    assert ([hit.passage for hit in result.hits], result.degraded) == (["My dog is called Rex."], "index")


async def test_another_embedder_serves_before_and_after_it_has_its_own_index(mind: Mind) -> None:
    await mind.add("My dog is called Rex.")
    await mind.index.catch_up(CUBE)
    other = Mirrored(mind.embedder)
    proxy = mind.proxy(other)
    assert await mind.ask("How is my dog called?", proxy) == ["My dog is called Rex."]
    await Index(mind.database, mind.index._store, other).catch_up(CUBE)
    assert await mind.ask("How is my dog called?", proxy) == ["My dog is called Rex."]
    assert await mind.ask("How is my dog called?") == ["My dog is called Rex."]


@pytest.mark.parametrize("question", ["", "  ", "?", "\x00", "the of and"])
async def test_an_empty_question_finds_nothing(mind: Mind, question: str) -> None:
    await mind.add("My dog is called Rex.")
    assert await mind.ask(question) == []


@pytest.mark.parametrize(
    "question", ["Explain the Krebs cycle", "Write a haiku about rust programming", "What is 17 times 23?"]
)
@pytest.mark.parametrize("indexed", [True, False])
async def test_what_was_never_said_finds_nothing(mind: Mind, question: str, indexed: bool) -> None:
    for text in ("My dog is called Rex.", "I live in Oslo.", "My sister's wedding is in June."):
        await mind.add(text)
    if indexed:
        await mind.index.catch_up(CUBE)
    assert await mind.ask(question) == []


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(
    ("narrowed", "expected"),
    [
        ({"kinds": [Kind.GOAL]}, {"tea goal"}),
        ({"tag": "work"}, {"tea work"}),
        ({"since": NOW + 10}, {"tea later"}),
        ({"until": NOW}, {"tea event"}),
        ({"since": NOW - 100, "until": NOW - 50}, {"tea event"}),
        ({"limit": 1, "tag": "work"}, {"tea work"}),
    ],
)
async def test_a_question_can_be_narrowed(mind: Mind, narrowed: Any, expected: set[str], indexed: bool) -> None:
    await mind.add("tea goal", kind=Kind.GOAL)
    await mind.add("tea work", tags=("work",))
    await mind.add("tea later", message_time=NOW + 10)
    await mind.add("tea event", event_time=NOW - 60)
    if indexed:
        await mind.index.catch_up(CUBE)
    assert set(await mind.ask("tea", **narrowed)) == expected


@pytest.mark.parametrize("indexed", [True, False])
async def test_a_narrow_question_is_not_drowned_by_what_it_leaves_out(mind: Mind, indexed: bool) -> None:
    await mind.add("my tea pot", kind=Kind.GOAL, tags=("work",), message_time=NOW - 999)
    for n in range(150):
        await mind.add(f"tea {n}")
    if indexed:
        await mind.index.catch_up(CUBE)
    for narrowed in ({"kinds": [Kind.GOAL]}, {"tag": "work"}, {"until": NOW}):
        assert await mind.ask("tea", limit=5, **narrowed) == ["my tea pot"], narrowed


async def test_what_stands_in_the_request_is_left_out(mind: Mind) -> None:
    await mind.add("My dog is called Rex.", kind=Kind.EPISODE)
    await mind.add("The dog Rex is seven.")
    assert await mind.ask("dog Rex", seen={digest("My dog is called Rex.")}) == ["The dog Rex is seven."]


async def test_the_same_words_are_shown_once(mind: Mind) -> None:
    for _ in range(3):
        await mind.add("My dog is called Rex.", kind=Kind.EPISODE, sources=learned_from(turn()))
    assert await mind.ask("dog") == ["My dog is called Rex."]


async def test_more_than_can_be_embedded_at_once_is_found_by_its_words(mind: Mind) -> None:
    for n in range(EMBED_NOW * 3):
        await mind.add(f"My unique word is zebra{n}.")
    assert await mind.ask("zebra0", limit=1) == ["My unique word is zebra0."]
    assert await mind.ask("zebra95", limit=1) == ["My unique word is zebra95."]


@pytest.mark.parametrize("indexed", [True, False])
async def test_half_an_emoji_in_a_question_does_no_harm(mind: Mind, indexed: bool) -> None:
    await mind.add("My dog is called Rex.")
    if indexed:
        await mind.index.catch_up(CUBE)
    result = await mind.retriever.retrieve(CUBE, Question("my dog \ud83d", NOW))
    assert ([hit.passage for hit in result.hits], result.degraded) == (["My dog is called Rex."], None)


async def test_a_question_given_up_in_the_middle_harms_no_other(mind: Mind) -> None:
    await mind.add("My dog is called Rex.")
    for pause in (0.0, 0.001, 0.003):
        asking = asyncio.create_task(mind.ask("dog"))
        await asyncio.sleep(pause)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert await mind.ask("dog") == ["My dog is called Rex."]


async def test_a_large_cube_is_answered_by_lancedb_until_it_is_loaded(mind: Mind) -> None:
    for n in range(30):
        await mind.add(f"My locker number {n} has the code {n * 37}.")
    await mind.index.catch_up(CUBE)
    await mind.add("My dog is called Rex.")
    proxy = mind.proxy(at_once=0)
    for _ in range(2):  # first beside the index, then in memory
        assert await mind.ask("What is the name of my dog?", proxy, limit=1) == ["My dog is called Rex."]
        assert await mind.ask("What is the code of locker number 12?", proxy, limit=1) == [
            "My locker number 12 has the code 444."
        ]
        await proxy.loaded()


async def test_little_memory_still_finds_everything(mind: Mind) -> None:
    proxy = mind.proxy(budget=1)
    for cube in ("c1", "c2", "c3"):
        await mind.add(f"My dog of {cube} is called Rex.", cube=cube)
        await mind.index.catch_up(cube)
    for cube in ("c1", "c2", "c3", "c1"):
        result = await proxy.retrieve(cube, Question("How is my dog called?", NOW))
        assert [hit.passage for hit in result.hits] == [f"My dog of {cube} is called Rex."]


async def test_what_held_at_a_moment_is_found_as_it_was(mind: Mind) -> None:
    old = await mind.add("I live in Oslo.", valid_from=NOW, status=Status.SUPERSEDED, valid_to=NOW + 100)
    await mind.add("I live in Rome.", valid_from=NOW + 100, message_time=NOW + 100, supersedes=old.id)
    for indexed in (False, True):
        if indexed:
            await mind.index.catch_up(CUBE)
        assert await mind.ask("Where do I live?") == ["I live in Rome."]
        assert await mind.ask("Where do I live?", as_of=NOW + 50) == ["I live in Oslo."]
        assert await mind.ask("Where do I live?", as_of=NOW + 100) == ["I live in Rome."]
        assert await mind.ask("Where do I live?", as_of=NOW - 1) == []


@pytest.mark.parametrize("named", ["Zoë", "zoe", "ZOË"])
@pytest.mark.parametrize("way", ["fresh", "in memory", "beside the index"])
async def test_a_question_about_a_person_is_narrowed_to_her_however_she_is_spelt(
    mind: Mind, named: str, way: str
) -> None:
    await mind.add("Ann likes tea.", entities=("Ann",))
    await mind.add("Zoë likes tea.", entities=("Zoë", "ZOE"))
    if way != "fresh":
        await mind.index.catch_up(CUBE)
    proxy = mind.proxy(at_once=0 if way == "beside the index" else 100)
    assert await mind.ask("Who likes tea?", proxy, entity=named) == ["Zoë likes tea."]
    assert [one.text for one in await mind.memories.page(CUBE, entity=named)] == ["Zoë likes tea."]
    await proxy.loaded()


async def test_old_vectors_serve_while_new_ones_are_made(mind: Mind) -> None:
    """Another embedder is configured: until the index has its vectors, questions are embedded with the one before."""
    before = Mirrored(mind.embedder)
    mind.index = Index(mind.database, mind.index._store, before)
    for n in range(EMBED_NOW * 2):
        await mind.add(f"The neighbour {n} plays chess.")
    await mind.add("My puppy is called Rex.", message_time=NOW - 5000)
    await mind.index.catch_up(CUBE)
    asked: list[str] = []

    async def earlier(embedder: str) -> Embedder | None:
        asked.append(embedder)
        return before if embedder == before.id else None

    proxy = mind.proxy(earlier=earlier)
    assert (await mind.ask("How do I call my young dog?", proxy, limit=1)) == ["My puppy is called Rex."]
    assert set(asked) == {"mirrored"}
    await Index(mind.database, mind.index._store, mind.embedder).catch_up(CUBE)
    asked.clear()
    assert (await mind.ask("How do I call my young dog?", proxy, limit=1)) == ["My puppy is called Rex."]
    assert asked == []


class Shouting:
    """A reranker that likes capital letters."""

    id = "shouting"

    def score(self, question: str, texts: Any) -> list[float]:
        return [float(sum(c.isupper() for c in text)) for text in texts]


async def test_a_reranker_has_its_say(mind: Mind) -> None:
    for text in ("My dog likes tea.", "MY DOG LIKES RAIN.", "My dog eats bones."):
        await mind.add(text)
    plain = await mind.retriever.retrieve(CUBE, Question("my dog", NOW))
    read = await mind.proxy(reranker=Shouting()).retrieve(CUBE, Question("my dog", NOW))
    assert read.hits[0].passage == "MY DOG LIKES RAIN."
    assert (read.hits[0].why or {})["read"] > 0
    assert {hit.memory.id for hit in read.hits} == {hit.memory.id for hit in plain.hits}
    assert [hit.score for hit in read.hits] == sorted((hit.score for hit in read.hits), reverse=True)


@pytest.mark.parametrize("seed", [1, 2])
async def test_proxies_writers_and_the_index_at_the_same_time(mind: Mind, seed: int) -> None:
    """What was committed before a question began is found; what was erased before it began is not."""
    dice, proxies, alone = random.Random(seed), [mind.proxy() for _ in range(3)], asyncio.Lock()
    here: dict[str, str] = {}  # id → its word
    words = iter(f"zq{seed}x{n}" for n in range(1000))
    erased: list[str] = []
    await mind.add("to begin with")

    async def write() -> None:
        word = next(words)
        kept = await mind.add(f"The word is {word}.")
        here[kept.id] = word

    async def change() -> None:
        if here:
            known, word = dice.choice(list(here)), next(words)
            old = here.pop(known)
            await mind.memories.change(CUBE, known, {"text": f"The word is {word}."})
            here[known] = word
            erased.append(old)

    async def forget() -> None:
        if here:
            known = dice.choice(list(here))
            word = here.pop(known)
            await mind.memories.forget(CUBE, known)
            erased.append(word)

    async def index() -> None:
        async with alone:  # the executor runs the jobs of a cube one after the other
            await dice.choice([mind.index.catch_up, mind.index.catch_up, mind.index.rebuild])(CUBE)

    async def read() -> None:
        proxy = dice.choice(proxies)
        if here:
            known, word = dice.choice(list(here.items()))
            answer = await mind.ask(word, proxy, limit=3)
            assert here.get(known) != word or f"The word is {word}." in answer, (word, answer)
        if erased:
            word = dice.choice(erased)
            answer = await mind.ask(word, proxy)
            assert f"The word is {word}." not in answer

    for _ in range(5):
        steps = dice.choices([write, change, forget, index, read], [5, 2, 1, 3, 9], k=25)
        await asyncio.gather(*(step() for step in steps))
    await mind.index.catch_up(CUBE)
    assert await mind.index.verify(CUBE) is None
    for proxy in proxies:
        for word in here.values():
            assert f"The word is {word}." in await mind.ask(word, proxy, limit=3)
    info = await Cubes(mind.database).get(CUBE)
    assert info is not None
    assert info.rev == info.indexed_rev
