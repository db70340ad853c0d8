"""What other products' dumps become here: conversations, and memories that were given. Values, and reading the files.

A reader of one product turns each entry of its dump into a Conversation, into Givens, or into nothing (counted as refused).
Formats change without notice, so readers take what they know and pass over the rest; a dump that cannot be read at all
raises Refused before anything is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO

import msgspec

from memory.transfer.container import CHUNK, Container, is_zip
from memory.transfer.elements import elements
from memory.transfer.format import Limits, Refused
from memory.types import Kind, Trust
from memory.words import whole

SMALL = 64 << 20  # bytes of a JSON object that is read at once
_CONVERSATIONS = re.compile(r"(?:.*/)?conversations(?:[-_]\d+)?\.json")
_UNKNOWN = "the file is neither a memrelay archive nor a dump of ChatGPT, Claude or mem0 that is known here"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question with its answer. `id` is the question's own in the dump; times are seconds since the epoch."""

    id: str
    user: str
    assistant: str
    said_at: float
    answered_at: float
    model: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation, along the branch that its owner sees."""

    id: str
    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """A memory that a dump holds as such. `id` is its own there; `at`: when it was made, None: not known."""

    id: str
    text: str
    trust: Trust
    at: float | None = None
    updated_at: float | None = None
    kind: Kind = Kind.FACT
    tags: tuple[str, ...] = ()
    user: str = ""


@dataclass(slots=True)
class Found:
    """What one entry gave."""

    conversations: list[Conversation] = field(default_factory=list)
    givens: list[Given] = field(default_factory=list)
    refused: int = 0


Entry = Callable[[Any], Found]


class Dump:
    """The JSON files of a dump: a ZIP as it was downloaded, or one of its files alone."""

    def __init__(self, file: BinaryIO, limits: Limits | None = None) -> None:
        self._file = file
        self._limits = limits or Limits()
        self._zip = Container(file, self._limits) if is_zip(file) else None

    def conversations(self) -> Iterator[Any]:
        """The entries of `conversations.json` (or of its numbered parts), or of the file itself."""
        if self._zip is None:
            yield from self._entries(self._raw(), "conversations")
            return
        names = sorted(name for name in self._zip.names if _CONVERSATIONS.fullmatch(name))
        self._zip.check(names)
        for name in names:
            yield from self._entries(self._zip.chunks(name), "conversations")

    def entries(self, name: str, *keys: str) -> Iterator[Any]:
        """The entries of another list: the member `name` of the ZIP, or the file itself when it is not a ZIP. An object is
        looked into under `keys`."""
        if self._zip is None:
            yield from self._entries(self._raw(), *keys)
            return
        names = [member for member in self._zip.names if member.rpartition("/")[2] == name]
        self._zip.check(names)
        for member in names:
            yield from self._entries(self._zip.chunks(member), *keys)

    @property
    def zipped(self) -> bool:
        """Whether it is a ZIP file."""
        return self._zip is not None

    def is_json(self) -> bool:
        """Whether a file that is not zipped begins as a list or an object does."""
        return _without_mark(next(self._raw(), b"")).lstrip()[:1] in (b"[", b"{")

    def names(self) -> list[str]:
        """The names of a ZIP file's members."""
        return [] if self._zip is None else list(self._zip.names)

    def _raw(self) -> Iterator[bytes]:
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            yield chunk

    def _entries(self, chunks: Iterator[bytes], *keys: str) -> Iterator[Any]:
        first = _without_mark(next(chunks, b""))
        while first and not first.strip():
            first = next(chunks, b"")
        if first.lstrip().startswith(b"{"):
            yield from self._inside(_joined(first, chunks), keys)
            return
        for raw in elements(_chained(first, chunks), self._limits.line):
            yield _parsed(raw)

    def _inside(self, raw: bytes, keys: tuple[str, ...]) -> Iterator[Any]:
        """An object holds its entries under one of the keys; otherwise it is an entry itself."""
        value = _parsed(raw)
        for key in keys:
            if isinstance(value.get(key), list):
                yield from value[key]
                return
        yield value


def sniff(file: BinaryIO, limits: Limits | None = None) -> str:
    """Which format a file has: memrelay, chatgpt, claude or mem0. Raises Refused when it is none of them."""
    dump = Dump(file, limits)
    if not dump.zipped and not dump.is_json():
        raise Refused(_UNKNOWN)
    if dump.zipped and "manifest.json" in dump.names():
        return "memrelay"
    first = next(iter(dump.conversations()), None)
    if isinstance(first, dict):
        if "mapping" in first:
            return "chatgpt"
        if "chat_messages" in first:
            return "claude"
    given = next(iter(dump.entries("memories.json", "results", "memories")), None)
    if isinstance(given, dict):
        if "conversations_memory" in given:
            return "claude"
        if isinstance(given.get("memory", given.get("content")), str):
            return "mem0"
    if dump.zipped and first is None and any(_CONVERSATIONS.fullmatch(name) for name in dump.names()):
        return "claude" if any(name.endswith("users.json") for name in dump.names()) else "chatgpt"
    raise Refused(_UNKNOWN)


def moment(value: Any, now: float) -> float | None:
    """A time as dumps write it (seconds, or ISO 8601) as seconds since the epoch; None when it is none, or absurd."""
    if isinstance(value, str):
        try:
            read = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
        value = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value <= now + 86_400 else None


def plain(text: Any) -> str:
    """A text that every database takes; an empty one when it is none."""
    return _CONTROL.sub("", whole(text)).strip() if isinstance(text, str) else ""


def mapping(value: Any) -> dict[str, Any]:
    """The object, or an empty one."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """The list, or an empty one."""
    return value if isinstance(value, list) else []


def exchanges(messages: list[tuple[str, str, str, float | None, str]], start: float) -> tuple[Exchange, ...]:
    """(id, role, text, time, model) in order, put together: what a user said in a row is one question, all that the
    assistant said until the next one its answer. A message without a time has that of the one before it."""
    out: list[Exchange] = []
    at = start
    for name, role, text, time, model in messages:
        at = max(at, time) if time is not None else at
        if role == "user" and out and not out[-1].assistant:
            last = out[-1]
            out[-1] = Exchange(last.id, f"{last.user}\n\n{text}", "", last.said_at, at)
        elif role == "user":
            out.append(Exchange(name, text, "", at, at))
        elif out:
            last = out[-1]
            said = f"{last.assistant}\n\n{text}" if last.assistant else text
            out[-1] = Exchange(last.id, last.user, said, last.said_at, at, model or last.model)
    return tuple(out)


def _parsed(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:  # half of a surrogate pair, NaN: other products write those
            return json.loads(raw.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            raise Refused("the file is not JSON") from error


def _joined(first: bytes, rest: Iterator[bytes]) -> bytes:
    parts, size = [first], len(first)
    for part in rest:
        size += len(part)
        if size > SMALL:
            raise Refused(f"a JSON object of more than {SMALL} bytes; only a list may be larger")
        parts.append(part)
    return b"".join(parts)


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _without_mark(first: bytes) -> bytes:
    return first.removeprefix(b"\xef\xbb\xbf")
