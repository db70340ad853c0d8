"""Pieces: how a memory is cut into searchable passages. Pure; the same memory always gives the same pieces.

Each side of an episode is searched on its own, long texts in passages, and every passage carries who said it and when
(measured: without speaker and date, recall by meaning falls by nearly a half).
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from datetime import UTC, datetime
from functools import lru_cache

from memory.store import Piece
from memory.types import Memory
from memory.words import fold

PASSAGE = 900  # characters; about what the default embedder reads (256 tokens)
MOST = 64  # passages of one side: a pasted book is found by its first 50,000 characters
_BREAK = re.compile(r"(?<=[.!?])\s+|(?<=[。！？\n])\s*")  # not within 3.14 or example.com


def pieces(memory: Memory) -> list[Piece]:
    """The pieces of a memory; none when it has no text."""
    sides = [("user", memory.text)]
    if memory.answer:
        sides.append(("assistant", memory.answer))
    session = memory.sources[0].session if memory.sources else ""
    out: list[Piece] = []
    for side, text in sides:
        for number, passage in enumerate(passages(text)):
            out.append(
                Piece(
                    id=f"{memory.id}:{side[0]}{number}",
                    memory=memory.id,
                    side=side,
                    session=session,
                    kind=memory.kind.value,
                    text=f"{label(memory, side)}: {passage}",
                    time=memory.message_time,
                    speaker=memory.speaker,
                    status=memory.status.value,
                    at=memory.message_time if memory.event_time is None else memory.event_time,
                    valid_from=memory.valid_from,
                    valid_to=math.inf if memory.valid_to is None else memory.valid_to,
                    tags=memory.tags,
                    entities=tuple(dict.fromkeys(map(fold, memory.entities))),
                )
            )
    return out


def passages(text: str) -> list[str]:
    """The text in passages of at most PASSAGE characters, cut where sentences end when possible."""
    text = text.strip()
    if not text:
        return []
    if len(text) <= PASSAGE:
        return [text]
    ends = [match.end() for match in _BREAK.finditer(text)]
    out: list[str] = []
    start = 0
    while start < len(text) and len(out) < MOST:
        end = reach = start + PASSAGE
        if reach < len(text):
            last = bisect_right(ends, reach) - 1
            in_sight = last >= 0 and ends[last] > start
            end = ends[last] if in_sight else text.rfind(" ", start, reach) + 1 or reach
        out.append(text[start:end].strip())
        start = end
    return [passage for passage in out if passage]


def label(memory: Memory, side: str) -> str:
    """Who said it, and when: `User (8 May 2023)`."""
    who = "Assistant" if side == "assistant" else memory.speaker or "User"
    return f"{who} ({day(memory.message_time)})"


def day(at: float) -> str:
    """A date as people write it."""
    return _day(int(at // 86400.0))


@lru_cache(4096)
def _day(number: int) -> str:
    moment = datetime.fromtimestamp(number * 86400, UTC)
    return f"{moment.day} {moment:%B %Y}"


def passage_of(memory: Memory, piece: str) -> tuple[str, str]:
    """(side, the passage's own text) of one of the memory's pieces."""
    place = piece.rpartition(":")[2]
    side, number = "assistant" if place[0] == "a" else "user", int(place[1:])
    text = memory.answer if side == "assistant" else memory.text
    if len(text) <= PASSAGE:  # nearly all
        return side, "" if number else text.strip()
    parts = passages(text)
    return side, parts[number] if number < len(parts) else ""
