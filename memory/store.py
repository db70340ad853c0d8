"""The index: one LanceDB table per cube and generation. The only door to LanceDB; everything here can be rebuilt from SQL.

A table holds *pieces*: the searchable passages of memories, with a vector and a full-text index (tokenizer `icu`, which
cuts Chinese and Japanese too). One process writes a cube's table at a time (the executor); any number read.
LanceDB never syncs to disk and does not notice flipped bytes, so `digests` lets the owner compare every row with SQL.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import logging
import math
import os
import shutil
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("LANCE_CPU_THREADS", "2")
os.environ.setdefault("LANCE_IO_THREADS", "4")
os.environ.setdefault("LANCE_LOG", "error")
os.environ.setdefault("LANCEDB_LOG", "error")

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.expr import col, lit
from lancedb.index import FTS
from numpy.typing import NDArray

from memory.models import Vectors
from memory.words import STOP_WORDS, fold

log = logging.getLogger(__name__)
_WORDS = FTS(
    base_tokenizer="icu", stem=True, with_position=False, remove_stop_words=True, custom_stop_words=sorted(STOP_WORDS)
)
TEXTS = ["id", "memory", "side", "session", "kind", "text", "speaker", "status"]
TIMES = ["time", "at", "valid_from", "valid_to"]
LISTS = ["tags", "entities"]
COLUMNS = [*TEXTS, *TIMES, *LISTS]


class IndexBroken(Exception):
    """The table is missing, unreadable or not the one SQL speaks of. The message holds no text of a row."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A searchable passage of a memory. `text` carries speaker and date in front, for words and meaning alike; what is
    needed to filter and to rank it without asking SQL stands beside it."""

    id: str
    memory: str
    side: str  # user | assistant
    session: str
    kind: str
    text: str
    time: float  # when it was said
    speaker: str = ""
    status: str = "active"  # active | superseded
    at: float = 0.0  # when it happens or happened, else when it was said
    valid_from: float = 0.0
    valid_to: float = math.inf
    tags: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()  # folded: a filter asks for a name however it is spelt
    vector: NDArray[np.float32] | None = None
    late: NDArray[np.int8] | None = None  # its word pieces, shape (pieces, late); see memory/late.py

    def digest(self) -> str:
        """Of everything that the index must hold unchanged."""
        raw = b"" if self.vector is None else np.ascontiguousarray(self.vector, np.float32).tobytes()
        raw += b"" if self.late is None else self.late.tobytes()
        words = [getattr(self, name) for name in TEXTS] + [repr(getattr(self, name)) for name in TIMES]
        words += [*self.tags, "", *self.entities]
        return hashlib.sha256("\x1f".join(words).encode() + raw).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which pieces are wanted. `as_of`: those that held at that moment (seconds since the epoch); else those that hold
    now. `kinds` empty: all kinds."""

    kinds: tuple[str, ...] = ()
    tag: str | None = None
    entity: str | None = None
    since: float | None = None
    until: float | None = None
    as_of: float | None = None

    def sql(self) -> str:
        """As LanceDB reads it; values are quoted by LanceDB's own expressions."""
        if self.as_of is None:
            wanted = col("status") == lit("active")
        else:
            wanted = (col("valid_from") <= lit(self.as_of)) & (col("valid_to") > lit(self.as_of))
        if self.kinds:
            wanted &= col("kind").isin(list(self.kinds))
        if self.since is not None:
            wanted &= col("at") >= lit(self.since)
        if self.until is not None:
            wanted &= col("at") < lit(self.until)
        parts = [wanted.to_sql()]
        entity = None if self.entity is None else fold(self.entity)
        for name, value in (("tags", self.tag), ("entities", entity)):
            if value is not None:
                parts.append(f"array_has({name}, {lit(value).to_sql()})")
        return " AND ".join(parts)


@dataclass(frozen=True, slots=True)
class Found:
    """A piece that the index returned. `cosine` in [-1, 1]; `words` is the BM25 score, None when not matched by words."""

    piece: Piece
    cosine: float | None
    words: float | None


class Store:
    """All tables below one folder (or object-store prefix). Made once per process. `permit` is asked before every write whether
    this process still may; what it raises is raised."""

    def __init__(self, root: str, *, handles: int = 256, permit: Callable[[], Awaitable[None]] | None = None) -> None:
        self._permit = permit
        self.root = root  # absolute: LanceDB takes a relative path that starts with "db" for its cloud
        self.local = "://" not in root
        self._handles: OrderedDict[str, Any] = OrderedDict()
        self._most = handles
        self._connections: dict[str, Any] = {}
        self._session = lancedb.Session(index_cache_size_bytes=32 << 20, metadata_cache_size_bytes=32 << 20)
        self._opening = asyncio.Lock()

    @staticmethod
    def table_name(cube: str, generation: int) -> str:
        """A cube's table in one generation; generations are never used twice."""
        return f"{cube.replace('-', '')}_g{generation}"

    def folder(self, cube: str) -> str:
        """Where a cube's tables lie: 256 folders, so that no directory grows without bound."""
        return f"{self.root}/{hashlib.sha256(cube.encode()).hexdigest()[:2]}"

    async def _connection(self, cube: str) -> Any:
        folder = self.folder(cube)
        if folder not in self._connections:
            if self.local:
                await asyncio.to_thread(lambda: Path(folder).mkdir(parents=True, exist_ok=True))
            self._connections[folder] = await lancedb.connect_async(
                folder, session=self._session, read_consistency_interval=timedelta(0)
            )
        return self._connections[folder]

    async def _table(self, cube: str, generation: int) -> Any:
        name = self.table_name(cube, generation)
        if name in self._handles:
            self._handles.move_to_end(name)
            return self._handles[name]
        async with self._opening:
            connection = await self._connection(cube)
            try:
                table = await connection.open_table(name)
            except Exception as error:
                raise IndexBroken(f"cannot open: {_kind(error)}") from error
            self._handles[name] = table
            while len(self._handles) > self._most:
                self._handles.popitem(last=False)
        return table

    def forget_handle(self, cube: str, generation: int) -> None:
        """Open the table anew at the next use."""
        self._handles.pop(self.table_name(cube, generation), None)

    def forget_every_handle(self) -> None:
        """Open every table anew at its next use."""
        self._handles.clear()

    async def _permitted(self) -> None:
        if self._permit is not None:
            await self._permit()

    # --- writing (one process per cube) -------------------------------------------------------------------------------

    async def build(self, cube: str, generation: int, pieces: Sequence[Piece], dimensions: int) -> None:
        """A new table of `generation` with these pieces and its full-text index; synced to disk before it returns."""
        await self._permitted()
        connection = await self._connection(cube)
        name = self.table_name(cube, generation)
        self._handles.pop(name, None)
        table = await connection.create_table(name, schema=_schema(dimensions), mode="overwrite")
        await table.set_unenforced_primary_key("id")
        if pieces:
            await table.add(_arrow(pieces, dimensions))
        await table.create_index("text", config=_WORDS)
        await asyncio.to_thread(self._sync, cube)
        self._handles[name] = table

    async def put(self, cube: str, generation: int, gone: Sequence[str], pieces: Sequence[Piece]) -> None:
        """Take out every piece of the memories `gone`, add `pieces`. Doing it twice leaves the same rows."""
        await self._permitted()
        table = await self._table(cube, generation)
        try:
            for start in range(0, len(gone), 500):
                await table.delete(col("memory").isin(list(gone[start : start + 500])).to_sql())
            if pieces:
                await table.add(_arrow(pieces, len(pieces[0].vector if pieces[0].vector is not None else ())))
        except Exception as error:
            self.forget_handle(cube, generation)
            raise IndexBroken(f"cannot write: {_kind(error)}") from error

    async def tidy(self, cube: str, generation: int) -> None:
        """Compact, bring the full-text index up to date, drop old versions; synced in between, because a power cut after
        dropping unsynced files has been seen to lose the whole table."""
        await self._permitted()
        table = await self._table(cube, generation)
        await table.optimize(cleanup_older_than=timedelta(days=365))
        await asyncio.to_thread(self._sync, cube)
        await table.optimize(cleanup_older_than=timedelta(minutes=15))
        await asyncio.to_thread(self._sync, cube)

    async def fragments(self, cube: str, generation: int) -> int:
        """How many small files the table is made of; searching slows down beyond some twenty."""
        table = await self._table(cube, generation)
        stats = await table.stats()
        return int(stats["fragment_stats"]["num_fragments"])

    async def drop(self, cube: str, keep: int | None) -> int:
        """Drop every generation of the cube but `keep`; returns how many."""
        await self._permitted()
        connection = await self._connection(cube)
        prefix = f"{cube.replace('-', '')}_g"
        dropped = 0
        for name in await self._names(connection):
            if name.startswith(prefix) and name != (self.table_name(cube, keep) if keep is not None else ""):
                self._handles.pop(name, None)
                try:
                    await connection.drop_table(name)
                except Exception as error:  # a damaged table cannot be dropped by LanceDB: take the folder away
                    log.warning("drop of a damaged table by hand: %s", _kind(error))
                if self.local:
                    await asyncio.to_thread(shutil.rmtree, f"{self.folder(cube)}/{name}.lance", ignore_errors=True)
                dropped += 1
        if dropped:
            await asyncio.to_thread(self._sync, cube)
        return dropped

    async def _names(self, connection: Any) -> list[str]:
        names: list[str] = []
        token = None
        while True:
            page = await connection.list_tables(page_token=token, limit=1000)
            names += page.tables
            token = page.page_token
            if not token:
                return names

    def _sync(self, cube: str) -> None:
        if not self.local:
            return
        handle = os.open(self.folder(cube), os.O_RDONLY)
        try:
            if hasattr(os, "syncfs"):
                os.syncfs(handle)
            else:
                libc = ctypes.CDLL(None, use_errno=True)
                if not hasattr(libc, "syncfs") or libc.syncfs(handle) != 0:
                    os.sync()
        finally:
            os.close(handle)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def search(
        self,
        cube: str,
        generation: int,
        *,
        vector: NDArray[np.float32] | None,
        words: str,
        limit: int,
        only: Filter | None = None,
    ) -> list[Found]:
        """The `limit` nearest pieces by meaning and the `limit` best by words, in one list without order.

        Raises IndexBroken when the table cannot be read.
        """
        try:
            return await self._search(cube, generation, vector, words, limit, only.sql() if only else "")
        except IndexBroken:
            raise
        except Exception as error:
            self.forget_handle(cube, generation)
            raise IndexBroken(f"cannot search: {_kind(error)}") from error

    async def _search(
        self, cube: str, generation: int, vector: NDArray[np.float32] | None, words: str, limit: int, where: str
    ) -> list[Found]:
        table = await self._table(cube, generation)
        found: dict[str, Found] = {}

        async def near() -> pa.Table | None:
            if vector is None:
                return None
            query = table.query().nearest_to(vector).distance_type("cosine").bypass_vector_index()
            query = query.where(where) if where else query
            return await query.select([*COLUMNS, "vector", "late", "width", "_distance"]).limit(limit).to_arrow()

        async def matching() -> pa.Table | None:
            if not words.strip():
                return None
            query = table.query().nearest_to_text(words, columns=["text"])
            query = query.where(where) if where else query
            return await query.select([*COLUMNS, "vector", "late", "width", "_score"]).limit(limit).to_arrow()

        nearest, matched = await asyncio.gather(near(), matching())
        for row, piece in _pieces(nearest):
            found[piece.id] = Found(piece, 1.0 - float(row["_distance"]), None)
        for row, piece in _pieces(matched):
            known = found.get(piece.id)
            cosine = known.cosine if known else _cosine(piece.vector, vector)
            found[piece.id] = Found(piece, cosine, float(row["_score"]))
        return list(found.values())

    async def pieces(self, cube: str, generation: int) -> list[Piece]:
        """Every piece in the table, with its vector. Raises IndexBroken."""
        try:
            table = await self._table(cube, generation)
            rows = await table.query().select([*COLUMNS, "vector", "late", "width"]).to_arrow()
        except IndexBroken:
            raise
        except Exception as error:
            self.forget_handle(cube, generation)
            raise IndexBroken(f"cannot read: {_kind(error)}") from error
        return [piece for _, piece in _pieces(rows)]

    async def count(self, cube: str, generation: int) -> int:
        """How many pieces the table holds. Raises IndexBroken."""
        try:
            return int(await (await self._table(cube, generation)).count_rows())
        except IndexBroken:
            raise
        except Exception as error:
            self.forget_handle(cube, generation)
            raise IndexBroken(f"cannot count: {_kind(error)}") from error

    async def check_words(self, cube: str, generation: int) -> None:
        """Raise IndexBroken when the full-text index cannot answer."""
        await self.search(cube, generation, vector=None, words="a", limit=1)


def _schema(dimensions: int) -> pa.Schema:
    return pa.schema(
        [pa.field(name, pa.string(), nullable=False) for name in TEXTS]
        + [pa.field(name, pa.float64()) for name in TIMES]
        + [pa.field(name, pa.list_(pa.string())) for name in LISTS]
        + [pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False), pa.field("late", pa.binary())]
        + [pa.field("width", pa.int32(), nullable=False)]  # bytes of a word piece in `late`
    )


def _arrow(pieces: Sequence[Piece], dimensions: int) -> pa.Table:
    flat = np.concatenate([np.asarray(piece.vector, np.float32) for piece in pieces])
    columns: dict[str, Any] = {name: [getattr(piece, name) for piece in pieces] for name in [*TEXTS, *TIMES]}
    columns |= {name: [list(getattr(piece, name)) for piece in pieces] for name in LISTS}
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), dimensions)
    columns["late"] = [None if piece.late is None else piece.late.tobytes() for piece in pieces]
    columns["width"] = [0 if piece.late is None else piece.late.shape[1] for piece in pieces]
    return pa.Table.from_pydict(columns, schema=_schema(dimensions))


def _pieces(table: pa.Table | None) -> list[tuple[dict[str, Any], Piece]]:
    if table is None or table.num_rows == 0:
        return []
    column = table.column("vector").combine_chunks()
    flat: Vectors = np.asarray(column.flatten(), np.float32).reshape(table.num_rows, -1)
    rows = table.drop_columns(["vector"]).to_pylist()
    return [(row, _piece(row, flat[i])) for i, row in enumerate(rows)]


def _piece(row: dict[str, Any], vector: NDArray[np.float32]) -> Piece:
    late = None
    if row["late"] is not None:
        late = np.frombuffer(row["late"], np.int8).reshape(-1, max(row["width"], 1))
    plain = {name: row[name] for name in [*TEXTS, *TIMES]} | {name: tuple(row[name]) for name in LISTS}
    return Piece(**plain, vector=vector, late=late)


def _cosine(a: NDArray[np.float32] | None, b: NDArray[np.float32] | None) -> float | None:
    if a is None or b is None:
        return None
    return float(np.dot(a, b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9))


def _kind(error: BaseException) -> str:
    """The kind of a LanceDB fault without its text, which can quote rows."""
    text = str(error).lower()
    for sign in (
        "not found",
        "no space left",
        "was not found",
        "does not exist",
        "permission denied",
        "inverted index",
    ):
        if sign in text:
            return sign
    return type(error).__name__
