"""The archive format `memrelay-cube`: its members, the rows in them as types, and the bounds within which all must lie.

An archive is a ZIP file: `manifest.json` first, then `turns.jsonl`, `memories.jsonl`, `nodes.jsonl`, `edges.jsonl`, and, if
there are any, `vectors/rows.jsonl` with `vectors/data.f32` and `blobs/…`. A row has no cube: whatever is in an archive
belongs to the one cube it goes into. Pure values; reading and writing are elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from memory.types import Kind, Status, Trust

FORMAT = "memrelay-cube"
VERSION = 1
MANIFEST = "manifest.json"
ROWS = ("turns.jsonl", "memories.jsonl", "nodes.jsonl", "edges.jsonl")
VECTOR_ROWS, VECTOR_DATA = "vectors/rows.jsonl", "vectors/data.f32"
BLOBS = "blobs/"
BLOB = re.compile(r"blobs(?:/[A-Za-z0-9_][A-Za-z0-9._-]{0,127}){1,6}")
FAR = 253_402_300_799.0  # the last second of the year 9999
DEEPEST = 32  # levels of a memory's attributes


class Refused(Exception):
    """What was to be imported cannot be: the message says why, in words for its owner. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what is read. Sizes in bytes."""

    total: int = 8 << 30  # of all members, unpacked
    manifest: int = 16 << 20
    line: int = 128 << 20  # one row; a request body may hold 64 MiB, which JSON can double
    members: int = 10_000
    rows: int = 2_000_000  # of one member
    ratio: int = 200  # unpacked to packed; text does not reach 50
    directory: int = 8 << 20  # the ZIP's list of members
    ahead_s: float = 86_400.0  # how far another machine's clock may be ahead


Id = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,512}\Z")]
Name = Annotated[str, Meta(pattern=r"^[a-z_]{1,64}\Z")]
Stored = Annotated[float, Meta(ge=0, le=FAR)]  # when something was said or written down
Moment = Annotated[float, Meta(ge=-FAR, le=FAR)]  # when something happens
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Small = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Short = Annotated[str, Meta(max_length=512)]
Flag = Annotated[int, Meta(ge=0, le=1)]


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class TurnRow(_Row, frozen=True, kw_only=True):
    """A turn as the log holds it."""

    id: Id
    session: Id
    key: Id
    position: Short = ""
    tail: Short = ""
    user_text: str
    assistant_text: str
    speaker: str = ""
    model: str = ""
    request_id: str = ""
    said_at: Stored
    answered_at: Stored
    complete: Flag = 1
    replaced: Flag = 0
    extracted: Flag = 0


class SourceRow(_Row, frozen=True, kw_only=True):
    """Which turn, and which side of it. `turn` is empty for what no turn taught."""

    turn: Short
    session: Short
    role: Short


class Before(_Row, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of a memory as they were before a change; what is absent was not kept."""

    text: str | msgspec.UnsetType = msgspec.UNSET
    answer: str | msgspec.UnsetType = msgspec.UNSET
    kind: Kind | msgspec.UnsetType = msgspec.UNSET
    status: Status | msgspec.UnsetType = msgspec.UNSET
    entities: list[str] | msgspec.UnsetType = msgspec.UNSET
    tags: list[str] | msgspec.UnsetType = msgspec.UNSET
    event_time: Moment | msgspec.UnsetType | None = msgspec.UNSET
    event_end: Moment | msgspec.UnsetType | None = msgspec.UNSET
    valid_from: Moment | msgspec.UnsetType = msgspec.UNSET
    valid_to: Moment | msgspec.UnsetType | None = msgspec.UNSET
    supersedes: Id | msgspec.UnsetType | None = msgspec.UNSET
    sources: list[SourceRow] | msgspec.UnsetType = msgspec.UNSET
    trust: Trust | msgspec.UnsetType = msgspec.UNSET
    confidence: Share | msgspec.UnsetType = msgspec.UNSET
    importance: Share | msgspec.UnsetType = msgspec.UNSET
    pinned: Flag | msgspec.UnsetType = msgspec.UNSET
    attributes: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET


class ChangeRow(_Row, frozen=True, kw_only=True):
    """One entry of a memory's history."""

    version: Small
    at: Stored
    action: Name
    before: Before | None = None


class MemoryRow(_Row, frozen=True, kw_only=True):
    """A memory of any kind and status (but not a deleted one), with its history."""

    id: Id
    kind: Kind
    text: str
    answer: str = ""
    speaker: str = ""
    entities: list[str] = []
    tags: list[str] = []
    status: Status = Status.ACTIVE
    slot: str = ""
    event_time: Moment | None = None
    event_end: Moment | None = None
    message_time: Stored
    created_at: Stored
    valid_from: Moment
    valid_to: Moment | None = None
    supersedes: Id | None = None
    sources: list[SourceRow] = []
    trust: Trust
    confidence: Share = 1.0
    importance: Share = 0.5
    uses: Small = 0
    last_used_at: Stored | None = None
    pinned: Flag = 0
    attributes: dict[str, Any] | None = None
    history: list[ChangeRow] = []


class NodeRow(_Row, frozen=True, kw_only=True):
    """An entity or a topic."""

    id: Id
    kind: Name
    name: str
    parent: Id | None = None
    attributes: dict[str, Any] | None = None


class EdgeRow(_Row, frozen=True, kw_only=True):
    """A typed link from a memory (or a node) to a memory or a node."""

    source: Id
    kind: Name
    target: Id
    weight: Annotated[float, Meta(ge=-1e6, le=1e6)] = 1.0


class VectorRow(_Row, frozen=True, kw_only=True):
    """Whose vector stands at this place of `vectors/data.f32`; `digest` is that of the embedded text. `late`: the vectors
    of its word pieces, int8, `width` bytes each (base64 in JSON)."""

    piece: Id
    memory: Id
    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    late: bytes | None = None
    width: Annotated[int, Meta(ge=0, le=4096)] = 0


class Member(_Row, frozen=True, kw_only=True):
    """A file in the archive: bytes, and the SHA-256 of them in hex."""

    name: str
    size: Count
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class CubeRow(_Row, frozen=True, kw_only=True):
    """The cube that was exported."""

    id: Id
    name: str
    created_at: Stored


class VectorInfo(_Row, frozen=True, kw_only=True):
    """What the vectors in the archive are: float32, little endian, one after the other."""

    embedder: str
    dimensions: Annotated[int, Meta(ge=1, le=16384)]


class Manifest(_Row, frozen=True, kw_only=True):
    """`manifest.json`. `embedder` is the one whose index the cube had, also when no vectors were taken along."""

    format: str
    version: int
    created_at: Stored
    program: str
    cube: CubeRow
    embedder: str
    counts: dict[str, Count]
    vectors: VectorInfo | None
    members: list[Member]
