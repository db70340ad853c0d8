"""Retrieval: a question in, hits out. The cube's view is LanceDB's rows and what SQL has since then.

Every hit is taken from SQL before it leaves, so what was changed or erased a moment ago is never shown as it was. When the
index cannot be read the whole cube is searched from SQL instead, and the result says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from memory.asked import Native, Questions
from memory.crew import Crew
from memory.cube import Cube, Cubes
from memory.expect import Expected, Known, next_turn, opening
from memory.graph import Graph
from memory.index import INDEXED
from memory.late import Asked, is_late
from memory.memories import digest
from memory.models import Embedder, Reranker
from memory.pieces import label, passage_of
from memory.rank import Comparing, Order, is_quick, rank, usual_cosine
from memory.rows import Rows
from memory.shelf import Keeping
from memory.signals import scaled
from memory.sql import Database
from memory.store import Filter, Store
from memory.types import Hit, Kind, Memory, Status
from memory.view import View
from memory.warm import AGAIN_S, AT_ONCE, Earlier, Held, Seen, Warm
from memory.words import fold, whole

SCORED = 80  # memories whose scores are told besides the hits
RERANKED = 10  # hits that a cross-encoder reads; of more it puts as many answers back as forward
READ = 0.7  # its share in their order
STALE = 0.7  # of its score remains to a turn that was overtaken
DIGESTS = 20_000  # that are kept
MORE = 10  # more of the best are looked up than are wanted: some are the same, or have changed


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. `seen` holds digests of user texts that stand in the request anyway; their turns are left out.
    `as_of`: what held at that moment, instead of what holds now. `every`: also what hardly fits."""

    text: str
    now: float
    limit: int = 30
    kinds: Collection[Kind] = ()
    seen: Collection[str] = ()
    since: float | None = None
    until: float | None = None
    tag: str | None = None
    entity: str | None = None
    as_of: float | None = None
    every: bool = False
    reasons: bool = True  # tell with each hit why it was found
    spoken: bool = False  # a user's message, which becomes a turn

    @property
    def only(self) -> Filter:
        """What the index has to look at."""
        kinds = tuple(kind.value for kind in self.kinds)
        return Filter(kinds, self.tag, self.entity, self.since, self.until, self.as_of)


@dataclass(frozen=True, slots=True)
class Echo:
    """Memory → how well it fits what was said; and the vector of what was said."""

    scores: Mapping[str, float]
    vector: NDArray[np.float32] | None


NO_ECHO = Echo({}, None)
_ALL = Filter()


@dataclass(frozen=True, slots=True)
class Result:
    """`degraded` names what did not work while the hits were found by other means."""

    hits: tuple[Hit, ...]
    degraded: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)  # memory → how well it fits, of all that fit, before READ


class Retriever:
    """The reading side of memory. One per process; `threads` runs the embedder off the event loop. `earlier` finds the
    embedder of an index that was made with another one; `reranker` reads the best hits once more; `keeping` says
    which cubes are worth their memory; what was said in the last `fresh_s` seconds is left to whoever else embeds it."""

    def __init__(
        self,
        database: Database,
        store: Store,
        embedder: Embedder,
        threads: Executor,
        *,
        reranker: Reranker | None = None,
        earlier: Earlier | None = None,
        rows: Rows | None = None,
        budget: int = 512 << 20,
        at_once: int = AT_ONCE,
        again_s: float = AGAIN_S,
        keeping: Keeping | None = None,
        fresh_s: float = 0.0,
    ) -> None:
        self._threads = threads
        self._reranker = reranker
        self._crew = Crew()
        self._questions = Questions(threads, self._crew)
        self._embedder = embedder
        self._cubes = Cubes(database)
        self._rows = rows or Rows(database, budget=0)
        self._graph = Graph(database)
        self._warm = Warm(
            database,
            store,
            embedder,
            threads,
            budget=budget,
            at_once=at_once,
            again_s=again_s,
            earlier=earlier,
            keeping=keeping,
            fresh_s=fresh_s,
        )
        self._usual: dict[str, float] = {}
        # (cube, memory) → its revision, the digest of its text
        self._digests: dict[tuple[str, str], tuple[int, str]] = {}

    def give_way(self, busy: Callable[[], bool]) -> None:
        """Do nothing behind the scenes while `busy` says that chats wait for their memory."""
        self._warm.busy = busy

    async def retrieve(self, cube: str, question: Question, *, info: Cube | None = None) -> Result:
        """The memories that answer the question, best first; as new as `info`, when the caller has just looked it up.
        Raises DatabaseError; an unreadable index does not raise."""
        question = replace(question, text=whole(question.text))
        info = info or await self._cubes.get(cube)
        if info is None or not question.text.strip():
            return Result(())
        loop = asyncio.get_running_loop()
        seen, ranked, asked = await self._compared(info, question)
        if question.spoken:
            self._warm.spoken(cube, question.text, asked, seen.embedder.id)
        hits = await self._hits(cube, question, ranked, seen.view)
        if self._reranker is not None and hits:
            asks = {hit.memory.id: _question_before(seen.view, hit.memory.id) for hit in hits[:RERANKED]}
            hits = await loop.run_in_executor(self._threads, _reranked, self._reranker, question.text, hits, asks)
        if question.as_of is None and (seen.view.overtaken or not seen.whole):
            hits = await self._marked(cube, hits)
        return Result(hits, seen.degraded, _best_of(ranked, seen.view))

    def expect_question(self, text: str) -> None:
        """Begin to embed what will be asked in a moment."""
        if text.strip():
            self._questions.begin(self._embedder, whole(text))

    async def _marked(self, cube: str, hits: tuple[Hit, ...]) -> tuple[Hit, ...]:
        """Turns that say what holds no longer step back, with what holds now."""
        stale = await self._graph.stale(cube, [hit.memory for hit in hits if hit.memory.kind is Kind.EPISODE])
        if not stale:
            return hits
        marked = [
            replace(
                hit,
                score=hit.score * STALE,
                replaced=tuple(
                    dict.fromkeys((one.now.id, one.now.text) if one.now else ("", "") for one in stale[hit.memory.id])
                ),
            )
            if hit.memory.id in stale and hit.side == "user"
            else hit
            for hit in hits
        ]
        return tuple(sorted(marked, key=lambda hit: -hit.score))

    async def scores(self, cube: str, text: str, now: float) -> Echo:
        """How well each memory fits what was said, without reading any of them; nothing is left out for fitting badly."""
        info = await self._cubes.get(cube)
        if info is None or not text.strip():
            return NO_ECHO
        seen, ranked, asked = await self._compared(info, Question(text=whole(text), now=now, every=True))
        return Echo(_best_of(ranked, seen.view), asked.vector)

    async def _compared(self, info: Cube, question: Question) -> tuple[Seen, Order, Asked]:
        """The question compared with all of the cube, which is brought up to date while the question is embedded."""
        embedder = await self._warm.embedder_of(info)
        usual = 0.0 if question.every or is_late(embedder) else await self._usual_of(embedder)
        encoding = self._questions.begin(embedder, question.text)
        seen = self._warm.at_hand(info, embedder, question.seen)
        if seen is None:
            seen = await self._warm.see(info, encoding, question.text, question.only, embedder, question.seen)
        if seen.embedder.id != embedder.id:  # another generation replaced the one we knew
            encoding = self._questions.begin(seen.embedder, question.text)
            late = is_late(seen.embedder)
            usual = 0.0 if question.every or late else await self._usual_of(seen.embedder)
        if isinstance(encoding, Native) and is_quick(seen.view, question.text, encoding.asked):
            asked, only, now = encoding.asked, question.only, question.now
            comparing = Comparing(seen.view, question.text, asked, only, now, every=question.every)
            return seen, comparing.order(await encoding.compared(comparing.comparison)), asked
        return await encoding.then(partial(_answer, seen, question, usual))

    async def expect(self, cube: str, known: Known, vector: NDArray[np.float32] | None = None) -> Expected:
        """What speaks for each memory to be needed next: in the running session `known.session`, or, when that is empty, at
        the opening of the next one. Nothing of a cube that is too large to be held in memory."""
        info = await self._cubes.get(cube)
        view = None if info is None else await self._warm.whole(info)
        if view is None:
            return Expected((), (), np.zeros((0, 0), np.float32))
        if vector is not None and len(vector) != view.dimensions:
            vector = None
        loop = asyncio.get_running_loop()
        if known.session:
            return await loop.run_in_executor(None, next_turn, view, known, vector)
        return await loop.run_in_executor(None, opening, view, known)

    async def warm(self, cube: str) -> None:
        """Bring what was just written into the working set, so that the next question does not wait for it."""
        info = await self._cubes.get(cube)
        if info is not None:
            await self._warm.refresh(info)

    def unchanged(self, info: Cube, kinds: Collection[Kind], since: int) -> bool:
        """Whether it is known without asking the database that up to `info`'s revision no memory of these kinds and no pinned one
        has changed after revision `since`."""
        return self._warm.unchanged(info, kinds, since)

    def held(self, cube: str) -> Held | None:
        """What of the cube is in memory now; None: nothing."""
        return self._warm.held(cube)

    @property
    def held_bytes(self) -> int:
        """Bytes that all cubes in memory take."""
        return self._warm.used

    async def loaded(self) -> None:
        """Wait until no cube is being loaded."""
        await self._warm.loaded()

    async def close(self) -> None:
        """Give up what is being loaded, and what is asked."""
        await self._warm.close()
        self._crew.close()

    async def _usual_of(self, embedder: Embedder) -> float:
        if embedder.id not in self._usual:
            loop = asyncio.get_running_loop()
            self._usual[embedder.id] = await loop.run_in_executor(self._threads, usual_cosine, embedder)
        return self._usual[embedder.id]

    async def _hits(self, cube: str, question: Question, ranked: Order, view: View) -> tuple[Hit, ...]:
        hits: list[Hit] = []
        texts: set[int] = set()
        tried: set[tuple[str, str]] = set()
        pieces, step, seen, plain = view.pieces, max(question.limit, 1) + MORE, question.seen, question.only == _ALL
        for start in range(0, len(ranked), step):
            best: dict[tuple[str, str], int] = {}
            pairs = ranked.part(start, start + step)
            for place, (number, _) in enumerate(pairs):
                piece = pieces[number]
                if (key := (piece.memory, piece.side)) not in best:
                    best[key] = place
            memories = await self._rows.by_ids(cube, {memory for memory, _ in best})
            for (memory_id, side), place in best.items():
                memory = memories.get(memory_id)
                if memory is None or (memory_id, side) in tried:
                    continue
                if plain:  # nearly always; this is done for forty memories a question
                    if memory.status is not Status.ACTIVE or (
                        seen and memory.kind is Kind.EPISODE and self.digest_of(memory) in seen
                    ):
                        continue
                elif not self._wanted(memory, question):
                    continue
                number, score = pairs[place]
                _, passage = passage_of(memory, pieces[number].id)
                said = int(view.said[number])
                if passage and said not in texts:
                    texts.add(said)
                    why = ranked[start + place].why if question.reasons else None
                    hits.append(Hit(memory, score, side, why, passage))
                if len(hits) >= question.limit:
                    return tuple(hits)
            tried |= best.keys()
        return tuple(hits)

    def _wanted(self, memory: Memory, question: Question) -> bool:
        at = memory.event_time if memory.event_time is not None else memory.message_time
        return (
            _holds(memory, question.as_of)
            and (not question.kinds or memory.kind in question.kinds)
            and (question.tag is None or question.tag in memory.tags)
            and (question.entity is None or fold(question.entity) in map(fold, memory.entities))
            and (question.since is None or at >= question.since)
            and (question.until is None or at < question.until)
            and not (question.seen and memory.kind is Kind.EPISODE and self.digest_of(memory) in question.seen)
        )

    def digest_of(self, memory: Memory) -> str:
        """The digest of its text, kept for the next time."""
        place = (memory.cube, memory.id)  # an imported memory has the same id in two cubes
        known = self._digests.get(place)
        if known is None or known[0] != memory.rev:
            if len(self._digests) >= DIGESTS:
                self._digests.clear()
            known = self._digests[place] = memory.rev, digest(memory.text)
        return known[1]


def _answer(seen: Seen, question: Question, usual: float, asked: Asked) -> tuple[Seen, Order, Asked]:
    ranked = rank(seen.view, question.text, asked, question.only, question.now, usual=usual, every=question.every)
    return seen, ranked, asked


def _best_of(ranked: Order, view: View) -> dict[str, float]:
    """The best SCORED memories with their scores."""
    found: dict[str, float] = {}
    for start in range(0, len(ranked), SCORED):
        for number, score in ranked.part(start, start + SCORED):
            found.setdefault(view.pieces[number].memory, score)
            if len(found) >= SCORED:
                return found
    return found


def _holds(memory: Memory, as_of: float | None) -> bool:
    if as_of is None:
        return memory.status is Status.ACTIVE
    until = memory.valid_to
    return memory.status in INDEXED and memory.valid_from <= as_of and (until is None or as_of < until)


def _question_before(view: View, memory: str) -> str:
    """What was asked in the turn before, if something was: an answer alone says little."""
    before = view.before[view.codes.memories[memory]] if memory in view.codes.memories else -1
    said = [view.pieces[i] for i in np.flatnonzero(view.alive & (view.memories == before))] if before >= 0 else []
    texts = [piece.text.partition(": ")[2] for piece in said if piece.side == "user"]
    return texts[-1] if texts and texts[-1].rstrip().endswith(("?", "？")) else ""


def _reranked(reranker: Reranker, question: str, hits: tuple[Hit, ...], asks: dict[str, str]) -> tuple[Hit, ...]:
    """The best hits in an order that is mostly the cross-encoder's. It reads each with the question it answers."""
    head, tail = hits[:RERANKED], hits[RERANKED:]
    texts = [f"{asks[hit.memory.id]} {label(hit.memory, hit.side)}: {hit.passage}".strip() for hit in head]
    read = np.asarray(reranker.score(question, texts), float)
    mixed = (1 - READ) * scaled(np.array([hit.score for hit in head])) + READ * scaled(read)
    low, high = head[-1].score, head[0].score
    order = np.argsort(-mixed, kind="stable")
    # scores stay on the scale of the others, above those that were not read
    again = [
        replace(
            head[i], score=low + (high - low) * float(mixed[i]), why={**(head[i].why or {}), "read": float(read[i])}
        )
        for i in order
    ]
    return (*again, *tail)
