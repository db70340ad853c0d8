"""The topics of a cube: its memories in groups of like meaning, each named by the words that set it apart. For browsing.

Each memory goes, once, to the topic whose mean vector is nearest, or opens a new one (leader clustering): the same memories in
the same order give the same topics, and a new memory costs one comparison with each of at most MOST topics. Vectors are those of
the index; a memory that has none yet waits for the next round. Erasing a memory dissolves its topic, whose others are placed anew.
"""

from __future__ import annotations

import asyncio
import base64
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.contradict import keys
from memory.entities import names
from memory.extract.text import bigrams, has_cjk
from memory.memories import from_row, link
from memory.nodes import PART_OF, TOPIC
from memory.sql import Database
from memory.types import Memory, Status, stable_id

# cosine to a topic's mean from which a memory belongs to it (default embedder; the pieces' label brings all nearer to each
# other, and so does an embedder that reads Chinese by its characters)
NEAR, NEAR_CJK = 0.57, 0.74
MOST = 128  # topics of a cube; beyond, the nearest takes what comes
BATCH = 16  # memories placed in one transaction: who writes beside it waits so long
LETS_IN_S = 0.01  # between two transactions, in which others write
_TERMS = 40  # words counted for a topic's name
_NAMED = 3  # words in a name
_Found = tuple[Memory, NDArray[np.float32]]  # and its vector


@dataclass(slots=True)
class _Topic:
    id: str
    name: str
    total: NDArray[np.float32]
    size: int
    words: Counter[str] = field(default_factory=Counter)
    changed: bool = False

    @property
    def mean(self) -> NDArray[np.float32]:
        length = float(np.linalg.norm(self.total))
        return self.total / length if length else self.total


class Topics:
    """Groups the memories of cubes."""

    def __init__(self, database: Database, embedder: str) -> None:
        """`embedder`: whose vectors are compared."""
        self._database = database
        self._embedder = embedder

    async def place(self, cube: str) -> int:
        """Give every active memory that has a vector its topic; returns how many were placed."""
        placed = 0
        while True:
            async with (
                self._database.read() as connection
            ):  # it looks at the whole cube: not while others want to write
                found = await _waiting(connection, cube, self._embedder)
            if found:
                placed += await self._database.write(partial(_place, cube=cube, embedder=self._embedder, found=found))
            if len(found) < BATCH:
                return placed
            await asyncio.sleep(LETS_IN_S)


async def _place(connection: AsyncConnection, *, cube: str, embedder: str, found: Sequence[_Found]) -> int:
    memories = sql.memories
    # what was erased or placed since it was found is left out
    here = (memories.c.cube == cube, memories.c.id.in_([memory.id for memory, _ in found]))
    query = sa.select(memories.c.id).where(*here, memories.c.status == Status.ACTIVE.value, ~_placed(cube))
    still = {row.id for row in (await connection.execute(query)).all()}
    waiting = [(memory, vector) for memory, vector in found if memory.id in still]
    if not waiting:
        return 0
    topics = await _load(connection, cube, embedder)
    for memory, vector in waiting:
        topic, nearness = _nearest(topics, vector)
        near = NEAR_CJK if has_cjk(memory.text) else NEAR
        if topic is None or (nearness < near and len(topics) < MOST):
            topic, nearness = _Topic(stable_id(TOPIC, memory.id), "", np.zeros_like(vector), 0), 1.0
            topics.append(topic)
        topic.total = topic.total + vector
        topic.size += 1
        topic.words.update(_words(memory))
        topic.changed = True
        await link(connection, cube, memory.id, PART_OF, topic.id, round(max(nearness, 0.0), 4))
    spread = Counter(word for topic in topics for word in topic.words)
    for topic in topics:
        if topic.changed:
            topic.name = _name(topic, spread, len(topics))
            await _keep(connection, cube, embedder, topic)
    return len(waiting)


def _placed(cube: str) -> sa.Exists:
    memories, edges = sql.memories, sql.edges
    return sa.exists().where(edges.c.cube == cube, edges.c.source == memories.c.id, edges.c.kind == PART_OF)


async def _waiting(connection: AsyncConnection, cube: str, embedder: str) -> list[_Found]:
    memories, vectors = sql.memories, sql.vectors
    query = (
        sa.select(memories, vectors.c.vector)
        .join(vectors, sa.and_(vectors.c.cube == memories.c.cube, vectors.c.piece == memories.c.id + ":u0"))
        .where(memories.c.cube == cube, memories.c.status == Status.ACTIVE.value, vectors.c.embedder == embedder)
        .where(~_placed(cube))
        .order_by(memories.c.message_time, memories.c.id)
        .limit(BATCH)
    )
    rows = (await connection.execute(query)).all()
    return [(from_row(row), np.frombuffer(row.vector, np.float32)) for row in rows]


async def _load(connection: AsyncConnection, cube: str, embedder: str) -> list[_Topic]:
    nodes = sql.nodes
    query = sa.select(nodes).where(nodes.c.cube == cube, nodes.c.kind == TOPIC).order_by(nodes.c.id)
    found = []
    for row in (await connection.execute(query)).all():
        kept: dict[str, Any] = row.attributes or {}
        if kept.get("embedder") == embedder and "total" in kept:
            total = np.frombuffer(base64.b64decode(kept["total"]), np.float32)
            found.append(_Topic(row.id, row.name, total, int(kept["size"]), Counter(kept["words"])))
    return found


async def _keep(connection: AsyncConnection, cube: str, embedder: str, topic: _Topic) -> None:
    nodes = sql.nodes
    kept = {
        "embedder": embedder,
        "size": topic.size,
        "total": base64.b64encode(topic.total.astype(np.float32).tobytes()).decode(),
        "words": dict(topic.words.most_common(_TERMS)),
    }
    here = (nodes.c.cube == cube, nodes.c.id == topic.id)
    await connection.execute(sa.delete(nodes).where(*here))
    row = {"cube": cube, "id": topic.id, "kind": TOPIC, "name": topic.name, "parent": None, "attributes": kept}
    await connection.execute(sa.insert(nodes).values(**row))


def _nearest(topics: list[_Topic], vector: NDArray[np.float32]) -> tuple[_Topic | None, float]:
    if not topics:
        return None, 0.0
    nearness = np.array([float(topic.mean @ vector) for topic in topics])
    best = int(np.argmax(nearness))
    return topics[best], float(nearness[best])


def _words(memory: Memory) -> set[str]:
    """The words that may name a topic, as they are read: not stemmed, each once a memory."""
    text = memory.text[:600]
    plain = {word.strip(".,;:!?\"'()").lower() for word in text.split()}
    found = {word for word in plain if len(word) > 2 and word.isascii() and word.isalpha() and keys(word)}
    return (
        found | {pair for pair in bigrams(text) if keys(pair) == set(pair)} | {name.lower() for name in names(text)[:6]}
    )


def _name(topic: _Topic, spread: Counter[str], topics: int) -> str:
    """The most frequent words of the topic that few other topics have."""

    def weight(word: str) -> tuple[float, str]:
        return (-topic.words[word] * math.log(1 + topics / max(spread[word], 1)), word)

    return ", ".join(sorted(topic.words, key=weight)[:_NAMED]) or "other"
