"""Adding text to a JSON body without touching any other byte. Pure.

Numbers keep their digits, keys their order, escapes their form: what we do not add, we do not rewrite. The body has been
parsed before, so it is known to be JSON; here only the places are looked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

# possessive: a 20 MB image is one string, and backtracking into it would take seconds and gigabytes
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SPACE = re.compile(rb"[ \t\n\r]*")
_SCALAR = re.compile(rb"[^\s,\]}]+")
_DEPTH = 8  # of what is found in one step; deeper is counted bracket by bracket, which takes twenty times as long


def _nested(depth: int) -> re.Pattern[bytes]:
    """An object or array whose parts are nested so deep at most. The body is known to be JSON, so brackets match."""
    value = rb'[{\[](?:[^{}\[\]"]++|"(?:[^"\\]++|\\.)*+")*+[}\]]'
    for _ in range(depth - 1):
        value = rb'[{\[](?:[^{}\[\]"]++|"(?:[^"\\]++|\\.)*+"|' + value + rb")*+[}\]]"
    return re.compile(value, re.DOTALL)


_NESTED = _nested(_DEPTH)
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


@dataclass(frozen=True, slots=True)
class Shape:
    """Where a request keeps its words: messages in the array `field` (`bare`: or one message, as a string). What stands before
    all of them is a message of the role `role`, or where there is `lead` the value of that field, which is then message 0.
    `part` is the type of a text part; `late` puts a Prepend before the last text part, not before the first part."""

    field: str = "messages"
    lead: str = ""
    role: str = "system"
    part: str = "text"
    late: bool = False
    bare: bool = False


CHAT = Shape()
_Insert = tuple[int, int, bytes]  # what stands from here to there gives way to the bytes


class CannotSplice(Exception):
    """The message at that place has no content that text can be added to."""


def splice(body: bytes, edits: Sequence[Edit], shape: Shape = CHAT) -> bytes:
    """`body` with the edits made to its messages, whose places are those before any edit. Raises CannotSplice."""
    rest = list(edits)
    while rest:
        now, rest = _apart(rest, shape)
        body = _splice(body, now, shape)
    return body


def put(body: bytes, field: str, text: str) -> bytes:
    """`body` with `text` as the value of its field, which must be there. Raises CannotSplice."""
    at = _value_of(body, field)
    if at is None:
        raise CannotSplice(f"no field {field}")
    return body[:at] + msgspec.json.encode(text) + body[_end(body, at) :]


def without(body: bytes, field: str, places: Collection[int]) -> bytes:
    """`body` without some elements of its array `field`. Raises CannotSplice."""
    start = _value_of(body, field)
    if start is None or body[start : start + 1] != b"[":
        raise CannotSplice(f"no array {field}")
    kept = [body[at:end] for place, (at, end) in enumerate(_elements(body, start)) if place not in places]
    return body[: start + 1] + b",".join(kept) + body[_end(body, start) - 1 :]


def names(body: bytes) -> list[str]:
    """The names of the fields of the outermost object, each as often as it stands there. Raises CannotSplice."""
    at = _skip(body, 0)
    if body[at : at + 1] != b"{":
        raise CannotSplice("the body is not an object")
    return [json.loads(name) for name, _ in _fields(body, at)]


def _apart(edits: Sequence[Edit], shape: Shape) -> tuple[list[Edit], list[Edit]]:
    """One edit for each message, and the others, which wait for it; a Lead moves every place, so it waits for all."""
    now: dict[int, Edit] = {}
    waiting: list[Edit] = []
    for edit in edits:
        if isinstance(edit, Lead) or edit.index in now:
            waiting.append(edit)
        else:
            now[edit.index] = edit
    apart = not (shape.lead and 0 in now)  # else both may go into the field that leads
    if len(waiting) == 1 and isinstance(waiting[0], Lead) and apart:  # the usual case: all in one pass
        return [*now.values(), *waiting], []
    return (list(now.values()), waiting) if now else (waiting[:1], waiting[1:])


def _splice(body: bytes, edits: Sequence[Edit], shape: Shape) -> bytes:
    start = _value_of(body, shape.field)
    opening = b"" if start is None else body[start : start + 1]
    if start is None or not (opening == b"[" or (opening == b'"' and shape.bare)):
        raise CannotSplice(f"no array {shape.field}")
    lead = _leading(body, shape)
    elements = [start] if opening == b'"' else [at for at, _ in _elements(body, start)]
    offset = 0 if lead is None else 1
    inserts: list[_Insert] = []
    for edit in edits:
        if isinstance(edit, Lead):
            inserts += _lead(body, start, edit, shape)
        elif edit.index == 0 and lead is not None:
            inserts.append(_into(body, lead, edit, shape))
        elif not offset <= edit.index < len(elements) + offset:
            raise CannotSplice(f"no message {edit.index}")
        else:
            element = elements[edit.index - offset]
            inserts.append(_into(body, element if opening == b'"' else _content(body, element), edit, shape))
    out, at = [], 0
    for begin, end, added in sorted(inserts, key=lambda insert: insert[0]):
        out += [body[at:begin], added]
        at = end
    return b"".join([*out, body[at:]])


def _leading(body: bytes, shape: Shape) -> int | None:
    """Where the value of the field that leads stands; None when there is none, or it is null."""
    at = _value_of(body, shape.lead) if shape.lead else None
    return None if at is None or body[at : at + 1] == b"n" else at


def _lead(body: bytes, messages: int, edit: Lead, shape: Shape) -> list[_Insert]:
    """Text before all that is said."""
    if shape.lead:
        text = msgspec.json.encode(edit.text)
        at = _value_of(body, shape.lead)
        if at is None:
            at = _skip(body, 0) + 1
            return [(at, at, msgspec.json.encode(shape.lead) + b":" + text + b",")]
        if body[at : at + 1] == b"n":
            return [(at, _end(body, at), text)]
        return [_into(body, at, Prepend(0, edit.text), replace(shape, late=False))]
    message = msgspec.json.encode({"role": shape.role, "content": edit.text})
    if body[messages : messages + 1] == b'"':
        end = _end(body, messages)
        return [(messages, messages, b"[" + message + b',{"role":"user","content":'), (end, end, b"}]")]
    empty = _skip(body, messages + 1) == _end(body, messages) - 1
    return [(messages + 1, messages + 1, message + (b"" if empty else b","))]


def _content(body: bytes, message: int) -> int:
    """Where a message's words start."""
    content = _value_of(body, "content", message) if body[message : message + 1] == b"{" else None
    if content is None:
        raise CannotSplice("the message has no content")
    return content


def _into(body: bytes, content: int, edit: Append | Prepend, shape: Shape) -> _Insert:
    """The text beside what stands in `content`, a string or an array of parts."""
    end = _end(body, content)
    first = isinstance(edit, Prepend)
    place = content + 1 if first else end - 1
    if body[content : content + 1] == b'"':
        gap = "\n\n" if end - content > 2 else ""
        return place, place, msgspec.json.encode(edit.text + gap if first else gap + edit.text)[1:-1]
    if body[content : content + 1] == b"[":
        part = msgspec.json.encode({"type": shape.part, "text": edit.text})
        if _skip(body, content + 1) == end - 1:
            return place, place, part
        if first and shape.late:
            place = _last_text(body, content, shape.part)
        return place, place, part + b"," if first else b"," + part
    raise CannotSplice("the content is neither text nor parts")


def _last_text(body: bytes, parts: int, kind: str) -> int:
    """Where the last text part of an array starts; the array's first place when there is none."""
    place = parts + 1
    for at, _ in _elements(body, parts):
        value = _value_of(body, "type", at)
        if value is not None and body[value : _end(body, value)] == b'"' + kind.encode() + b'"':
            place = at
    return place


def _skip(body: bytes, at: int) -> int:
    match = _SPACE.match(body, at)
    return match.end() if match else at


def _end(body: bytes, at: int) -> int:
    """The place behind the value that starts at `at`."""
    first = body[at : at + 1]
    if first == b'"':
        match = _STRING.match(body, at)
    elif first in (b"{", b"["):
        if (match := _NESTED.match(body, at)) is not None:
            return match.end()
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
    plain, found = b'"' + key.encode() + b'"', None
    for name, value in _fields(body, at):
        if name == plain or (b"\\" in name and json.loads(name) == key):
            found = value
    return found


def _fields(body: bytes, at: int) -> Iterator[tuple[bytes, int]]:
    """Each field of the object at `at`: its name, as it is written, and where its value starts. None where there is no object."""
    if body[at : at + 1] != b"{":
        return
    at = _skip(body, at + 1)
    while body[at : at + 1] == b'"':
        end = _end(body, at)
        value = _skip(body, _skip(body, end) + 1)
        yield body[at:end], value
        at = _skip(body, _end(body, value))
        if body[at : at + 1] == b",":
            at = _skip(body, at + 1)


def _elements(body: bytes, array: int) -> Iterator[tuple[int, int]]:
    at = _skip(body, array + 1)
    while body[at : at + 1] not in (b"]", b""):
        end = _end(body, at)
        yield at, end
        at = _skip(body, end)
        if body[at : at + 1] == b",":
            at = _skip(body, at + 1)
