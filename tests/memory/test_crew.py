"""Questions that are embedded and compared by threads without Python find what they would find here, whoever gives up meanwhile."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from memory import compiled
from memory.asked import Encoding, Native, Questions
from memory.crew import Crew
from memory.embed import CompiledEmbedder
from memory.index import embed_pieces
from memory.late import encode_query
from memory.models import Embedder
from memory.rank import Comparing, is_quick, rank
from memory.store import Filter
from memory.view import View
from tests.memory.make import NOW
from tests.memory.test_compiled import QUESTIONS, said

ASKED = [question for question in QUESTIONS if question and question.isascii()]


@pytest.fixture
def ours(embedder: Embedder) -> CompiledEmbedder:
    if not isinstance(embedder, CompiledEmbedder):
        pytest.skip("this processor has no products of bytes")
    return embedder


@pytest.fixture
async def crew() -> AsyncIterator[Crew]:
    made = Crew(2)
    yield made
    made.close()


@pytest.fixture
async def questions(crew: Crew) -> AsyncIterator[Questions]:
    with ThreadPoolExecutor(1) as threads:
        yield Questions(threads, crew)


async def ask(questions: Questions, embedder: Embedder, view: View, question: str) -> list[tuple[int, float]]:
    encoding = questions.begin(embedder, question)
    assert isinstance(encoding, Native)
    assert is_quick(view, question, encoding.asked)
    comparing = Comparing(view, question, encoding.asked, Filter(), NOW)
    return comparing.order(await encoding.compared(comparing.comparison)).pairs


async def test_they_find_the_same(ours: CompiledEmbedder, questions: Questions) -> None:
    view = View.of(embed_pieces(ours, said(np.random.default_rng(0), 900)), ours.dimensions)
    found = await asyncio.gather(*(ask(questions, ours, view, question) for question in ASKED))
    for question, pairs in zip(ASKED, found, strict=True):
        assert pairs == rank(view, question, encode_query(ours, question), Filter(), NOW).pairs
    assert any(found)


async def test_vectors_are_the_same_bit_for_bit_whoever_is_beside_them(
    ours: CompiledEmbedder, questions: Questions
) -> None:
    texts = [f"{question} And {n}?" for n in range(12) for question in ASKED if len(question) < 100]
    found = await asyncio.gather(*(questions.begin(ours, text).vectors() for text in texts))
    for text, asked in zip(texts, found, strict=True):
        alone = encode_query(ours, text)
        assert asked.pieces is not None
        assert alone.pieces is not None
        assert np.array_equal(asked.vector, alone.vector)
        assert np.array_equal(asked.pieces, alone.pieces)
        assert asked.spans == alone.spans


async def test_who_gives_up_takes_nothing_from_the_others(ours: CompiledEmbedder, questions: Questions) -> None:
    pieces = embed_pieces(ours, said(np.random.default_rng(1), 900))
    for n in range(6):
        view = View.of(pieces, ours.dimensions)
        tasks = [asyncio.ensure_future(ask(questions, ours, view, f"{question} {n}")) for question in ASKED]
        await asyncio.sleep(0)
        for task in tasks[1:]:
            task.cancel()
        del view  # nobody but what is asked holds it now
        gc.collect()
        await asyncio.gather(*tasks[1:], return_exceptions=True)
        assert await tasks[0]
    assert all(task.cancelled() for task in tasks[1:])


async def test_what_it_cannot_take_goes_the_other_way(ours: CompiledEmbedder, questions: Questions, crew: Crew) -> None:
    assert isinstance(questions.begin(ours, "long " * 500), Encoding)
    assert ours.spelled("") is None
    assert isinstance(questions.begin(ours, ""), Encoding)
    view = View.of(embed_pieces(ours, said(np.random.default_rng(2), 40)), ours.dimensions)
    foreign = questions.begin(ours, "我家的狗叫什么？")
    assert not is_quick(view, "我家的狗叫什么？", await foreign.vectors())
    assert await foreign.then(lambda asked: asked.vector.shape) == (384,)
    plain = View.of([replace(piece, late=None) for piece in view.living()], ours.dimensions)
    assert not is_quick(plain, "tea", await questions.begin(ours, "tea").vectors())
    await crew.embedded(10**9)  # of which it knows nothing (any more)


async def test_after_its_end(ours: CompiledEmbedder, questions: Questions, crew: Crew) -> None:
    view = View.of(embed_pieces(ours, said(np.random.default_rng(3), 900)), ours.dimensions)
    waiting = [asyncio.ensure_future(ask(questions, ours, view, f"Who is {n}?")) for n in range(30)]
    await asyncio.sleep(0)
    crew.close()
    crew.close()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(one, list | RuntimeError) for one in ended)
    assert any(isinstance(one, RuntimeError) for one in ended)
    assert isinstance(questions.begin(ours, "Who is left?"), Encoding)


async def test_what_nobody_asks_for_is_let_go_of(ours: CompiledEmbedder, questions: Questions, crew: Crew) -> None:
    for n in range(300):
        questions.begin(ours, f"Who is {n}?")
    for _ in range(2000):
        if len(crew._embedding) <= 64:
            break
        await asyncio.sleep(0.01)
    assert len(crew._embedding) <= 64


class Poor:
    """Threads for which there is never any memory."""

    def __init__(self, count: int) -> None:
        self.pipe, self._told = os.pipe()
        self._through: list[tuple[int, int]] = []

    def embed(self, number: int, *_: object) -> None:
        self._through.append((number, -1))

    def compare(self, number: int, after: int, comparison: object) -> None:
        self._through.append((number, -1))
        os.write(self._told, b"1")

    def through(self) -> list[tuple[int, int]]:
        found, self._through = self._through, []
        return found

    def close(self) -> None:
        os.close(self.pipe)
        os.close(self._told)


async def test_without_memory_a_question_is_not_taken_for_embedded(
    ours: CompiledEmbedder, questions: Questions, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory.crew.Threads", Poor)
    first = questions.begin(ours, "Who is Zora?")
    assert isinstance(first, Native)
    for _ in range(2):
        with pytest.raises(MemoryError):
            await first.vectors()
    assert questions.begin(ours, "Who is Zora?") is not first


async def test_without_threads_it_is_done_the_other_way(
    ours: CompiledEmbedder, questions: Questions, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(count: int) -> None:
        raise MemoryError

    monkeypatch.setattr("memory.crew.Threads", none)
    encoding = questions.begin(ours, "Who is Zora?")
    assert isinstance(encoding, Encoding)
    assert (await encoding.vectors()).vector.shape == (384,)
    assert not crew.is_there


def test_another_event_loop_is_served_the_other_way(ours: CompiledEmbedder) -> None:
    with ThreadPoolExecutor(1) as threads:
        crew = Crew(1)
        questions = Questions(threads, crew)

        async def vectors(text: str) -> type:
            encoding = questions.begin(ours, text)
            await encoding.vectors()
            return type(encoding)

        kinds = [asyncio.run(vectors(text)) for text in ("Who is Zora?", "Who is Zora?", "Who is Rex?")]
        assert kinds == [Native, Encoding, Encoding]
        crew.close()


_ENDS = """
import asyncio, sys
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from memory import embed
from memory.asked import Questions
from memory.crew import Crew

async def main():
    questions = Questions(ThreadPoolExecutor(1), Crew(2))
    for n in range(200):
        questions.begin(embedder, f"Who is {n}, and where was that seen in the year {n}?")
    await asyncio.sleep(0.005)
    sys.exit(3)

embedder = embed.make(embed.DEFAULT, Path(sys.argv[1]))
asyncio.run(main())
"""


def test_a_process_that_ends_in_the_middle_of_it_ends_well(ours: CompiledEmbedder, models_dir: Path) -> None:
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", _ENDS, str(models_dir)], timeout=60).returncode == 3


async def test_without_a_compiler_there_is_none(
    embedder: Embedder, questions: Questions, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_library", None)
    assert not crew.is_there
    assert isinstance(questions.begin(embedder, "tea?"), Encoding)
