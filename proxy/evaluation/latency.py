"""How long one question takes in a cube of so many memories, its embedding counted; ours and mem0's turn by turn in one run.

Texts and questions are made up, drawn with a fixed seed. The time of ours is also told by its parts: embedding, SQL, index
(LanceDB); what is left is ranking and the rest. SQL is partly read while the embedder runs, so parts may overlap.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Engine

from memory import late
from memory.late import Asked, Encoded
from memory.models import Embedder, Vectors
from memory.retrieve import Question, Retriever
from memory.store import Found, Store
from proxy import db
from proxy.config import Config
from proxy.evaluation import figures, peer, run
from proxy.evaluation.talk import Said, Talk
from proxy.parts import Parts
from proxy.tasks import Work

WARM_UP = 5  # questions that are not counted
_BEGAN = 1_750_000_000.0
_WHO = (
    "my sister|my neighbour Ines|Dr. Weber|Paul from work|the twins|our landlord|aunt Rosa|a friend from school".split(
        "|"
    )
)
_DID = "repaired|sold|ordered|painted|returned|borrowed|photographed|forgot|found|promised|tested|gave away".split("|")
_WHAT = (
    "the bread machine|a blue bicycle|two concert tickets|the garden shed|a cello bow|the tax papers|an espresso grinder|"
    "a pair of hiking boots|the kitchen lamp|a sourdough starter|the old tent|a train pass|an aquarium pump|the spare keys"
).split("|")
_WHERE = (
    "in Lisbon|at the market|near the harbour|in the cellar|at the clinic|on the ferry|in Graz|behind the school".split(
        "|"
    )
)
_ASKED = "do with|pay for|say about|plan for|like about|hear of".split("|")
_WHY = "because it was broken|for a birthday|on a whim|after a long argument|to save money|before the trip".split("|")

Progress = Callable[[str, int, int], None]


class Watch:
    """Milliseconds by part, of the question that is being answered."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count what is spent inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spent[part] += (time.perf_counter() - began) * 1000

    @contextmanager
    def sql(self) -> Iterator[None]:
        """Count every statement of every engine meanwhile."""

        def before(connection: sa.Connection, *_: Any) -> None:
            connection.info["began"] = time.perf_counter()

        def after(connection: sa.Connection, *_: Any) -> None:
            self.spent["sql"] += (time.perf_counter() - connection.info["began"]) * 1000

        sa.event.listen(Engine, "before_cursor_execute", before)
        sa.event.listen(Engine, "after_cursor_execute", after)
        try:
            yield
        finally:
            sa.event.remove(Engine, "before_cursor_execute", before)
            sa.event.remove(Engine, "after_cursor_execute", after)


class TimedEmbedder:
    """An embedder under the watch."""

    def __init__(self, inner: Embedder, watch: Watch) -> None:
        self._inner, self._watch = inner, watch
        self.id, self.dimensions, self.late = inner.id, inner.dimensions, getattr(inner, "late", 0)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As the inner one."""
        with self._watch("embed"):
            return self._inner.embed(texts)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """As the inner one."""
        with self._watch("embed"):
            return self._inner.embed_query(text)

    def encode(self, texts: list[str]) -> Encoded:
        """As the inner one."""
        with self._watch("embed"):
            return late.encode(self._inner, texts)

    def encode_query(self, text: str) -> Asked:
        """As the inner one."""
        with self._watch("embed"):
            return late.encode_query(self._inner, text)


class TimedStore(Store):
    """A store under the watch."""

    def __init__(self, root: str, watch: Watch) -> None:
        super().__init__(root)
        self._watch = watch

    async def _search(
        self, cube: str, generation: int, vector: NDArray[np.float32] | None, words: str, limit: int, where: str
    ) -> list[Found]:
        with self._watch("index"):
            return await super()._search(cube, generation, vector, words, limit, where)


def sentences(n: int) -> list[str]:
    """n different sentences of a made-up life, the same each time."""
    draw = random.Random(1)
    return [
        f"{_pick(draw, _WHO)} and I {_pick(draw, _DID)} {_pick(draw, _WHAT)} {_pick(draw, _WHERE)} {_pick(draw, _WHY)}, "
        f"it was {draw.randint(2, 900)} euros and note {number}."
        for number in range(n)
    ]


def questions(n: int) -> list[str]:
    """n questions that some of the sentences answer."""
    draw = random.Random(2)
    return [f"What did {_pick(draw, _WHO)} and I do with {_pick(draw, _WHAT)} {_pick(draw, _WHERE)}?" for _ in range(n)]


def every_question() -> list[str]:
    """All of them that there are, each once, in an order that stays the same."""
    parts = itertools.product(_WHO, _ASKED, _WHAT, _WHERE)
    found = [f"What did {who} and I {asked} {what} {where}?" for who, asked, what, where in parts]
    random.Random(3).shuffle(found)
    return found


def _pick(draw: random.Random, words: Sequence[str]) -> str:
    return draw.choice(words)


async def measure(
    config: Config, sizes: Sequence[int], asked: int, peer_python: str, progress: Progress
) -> dict[str, Any]:
    """{"rows": [{"memories", "pieces", "ours": {…}, "mem0": {…} or null}], "questions"}. Raises BadData when the named
    interpreter has no mem0."""
    await asyncio.to_thread(db.upgrade, config)
    python = peer.interpreter(peer_python)
    async with run.opened(config) as (parts, work), AsyncExitStack() as stack:
        other = await stack.enter_async_context(peer.started(python)) if python else None
        rows = [await _row(parts, work, other, size, asked, progress) for size in sizes]
    return {"questions": asked, "embedder": config.memory.embedder, "rows": rows}


async def _row(
    parts: Parts,
    work: Work,
    other: peer.Peer | None,
    size: int,
    asked: int,
    progress: Progress,
) -> dict[str, Any]:
    texts = sentences(size)
    turns = [Said(str(i), f"s{i // 20}", _BEGAN + i * 600.0, text) for i, text in enumerate(texts)]
    progress(f"{size}: learning", 0, 2)
    cube = await run.learn(parts, work, Talk(f"latency {size}", tuple(turns), ()), extract=False)
    progress(f"{size}: learning", 1, 2)
    if other:
        await other.fill(cube.id, [(turn.key, turn.text) for turn in turns])
    info = await parts.cubes.get(cube.id)
    watch = Watch()
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    with ThreadPoolExecutor(1) as threads, watch.sql():
        store = TimedStore(parts.config.store_root, watch)
        retriever = Retriever(parts.database, store, TimedEmbedder(parts.embedder, watch), threads)
        for number, text in enumerate(questions(asked + WARM_UP)):
            progress(f"{size}: asking", number, asked + WARM_UP)
            if number == 1:  # a large cube is answered by LanceDB until it is in memory
                await retriever.loaded()
            ours.append(await _timed(retriever, cube, text, watch))
            if other:
                _, ms, cpu_ms = await other.search(cube.id, text, 20)
                theirs.append({"ms": ms, "cpu_ms": cpu_ms})
    told = ("embed", "sql", "index", "rest")
    parts_ms = {name: figures.spread([row[name] for row in ours[WARM_UP:]])["p50"] for name in told}
    return {
        "memories": size,
        "pieces": info.indexed_rows if info else 0,
        "ours": _spread(ours[WARM_UP:]) | {"parts_p50_ms": parts_ms, "first_ms": round(ours[0]["ms"], 3)},
        "mem0": _spread(theirs[WARM_UP:]) if theirs else None,
    }


async def _timed(retriever: Retriever, cube: run.Cube, text: str, watch: Watch) -> dict[str, float]:
    watch.spent.clear()
    wall, cpu = time.perf_counter(), time.process_time()
    await retriever.retrieve(cube.id, Question(text=text, now=cube.talk.now))
    wall, cpu = (time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000
    spent = {part: watch.spent[part] for part in ("embed", "sql", "index")}
    return {"ms": wall, "cpu_ms": cpu, **spent, "rest": max(wall - sum(spent.values()), 0.0)}


def _spread(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    return {
        "ms": figures.spread([row["ms"] for row in rows]),
        "cpu_ms": figures.spread([row["cpu_ms"] for row in rows]),
    }
