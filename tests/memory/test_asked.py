"""Questions that are being embedded, or were lately, are not embedded again; what follows does not wait for the event loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from memory.asked import Questions
from memory.late import Asked


class Counting:
    """An embedder that counts."""

    dimensions = 4

    def __init__(self, name: str = "counting") -> None:
        self.id, self.asked, self.fails, self.thread = name, 0, False, 0
        self.holds = threading.Event()
        self.holds.set()

    def embed(self, texts: Any) -> Any:
        return np.stack([self.embed_query(text) for text in texts])

    def embed_query(self, text: str) -> Any:
        self.asked, self.thread = self.asked + 1, threading.get_ident()
        self.holds.wait(10)
        if self.fails:
            raise RuntimeError("no vectors")
        return np.full(4, float(len(text)), np.float32)


@pytest.fixture
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as made:
        yield made


async def test_the_same_question_is_embedded_once(threads: Executor) -> None:
    questions, one = Questions(threads), Counting()
    both = [questions.begin(one, "Where is Rex?") for _ in range(2)]  # the second before the first is there
    first, second = await asyncio.gather(*(encoding.vectors() for encoding in both))
    assert first is second is await questions.begin(one, "Where is Rex?").vectors()
    assert isinstance(first, Asked)
    await questions.begin(one, "Where is Rex").vectors()
    assert (one.asked, len(questions)) == (2, 2)


async def test_each_embedder_has_its_own_vectors(threads: Executor) -> None:
    questions, one, other = Questions(threads), Counting(), Counting("other")
    await questions.begin(one, "Where is Rex?").vectors()
    await questions.begin(other, "Where is Rex?").vectors()
    assert (one.asked, other.asked) == (1, 1)


async def test_the_oldest_go_and_none_is_kept_for_long(threads: Executor) -> None:
    questions, one = Questions(threads, most=2), Counting()
    for text in ("a", "b", "c", "a"):
        await questions.begin(one, text).vectors()
    assert (one.asked, len(questions)) == (4, 2)
    forgetful = Questions(threads, kept_s=0.0)
    for _ in range(2):
        await forgetful.begin(one, "a").vectors()
    assert one.asked == 6


async def test_what_follows_is_done_by_the_thread_that_embedded(threads: Executor) -> None:
    questions, one, here = Questions(threads), Counting(), threading.get_ident()
    one.holds.clear()
    encoding = questions.begin(one, "Rex")
    waiting = asyncio.create_task(encoding.then(lambda asked: (threading.get_ident(), asked.vector[0])))
    await asyncio.sleep(0.05)
    one.holds.set()
    assert await waiting == (one.thread, 3.0)
    late, vector = await encoding.then(lambda asked: (threading.get_ident(), asked.vector[0]))
    assert late != here
    assert vector == 3.0


async def test_who_gives_up_takes_nothing_from_the_others(threads: Executor) -> None:
    questions, one = Questions(threads), Counting()
    one.holds.clear()
    waiting = [asyncio.create_task(questions.begin(one, "Rex").vectors()) for _ in range(2)]
    waiting.append(asyncio.create_task(questions.begin(one, "Rex").then(lambda asked: asked)))
    await asyncio.sleep(0.05)
    waiting[0].cancel()
    waiting[2].cancel()
    await asyncio.sleep(0)
    one.holds.set()
    assert isinstance(await waiting[1], Asked)
    assert one.asked == 1


async def test_nothing_of_what_followed_is_kept(threads: Executor) -> None:
    questions, one, large = Questions(threads), Counting(), Counting()
    one.holds.clear()
    waiting = asyncio.create_task(questions.begin(one, "Rex").then(lambda asked, kept=large: kept.dimensions))
    await asyncio.sleep(0.05)
    one.holds.set()
    assert await waiting == 4
    gone = weakref.ref(large)
    del large, waiting
    gc.collect()
    assert gone() is None
    assert len(questions) == 1


async def test_an_embedder_that_failed_is_asked_again(threads: Executor) -> None:
    questions, one = Questions(threads), Counting()
    one.fails = True
    for ask in (
        lambda: questions.begin(one, "Rex").vectors(),
        lambda: questions.begin(one, "Rex").then(lambda asked: asked),
    ):
        with pytest.raises(RuntimeError, match="no vectors"):
            await ask()
    one.fails = False
    assert (await questions.begin(one, "Rex").vectors()).vector[0] == 3.0
