"""Cubes kept warm: a view of each cube in use, as new as SQL, made from the LanceDB index or, without one, from SQL.

A cube is loaded once and then only told what changed (by revision). A large cube is loaded behind the scenes while LanceDB
itself answers; one that there is no room for is always answered that way. Loading goes on when the question that began it is
given up. A cube that had to be read from SQL is read from its index as soon as that can be read again.

What was said in the last `fresh_s` seconds is embedded when a question of another conversation comes, or when the cube has been
quiet for a moment. Otherwise it waits: the executor embeds it anyway, and its vectors are taken from SQL then. Until then a
user's words go by the vectors that they had as a question, without the name and the day that a piece bears.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from weakref import WeakValueDictionary

import numpy as np

from memory.asked import Encoding, Native
from memory.cube import Cube, Cubes
from memory.index import INDEXED, embed_pieces, with_vectors
from memory.late import Asked, packed
from memory.memories import Memories, digest
from memory.models import Embedder
from memory.pieces import PASSAGE, pieces
from memory.shelf import Keeping, Shelf
from memory.sql import Database
from memory.store import Filter, IndexBroken, Piece, Store
from memory.types import Kind, Memory
from memory.view import View

log = logging.getLogger(__name__)
EMBED_NOW = 32  # fresh pieces embedded while a question waits; the rest are found by their words meanwhile
AT_ONCE = 3000  # pieces of a cube that are loaded while a question waits
LARGEST = 60_000  # pieces of a cube that is kept in memory at all
PIECE = 6000  # bytes a piece takes, until a cube has shown it
AGAIN_S = 30.0  # between two attempts to read an index
_LITTLE = 8  # pieces that are taken into …
_SMALL = 8000  # … a view of so many in the event loop's own thread
CANDIDATES = 200  # from each of LanceDB's two searches, when it answers itself
LOOK_S = 0.3  # without a question, then a cube is quiet
_LONGEST_S = 3.0  # between two looks for vectors that do not come
LENT = 1000  # questions whose vectors are kept for the turns that they become …
LENT_S = 600.0  # … for so long: a model may take its time to answer
PATIENCE_S = 60.0  # so long a turn waits for the executor's vectors while one question follows the other
LOOKED = 64  # of the turns that wait for them, so many are looked for at a time, the oldest

Earlier = Callable[[str], Awaitable[Embedder | None]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a question is compared with: a view, of all of the cube or of what a search found in it, the embedder whose vectors it
    holds, and what did not work."""

    view: View
    embedder: Embedder
    degraded: str | None = None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Held:
    """What of a cube is in memory: about so many bytes, for so many seconds; all of it, or only these memories, that the index
    does not have yet."""

    size: int
    age_s: float
    whole: bool
    memories: frozenset[str]


@dataclass(slots=True)
class _Warm:
    """A cube in memory. `whole`: all of it; else only what changed since revision `base`, the rest is LanceDB's. `again`:
    when its index may be read (once more), on the monotonic clock."""

    view: View
    embedder: Embedder
    generation: int
    base: int
    known: int
    whole: bool
    degraded: str | None = None
    changed: set[str] = field(default_factory=set)  # memories that changed since `base`
    again: float = 0.0
    made: float = field(default_factory=time.monotonic)
    due: float = 0.0  # when pieces without vectors are looked at, on the wall clock
    bare: frozenset[str] = frozenset()  # digests of what is fresh and has no vectors
    lent: dict[str, Piece] = field(
        default_factory=dict
    )  # what goes by a question's vectors, without them; oldest first
    asked: float = field(default_factory=time.monotonic)
    pause: float = LOOK_S  # between two looks for vectors; longer while there are none
    # kind (of pinned ones: None) → the last revision at which one of it has changed; of what changed since revision `began`
    learned: dict[Kind | None, int] = field(default_factory=dict)
    began: int = -1

    def __post_init__(self) -> None:
        self.began = self.known

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return self.view.size


class Warm:
    """All warm cubes of a process, at most `budget` bytes of them. `threads` runs the embedder off the event loop."""

    def __init__(
        self,
        database: Database,
        store: Store,
        embedder: Embedder,
        threads: Executor,
        *,
        budget: int = 512 << 20,
        at_once: int = AT_ONCE,
        again_s: float = AGAIN_S,
        earlier: Earlier | None = None,
        keeping: Keeping | None = None,
        fresh_s: float = 0.0,
    ) -> None:
        self.busy: Callable[[], bool] = lambda: False  # whether chats wait for their memory
        self._fresh_s = fresh_s
        self._filling: dict[str, asyncio.Task[None]] = {}
        # (cube, embedder, digest of what was asked) → when, and its vectors
        self._spoken: OrderedDict[tuple[str, str, str], tuple[float, Asked]] = OrderedDict()
        self._database = database
        self._store = store
        self._embedder = embedder
        self._threads = threads
        self._at_once = at_once
        self._again_s = again_s
        self._earlier = earlier
        self._cubes = Cubes(database)
        self._memories = Memories(database)
        self._keeping = keeping
        self._shelf: Shelf[_Warm] = Shelf(budget, keeping=keeping)
        self._piece = PIECE
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # of cubes that are waited for
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._going: set[asyncio.Task[_Warm]] = set()

    async def embedder_of(self, info: Cube) -> Embedder:
        """Whose vectors serve this cube: while a new embedder's are being made, the ones that are there."""
        if info.generation and info.embedder != self._embedder.id and self._earlier is not None:
            return await self._earlier(info.embedder) or self._embedder
        return self._embedder

    def spoken(self, cube: str, text: str, asked: Asked, embedder: str) -> None:
        """Keep the vectors of a question that becomes a turn; `embedder`: the id of whose they are."""
        if not self._fresh_s or len(text) > PASSAGE:
            return
        key, now = (cube, embedder, digest(text.strip())), time.monotonic()
        self._spoken.pop(key, None)
        self._spoken[key] = now, asked
        while len(self._spoken) > LENT or now - next(iter(self._spoken.values()))[0] > LENT_S:
            self._spoken.popitem(last=False)

    def at_hand(self, info: Cube, embedder: Embedder, told: Collection[str]) -> Seen | None:
        """The cube when it is there as a whole, as new as `info` and with nothing left to do; asks nothing of anybody. `told`:
        digests of what stands in the request anyway, and needs no vectors for it."""
        warm = self._shelf.get(info.id)
        if warm is None or not warm.whole or warm.degraded or not self._serves(warm, info, embedder):
            return None
        if warm.known < info.rev or warm.due <= time.time() or not self._may_wait(warm, told):
            return None
        warm.asked = time.monotonic()
        if self._keeping is not None:
            self._keeping.asked(info.id)
        self._shelf.put(info.id, warm)
        return Seen(warm.view, warm.embedder)

    async def see(
        self,
        info: Cube,
        asked: Encoding | Native,
        words: str,
        only: Filter,
        embedder: Embedder,
        told: Collection[str] = (),
    ) -> Seen:
        """The cube as it is at `info`'s revision or later; `told` as in at_hand."""
        if self._keeping is not None:
            self._keeping.asked(info.id)
        warm = await self._ready(info, embedder)
        if not self._may_wait(warm, told):
            async with self._locks.setdefault(info.id, asyncio.Lock()):
                await self._fill(info, warm, fresh=True, bare=True)
        warm.asked = time.monotonic()
        if warm.whole:
            return Seen(warm.view, warm.embedder, warm.degraded)
        # as they are before the search: once the index has caught up, another question may let go of them
        view, changed = warm.view, frozenset(warm.changed)
        try:
            found = await self._store.search(
                info.id,
                warm.generation,
                vector=(await asked.vectors()).vector,
                words=words,
                limit=CANDIDATES,
                only=only,
            )
        except IndexBroken as error:
            again = await self._cubes.get(info.id) or info
            log.warning("index of cube %s: %s", info.id, error)
            warm = await self._ready(again, await self.embedder_of(again), whole=True)
            return Seen(warm.view, warm.embedder, warm.degraded)
        fresh = view.living()
        held = changed | {piece.memory for piece in fresh}
        beside = [entry.piece for entry in found if entry.piece.memory not in held]
        found_view = await asyncio.to_thread(View.of, beside + fresh, embedder.dimensions)
        return Seen(found_view, warm.embedder, whole=False)

    async def whole(self, info: Cube) -> View | None:
        """All of a cube as it is now; None while it is not held as a whole."""
        warm = await self._ready(info, await self.embedder_of(info))
        return warm.view if warm.whole else None

    async def refresh(self, info: Cube) -> None:
        """Bring what was just written in, so that the next question does not wait for it."""
        await self._ready(info, await self.embedder_of(info))

    def unchanged(self, info: Cube, kinds: Collection[Kind], since: int) -> bool:
        """Whether it is known that up to `info`'s revision no memory of these kinds and no pinned one changed after `since`."""
        warm = self._shelf.get(info.id)
        if warm is None or warm.generation != info.generation or warm.known < info.rev or since < warm.began:
            return False
        return all(warm.learned.get(kind, 0) <= since for kind in (*kinds, None))

    def held(self, cube: str) -> Held | None:
        """What of the cube is in memory; None: nothing."""
        warm = self._shelf.get(cube)
        if warm is None:
            return None
        pieces = [] if warm.whole else [warm.view.pieces[i] for i in np.flatnonzero(warm.view.alive)]
        return Held(warm.size, time.monotonic() - warm.made, warm.whole, frozenset(piece.memory for piece in pieces))

    @property
    def used(self) -> int:
        """Bytes that all cubes in memory take."""
        return self._shelf.used

    async def loaded(self) -> None:
        """Wait until nothing is being loaded, for a question or behind the scenes."""
        while self._loading or self._going:
            await asyncio.gather(*self._loading.values(), *self._going, return_exceptions=True)

    async def close(self) -> None:
        """Give up what is being loaded."""
        tasks = [*self._loading.values(), *self._going, *self._filling.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- keeping up -----------------------------------------------------------------------------------------------------

    async def _ready(self, info: Cube, embedder: Embedder, *, whole: bool = False) -> _Warm:
        """The cube, brought up to date. When whoever waits gives up, the work goes on for the next one who asks."""
        return await asyncio.shield(self._begun(info, embedder, whole=whole))

    def _begun(self, info: Cube, embedder: Embedder, *, whole: bool) -> asyncio.Task[_Warm]:
        task = asyncio.create_task(self._current(info, embedder, whole=whole))
        self._going.add(task)
        task.add_done_callback(self._going.discard)
        return task

    async def _current(self, info: Cube, embedder: Embedder, *, whole: bool) -> _Warm:
        """`whole`: load all of it, whatever it takes, as its index does not answer."""
        async with self._locks.setdefault(info.id, asyncio.Lock()):
            warm = self._shelf.get(info.id)
            if warm is None or not self._serves(warm, info, embedder) or (whole and not warm.whole):
                has_index = bool(info.generation) and info.embedder == embedder.id
                if has_index and not whole and (info.indexed_rows > self._at_once or not self._fits(info)):
                    warm = self._beside_index(info, embedder)
                else:
                    warm = await self._load(info, embedder)
            if (warm.degraded or (not warm.whole and self._fits(info))) and time.monotonic() >= warm.again:
                warm.again = time.monotonic() + self._again_s
                if info.id not in self._loading:
                    self._loading[info.id] = asyncio.create_task(self._load_behind(info, embedder))
            await self._bring_up(info, warm)
            self._shelf.put(info.id, warm)
            return warm

    def _fits(self, info: Cube) -> bool:
        """Whether the cube can be kept whole. A small one may push out others that are in use, a large one may not."""
        size = info.indexed_rows * self._piece
        small = info.indexed_rows <= self._at_once
        room = size <= self._shelf.budget if small else self._shelf.takes(info.id, size)
        return info.indexed_rows <= LARGEST and room

    @staticmethod
    def _serves(warm: _Warm, info: Cube, embedder: Embedder) -> bool:
        # another generation: rebuilt, or erased as a whole, of which no revision tells
        return warm.embedder.id == embedder.id and warm.generation == info.generation

    def _beside_index(self, info: Cube, embedder: Embedder) -> _Warm:
        empty, upto = View.of([], embedder.dimensions), info.indexed_rev
        return _Warm(empty, embedder, info.generation, upto, upto, whole=False)

    async def _load_behind(self, info: Cube, embedder: Embedder) -> None:
        try:
            if self._fits(info):
                warm = await self._from_index(info, embedder)
            else:  # it was read from SQL because its index did not answer
                await self._store.check_words(info.id, info.generation)
                warm = self._beside_index(info, embedder)
            async with self._locks.setdefault(info.id, asyncio.Lock()):
                held = self._shelf.get(info.id)
                overtaken = held is not None and not self._serves(held, info, embedder)
                if not overtaken and self._shelf.takes(info.id, warm.size):
                    self._shelf.put(info.id, warm)
        except IndexBroken:
            pass  # what there is goes on serving
        except Exception as error:  # nobody waits for it; another question tries again
            log.warning("cube %s was not loaded: %s", info.id, type(error).__name__)
        finally:
            self._loading.pop(info.id, None)

    async def _load(self, info: Cube, embedder: Embedder) -> _Warm:
        """The whole cube, from its index if that holds this embedder's vectors and can be read, else from SQL."""
        degraded, attempt = None, 0
        while info.generation and info.embedder == embedder.id:
            attempt += 1
            try:
                return await self._from_index(info, embedder)
            except IndexBroken as error:
                # a new generation may just have replaced the one we knew
                again = await self._cubes.get(info.id)
                if attempt == 2 or again is None or again.generation == info.generation:
                    log.warning("index of cube %s: %s; searching SQL", info.id, error)
                    degraded = "index"
                    break
                info = again
        every = await self._memories.since(info.id, 0)
        rows = await self._with_vectors(info.id, embedder, _pieces(every))
        view = await asyncio.to_thread(View.of, rows, embedder.dimensions)
        known = max((memory.rev for memory in every), default=0)
        again_at = time.monotonic() + self._again_s
        return _Warm(view, embedder, info.generation, 0, known, whole=True, degraded=degraded, again=again_at)

    async def _from_index(self, info: Cube, embedder: Embedder) -> _Warm:
        """The whole cube as its index holds it. Raises IndexBroken."""
        rows = await self._store.pieces(info.id, info.generation)
        view = await asyncio.to_thread(View.of, rows, embedder.dimensions)
        if len(rows) >= 100:
            self._piece = view.size // len(rows)
        return _Warm(view, embedder, info.generation, info.indexed_rev, info.indexed_rev, whole=True)

    async def _bring_up(self, info: Cube, warm: _Warm) -> None:
        if not warm.whole and info.indexed_rev > warm.base and warm.known <= info.indexed_rev:
            # the index has caught up: let go of what it holds
            warm.view, warm.base, warm.known = View.of([], warm.embedder.dimensions), info.indexed_rev, info.indexed_rev
            warm.began = warm.known
            warm.learned.clear()
            warm.changed.clear()
            warm.lent.clear()
        if warm.known < info.rev:
            changed = await self._memories.since(info.id, warm.known)
            if changed:
                gone = {memory.id for memory in changed}
                old = warm.view.of_memories(gone)
                new = _with_known(_pieces(changed), old)
                for one in {piece.id for piece in old} - {piece.id for piece in new}:
                    warm.lent.pop(one, None)
                fresh = await self._embedded(info.id, warm.embedder, self._lend(info.id, warm, new))
                await self._change(warm, gone, fresh)
                warm.changed |= gone
                for memory in changed:
                    for sort in (memory.kind, None) if memory.pinned else (memory.kind,):
                        warm.learned[sort] = max(warm.learned.get(sort, 0), memory.rev)
                warm.known = max(memory.rev for memory in changed)
                self._look(info, warm, min(warm.due, self._next(warm, time.time(), patient=True)))
        if warm.due <= time.time():
            await self._fill(info, warm)

    @staticmethod
    async def _change(warm: _Warm, gone: Collection[str], new: Sequence[Piece]) -> None:
        little = len(new) <= _LITTLE and len(warm.view.pieces) <= _SMALL and not warm.view.merges(len(new))
        if little:  # quicker than a thread is reached
            warm.view = warm.view.changed(gone, new, warm.embedder.dimensions)
        else:
            warm.view = await asyncio.to_thread(warm.view.changed, gone, new, warm.embedder.dimensions)

    def _may_wait(self, warm: _Warm, told: Collection[str]) -> bool:
        """Whether a question can do without the vectors of what is fresh."""
        return not warm.bare or self.busy() or warm.bare <= frozenset(told)

    async def _fill(self, info: Cube, warm: _Warm, *, fresh: bool = False, bare: bool = False) -> None:
        """Give vectors to what has none of its own and is fresh no longer; with `fresh`, to all; with `bare`, only to users' words
        that have none at all."""
        now = time.time()
        patient = not fresh and (self.busy() or time.monotonic() - warm.asked < LOOK_S)
        if bare:
            due = warm.view.unembedded(users=True)
        else:
            missing = (*warm.view.unembedded(), *warm.lent.values())
            due = [piece for piece in missing if fresh or not self._is_fresh(piece, now)]
        if patient:
            due = sorted(due, key=lambda piece: piece.time)[:LOOKED]
        due = self._as_they_are(warm, due)
        if due:
            made = await self._embedded(info.id, warm.embedder, due, fresh=fresh, patient=patient)
            done = {piece.id: piece for piece in made if piece.vector is not None}
            touched = {piece.memory for piece in done.values()}
            warm.pause = LOOK_S if touched else min(2 * warm.pause, _LONGEST_S)
            if touched:
                kept = [done.get(piece.id, piece) for piece in warm.view.of_memories(touched)]
                await self._change(warm, touched, kept)
                for one in done:
                    warm.lent.pop(one, None)
        self._look(info, warm, self._next(warm, now, patient=patient))

    def _next(self, warm: _Warm, now: float, *, patient: bool) -> float:
        """When vectors are looked for next, on the wall clock."""
        waits, since = warm.view.waiting(now - self._fresh_s, now)
        for lent in itertools.islice(warm.lent.values(), 1):  # the oldest
            waits, since = waits or not self._is_fresh(lent, now), min(since, lent.time)
        if waits:
            return now + warm.pause if patient else now  # the rest with the next question
        return max(since + self._fresh_s, now + LOOK_S)

    def _look(self, info: Cube, warm: _Warm, due: float) -> None:
        """Keep in mind when vectors are looked for next, and what has none at all until then."""
        warm.due = due
        bare = warm.view.unembedded(users=True) if self._fresh_s else []
        warm.bare = frozenset(digest(piece.text.partition(": ")[2]) for piece in bare)
        if due < math.inf and self._fresh_s and info.id not in self._filling:
            task = self._filling[info.id] = asyncio.create_task(self._fill_behind(info.id))
            task.add_done_callback(lambda _: self._filling.pop(info.id, None))

    async def _fill_behind(self, cube: str) -> None:
        """Give vectors to what is fresh as soon as the cube is quiet, if no question has had that done."""
        try:
            while (warm := self._shelf.get(cube)) is not None and warm.due < math.inf:
                await asyncio.sleep(LOOK_S)
                quiet = time.monotonic() - warm.asked > LOOK_S
                info = await self._cubes.get(cube) if not self.busy() and (quiet or warm.due <= time.time()) else None
                if info is None:
                    continue
                warm = await self._ready(info, await self.embedder_of(info))
                async with self._locks.setdefault(cube, asyncio.Lock()):
                    await self._fill(info, warm, fresh=quiet)
        except Exception as error:  # nobody waits for it; the next question does it
            log.warning("what is new in cube %s was not embedded: %s", cube, type(error).__name__)

    def _lend(self, cube: str, warm: _Warm, wanted: Sequence[Piece]) -> list[Piece]:
        """The pieces, a user's fresh words with the vectors that they had as a question."""
        now, out = time.time(), list(wanted)
        for place, piece in enumerate(out if self._spoken else ()):
            if piece.vector is None and piece.side == "user" and self._is_fresh(piece, now):
                said = digest(piece.text.partition(": ")[2])
                found = self._spoken.pop((cube, warm.embedder.id, said), None)
                if found is not None:
                    asked = found[1]
                    late = None if asked.pieces is None or not len(asked.pieces) else packed(asked.pieces)
                    out[place] = replace(piece, vector=asked.vector, late=late)
                    warm.lent[piece.id] = piece
        return out

    @staticmethod
    def _as_they_are(warm: _Warm, missing: Sequence[Piece]) -> list[Piece]:
        """These pieces as the view has them now, without vectors that are lent."""
        lent = {piece.id for piece in missing if piece.id in warm.lent}
        now = warm.view.of_memories({warm.lent[one].memory for one in lent}, bare=True)
        return [*(piece for piece in missing if piece.id not in lent), *(piece for piece in now if piece.id in lent)]

    def _is_fresh(self, piece: Piece, now: float) -> bool:
        return piece.kind == "episode" and 0.0 <= now - piece.time < self._fresh_s

    async def _embedded(
        self, cube: str, embedder: Embedder, wanted: Sequence[Piece], *, fresh: bool = False, patient: bool = False
    ) -> list[Piece]:
        """The pieces, as many of them with vectors as can be had at once; what is fresh only with `fresh`, and with `patient` what
        was said lately only if its vectors are in SQL."""
        now = time.time()
        due = [piece for piece in wanted if piece.vector is None and (fresh or not self._is_fresh(piece, now))]
        if due and (self._fresh_s or len(due) > EMBED_NOW):
            known = {piece.id: piece for piece in await with_vectors(self._database, embedder.id, cube, due)}
            wanted, due = [known.get(piece.id, piece) for piece in wanted], [p for p in due if p.id not in known]
        if patient and self._fresh_s:
            due = [piece for piece in due if piece.kind != "episode" or now - piece.time >= PATIENCE_S]
        bare = due[:EMBED_NOW]
        if not bare:
            return list(wanted)
        loop = asyncio.get_running_loop()
        made = await loop.run_in_executor(self._threads, embed_pieces, embedder, bare)
        done = {piece.id: piece for piece in made}
        return [done.get(piece.id, piece) for piece in wanted]

    async def _with_vectors(self, cube: str, embedder: Embedder, wanted: Sequence[Piece]) -> list[Piece]:
        known = {piece.id: piece for piece in await with_vectors(self._database, embedder.id, cube, wanted)}
        return [known.get(piece.id, piece) for piece in wanted]


def _pieces(memories: Sequence[Memory]) -> list[Piece]:
    return [piece for memory in memories if memory.status in INDEXED for piece in pieces(memory)]


def _with_known(new: Sequence[Piece], old: Sequence[Piece]) -> list[Piece]:
    """The new pieces with the vectors of the old ones that say the same."""
    known = {piece.id: piece for piece in old if piece.vector is not None}
    return [
        replace(piece, vector=before.vector, late=before.late)
        if (before := known.get(piece.id)) is not None and before.text == piece.text
        else piece
        for piece in new
    ]
