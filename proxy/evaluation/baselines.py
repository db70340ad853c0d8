"""What others do with the same texts: BM25, dense vectors, LanceDB's hybrid (both, fused by reciprocal rank), mem0 without a
model. Each side of a turn is one text, "Speaker (date): words"; a turn stands where its better side stands.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory.models import Embedder
from memory.pieces import label
from memory.store import Found, Piece, Store
from memory.types import Kind, Memory
from memory.words import terms
from proxy.evaluation import figures, peer
from proxy.evaluation.figures import AT, Answer
from proxy.evaluation.talk import Said, Talk

_DEPTH = 2 * AT[-1]  # texts: 50 turns may need both sides of each
_K = 60  # of reciprocal rank fusion (Cormack, Clarke, Büttcher, 2009), as in LanceDB
Ranking = Callable[[str], Awaitable[Sequence[str]]]  # a question → turn keys, best first, repeated as they come
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Text:
    """One side of a turn, as it is searched."""

    key: str
    side: str
    session: str
    at: float
    text: str


def texts(talk: Talk) -> list[Text]:
    """Every side that says something."""
    sides = [(turn, side) for turn in talk.turns for side in ("user", "assistant") if _words(turn, side).strip()]
    return [
        Text(turn.key, side, turn.session, turn.at, f"{_label(turn, side)}: {_words(turn, side)}")
        for turn, side in sides
    ]


def _words(turn: Said, side: str) -> str:
    return turn.text if side == "user" else turn.answer


def _label(turn: Said, side: str) -> str:
    said = Memory(id="", cube="", kind=Kind.EPISODE, text="", speaker=turn.speaker, message_time=turn.at)
    return label(said, side)


async def measure(talks: Sequence[Talk], store: Store, embedder: Embedder, progress: Progress) -> list[dict[str, Any]]:
    """A row per baseline: name, n, recall, hit, mrr, per_category, latency_ms."""
    answers: dict[str, list[Answer]] = defaultdict(list)
    total = sum(len(talk.questions) for talk in talks)
    for number, talk in enumerate(talks):
        every = texts(talk)
        vectors = await asyncio.to_thread(embedder.embed, [text.text for text in every])
        cube = f"baseline-{number}"
        await store.build(cube, 1, _pieces(every, vectors), embedder.dimensions)
        rankings = {
            "BM25": bm25(every),
            "dense": dense(every, vectors, embedder),
            "LanceDB hybrid": hybrid(every, store, cube, embedder),
        }
        for asked in talk.questions:
            progress("baselines", len(answers["BM25"]), total)
            for name, ranking in rankings.items():
                began = time.perf_counter()
                found = await ranking(asked.text)
                ms = (time.perf_counter() - began) * 1000
                answers[name].append(Answer(asked, tuple(dict.fromkeys(found))[: AT[-1]], ms=ms))
        await store.drop(cube, keep=None)
    return [row(name, given) for name, given in answers.items()]


async def mem0(talks: Sequence[Talk], python: str, progress: Progress) -> dict[str, Any]:
    """mem0's row. Raises BadData when `python` has no mem0."""
    answers: list[Answer] = []
    total = sum(len(talk.questions) for talk in talks)
    async with peer.started(python) as other:
        for number, talk in enumerate(talks):
            progress("mem0: learning", number, len(talks))
            await other.add(talk.name, [(text.key, text.text) for text in texts(talk)])
            for asked in talk.questions:
                progress("mem0: asking", len(answers), total)
                keys, ms, cpu_ms = await other.search(talk.name, asked.text, _DEPTH)
                answers.append(Answer(asked, tuple(dict.fromkeys(keys))[: AT[-1]], ms=ms, cpu_ms=cpu_ms))
    return row("mem0", answers)


def row(name: str, answers: Sequence[Answer]) -> dict[str, Any]:
    """A baseline's figures."""
    return {
        "name": name,
        **figures.of_ranking([answer for answer in answers if answer.asked.counts]),
        "per_category": figures.per_category(answers),
        "latency_ms": figures.spread([answer.ms for answer in answers]),
    }


def bm25(every: Sequence[Text]) -> Ranking:
    """Okapi BM25 (k1 1.2, b 0.75) over the stemmed words."""
    documents = [terms(text.text) for text in every]
    average = max(sum(map(len, documents)) / max(len(documents), 1), 1.0)
    postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for i, document in enumerate(documents):
        for term, times in Counter(document).items():
            postings[term].append((i, times))

    async def ranking(question: str) -> list[str]:
        scores: dict[int, float] = defaultdict(float)
        for term in terms(question):
            holders = postings.get(term, [])
            rarity = math.log(1 + (len(documents) - len(holders) + 0.5) / (len(holders) + 0.5))
            for i, times in holders:
                scores[i] += rarity * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * len(documents[i]) / average))
        return [every[i].key for i in sorted(scores, key=lambda i: (-scores[i], i))[:_DEPTH]]

    return ranking


def dense(every: Sequence[Text], vectors: NDArray[np.float32], embedder: Embedder) -> Ranking:
    """By cosine alone."""

    async def ranking(question: str) -> list[str]:
        order = np.argsort(-(vectors @ embedder.embed_query(question)), kind="stable")[:_DEPTH]
        return [every[int(i)].key for i in order]

    return ranking


def hybrid(every: Sequence[Text], store: Store, cube: str, embedder: Embedder) -> Ranking:
    """LanceDB's nearest vectors and its full-text matches, 50 of each, fused by reciprocal rank."""

    async def ranking(question: str) -> list[str]:
        asked = embedder.embed_query(question)
        near = await store.search(cube, 1, vector=asked, words="", limit=AT[-1])
        match = await store.search(cube, 1, vector=None, words=question, limit=AT[-1])
        fused: dict[str, float] = defaultdict(float)
        for hits in (_by(near, lambda hit: hit.cosine), _by(match, lambda hit: hit.words)):
            for place, hit in enumerate(hits, 1):
                fused[hit.piece.id] += 1 / (_K + place)
        return [every[int(number)].key for number in sorted(fused, key=lambda number: (-fused[number], int(number)))]

    return ranking


def _by(hits: Sequence[Found], score: Callable[[Found], float | None]) -> list[Found]:
    return sorted(hits, key=lambda hit: -(score(hit) or 0.0))


def _pieces(every: Sequence[Text], vectors: NDArray[np.float32]) -> list[Piece]:
    return [
        Piece(str(i), text.key, text.side, text.session, "episode", text.text, text.at, vector=vectors[i])
        for i, text in enumerate(every)
    ]
