"""From SQL to LanceDB: bring a cube's table up to date, check it, build it anew. Run by the executor, one job per cube.

SQL says up to which revision the table is complete. Whatever is newer is read from SQL by the searcher itself, so nothing
here is urgent, and everything may be repeated.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.cube import Cube, Cubes
from memory.late import encode
from memory.memories import Memories
from memory.models import Embedder
from memory.pieces import pieces
from memory.prepared import made_once
from memory.sql import Database
from memory.store import IndexBroken, Piece, Store
from memory.types import Memory, Status

log = logging.getLogger(__name__)
FRAGMENTS = 20  # compact beyond so many small files
INDEXED = (Status.ACTIVE, Status.SUPERSEDED)  # superseded ones answer questions about the past
_FEW = 64  # vectors that are read at once without a detour
_V = sql.vectors
_VECTORS = made_once(
    sa.select(_V.c.piece, _V.c.digest, _V.c.vector, _V.c.late, _V.c.width).where(
        _V.c.cube == sa.bindparam("cube"),
        _V.c.embedder == sa.bindparam("embedder"),
        _V.c.piece.in_(sa.bindparam("pieces", expanding=True)),
    )
)


@dataclass(frozen=True, slots=True)
class Indexed:
    """What was done: "nothing", "appended", "rebuilt" or "erased" (rebuilt without what was forgotten), and how many pieces
    the table holds now."""

    action: str
    pieces: int


class Index:
    """The writing side of the index."""

    def __init__(self, database: Database, store: Store, embedder: Embedder) -> None:
        self._database = database
        self._store = store
        self._embedder = embedder
        self._cubes = Cubes(database)
        self._memories = Memories(database)

    @property
    def embedder_id(self) -> str:
        """Whose vectors this index is made of."""
        return self._embedder.id

    async def catch_up(self, cube: str) -> Indexed:
        """Bring the table to the cube's present revision; builds it when there is none or it cannot be used."""
        info = await self._cubes.get(cube)
        if info is None or (info.rev == info.indexed_rev and info.embedder == self._embedder.id):
            return Indexed("nothing", info.indexed_rows if info else 0)
        changed = await self._memories.since(info.id, info.indexed_rev)
        if any(memory.status is Status.DELETED for memory in changed):
            # deleting from a LanceDB table leaves the text in its files: only a new generation erases
            return replace(await self.rebuild(cube), action="erased")
        if info.generation == 0 or info.embedder != self._embedder.id:
            return await self.rebuild(cube)
        try:
            return await self._append(info, changed)
        except IndexBroken as error:
            log.warning("index of cube %s cannot be used (%s): building it anew", cube, error)
            return await self.rebuild(cube)

    async def _append(self, info: Cube, changed: Sequence[Memory]) -> Indexed:
        upto = max((memory.rev for memory in changed), default=info.rev)
        fresh = await self.embedded(
            info.id, [piece for memory in changed if memory.status in INDEXED for piece in pieces(memory)]
        )
        await self._store.put(info.id, info.generation, [memory.id for memory in changed], fresh)
        if await self._store.fragments(info.id, info.generation) > FRAGMENTS:
            await self._store.tidy(info.id, info.generation)
        rows = await self._store.count(info.id, info.generation)
        await self._cubes.set_index(
            info.id, generation=info.generation, rev=upto, rows=rows, embedder=self._embedder.id
        )
        return Indexed("appended", rows)

    async def rebuild(self, cube: str) -> Indexed:
        """Build the next generation from SQL, make it current, drop the old ones. Also the way to erase."""
        info = await self._cubes.get(cube)
        if info is None:
            await self._store.drop(cube, keep=None)
            return Indexed("nothing", 0)
        every = await self._memories.since(cube, 0)
        upto = max((memory.rev for memory in every), default=info.rev)
        rows = await self.embedded(
            cube, [piece for memory in every if memory.status in INDEXED for piece in pieces(memory)]
        )
        await self._store.drop(cube, keep=info.generation)  # what a crash left behind
        generation = info.generation + 1
        await self._store.build(cube, generation, rows, self._embedder.dimensions)
        await self._cubes.set_index(cube, generation=generation, rev=upto, rows=len(rows), embedder=self._embedder.id)
        await self._store.drop(cube, keep=generation)
        return Indexed("rebuilt", len(rows))

    async def verify(self, cube: str) -> str | None:
        """Compare the whole table with SQL; returns what is wrong, or None. LanceDB itself does not notice flipped bytes."""
        info = await self._cubes.get(cube)
        if info is None or info.generation == 0:
            return None
        try:
            rows = await self._store.pieces(cube, info.generation)
            await self._store.check_words(cube, info.generation)
        except IndexBroken as error:
            return str(error)
        newer = {memory.id for memory in await self._memories.since(cube, info.indexed_rev)}
        expected = await self._expected(cube, info.indexed_rev)
        settled = [
            piece for piece in rows if piece.memory not in newer
        ]  # of the others the table may know an older text
        if len(settled) != len(expected):
            return f"{len(settled)} rows instead of {len(expected)}"
        held = {piece.id: piece.digest() for piece in settled}
        wanted = {piece.id: piece.digest() for piece in await self.embedded(cube, expected)}
        wrong = sum(held.get(piece) != digest for piece, digest in wanted.items())
        return f"{wrong} rows differ" if wrong else None

    async def _expected(self, cube: str, upto: int) -> list[Piece]:
        every = await self._memories.since(cube, 0)
        return [piece for m in every if m.rev <= upto and m.status in INDEXED for piece in pieces(m)]

    async def embedded(self, cube: str, wanted: Sequence[Piece]) -> list[Piece]:
        """The pieces with their vectors: known ones from SQL, new ones embedded and written to SQL."""
        known = {piece.id: piece for piece in await with_vectors(self._database, self._embedder.id, cube, wanted)}
        missing = [piece for piece in wanted if piece.id not in known]
        for start in range(0, len(missing), 256):
            batch = await asyncio.to_thread(embed_pieces, self._embedder, missing[start : start + 256])
            await self._keep(cube, batch)
            known |= {piece.id: piece for piece in batch}
        return [known[piece.id] for piece in wanted]

    async def _keep(self, cube: str, batch: Sequence[Piece]) -> None:
        table = sql.vectors
        values = [
            {
                "cube": cube,
                "piece": piece.id,
                "embedder": self._embedder.id,
                "memory": piece.memory,
                "digest": _digest(piece.text),
                "vector": np.ascontiguousarray(piece.vector, np.float32).tobytes(),
                "late": None if piece.late is None else piece.late.tobytes(),
                "width": 0 if piece.late is None else piece.late.shape[1],
            }
            for piece in batch
        ]

        async def work(connection: AsyncConnection) -> None:
            ids = [piece.id for piece in batch]
            same = (table.c.cube == cube, table.c.embedder == self._embedder.id, table.c.piece.in_(ids))
            await connection.execute(sa.delete(table).where(*same))
            # a memory that was erased while its text was being embedded must not come back as a vector
            alive = sa.select(sql.memories.c.id).where(
                sql.memories.c.cube == cube,
                sql.memories.c.id.in_({piece.memory for piece in batch}),
                sql.memories.c.status != Status.DELETED.value,
            )
            here = {row[0] for row in (await connection.execute(alive)).all()}
            rows_alive = [value for value in values if value["memory"] in here]
            if rows_alive:
                await connection.execute(sa.insert(table), rows_alive)

        await self._database.write(work, long=True)


def embed_pieces(embedder: Embedder, wanted: Sequence[Piece]) -> list[Piece]:
    """The pieces with vectors made now. Blocking."""
    found = encode(embedder, [piece.text for piece in wanted])
    late = [rows if rows.shape[1] else None for rows in found.pieces]
    return [replace(piece, vector=found.vectors[i], late=late[i]) for i, piece in enumerate(wanted)]


async def with_vectors(database: Database, embedder: str, cube: str, wanted: Sequence[Piece]) -> list[Piece]:
    """Those of the pieces whose present text was embedded by this embedder before, with their vectors."""
    pieces = {piece.id: piece for piece in wanted}
    ids = list(pieces)
    rows: list[Any] = []
    if len(ids) <= _FEW:
        rows += await database.rows(_VECTORS, cube=cube, embedder=embedder, pieces=ids) if ids else []
    else:
        async with database.read(long=True) as connection:
            for start in range(0, len(ids), 500):
                part = {"cube": cube, "embedder": embedder, "pieces": ids[start : start + 500]}
                rows += (await connection.execute(_VECTORS, part)).all()
    found = []
    for row in rows:
        piece = pieces[row.piece]
        if row.digest == _digest(piece.text):
            late = None if row.late is None else np.frombuffer(row.late, np.int8).reshape(-1, row.width)
            found.append(replace(piece, vector=np.frombuffer(row.vector, np.float32), late=late))
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
