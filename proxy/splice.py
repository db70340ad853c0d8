"""Adding text to a JSON body without touching any other byte. Pure.

Numbers keep their digits, keys their order, escapes their form: what we do not add, we do not rewrite. The body has been
parsed before, so it is known to be JSON; here only the places are looked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

# possessive: a 20 MB image is one string, and backtracking into it would take seconds and gigabytes
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SPACE = re.compile(rb"[ \t\n\r]*")
_SCALAR = re.compile(rb"[^\s,\]}]+")
_INSIDE = re.compile(rb'[{}\[\]]|"(?:[^"\\]++|\\.)*+"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Append:
    """Add `text` at the end of message `index` (its string, or as one more text part)."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Prepend:
    """Put `text` before what message `index` says (into its string, or as its first text part)."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Lead:
    """Put a system message with `text` before all others."""

    text: str


Edit = Append | Prepend | Lead


class CannotSplice(Exception):
    """The message at that place has no content that text can be added to."""


def splice(body: bytes, edits: Sequence[Edit], *, field: str = "messages") -> bytes:
    """`body` with the edits made to the array `field`, whose places are those before any edit. Raises CannotSplice."""
    rest = list(edits)
    while rest:
        now, rest = _apart(rest)
        body = _splice(body, now, field)
    return body


def _apart(edits: Sequence[Edit]) -> tuple[list[Edit], list[Edit]]:
    """One edit for each message, and the others, which wait for it; a Lead moves every place, so it waits for all."""
    now: dict[int, Edit] = {}
    waiting: list[Edit] = []
    for edit in edits:
        if isinstance(edit, Lead) or edit.index in now:
            waiting.append(edit)
        else:
            now[edit.index] = edit
    if len(waiting) == 1 and isinstance(waiting[0], Lead):  # the usual case: all in one pass
        return [*now.values(), *waiting], []
    return (list(now.values()), waiting) if now else (waiting[:1], waiting[1:])


def _splice(body: bytes, edits: Sequence[Edit], field: str) -> bytes:
    start = _value_of(body, field)
    if start is None or body[start : start + 1] != b"[":
        raise CannotSplice(f"no array {field}")
    elements = list(_elements(body, start))
    inserts: list[tuple[int, bytes]] = []
    for edit in edits:
        if isinstance(edit, Lead):
            message = msgspec.json.encode({"role": "system", "content": edit.text})
            inserts.append((start + 1, message + (b"," if elements else b"")))
        elif not 0 <= edit.index < len(elements):
            raise CannotSplice(f"no message {edit.index}")
        else:
            inserts.append(_into(body, elements[edit.index][0], edit))
    out, at = [], 0
    for place, added in sorted(inserts, key=lambda insert: insert[0]):
        out += [body[at:place], added]
        at = place
    return b"".join([*out, body[at:]])


def _into(body: bytes, message: int, edit: Append | Prepend) -> tuple[int, bytes]:
    """(place, bytes to insert there) for one message."""
    content = _value_of(body, "content", message) if body[message : message + 1] == b"{" else None
    if content is None:
        raise CannotSplice("the message has no content")
    end = _end(body, content)
    first = isinstance(edit, Prepend)
    place = content + 1 if first else end - 1
    if body[content : content + 1] == b'"':
        gap = "\n\n" if end - content > 2 else ""
        return place, msgspec.json.encode(edit.text + gap if first else gap + edit.text)[1:-1]
    if body[content : content + 1] == b"[":
        part = msgspec.json.encode({"type": "text", "text": edit.text})
        if _skip(body, content + 1) == end - 1:
            return place, part
        return place, part + b"," if first else b"," + part
    raise CannotSplice("the content is neither text nor parts")


def _skip(body: bytes, at: int) -> int:
    match = _SPACE.match(body, at)
    return match.end() if match else at


def _end(body: bytes, at: int) -> int:
    """The place behind the value that starts at `at`."""
    first = body[at : at + 1]
    if first == b'"':
        match = _STRING.match(body, at)
    elif first in (b"{", b"["):
        depth = 0
        for match in _INSIDE.finditer(body, at):
            sign = match.group()
            if sign in (b"{", b"["):
                depth += 1
            elif sign in (b"}", b"]"):
                depth -= 1
                if depth == 0:
                    return match.end()
        match = None
    else:
        match = _SCALAR.match(body, at)
    if match is None:
        raise CannotSplice("the body is not JSON")
    return match.end()


def _value_of(body: bytes, key: str, start: int | None = None) -> int | None:
    """Where the value of `key` starts in the object at `start` (none: the outermost); of several equal keys the last one,
    which is the one that parsers take."""
    at = _skip(body, 0) if start is None else start
    if body[at : at + 1] != b"{":
        return None
    found = None
    at = _skip(body, at + 1)
    while body[at : at + 1] == b'"':
        end = _end(body, at)
        name = body[at:end]
        value = _skip(body, _skip(body, end) + 1)
        if name == b'"' + key.encode() + b'"' or (b"\\" in name and json.loads(name) == key):
            found = value
        at = _skip(body, _end(body, value))
        if body[at : at + 1] == b",":
            at = _skip(body, at + 1)
    return found


def _elements(body: bytes, array: int) -> Iterator[tuple[int, int]]:
    at = _skip(body, array + 1)
    while body[at : at + 1] not in (b"]", b""):
        end = _end(body, at)
        yield at, end
        at = _skip(body, end)
        if body[at : at + 1] == b",":
            at = _skip(body, at + 1)
