"""Retrieval: a question in, hits out. Reads LanceDB for what is indexed and SQL for what is newer.

Every hit is taken from SQL before it leaves, so what was changed or erased a moment ago is never shown as it was. When the
index cannot be read the whole cube is searched from SQL instead, and the result says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from memory.cube import Cube, Cubes
from memory.index import stored_vectors
from memory.memories import Memories, digest
from memory.models import Embedder
from memory.pieces import passage_of, pieces
from memory.rank import Ranked, Signals, rank
from memory.sql import Database
from memory.store import Found, IndexBroken, Piece, Store
from memory.types import Hit, Kind, Memory, Status
from memory.words import whole

log = logging.getLogger(__name__)
CANDIDATES = 100  # from each of the two searches of the index
NARROWED = 1000  # the same when only some of them are wanted, and the index cannot tell which
EMBED_NOW = 32  # fresh pieces embedded while a question waits; the rest are found by their words meanwhile


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. `seen` holds digests of user texts that stand in the request anyway; their turns are left out."""

    text: str
    now: float
    limit: int = 30
    kinds: Collection[Kind] = ()
    seen: Collection[str] = ()
    since: float | None = None
    until: float | None = None
    tag: str | None = None

    @property
    def narrowed(self) -> bool:
        """Whether some memories are not wanted, however well they fit."""
        return bool(self.kinds or self.tag is not None or self.since is not None or self.until is not None)


@dataclass(frozen=True, slots=True)
class Result:
    """`degraded` names what did not work while the hits were found by other means."""

    hits: tuple[Hit, ...]
    degraded: str | None = None


Known = tuple[dict[str, Memory], dict[str, NDArray[np.float32]]]  # memories by id, vectors by piece


@dataclass(slots=True)
class _Fresh:
    """What changed in a cube since its index was complete; a copy of SQL, kept up by revision."""

    base: int  # holds everything after this revision …
    known: int  # … up to this one
    generation: int = 0  # of the table beside which it stands; erasing a cube takes the next
    memories: dict[str, Memory] = field(default_factory=dict)
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Retriever:
    """The reading side of memory. One per process; `threads` runs the embedder off the event loop."""

    def __init__(
        self, database: Database, store: Store, embedder: Embedder, threads: Executor, *, cubes_kept: int = 512
    ) -> None:
        self._database = database
        self._store = store
        self._embedder = embedder
        self._threads = threads
        self._cubes = Cubes(database)
        self._memories = Memories(database)
        self._fresh: OrderedDict[tuple[str, bool], _Fresh] = OrderedDict()
        self._most = cubes_kept

    async def retrieve(self, cube: str, question: Question, *, info: Cube | None = None) -> Result:
        """The memories that answer the question, best first; as new as `info`, when the caller has just looked it up.
        Raises DatabaseError; an unreadable index does not raise."""
        info = info or await self._cubes.get(cube)
        if info is None or not question.text.strip():
            return Result(())
        question = replace(question, text=whole(question.text))
        loop = asyncio.get_running_loop()
        asking = loop.run_in_executor(self._threads, self._embedder.embed_query, question.text)
        found, fresh, degraded = await self._candidates(info, question, asking)
        ranked, candidates = await loop.run_in_executor(None, _rank, question, found, *fresh, await asking)
        return Result(await self._hits(cube, question, ranked, candidates), degraded)

    async def _candidates(
        self, info: Cube, question: Question, asking: asyncio.Future[NDArray[np.float32]]
    ) -> tuple[list[Found], Known, str | None]:
        limit = NARROWED if question.narrowed else CANDIDATES
        for attempt in (1, 2):
            if info.generation == 0 or info.embedder != self._embedder.id:
                return [], await self._sync(info, whole=True), None
            fresh = await self._sync(info, whole=False)
            try:
                found = await self._store.search(
                    info.id, info.generation, vector=await asking, words=question.text, limit=limit
                )
                return found, fresh, None
            except IndexBroken as error:
                # a new generation may just have replaced the one we knew
                again = await self._cubes.get(info.id)
                if attempt == 2 or again is None or again.generation == info.generation:
                    log.warning("index of cube %s: %s; searching SQL", info.id, error)
                    return [], await self._sync(info, whole=True), "index"
                info = again
        raise AssertionError("unreachable")

    async def _sync(self, info: Cube, *, whole: bool) -> Known:
        """A copy of the cube's fresh memories, as new as `info`; with `whole` all of its memories (no index to rely on).

        A copy taken before the index is searched: what the index takes over meanwhile is then found in both, not in none.
        """
        base = 0 if whole else info.indexed_rev
        while True:
            fresh = self._working_set((info.id, whole), base, info.generation)
            async with fresh.lock:
                if fresh.base <= base:  # else one who knows a newer index let go of what ours may not hold: start over
                    await self._bring_up(info, base, fresh)
                    return dict(fresh.memories), dict(fresh.vectors)

    def _working_set(self, key: tuple[str, bool], base: int, generation: int) -> _Fresh:
        fresh = self._fresh.get(key)
        if fresh is None or fresh.base > base or fresh.generation != generation:
            fresh = self._fresh[key] = _Fresh(base, base, generation)
        self._fresh.move_to_end(key)
        while len(self._fresh) > self._most:
            self._fresh.popitem(last=False)
        return fresh

    async def _bring_up(self, info: Cube, base: int, fresh: _Fresh) -> None:
        if fresh.known < info.rev:
            for memory in await self._memories.since(info.id, max(fresh.known, base)):
                self._drop_vectors(fresh, memory.id)
                fresh.memories[memory.id] = memory
                fresh.known = max(fresh.known, memory.rev)
        if base > fresh.base:  # the index has caught up: let go of what it holds
            for memory in [memory for memory in fresh.memories.values() if memory.rev <= base]:
                self._drop_vectors(fresh, memory.id)
                del fresh.memories[memory.id]
            fresh.base = base
        await self._embed(info.id, fresh)

    async def _embed(self, cube: str, fresh: _Fresh) -> None:
        missing = [
            piece
            for memory in sorted(fresh.memories.values(), key=lambda memory: -memory.rev)
            if memory.status is Status.ACTIVE
            for piece in pieces(memory)
            if piece.id not in fresh.vectors
        ]
        if len(missing) > EMBED_NOW:
            fresh.vectors |= await stored_vectors(self._database, self._embedder.id, cube, missing)
            missing = [piece for piece in missing if piece.id not in fresh.vectors]
        if missing:
            now = missing[:EMBED_NOW]
            loop = asyncio.get_running_loop()
            rows = await loop.run_in_executor(self._threads, self._embedder.embed, [piece.text for piece in now])
            fresh.vectors |= {piece.id: rows[i] for i, piece in enumerate(now)}

    @staticmethod
    def _drop_vectors(fresh: _Fresh, memory: str) -> None:
        old = fresh.memories.get(memory)
        for piece in pieces(old) if old else ():
            fresh.vectors.pop(piece.id, None)

    async def warm(self, cube: str) -> None:
        """Bring what was just written into the working set, so that the next question does not wait for it."""
        info = await self._cubes.get(cube)
        if info is not None:
            await self._sync(info, whole=info.generation == 0 or info.embedder != self._embedder.id)

    async def _hits(
        self, cube: str, question: Question, ranked: Sequence[Ranked], candidates: Sequence[Piece]
    ) -> tuple[Hit, ...]:
        hits: list[Hit] = []
        texts: set[str] = set()
        tried: set[tuple[str, str]] = set()
        step = max(question.limit, 1) * 2
        for start in range(0, len(ranked), step):
            best: dict[tuple[str, str], Ranked] = {}
            for entry in ranked[start : start + step]:
                best.setdefault((candidates[entry.index].memory, candidates[entry.index].side), entry)
            memories = await self._memories.by_ids(cube, {memory for memory, _ in best})
            for (memory_id, side), entry in best.items():
                memory = memories.get(memory_id)
                if (memory_id, side) in tried or memory is None or not _wanted(memory, question):
                    continue
                _, passage = passage_of(memory, candidates[entry.index].id)
                said = digest(passage)
                if passage and said not in texts:
                    texts.add(said)
                    hits.append(Hit(memory, entry.score, side, entry.why, passage))
                if len(hits) >= question.limit:
                    return tuple(hits)
            tried |= best.keys()
        return tuple(hits)


def _wanted(memory: Memory, question: Question) -> bool:
    at = memory.event_time if memory.event_time is not None else memory.message_time
    return (
        memory.status is Status.ACTIVE
        and (not question.kinds or memory.kind in question.kinds)
        and (question.tag is None or question.tag in memory.tags)
        and (question.since is None or at >= question.since)
        and (question.until is None or at < question.until)
        and not (question.seen and memory.kind is Kind.EPISODE and digest(memory.text) in question.seen)
    )


def _rank(
    question: Question,
    found: Sequence[Found],
    fresh: dict[str, Memory],
    vectors: dict[str, NDArray[np.float32]],
    asked: NDArray[np.float32],
) -> tuple[list[Ranked], list[Piece]]:
    candidates = [entry.piece for entry in found if entry.piece.memory not in fresh]
    for memory in fresh.values():
        if memory.status is Status.ACTIVE:
            candidates += [replace(piece, vector=vectors.get(piece.id)) for piece in pieces(memory)]
    if question.kinds:
        candidates = [piece for piece in candidates if piece.kind in question.kinds]
    cosine = np.array([float(asked @ piece.vector) if piece.vector is not None else np.nan for piece in candidates])
    signals = Signals(
        cosine=cosine,
        texts=[piece.text for piece in candidates],
        sessions=[piece.session for piece in candidates],
        times=np.array([piece.time for piece in candidates]),
        sides=[piece.side for piece in candidates],
    )
    return rank(question.text, signals, question.now), candidates
