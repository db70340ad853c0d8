"""A verified archive written into a cube. Ids stay, so that importing twice changes nothing.

The same id with another content: the one that changed last stands (its history's last entry, else `created_at`; here wins
when both changed at the same moment), and trust becomes the lower of the two. What was erased here comes back, because the
archive's owner asks for it, unless `erased="keep"`. Vectors are taken over when they are of the embedder in use here.
A small archive is one transaction; a large one is written a page at a time, and importing it again after a crash goes on.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.cube import ensure, next_rev
from memory.late import is_late
from memory.memories import digest, save
from memory.models import Embedder
from memory.sql import Database
from memory.transfer import cleaning
from memory.transfer.format import BLOBS, EdgeRow, Limits, MemoryRow, NodeRow, Refused, TurnRow, VectorRow
from memory.transfer.outcome import Imported
from memory.transfer.reading import Reading
from memory.types import Memory, Source, Status, Trust, stable_id

PAGE = 250
ONE_COMMIT_ROWS, ONE_COMMIT_BYTES = 10_000, 64 << 20
Progress = Callable[[int, int], None]  # done, in all (bytes while verifying, then rows)
Write = Callable[[AsyncConnection], Awaitable[Imported]]
_USAGE = frozenset(("uses", "last_used_at"))  # no content
_TURN_CONTENT = tuple(name for name in TurnRow.__struct_fields__ if name not in ("id", "key", "extracted"))


@dataclass(frozen=True, slots=True)
class Target:
    """Where an import goes, and on whose behalf. `make`: whether the cube may be made when it is not there."""

    cube: str
    owner: str
    at: float
    make: bool = True
    erased: Literal["restore", "keep"] = "restore"


class Importer:
    """Imports archives. `embedder`: the one in use here, None to take no vectors over; `blobs(cube)`: where a cube's other
    forms lie."""

    def __init__(
        self, database: Database, embedder: Embedder | None, blobs: Callable[[str], Path], limits: Limits | None = None
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._blobs = blobs
        self._limits = limits or Limits()

    async def run(self, file: BinaryIO, target: Target, progress: Progress | None = None) -> Imported:
        """Verify the archive, then write it. Raises Refused and CubeRefused (nothing was
        written), DatabaseError, OSError."""
        reading = await asyncio.to_thread(Reading, file, self._limits)
        await asyncio.to_thread(reading.verify, target.at, progress)
        # caches: without their memory they are not used
        await asyncio.to_thread(self._take_blobs, reading, target.cube)
        counts = reading.manifest.counts
        rows, size = sum(counts.values()), sum(member.size for member in reading.manifest.members)
        done = Imported()

        async def write(pages: Sequence[Write]) -> Imported:
            async def work(connection: AsyncConnection) -> Imported:
                name = reading.manifest.cube.name[:200]
                await ensure(connection, target.cube, target.owner, name, target.at, make=target.make)
                return sum([await page(connection) for page in pages], Imported())

            return await self._database.write(work, long=True)

        pages = self._pages(reading, target)
        if rows <= ONE_COMMIT_ROWS and size <= ONE_COMMIT_BYTES:
            done = await write(await asyncio.to_thread(list, pages))
        else:
            number = 0
            while (page := await asyncio.to_thread(next, pages, None)) is not None:
                done += await write([page])
                number += 1
                if progress is not None:
                    progress(min(number * PAGE, rows), rows)
        return replace(done, waiting=await self._waiting(target.cube))

    def _pages(self, reading: Reading, target: Target) -> Iterator[Write]:
        """The archive as writes of at most PAGE rows, in an order in which references come after what they refer to."""
        for turns in _paged(map(cleaning.turn, reading.turns())):
            yield partial(_put_turns, target=target, rows=turns)
        for memories in _paged(map(cleaning.memory, reading.memories())):
            yield partial(_put_memories, target=target, rows=memories)
        for nodes in _paged(map(cleaning.node, reading.nodes())):
            yield partial(_put_nodes, cube=target.cube, rows=nodes)
        for edges in _paged(reading.edges()):
            yield partial(_put_edges, cube=target.cube, rows=edges)
        vectors, embedder = reading.manifest.vectors, self._embedder
        if vectors and embedder and (vectors.embedder, vectors.dimensions) == (embedder.id, embedder.dimensions):
            # word pieces of another width fit none of ours: such texts are embedded here
            width = embedder.late if is_late(embedder) else 0
            fitting = (one for one in reading.vectors() if one[0].width == width and bool(width) == bool(one[0].late))
            for pieces in _paged(fitting):
                yield partial(_put_vectors, cube=target.cube, embedder=embedder.id, rows=pieces)

    async def _waiting(self, cube: str) -> int:
        t = sql.turns
        query = sa.select(sa.func.count()).where(t.c.cube == cube, t.c.extracted == 0, t.c.replaced == 0)
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one())

    def _take_blobs(self, reading: Reading, cube: str) -> None:
        """Files that are not there yet; each stands whole or not at all. Raises Refused, before any is written, when one
        would stand where there is a folder, or below a file."""
        root = self._blobs(cube)
        paths = {name: root / name.removeprefix(BLOBS) for name in reading.blobs()}
        for name, path in paths.items():
            above = (parent for parent in path.parents if parent.is_relative_to(root))
            if path.is_dir() or any(parent.exists() and not parent.is_dir() for parent in above):
                raise Refused(f"member {name[:80]} is a file here and a folder there")
        for name, path in paths.items():
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
                try:
                    file.writelines(reading.blob(name))
                    Path(file.name).rename(path)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise


def _paged(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while page := list(islice(rows, PAGE)):
        yield page


async def _put_turns(connection: AsyncConnection, target: Target, rows: Sequence[TurnRow]) -> Imported:
    table, cube = sql.turns, target.cube
    known = await _by(connection, table, cube, "id", [row.id for row in rows])
    held = await _by(connection, table, cube, "key", [row.key for row in rows])
    gone = set[str]()
    if target.erased == "keep":
        episodes = {stable_id(row.id, "episode"): row.id for row in rows}
        gone = {episodes[found] for found in await _erased(connection, cube, list(episodes))}
    new, skipped, merged = [], len(gone - known.keys()), 0
    for row in rows:
        old = known.get(row.id)
        values = msgspec.structs.asdict(row) | {"cube": cube}
        if old is None and row.id not in gone:
            if row.key in held:  # another turn has this key: ids are what counts here
                values["key"] = f"{row.key}@{row.id}"
            new.append(values)
        elif old is not None and all(old[name] == values[name] for name in _TURN_CONTENT):
            skipped += 1
        elif old is not None and old["answered_at"] < row.answered_at:
            here = (table.c.cube == cube, table.c.id == row.id)
            kept = {name: value for name, value in values.items() if name not in ("cube", "id", "key")}
            await connection.execute(sa.update(table).where(*here).values(**kept))
            merged += 1
        elif old is not None:
            skipped += 1
    if new:
        await connection.execute(sa.insert(table), new)
    return Imported(turns=len(new), skipped=skipped, merged=merged)


async def _put_memories(connection: AsyncConnection, target: Target, rows: Sequence[MemoryRow]) -> Imported:
    cube = target.cube
    known = await _by(connection, sql.memories, cube, "id", [row.id for row in rows])
    changed_at = await _changed_at(connection, cube, list(known))
    new, restored, count = list[MemoryRow](), list[str](), Imported()
    for row in rows:
        old = known.get(row.id)
        if old is None:
            new.append(row)
        elif old["status"] == Status.DELETED.value:
            if target.erased == "restore":
                new.append(row)
                restored.append(row.id)
            else:
                count += Imported(skipped=1)
        elif _differs(old, row) and max([row.created_at, *(c.at for c in row.history)]) > changed_at[row.id]:
            trust = cleaning.less_trusted(row.trust, Trust(old["trust"]))
            usage = {name: old[name] for name in _USAGE}
            await save(
                connection,
                _memory(row, cube).evolve(trust=trust, **usage),
                action="import",
                at=target.at,
                slot=row.slot,
            )
            count += Imported(merged=1)
        else:
            count += Imported(skipped=1)
    if restored:
        table = sql.memories
        await connection.execute(sa.delete(table).where(table.c.cube == cube, table.c.id.in_(restored)))
    await _insert_memories(connection, cube, new)
    return count + Imported(memories=len(new) - len(restored), restored=len(restored))


async def _insert_memories(connection: AsyncConnection, cube: str, rows: Sequence[MemoryRow]) -> None:
    if not rows:
        return
    rev = await next_rev(connection, cube)
    await connection.execute(sa.insert(sql.memories), [_values(row, cube, rev=rev) for row in rows])
    lineage = [
        {"cube": cube, "turn": turn, "memory": row.id}
        for row in rows
        for turn in sorted({source.turn for source in row.sources if source.turn})
    ]
    if lineage:
        await connection.execute(sa.insert(sql.lineage), lineage)
    history = [
        {
            "cube": cube,
            "memory": row.id,
            "version": change.version,
            "at": change.at,
            "action": change.action,
            "before": msgspec.to_builtins(change.before),
        }
        for row in rows
        for change in row.history
    ]
    if history:
        await connection.execute(sa.insert(sql.history), history)


async def _put_nodes(connection: AsyncConnection, cube: str, rows: Sequence[NodeRow]) -> Imported:
    known = await _by(connection, sql.nodes, cube, "id", [row.id for row in rows])
    new = [msgspec.structs.asdict(row) | {"cube": cube} for row in rows if row.id not in known]
    if new:
        await connection.execute(sa.insert(sql.nodes), new)
    return Imported()


async def _put_edges(connection: AsyncConnection, cube: str, rows: Sequence[EdgeRow]) -> Imported:
    t = sql.edges
    query = sa.select(t.c.source, t.c.kind, t.c.target).where(
        t.c.cube == cube, t.c.source.in_({row.source for row in rows})
    )
    known = {tuple(row) for row in (await connection.execute(query)).all()}
    new = [
        msgspec.structs.asdict(row) | {"cube": cube} for row in rows if (row.source, row.kind, row.target) not in known
    ]
    if new:
        await connection.execute(sa.insert(t), new)
    return Imported()


async def _put_vectors(
    connection: AsyncConnection, cube: str, embedder: str, rows: Sequence[tuple[VectorRow, NDArray[np.float32]]]
) -> Imported:
    t = sql.vectors
    query = sa.select(t.c.piece).where(
        t.c.cube == cube, t.c.embedder == embedder, t.c.piece.in_([row.piece for row, _ in rows])
    )
    known = {row[0] for row in (await connection.execute(query)).all()}
    alive = await _by(connection, sql.memories, cube, "id", list({row.memory for row, _ in rows}))
    new = [
        msgspec.structs.asdict(row)
        | {"cube": cube, "embedder": embedder, "vector": vector.tobytes(), "late": row.late or None}
        for row, vector in rows
        if row.piece not in known and alive.get(row.memory, {}).get("status", "deleted") != Status.DELETED.value
    ]
    if new:
        await connection.execute(sa.insert(t), new)
    return Imported()


async def _by(
    connection: AsyncConnection, table: sa.Table, cube: str, name: str, values: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The rows of a cube with these ids (or keys), by id (or key)."""
    query = sa.select(table).where(table.c.cube == cube, table.c[name].in_(list(values)))
    return {row._mapping[name]: dict(row._mapping) for row in (await connection.execute(query)).all()}


async def _erased(connection: AsyncConnection, cube: str, ids: Sequence[str]) -> set[str]:
    found = await _by(connection, sql.memories, cube, "id", ids)
    return {name for name, row in found.items() if row["status"] == Status.DELETED.value}


async def _changed_at(connection: AsyncConnection, cube: str, ids: Sequence[str]) -> dict[str, float]:
    """When each memory last changed here."""
    m, h = sql.memories, sql.history
    created = sa.select(m.c.id, m.c.created_at).where(m.c.cube == cube, m.c.id.in_(list(ids)))
    found = {row[0]: float(row[1]) for row in (await connection.execute(created)).all()}
    last = (
        sa.select(h.c.memory, sa.func.max(h.c.at))
        .where(h.c.cube == cube, h.c.memory.in_(list(ids)))
        .group_by(h.c.memory)
    )
    for row in (await connection.execute(last)).all():
        found[row[0]] = max(found.get(row[0], 0.0), float(row[1]))
    return found


def _values(row: MemoryRow, cube: str, *, rev: int) -> dict[str, Any]:
    """A row of the table."""
    values: dict[str, Any] = msgspec.to_builtins(row)
    del values["history"]
    return values | {"cube": cube, "rev": rev, "digest": digest(row.text, row.answer)}


def _differs(old: dict[str, Any], row: MemoryRow) -> bool:
    values = _values(row, old["cube"], rev=old["rev"])
    return any(old[name] != value for name, value in values.items() if name not in _USAGE)


def _memory(row: MemoryRow, cube: str) -> Memory:
    """A row as a value."""
    values = {name: getattr(row, name) for name in Memory.__dataclass_fields__ if name not in ("cube", "rev")}
    sources = tuple(Source(source.turn, source.session, source.role) for source in row.sources)
    lists = {"entities": tuple(row.entities), "tags": tuple(row.tags), "sources": sources, "pinned": bool(row.pinned)}
    return Memory(**(values | lists | {"cube": cube}))
