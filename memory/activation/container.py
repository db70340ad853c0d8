"""One state as a file: a fixed start, a JSON header, the tokens, the payload. Nothing in it is ever executed.

    magic 16 B | version u32 | header length u32 | sha256 of the header 32 B | header | tokens int32 | payload

The header names the cube, the model and all settings that the payload depends on, and carries sha256 of the tokens and a CRC-32
of every 2 MiB of the payload. That finds damage (a damaged block passes with a chance of 2⁻³²) and files that belong elsewhere;
it is no signature: who may write into the folder may write a whole false file. Files appear whole or not at all (a name of
their own, then a rename); what a power cut leaves of one is found by the checks, so nothing waits for the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
Payload = NDArray[np.uint8]
Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # map, or that of a pool of threads

MAGIC = b"memrelay kv\r\n\x1a\n\x00"  # a copy made as text breaks it
VERSION = 1
_START = struct.Struct("<16sII32s")
_BLOCK = 2**21
_LONGEST_HEADER = 2**24


class Damaged(Exception):
    """The file cannot be used; the reason is one word, such as truncated or checksum."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Head:
    """What a state is and whose. `compat`: everything of model and settings that it depends on. `epoch`: of the cube's folder;
    a state of another one was meant to be forgotten. `sort`: prefix or session. `count`: tokens; `size`: payload bytes."""

    cube: str
    epoch: str
    sort: str
    session: str
    adapter: str
    compat: Mapping[str, Any]
    count: int
    tokens_sha: str
    size: int
    created: float
    blocks: tuple[int, ...] = field(default=(), repr=False)  # CRC-32 of every 2 MiB, once it is written

    @property
    def key(self) -> str:
        """The file's name: a session has one state, a prefix is known by its tokens."""
        named = self.session if self.sort == "session" else self.tokens_sha
        parts = [self.sort, self.cube, named, self.adapter, self.compat]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def sha_of(tokens: Tokens) -> str:
    """What a header says of its tokens."""
    return hashlib.sha256(np.ascontiguousarray(tokens, "<i4").tobytes()).hexdigest()


def write(path: Path, head: Head, tokens: Tokens, payload: Payload, each: Each = map) -> int:
    """Write a file of this state; returns its bytes. Raises OSError, and then leaves nothing."""
    view = payload.data
    blocks = tuple(each(lambda at: zlib.crc32(view[at : at + _BLOCK]), range(0, len(view), _BLOCK)))
    header = json.dumps(asdict(head) | {"blocks": blocks}, sort_keys=True).encode()
    start = _START.pack(MAGIC, VERSION, len(header), hashlib.sha256(header).digest())
    parts: Sequence[bytes | memoryview] = (start, header, np.ascontiguousarray(tokens, "<i4").tobytes(), view)
    temporary = path.with_name(f"{uuid4().hex}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb", buffering=0) as file:
            for part in parts:
                _write_all(file.fileno(), part)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return sum(map(len, parts))


def read_head(path: Path) -> tuple[Head, Tokens]:
    """Everything but the payload. Raises Damaged, or OSError when the file cannot be read."""
    with path.open("rb") as file:
        start = file.read(_START.size)
        if len(start) < _START.size:
            raise Damaged("truncated")
        magic, version, length, digest = _START.unpack(start)
        if magic != MAGIC or version != VERSION or length > _LONGEST_HEADER:
            raise Damaged("format")
        raw = file.read(length)
        if len(raw) < length:
            raise Damaged("truncated")
        if hashlib.sha256(raw).digest() != digest:
            raise Damaged("checksum")
        head = _parsed(raw)
        tokens = np.frombuffer(file.read(4 * head.count), "<i4")
        whole = _START.size + length + 4 * head.count + head.size
        if len(tokens) < head.count or os.fstat(file.fileno()).st_size != whole:
            raise Damaged("truncated")
    if sha_of(tokens) != head.tokens_sha:
        raise Damaged("checksum")
    return head, tokens


def read_payload(path: Path, head: Head, each: Each = map) -> Payload:
    """The payload that `head`, read before, stands for, checked while it is read. Raises Damaged or OSError."""
    out: Payload = np.empty(head.size, np.uint8)
    view = out.data
    with path.open("rb", buffering=0) as file:
        number = file.fileno()
        begin = os.fstat(number).st_size - head.size

        def good(block: int) -> bool:
            at = block * _BLOCK
            part = view[at : at + _BLOCK]
            return os.preadv(number, [part], begin + at) == len(part) and zlib.crc32(part) == head.blocks[block]

        if begin < 0 or not all(list(each(good, range(len(head.blocks))))):
            raise Damaged("checksum")
    return out


def _parsed(raw: bytes) -> Head:
    """A header whose checksum was right, which still need not be one of ours."""
    try:
        said = json.loads(raw)
        head = Head(**said | {"blocks": tuple(said["blocks"])})
        fits = head.count >= 0 and len(head.blocks) == -(-head.size // _BLOCK)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Damaged("format") from error
    if not fits:
        raise Damaged("format")
    return head


def _write_all(number: int, part: bytes | memoryview) -> None:
    done = 0
    while done < len(part):
        done += os.write(number, part[done : done + 2**26])
