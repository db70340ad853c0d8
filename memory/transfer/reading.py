"""An archive read and verified whole, before anything of it is used. In: a seekable binary file; out: typed rows.

`Reading(file).verify(now)` looks at every byte: members, sizes, hashes, types, ids, times, references, counts. Whatever is
wrong raises Refused with the reason. After that the rows can be walked through again, one at a time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from memory.transfer.container import Container
from memory.transfer.format import (
    BLOB,
    BLOBS,
    DEEPEST,
    FORMAT,
    MANIFEST,
    VECTOR_DATA,
    VECTOR_ROWS,
    VERSION,
    EdgeRow,
    Limits,
    Manifest,
    MemoryRow,
    NodeRow,
    Refused,
    TurnRow,
    VectorRow,
)
from memory.transfer.upgrade import UPGRADES, Raw, members_of
from memory.types import Status

R = TypeVar("R", bound=msgspec.Struct)
Progress = Callable[[int, int], None]  # bytes looked at, bytes in all


class Reading:
    """One archive. Raises Refused from every method when the archive is not what it says."""

    def __init__(self, file: BinaryIO, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._container = Container(file, self._limits)
        self._container.check(self._container.names)
        if not self._container.names or self._container.names[0] != MANIFEST:
            raise Refused(f"{MANIFEST} is missing or not the first member: this is no {FORMAT} archive")
        self._version, self._raw = self._read_manifest()
        for step in UPGRADES[self._version :]:
            self._raw = _guarded(MANIFEST, step.manifest, self._raw)
        try:
            self.manifest = msgspec.convert(self._raw, Manifest)
        except msgspec.ValidationError as error:
            raise Refused(f"{MANIFEST}: {error}") from error

    def _read_manifest(self) -> tuple[int, Raw]:
        try:
            raw = msgspec.json.decode(self._container.whole(MANIFEST, self._limits.manifest), type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(f"{MANIFEST} is not JSON") from error
        version = raw.get("version")
        if raw.get("format") != FORMAT or not isinstance(version, int) or isinstance(version, bool) or version < 0:
            raise Refused(f"{MANIFEST} does not say that this is a {FORMAT} archive")
        if version > VERSION:
            raise Refused(
                f"the archive has version {version}, this memrelay reads up to {VERSION}: update memrelay, then import it"
            )
        return version, raw

    # --- the rows -------------------------------------------------------------------------------------------------------

    def turns(self) -> Iterator[TurnRow]:
        """Every turn."""
        return self._rows("turns.jsonl", TurnRow)

    def memories(self) -> Iterator[MemoryRow]:
        """Every memory."""
        return self._rows("memories.jsonl", MemoryRow)

    def nodes(self) -> Iterator[NodeRow]:
        """Every entity and topic."""
        return self._rows("nodes.jsonl", NodeRow)

    def edges(self) -> Iterator[EdgeRow]:
        """Every link."""
        return self._rows("edges.jsonl", EdgeRow)

    def vectors(self) -> Iterator[tuple[VectorRow, NDArray[np.float32]]]:
        """Every vector with what it belongs to; none when the archive has no vectors."""
        if self.manifest.vectors is None:
            return
        each = 4 * self.manifest.vectors.dimensions
        data, rest = self._container.chunks(VECTOR_DATA), b""
        for row in self._rows(VECTOR_ROWS, VectorRow):
            while len(rest) < each:
                rest += next(data, b"") or _short()
            yield row, np.frombuffer(rest[:each], "<f4")
            rest = rest[each:]

    def blobs(self) -> list[str]:
        """The names of the other forms' files, each beginning with `blobs/`."""
        return [member.name for member in self.manifest.members if member.name.startswith(BLOBS)]

    def blob(self, name: str) -> Iterator[bytes]:
        """The bytes of one of them."""
        return self._container.chunks(name)

    def _rows(self, member: str, kind: type[R]) -> Iterator[R]:
        if member not in self._container:
            return
        decoder = msgspec.json.Decoder(kind)
        loose = msgspec.json.Decoder(dict[str, Any])
        for number, line in enumerate(self._container.lines(member), 1):
            try:
                if self._version == VERSION:
                    row = decoder.decode(line)
                else:
                    raw = loose.decode(line)
                    for step in UPGRADES[self._version :]:
                        raw = _guarded(member, step.row, member, raw, self._raw)
                    row = msgspec.convert(raw, kind)
            except msgspec.ValidationError as error:
                raise Refused(f"{member}, line {number}: {error}") from error
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise Refused(f"{member}, line {number}: not JSON") from error
            except RecursionError as error:
                raise Refused(f"{member}, line {number}: nested too deeply") from error
            if b"u0000" in line and any("\x00" in text for text in _texts(msgspec.to_builtins(row))):
                raise Refused(f"{member}, line {number}: a NUL character")
            yield row

    # --- judging --------------------------------------------------------------------------------------------------------

    def verify(self, now: float, progress: Progress | None = None) -> None:
        """Look at every byte. Raises Refused."""
        self._verify_members(progress or (lambda done, total: None))
        latest = now + self._limits.ahead_s
        turns, seen = set[str](), set[str]()
        for turn in self._counted("turns.jsonl", self.turns()):
            _said_before(latest, "turns.jsonl", turn.id, turn.said_at, turn.answered_at)
            _once(turns, turn.id, "turns.jsonl")
            _once(seen, turn.key, "turns.jsonl")
        memories = set[str]()
        needed = set[str]()
        for memory in self._counted("memories.jsonl", self.memories()):
            _once(memories, memory.id, "memories.jsonl")
            self._verify_memory(memory, turns, latest)
            befores = [change.before for change in memory.history if change.before]
            needed |= {one for one in (memory.supersedes, *(before.supersedes for before in befores)) if one}
        if lost := sorted(needed - memories - {msgspec.UNSET}):
            raise Refused(f"memories.jsonl: {lost[0][:64]} is superseded, but not in the archive")
        ends = self._verify_graph(memories)
        links = set[tuple[str, str, str]]()
        for edge in self._counted("edges.jsonl", self.edges()):
            if (link := (edge.source, edge.kind, edge.target)) in links:
                raise Refused(f"edges.jsonl: an edge from {edge.source[:64]} occurs twice")
            links.add(link)
            if edge.source not in ends or edge.target not in ends:
                raise Refused(f"edges.jsonl: an edge from {edge.source[:64]} leads out of the archive")
        self._verify_vectors(memories)

    def _verify_members(self, progress: Progress) -> None:
        manifest, container = self.manifest, self._container
        declared = [member.name for member in manifest.members]
        needed = set(members_of(self._version)) | ({VECTOR_ROWS, VECTOR_DATA} if manifest.vectors else set())
        if len(set(declared)) != len(declared):
            raise Refused(f"{MANIFEST} names a member twice")
        if missing := sorted((needed | set(declared)) - set(container.names)):
            raise Refused(f"member {missing[0][:80]} is missing")
        if extra := sorted(set(container.names) - set(declared) - {MANIFEST}):
            raise Refused(f"member {extra[0][:80]!r} is not in {MANIFEST}")
        if undeclared := sorted(needed - set(declared)):
            raise Refused(f"{MANIFEST} does not name {undeclared[0]}")
        for name in declared:
            if name not in needed and not BLOB.fullmatch(name):
                raise Refused(f"member {name[:80]!r} does not belong into an archive")
        folders = {name.rsplit("/", depth)[0] for name in self.blobs() for depth in range(1, name.count("/"))}
        if both := sorted(folders & set(declared)):
            raise Refused(f"member {both[0][:80]} is a file and a folder")
        total, done = sum(member.size for member in manifest.members), 0
        for member in manifest.members:
            hashed = hashlib.sha256()
            if member.size != container.size(member.name):
                raise Refused(f"member {member.name[:80]} has another size than {MANIFEST} says")
            for chunk in container.chunks(member.name):
                hashed.update(chunk)
                progress(done := done + len(chunk), total)
            if hashed.hexdigest() != member.sha256:
                raise Refused(f"member {member.name[:80]} has another hash than {MANIFEST} says")
        if manifest.counts.get("blobs", 0) != len(self.blobs()):
            raise Refused("blobs: another number than the manifest says")

    def _counted(self, member: str, rows: Iterator[R]) -> Iterator[R]:
        """The rows, refused when they are too many or not as many as the manifest says."""
        declared = self.manifest.counts.get(_count_name(member), 0)
        number = 0
        for row in rows:
            number += 1
            if number > min(declared, self._limits.rows):
                break
            yield row
        if number > self._limits.rows:
            raise Refused(f"{member} has more than {self._limits.rows} rows")
        if number != declared:
            raise Refused(f"{member}: another number of rows than {MANIFEST} says")

    def _verify_memory(self, memory: MemoryRow, turns: set[str], latest: float) -> None:
        name = "memories.jsonl"
        befores = [change.before for change in memory.history if change.before]
        if Status.DELETED in (memory.status, *(before.status for before in befores)):
            raise Refused(f"{name}: {memory.id[:64]} is deleted; deleted memories are not exported")
        _said_before(latest, name, memory.id, memory.message_time, memory.created_at, memory.last_used_at or 0.0)
        _said_before(latest, name, memory.id, *(change.at for change in memory.history))
        if memory.supersedes == memory.id:
            raise Refused(f"{name}: {memory.id[:64]} supersedes itself")
        for source in (*memory.sources, *(source for before in befores for source in before.sources or ())):
            if source.turn and source.turn not in turns:
                raise Refused(f"{name}: {memory.id[:64]} cites a turn that is not in the archive")
            if source.role not in ("user", "assistant"):
                raise Refused(f"{name}: {memory.id[:64]} cites an unknown role")
        versions = [change.version for change in memory.history]
        if len(set(versions)) != len(versions):
            raise Refused(f"{name}: {memory.id[:64]} has a version twice")
        _plain_json(name, memory.id, memory.attributes)
        for before in befores:
            _plain_json(name, memory.id, before.attributes)

    def _verify_graph(self, memories: set[str]) -> set[str]:
        """Nodes have unique ids, none that a memory has, and parents in the archive. Returns all that an edge may join."""
        nodes = set[str]()
        parents: dict[str, str] = {}
        for node in self._counted("nodes.jsonl", self.nodes()):
            _once(nodes, node.id, "nodes.jsonl")
            _plain_json("nodes.jsonl", node.id, node.attributes)
            if node.parent:
                parents[node.id] = node.parent
        if nodes & memories:
            raise Refused("nodes.jsonl: an id is a memory's")
        for node_id, parent in parents.items():
            if parent not in nodes:
                raise Refused(f"nodes.jsonl: the parent of {node_id[:64]} is not in the archive")
        _no_circle(parents)
        return memories | nodes

    def _verify_vectors(self, memories: set[str]) -> None:
        if self.manifest.vectors is None:
            return
        pieces = set[str]()
        size = self._container.size(VECTOR_DATA)
        if size != self.manifest.counts.get("vectors", 0) * 4 * self.manifest.vectors.dimensions:
            raise Refused(f"{VECTOR_DATA}: another size than {MANIFEST} says")
        number = 0
        for row, vector in self.vectors():
            number += 1
            _once(pieces, row.piece, VECTOR_ROWS)
            if row.memory not in memories or not row.piece.startswith(f"{row.memory}:"):
                raise Refused(f"{VECTOR_ROWS}: a vector belongs to a memory that is not in the archive")
            if bool(row.late) != bool(row.width) or (row.late and len(row.late) % row.width):
                raise Refused(f"{VECTOR_ROWS}: the word pieces of {row.piece[:64]} are not of their width")
            length = float(vector @ vector)
            if not math.isfinite(length) or not (length == 0.0 or 0.9 < length < 1.1):
                raise Refused(f"{VECTOR_DATA}: the vector of {row.piece[:64]} is not one of length 1")
        if number != self.manifest.counts.get("vectors", 0):
            raise Refused(f"{VECTOR_ROWS}: another number of rows than {MANIFEST} says")


def _guarded(member: str, work: Callable[..., Raw], *given: Any) -> Raw:
    """An upgrade's result; rows that are not even of the old shape are refused."""
    try:
        return work(*given)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(f"{member}: not of the shape that its version had") from error


def _count_name(member: str) -> str:
    return "vectors" if member == VECTOR_ROWS else member.removesuffix(".jsonl")


def _once(seen: set[str], value: str, member: str) -> None:
    if value in seen:
        raise Refused(f"{member}: {value[:64]} occurs twice")
    seen.add(value)


def _said_before(latest: float, member: str, row: str, *times: float) -> None:
    if max(times, default=0.0) > latest:
        raise Refused(f"{member}: {row[:64]} has a time in the future; times are seconds since the epoch")


def _plain_json(member: str, row: str, value: Any) -> None:
    """Attributes are small JSON: no deep nesting, no numbers that a database cannot hold."""
    level = [value]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, int) and not -(2**63) <= each < 2**63:
                raise Refused(f"{member}: {row[:64]} holds a number that is too large")
            inner += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        if not inner:
            return
        level = inner
    raise Refused(f"{member}: {row[:64]} has attributes that are nested too deeply")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry)
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield str(key)
            yield from _texts(entry)


def _no_circle(parents: dict[str, str]) -> None:
    done = set[str]()
    for start in parents:
        path = set[str]()
        at: str | None = start
        while at is not None and at not in done:
            if at in path:
                raise Refused(f"nodes.jsonl: {at[:64]} is its own ancestor")
            path.add(at)
            at = parents.get(at)
        done |= path


def _short() -> bytes:
    raise Refused(f"{VECTOR_DATA} is too short")
