"""The values that travel through memory: turns, memories, candidates and hits. Frozen; a change makes a new one.

Times are seconds since the epoch in UTC (float); text is what people wrote, unescaped. Nothing here does I/O.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

NAMESPACE = uuid.UUID("5b1d0f7e-4c1c-5a7e-9d2b-6d656d72656c")


def stable_id(*parts: str) -> str:
    """A uuid5 over `parts`: the same parts give the same id, so a write that is repeated stays one row."""
    joined = "\x1f".join(parts).encode("utf-8", "backslashreplace")  # a client may cut a character in two
    made = bytearray(hashlib.sha1(NAMESPACE.bytes + joined, usedforsecurity=False).digest()[:16])
    made[6], made[8] = made[6] & 0x0F | 0x50, made[8] & 0x3F | 0x80  # RFC 9562: version 5, variant 10
    name = made.hex()
    return f"{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:]}"


class Kind(StrEnum):
    """What sort of thing a memory is."""

    EPISODE = "episode"
    FACT = "fact"
    PREFERENCE = "preference"
    GOAL = "goal"
    TASK = "task"
    EVENT = "event"
    IDENTITY = "identity"
    INSIGHT = "insight"
    SKILL = "skill"


class Status(StrEnum):
    """Where a memory stands in its life."""

    ACTIVE = "active"
    SUPERSEDED = "superseded"  # a newer memory says otherwise; kept for history and as-of questions
    MERGED = "merged"  # the same thing is said by another memory
    ARCHIVED = "archived"  # out of retrieval, can come back
    DELETED = "deleted"  # a tombstone without text


class Trust(StrEnum):
    """Who vouches for a memory, most trusted first."""

    USER = "user"  # the user said it
    ACCEPTED = "accepted"  # the assistant said it and the user accepted it
    ASSISTANT = "assistant"  # the assistant said it
    OUTSIDE = "outside"  # a tool, a file or a web page said it


@dataclass(frozen=True, slots=True)
class Turn:
    """One question with its answer, as it came over the wire.

    `key` is unique within a cube: the same turn seen again (retry, regenerate) replaces its row. `user_text` holds only
    what the user wrote (fetched context, other memory systems' blocks and our own are taken out).
    """

    id: str
    cube: str
    session: str
    key: str
    user_text: str
    assistant_text: str
    said_at: float
    answered_at: float
    model: str = ""
    speaker: str = ""  # the `name` of the user message, if the client sends one
    complete: bool = True  # False: the client hung up, or the answer broke off
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a memory comes from: a turn, and which side of it."""

    turn: str
    session: str
    role: str  # user | assistant


@dataclass(frozen=True, slots=True)
class Memory:
    """One stored memory. See docs/MEMORY.md for the meaning of each field."""

    id: str
    cube: str
    kind: Kind
    text: str
    answer: str = ""  # an episode's other half: what the assistant said
    speaker: str = ""
    entities: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    status: Status = Status.ACTIVE
    event_time: float | None = None
    event_end: float | None = None
    message_time: float = 0.0
    created_at: float = 0.0
    valid_from: float = 0.0
    valid_to: float | None = None
    supersedes: str | None = None
    sources: tuple[Source, ...] = ()
    trust: Trust = Trust.USER
    confidence: float = 1.0
    importance: float = 0.5
    uses: int = 0
    last_used_at: float | None = None
    pinned: bool = False
    attributes: dict[str, Any] | None = None  # a task's {"state", "due", "feedback"}; a skill's {"when", "then"}
    rev: int = 0  # the cube's revision at which this row last changed

    def evolve(self, **changes: Any) -> Memory:
        """A copy with `changes`."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Change:
    """What a statement does to earlier ones: `how` is ended, begun, replaced, corrected, done, cancelled, or (of a task that
    stays the same task) moved, progress, failed, reopened, settled ("done!").

    The earlier ones are found by what they are `about` (words of the statement) or by their `slots`.
    """

    how: str
    about: str = ""
    slots: tuple[str, ...] = ()
    old: str = ""  # of a correction: the wrong value, when it is named
    new: str = ""  # of a correction: the right value
    due: float | None = None  # of a move: the new due date …
    later_s: float = 0.0  # … or by how much later it is


@dataclass(frozen=True, slots=True)
class Candidate:
    """What extraction proposes; organising decides what becomes of it."""

    kind: Kind
    text: str
    turn: str
    role: str = "user"
    slot: str = ""  # what the statement is about, when it can have one value only: "home.city", "name", "diet"
    entities: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    event_time: float | None = None
    event_end: float | None = None
    trust: Trust = Trust.USER
    confidence: float = 1.0
    importance: float = 0.5
    attributes: dict[str, Any] | None = None
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory with its score and why it was found."""

    memory: Memory
    score: float
    side: str = "user"  # which half of an episode matched: user | assistant
    why: dict[str, float] | None = None  # signal → its share of the score
    passage: str = ""  # the matching part of a long text; empty when the whole text is short
    replaced: tuple[
        tuple[str, str], ...
    ] = ()  # it says what holds no longer: id and text of what holds now; empty: that ended
