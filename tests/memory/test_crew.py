"""Questions that are embedded and compared by threads without Python find what they would find here, whoever gives up meanwhile."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

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


async def test_without_a_compiler_there_is_none(
    embedder: Embedder, questions: Questions, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_library", None)
    assert not crew.is_there
    assert isinstance(questions.begin(embedder, "tea?"), Encoding)
