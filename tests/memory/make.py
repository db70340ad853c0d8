"""What the tests of memory are made of: turns, memories, candidates and questions with sensible fields."""

from __future__ import annotations

import itertools
from typing import Any

from memory.memories import save
from memory.sql import Database
from memory.turns import Place, TurnLog
from memory.types import Candidate, Kind, Memory, Source, Turn

OWNER = "principal"
CUBE = "c1"
NOW = 1_700_000_000.0
MINUTE = 60.0
_numbers = itertools.count(1)


def turn(**overrides: Any) -> Turn:
    """A finished turn; each call another one."""
    number = next(_numbers)
    fields: dict[str, Any] = {
        "id": f"t{number}",
        "cube": CUBE,
        "session": "s1",
        "key": f"key{number}",
        "user_text": f"What is number {number}?",
        "assistant_text": "I see.",
        "said_at": NOW,
    } | overrides
    return Turn(**({"answered_at": fields["said_at"] + 1} | fields))


def memory(**overrides: Any) -> Memory:
    """An active fact; each call another one."""
    number = next(_numbers)
    fields: dict[str, Any] = {
        "id": f"m{number:04}",
        "cube": CUBE,
        "kind": Kind.FACT,
        "text": f"Fact number {number}.",
        "message_time": NOW,
        "created_at": NOW,
        "valid_from": NOW,
    } | overrides
    return Memory(**fields)


def candidate(turn: Turn, text: str, **overrides: Any) -> Candidate:
    """What extraction found in a turn."""
    return Candidate(**({"kind": Kind.FACT, "text": text, "turn": turn.id} | overrides))


def learned_from(*turns: Turn) -> tuple[Source, ...]:
    """The sources of a memory that these turns taught."""
    return tuple(Source(turn.id, turn.session, "user") for turn in turns)


async def record(database: Database, said: Turn, place: Place | None = None) -> Turn:
    """Write a turn down; returns it as it stands in the log."""
    log = TurnLog(database)
    episode = await log.record(said, place or Place(named=True), OWNER)
    return (await log.get(said.cube, [episode.sources[0].turn]))[0]


async def put(database: Database, changed: Memory) -> Memory:
    """Save a memory as it is, in a cube that is there."""
    return await database.write(lambda connection: save(connection, changed, action="update", at=NOW))
