# ruff: noqa: E501  (alternatives of one pattern stand together)
"""Feedback: what the user says of a memory, or of an answer it was shown for, and what becomes of the memory.

Praise and blame move confidence and importance a bounded step; a correction supersedes; "wrong" archives. All of it stands in
the history with the action `feedback` and can be undone. Said twice by the same turn it counts once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.extract.dates import find_dates
from memory.memories import archive, digest, save, select
from memory.redact import redact
from memory.sql import Database
from memory.types import Kind, Memory, Status, Trust, stable_id
from memory.words import fold

RAISE = 0.2  # of the way up to 1
LOWER = 0.3  # of the confidence
FLOOR = 0.05
ACTION = "feedback"
_GOOD = re.compile(
    r"\W*(?:(?:yes|yeah|yep|ok|thanks|thank you|great)\b[\s,.!—–-]*)*(?:perfect\b|exactly\b(?! (?:how|what(?! i)|when|where|why|which|who))|spot on\b"
    r"|(?:that's|that is|this is|you're|you are) (?:exactly |absolutely |totally )?(?:right|correct|perfect|it|what i (?:wanted|needed|meant))\b(?!\s*\?)"
    r"|just what i (?:wanted|needed)|love it|good memory|well remembered)"
    r"|\W*(?:对[，,！!。 ]*)?(?:完美|太好了|就是这样|正是(?:这样|如此)|完全正确|没错|说得对|记得真?清楚|记性真?好)",
    re.IGNORECASE,
)
_BAD = re.compile(
    r"\W*(?:(?:no|nope|sorry|hey|hm+)\b[\s,.!—–-]*)*(?:wrong\b(?! (?:with|way|about it))|incorrect\b|(?:that's|that is|this is|you're|you are|it's) (?:completely |totally |just |simply |all )?"
    r"(?:wrong|incorrect|false|mistaken|not (?:right|correct|true|what i (?:said|asked|meant|told you)))\b(?!\s*\?)|not what i (?:said|asked|meant)|i never (?:said|told you)"
    r"|you (?:remember(?:ed)?|got) (?:that|it|this) wrong)"
    r"|\W*(?:不对|你?(?:错|说错|记错|搞错|弄错)了|不是这样|我没(?:这么|那么)?说过|我可没说)",
    re.IGNORECASE,
)


def verdict(text: str) -> int:
    """What a message begins with says of the answer before it: 1 that it was right, -1 that it was wrong, else 0."""
    head = text.strip()[:200].replace("’", "'")
    return 1 if _GOOD.match(head) else -1 if _BAD.match(head) else 0


def judged(memory: Memory, good: bool, share: float = 1.0) -> Memory:
    """The memory with confidence and importance moved by a step: towards 1, or down, never below FLOOR."""
    if good:
        return memory.evolve(
            confidence=memory.confidence + (1 - memory.confidence) * RAISE * share,
            importance=memory.importance + (1 - memory.importance) * RAISE / 2 * share,
        )
    return memory.evolve(
        confidence=max(min(memory.confidence, FLOOR), memory.confidence * (1 - LOWER * share)),
        importance=max(min(memory.importance, FLOOR), memory.importance * (1 - LOWER * 2 / 3 * share)),
    )


class Feedback:
    """Writes feedback down."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def judge(
        self, cube: str, shares: Mapping[str, float], good: bool, *, by: str, reason: str = ""
    ) -> list[Memory]:
        """Raise or lower memories, each by its share of a step. `by` names the occasion: the same one counts once."""

        async def work(connection: AsyncConnection) -> list[Memory]:
            table = sql.memories
            here = (table.c.cube == cube, table.c.id.in_(list(shares)), table.c.status == Status.ACTIVE.value)
            done = []
            for memory in await select(connection, *here):
                if not await _counted(connection, memory, by):
                    changed = judged(memory, good, shares[memory.id])
                    done.append(await self._noted(connection, changed, by, reason))
            return done

        return await self._database.write(work)

    async def correct(self, cube: str, memory: str, text: str, *, outdated: bool, reason: str = "") -> Memory | None:
        """Put what the user says in the place of a memory; None when there is no such active memory.

        A wrong memory never held: the new one is true from where the old one began. An outdated one held until now.
        """

        async def work(connection: AsyncConnection) -> Memory | None:
            table, now = sql.memories, self._clock()
            here = (table.c.cube == cube, table.c.id == memory)
            found = await select(connection, *here, table.c.status == Status.ACTIVE.value)
            if not found:
                return None
            old = found[0]
            slot = (await connection.execute(sa.select(table.c.slot).where(*here))).scalar_one()
            since = now if outdated else old.valid_from
            closed = old.evolve(status=Status.SUPERSEDED, valid_to=since)
            await self._noted(connection, closed, "", reason)
            new = _corrected(old, text, since, now)
            new = await save(connection, new, action="add", at=now, slot=slot)
            edge = {"cube": cube, "source": new.id, "kind": "updates", "target": old.id}
            edges = sql.edges
            await connection.execute(sa.delete(edges).where(*(edges.c[name] == value for name, value in edge.items())))
            await connection.execute(sa.insert(edges).values(**edge))
            return new

        return await self._database.write(work)

    async def reject(self, cube: str, memory: str, reason: str) -> Memory | None:
        """Take a wrong memory out of retrieval; what it had superseded holds again. None: no such active memory."""

        async def work(connection: AsyncConnection) -> Memory | None:
            table = sql.memories
            here = (table.c.cube == cube, table.c.id == memory, table.c.status == Status.ACTIVE.value)
            found = await select(connection, *here)
            if not found:
                return None
            await archive(connection, found[0], at=self._clock(), valid_to=self._clock())
            await _note(connection, found[0], ACTION, {"reason": redact(reason)})
            return (await select(connection, table.c.cube == cube, table.c.id == memory))[0]

        return await self._database.write(work)

    async def _noted(self, connection: AsyncConnection, memory: Memory, by: str, reason: str) -> Memory:
        saved = await save(connection, memory, action=ACTION, at=self._clock())
        await _note(connection, memory, ACTION, {"by": by} | ({"reason": redact(reason)} if reason else {}))
        return saved


def _corrected(old: Memory, text: str, since: float, now: float) -> Memory:
    spans = find_dates(text, now) if old.kind is Kind.EVENT else []
    attributes = old.attributes
    if old.kind is Kind.SKILL:
        attributes = {"when": (old.attributes or {}).get("when", ""), "then": text}
    return Memory(
        id=stable_id(old.id, "corrected", fold(text)),
        cube=old.cube,
        kind=old.kind,
        text=text,
        speaker=old.speaker,
        entities=tuple(name for name in old.entities if fold(name) in fold(text)),
        tags=old.tags,
        event_time=spans[0].start if spans else old.event_time,
        event_end=spans[0].end if spans else old.event_end,
        message_time=now,
        created_at=now,
        valid_from=since,
        supersedes=old.id,
        trust=Trust.USER,
        importance=old.importance,
        pinned=old.pinned,
        attributes=attributes,
    )


def says_nothing_new(memory: Memory, text: str) -> bool:
    """Whether a correction only repeats the memory."""
    return digest(memory.text) == digest(text)


def shares(memories: Iterable[Memory], answer: str) -> dict[str, float]:
    """How much of a step a verdict on an answer moves each memory shown for it: all of it when the answer speaks of it."""
    said = set(fold(answer).split())
    return {
        memory.id: 1.0 if len(words := {w for w in fold(memory.text).split() if len(w) > 3}) and words & said else 0.5
        for memory in memories
    }


async def _note(connection: AsyncConnection, memory: Memory, action: str, note: dict[str, Any]) -> None:
    """Add to the newest entry of a memory's history."""
    table = sql.history
    here = (table.c.cube == memory.cube, table.c.memory == memory.id)
    newest = sa.select(table).where(*here).order_by(table.c.version.desc()).limit(1)
    row = (await connection.execute(newest)).first()
    if row is not None:
        before = dict(row.before or {}) | {name: value for name, value in note.items() if value}
        at = (*here, table.c.version == row.version)
        await connection.execute(sa.update(table).where(*at).values(before=before, action=action))


async def _counted(connection: AsyncConnection, memory: Memory, by: str) -> bool:
    table = sql.history
    here = (table.c.cube == memory.cube, table.c.memory == memory.id, table.c.action == ACTION)
    rows = (await connection.execute(sa.select(table.c.before).where(*here))).all()
    return bool(by) and any((row.before or {}).get("by") == by for row in rows)
