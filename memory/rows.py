"""Memories kept as they were read, so that a question needs not read them again: the plaintext part of the working set.

They are used only when nothing has changed since: before each use the cube's revision is asked, and what was written after the
kept one is read anew. A cube erased as a whole has a new generation, and nothing of it is used.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import sqlalchemy as sa

from memory import sql
from memory.memories import Memories
from memory.sql import Database
from memory.types import Memory

MOST = 5000  # memories of one cube
BYTES = 2000  # of a memory besides its text, about


_C, _M = sql.cubes, sql.memories
# the cube as it is, once for each memory that changed since, or once without any
_STATE = (
    sa.select(_C.c.rev, _C.c.generation, _C.c.status, _M.c.id.label("changed"))
    .select_from(_C.outerjoin(_M, sa.and_(_M.c.cube == _C.c.id, _M.c.rev > sa.bindparam("since"))))
    .where(_C.c.id == sa.bindparam("cube"))
)
_NEVER = 1 << 62


@dataclass(slots=True)
class _Kept:
    """`ahead`: those that were read before they were asked for, and not used yet."""

    rev: int
    generation: int
    memories: OrderedDict[str, Memory] = field(default_factory=OrderedDict)
    ahead: set[str] = field(default_factory=set)
    size: int = 0  # bytes, about

    def take(self, memory: Memory) -> None:
        self.drop(memory.id)
        self.memories[memory.id] = memory
        self.size += _size(memory)

    def drop(self, memory: str) -> None:
        gone = self.memories.pop(memory, None)
        self.size -= _size(gone) if gone is not None else 0


@dataclass(frozen=True, slots=True)
class Count:
    """What became of memories that were read ahead: used, unused (let go of) or stale (changed meanwhile)."""

    used: int = 0
    unused: int = 0
    stale: int = 0
    saved_s: float = 0.0  # that reading the used ones would have taken


class Rows:
    """Reads memories, from memory when it can. At most `budget` bytes; the cube used longest ago goes first. `counted` is told
    what became of what was read ahead."""

    def __init__(
        self, database: Database, *, budget: int = 64 << 20, counted: Callable[[Count], None] = lambda _: None
    ) -> None:
        self._database = database
        self._memories = Memories(database)
        self._budget = budget
        self._counted = counted
        self._cubes: OrderedDict[str, _Kept] = OrderedDict()
        self._row_s = 0.0  # that reading a row takes, on average of late

    async def by_ids(self, cube: str, ids: Collection[str]) -> dict[str, Memory]:
        """Those of the memories that exist and are not erased, as they are now. Raises DatabaseError."""
        kept = await self._current(cube, make=self._budget > 0)
        if kept is None:
            return await self._memories.by_ids(cube, ids)
        known, newest = kept.memories.get, kept.memories.move_to_end
        found = {memory: here for memory in ids if (here := known(memory)) is not None}
        for memory in found:
            newest(memory)
        if kept.ahead:
            used = kept.ahead & found.keys()
            kept.ahead -= used
            self._counted(Count(used=len(used), saved_s=len(used) * self._row_s))
        rev = kept.rev
        read = await self._read(cube, [memory for memory in ids if memory not in found])
        self._keep(cube, kept, rev, read)
        return found | read

    async def ahead(self, cube: str, ids: Collection[str]) -> int:
        """Read memories before they are asked for; how many were not here yet."""
        kept = await self._current(cube, make=True)
        if kept is None:
            return 0
        rev = kept.rev
        read = await self._read(cube, [memory for memory in ids if memory not in kept.memories])
        kept.ahead |= self._keep(cube, kept, rev, read)
        return len(read)

    def let_go(self, cube: str) -> None:
        """Keep nothing of a cube."""
        kept = self._cubes.pop(cube, None)
        if kept is not None:
            self._counted(Count(unused=len(kept.ahead)))

    def held(self, cube: str) -> frozenset[str]:
        """Which memories of a cube are kept."""
        kept = self._cubes.get(cube)
        return frozenset(kept.memories) if kept else frozenset()

    async def _read(self, cube: str, ids: Collection[str]) -> dict[str, Memory]:
        if not ids:
            return {}
        began = time.perf_counter()
        read = await self._memories.by_ids(cube, ids)
        self._row_s += 0.1 * ((time.perf_counter() - began) / len(ids) - self._row_s)
        return read

    async def _current(self, cube: str, *, make: bool = False) -> _Kept | None:
        """What is kept of the cube, without what changed since; None when nothing can be."""
        kept = self._cubes.get(cube)
        if kept is None and not make:
            return None
        since = kept.rev if kept else _NEVER
        found = await self._database.rows(_STATE, cube=cube, since=since)
        row = found[0] if found else None
        changed = [r.changed for r in found if r.changed is not None]
        if row is None or row.status == "erased":
            self.let_go(cube)
            return None
        kept = self._cubes.get(cube)
        # what another question began to keep meanwhile may have changed since, unseen
        if kept is None or kept.generation != row.generation or since > kept.rev:
            self.let_go(cube)
            if not make and kept is None:
                return None
            kept = self._cubes[cube] = _Kept(row.rev, row.generation)
        elif row.rev > kept.rev:
            stale = kept.ahead.intersection(changed)
            for memory in changed:
                kept.drop(memory)
            kept.ahead -= stale
            kept.rev = row.rev
            self._counted(Count(stale=len(stale)))
        self._cubes.move_to_end(cube)
        return kept

    def _keep(self, cube: str, kept: _Kept, rev: int, read: dict[str, Memory]) -> set[str]:
        """Keep what was read at revision `rev` or later; what has a later one was changed after, and may change again before
        anybody looks: it is not kept. Returns the ids of what is."""
        if self._cubes.get(cube) is not kept or kept.rev != rev:
            return set()
        fresh = {memory.id: memory for memory in read.values() if memory.rev <= rev}
        for memory in fresh.values():
            kept.take(memory)
        while len(kept.memories) > MOST:
            gone = next(iter(kept.memories))
            kept.drop(gone)
            self._forget(kept, gone)
        while len(self._cubes) > 1 and sum(one.size for one in self._cubes.values()) > self._budget:
            self.let_go(next(iter(self._cubes)))
        return set(fresh)

    def _forget(self, kept: _Kept, memory: str) -> None:
        if memory in kept.ahead:
            kept.ahead.discard(memory)
            self._counted(Count(unused=1))


def _size(memory: Memory) -> int:
    return BYTES + 2 * (len(memory.text) + len(memory.answer))
