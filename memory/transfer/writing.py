"""A cube written as an archive. In: the database, a cube, a binary file; out: the file filled, and the counts.

Rows go in the order of their ids, so the same content gives the same bytes (but for the manifest's `created_at`). No key,
no principal, nothing from the configuration stands in an archive. Erased memories and references to what is not there
are left out. Members lie unpacked in nameless temporary files first, because the manifest with their hashes comes first.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.cube import Cube
from memory.grants import ERASED
from memory.sql import Database
from memory.transfer.format import (
    BLOB,
    BLOBS,
    DEEPEST,
    FORMAT,
    MANIFEST,
    ROWS,
    VECTOR_DATA,
    VECTOR_ROWS,
    VERSION,
    CubeRow,
    EdgeRow,
    Manifest,
    Member,
    MemoryRow,
    NodeRow,
    TurnRow,
    VectorInfo,
    VectorRow,
)
from memory.types import Status
from memory.words import whole

PAGE = 500
R = TypeVar("R", bound=msgspec.Struct)
Progress = Callable[[int, int], None]  # rows done, rows in all
_encoder = msgspec.json.Encoder(order="deterministic")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # no clock in the bytes


class Archive:
    """Writes archives. `folder`: where temporary files may lie; `blobs(cube)`: where the cube's other forms lie, if any."""

    def __init__(self, database: Database, folder: Path, program: str, blobs: Callable[[str], Path]) -> None:
        self._database = database
        self._folder = folder
        self._program = program
        self._blobs = blobs

    async def write(
        self, cube: str, out: BinaryIO, *, at: float, vectors: bool = True, progress: Progress | None = None
    ) -> dict[str, int]:
        """Fill `out` with the archive; returns the counts of its manifest. A cube that was never written
        to gives an empty archive. Raises DatabaseError, OSError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with ExitStack() as stack:
            spools = {name: stack.enter_context(_Spool(self._folder)) for name in (*ROWS, VECTOR_ROWS, VECTOR_DATA)}
            async with self._database.read(long=True) as connection:  # one snapshot
                info = await _cube(connection, cube, at)
                dimensions = await _spool_rows(
                    connection, info, spools, vectors, progress or (lambda done, total: None)
                )
            taken = list(ROWS) + ([VECTOR_ROWS, VECTOR_DATA] if dimensions else [])
            blobs = await asyncio.to_thread(lambda: list(_blob_files(self._blobs(cube))))
            members = [Member(name=name, size=spools[name].size, sha256=spools[name].sha256) for name in taken]
            members += [await asyncio.to_thread(_blob_member, name, path) for name, path in blobs]
            counts = {name.removesuffix(".jsonl"): spools[name].rows for name in ROWS}
            counts |= {"vectors": spools[VECTOR_ROWS].rows if dimensions else 0, "blobs": len(blobs)}
            manifest = Manifest(
                format=FORMAT,
                version=VERSION,
                created_at=at,
                program=self._program,
                cube=CubeRow(id=info.id, name=_clean(info.name), created_at=info.created_at),
                embedder=info.embedder,
                counts=counts,
                vectors=VectorInfo(embedder=info.embedder, dimensions=dimensions) if dimensions else None,
                members=members,
            )
            files: dict[str, IO[bytes] | Path] = {name: spools[name].file for name in taken}
            files.update(blobs)
            await asyncio.to_thread(_pack, out, manifest, files)
        return counts


class _Spool:
    """A nameless file that counts and hashes what is written to it."""

    def __init__(self, folder: Path) -> None:
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.size = self.rows = 0
        self._hash = hashlib.sha256()

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def add(self, part: bytes, rows: int) -> None:
        self.file.write(part)
        self._hash.update(part)
        self.size += len(part)
        self.rows += rows

    def add_rows(self, rows: Iterable[msgspec.Struct]) -> None:
        encoded = [_encoder.encode(row) + b"\n" for row in rows]
        self.add(b"".join(encoded), len(encoded))


async def _cube(connection: AsyncConnection, cube: str, at: float) -> Cube:
    here = (sql.cubes.c.id == cube, sql.cubes.c.status != ERASED)
    row = (await connection.execute(sa.select(sql.cubes).where(*here))).first()
    return Cube(**row._mapping) if row else Cube(cube, "", "", at, 0, 0, 0, 0, "")


async def _spool_rows(
    connection: AsyncConnection, info: Cube, spools: dict[str, _Spool], vectors: bool, progress: Progress
) -> int:
    """Write all rows; returns the dimensions of the vectors, 0 without any."""
    turns = await _ids(connection, sql.turns, info.id)
    memories = await _ids(connection, sql.memories, info.id, sql.memories.c.status != Status.DELETED.value)
    nodes = await _ids(connection, sql.nodes, info.id)
    total = len(turns) + len(memories) + len(nodes)
    done = 0
    async for page in _pages(connection, sql.turns, info.id, "id"):
        await asyncio.to_thread(spools["turns.jsonl"].add_rows, (_plain_row(TurnRow, row) for row in page))
        progress(done := done + len(page), total)
    async for page in _pages(connection, sql.memories, info.id, "id", sql.memories.c.status != Status.DELETED.value):
        changes = await _changes(connection, info.id, [row["id"] for row in page])
        rows = (_memory_row(row, changes.get(row["id"], []), turns, memories) for row in page)
        await asyncio.to_thread(spools["memories.jsonl"].add_rows, rows)
        progress(done := done + len(page), total)
    async for page in _pages(connection, sql.nodes, info.id, "id"):
        kept = [row | {"parent": row["parent"] if row["parent"] in nodes else None} for row in page]
        await asyncio.to_thread(spools["nodes.jsonl"].add_rows, [_plain_row(NodeRow, row) for row in kept])
        progress(done := done + len(page), total)
    ends = memories | nodes
    sources = sorted(ends)
    for start in range(0, len(sources), PAGE):
        edges = await _edges(connection, info.id, sources[start : start + PAGE])
        spools["edges.jsonl"].add_rows(_plain_row(EdgeRow, row) for row in edges if row["target"] in ends)
    return await _spool_vectors(connection, info, spools, memories) if vectors and info.embedder else 0


async def _spool_vectors(connection: AsyncConnection, info: Cube, spools: dict[str, _Spool], memories: set[str]) -> int:
    bytes_each = 0
    async for page in _pages(connection, sql.vectors, info.id, "piece", sql.vectors.c.embedder == info.embedder):
        kept = [row for row in page if row["memory"] in memories]
        bytes_each = bytes_each or (len(kept[0]["vector"]) if kept else 0)
        kept = [row for row in kept if len(row["vector"]) == bytes_each]
        spools[VECTOR_ROWS].add_rows(_plain_row(VectorRow, row) for row in kept)
        spools[VECTOR_DATA].add(b"".join(row["vector"] for row in kept), len(kept))
    return bytes_each // 4


async def _ids(connection: AsyncConnection, table: sa.Table, cube: str, *where: sa.ColumnElement[bool]) -> set[str]:
    return {row[0] for row in await connection.execute(sa.select(table.c.id).where(table.c.cube == cube, *where))}


async def _pages(
    connection: AsyncConnection, table: sa.Table, cube: str, key: str, *where: sa.ColumnElement[bool]
) -> AsyncIterator[list[dict[str, Any]]]:
    """The rows of a cube in the order of `key`, so many at a time."""
    column, last = table.c[key], ""
    while True:
        query = sa.select(table).where(table.c.cube == cube, column > last, *where).order_by(column).limit(PAGE)
        page = [dict(row._mapping) for row in (await connection.execute(query)).all()]
        if not page:
            return
        yield page
        last = page[-1][key]


async def _edges(connection: AsyncConnection, cube: str, sources: list[str]) -> list[dict[str, Any]]:
    t = sql.edges
    query = sa.select(t).where(t.c.cube == cube, t.c.source.in_(sources)).order_by(t.c.source, t.c.kind, t.c.target)
    return [dict(row._mapping) for row in (await connection.execute(query)).all()]


async def _changes(connection: AsyncConnection, cube: str, ids: list[str]) -> dict[str, list[dict[str, Any]]]:
    t = sql.history
    query = sa.select(t).where(t.c.cube == cube, t.c.memory.in_(ids)).order_by(t.c.memory, t.c.version)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in (await connection.execute(query)).all():
        change = {"version": row.version, "at": row.at, "action": row.action, "before": _clean(row.before)}
        found.setdefault(row.memory, []).append(change)
    return found


def _plain_row(kind: type[R], row: dict[str, Any]) -> R:
    return kind(**{name: _clean(row[name]) for name in kind.__struct_fields__})


def _memory_row(row: dict[str, Any], changes: list[dict[str, Any]], turns: set[str], memories: set[str]) -> MemoryRow:
    values = {name: _clean(row[name]) for name in MemoryRow.__struct_fields__ if name != "history"}
    history = [
        {**change, "before": change["before"] and _whole(change["before"], turns, memories)} for change in changes
    ]
    return msgspec.convert(_whole(values, turns, memories) | {"history": history}, MemoryRow)


def _whole(values: dict[str, Any], turns: set[str], memories: set[str]) -> dict[str, Any]:
    """Without references to what is not in the archive."""
    kept = dict(values)
    if "sources" in kept:
        kept["sources"] = [source for source in kept["sources"] if not source["turn"] or source["turn"] in turns]
    if kept.get("supersedes") not in memories:
        kept |= {"supersedes": None} if "supersedes" in kept else {}
    return kept


def _clean(value: Any, levels: int = DEEPEST) -> Any:
    """As any reader takes it: no NUL and no half characters; a number beyond 64 bits, or what is nested too deeply, as text."""
    if isinstance(value, str):
        return whole(value).replace("\x00", "")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, list | dict) and levels <= 1:
        return _clean(json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        return [_clean(entry, levels - 1) for entry in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(entry, levels - 1) for key, entry in value.items()}
    return value


def _blob_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name in the archive, path) of the plain files below a folder."""
    for path in sorted(folder.rglob("*")):
        name = BLOBS + path.relative_to(folder).as_posix()
        if path.is_file() and not path.is_symlink() and BLOB.fullmatch(name):
            yield name, path


def _blob_member(name: str, path: Path) -> Member:
    with path.open("rb") as file:
        return Member(name=name, size=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def _pack(out: BinaryIO, manifest: Manifest, files: dict[str, IO[bytes] | Path]) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        archive.writestr(_entry(MANIFEST), msgspec.json.format(_encoder.encode(manifest), indent=2))
        declared = {member.name: member.sha256 for member in manifest.members}
        for name, source in files.items():
            packed = not name.startswith((BLOBS, VECTOR_DATA))  # numbers do not get smaller
            with archive.open(_entry(name, packed=packed), "w", force_zip64=True) as member:
                if isinstance(source, Path):
                    with source.open("rb") as file:
                        copied = _copy(file, member)
                else:
                    source.seek(0)
                    copied = _copy(source, member)
            if copied != declared[name]:
                raise OSError(f"{name} changed while it was exported; export again")


def _entry(name: str, *, packed: bool = True) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    info.external_attr = 0o600 << 16
    info.create_system = 3
    return info


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    """Copies, and returns the SHA-256 of what was copied."""
    hashed = hashlib.sha256()
    while part := source.read(1 << 20):
        target.write(part)
        hashed.update(part)
    return hashed.hexdigest()
