"""Fading: how strong a memory still is, what may be archived for it, and how it comes back.

strength = (0.4 importance + 0.3 confidence + 0.3 (1 - e^(-uses/5))) · 2^(-idle/half-life), 1 for a pinned one; `idle` runs from
when it was said, used or took place, whichever is latest. Half-lives in days stand below; identity and skills never fade.
What is archived here has no `valid_to`: nobody said that it is not true any more, so it can come back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.memories import save, select
from memory.sql import Database
from memory.types import Kind, Memory, Status
from memory.words import fold, terms

DAY_S = 86400.0
HALF_LIFE_DAYS = {
    Kind.EPISODE: 365.0,
    Kind.FACT: 365.0,
    Kind.PREFERENCE: 730.0,
    Kind.GOAL: 365.0,
    Kind.TASK: 90.0,
    Kind.EVENT: 180.0,
    Kind.INSIGHT: 365.0,
}
WEAK = 0.15
REJECTED = 0.15  # a confidence so low has been blamed again and again
FITS = 0.6  # of a question's words, from which an archived memory comes back
_FADING = (Kind.FACT, Kind.EVENT, Kind.TASK)  # who somebody is and what they want is not forgotten for want of use
_LOOKED_AT = 300
_EVERY = tuple(kind.value for kind in Kind)


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be archived, and after how long without use, in seconds; 0 is never."""

    weak_after_s: float = 0.0
    episodes_after_s: float = 0.0

    @property
    def ages(self) -> bool:
        """Whether anything fades with time alone."""
        return self.weak_after_s > 0 or self.episodes_after_s > 0


def strength(memory: Memory, now: float) -> float:
    """From 0 to 1; see above."""
    if memory.pinned:
        return 1.0
    used = 1 - math.exp(-memory.uses / 5)
    worth = 0.4 * memory.importance + 0.3 * memory.confidence + 0.3 * used
    half_life = HALF_LIFE_DAYS.get(memory.kind)
    return worth if half_life is None else worth * float(0.5 ** (idle_s(memory, now) / (half_life * DAY_S)))


def idle_s(memory: Memory, now: float) -> float:
    """For how long a memory was neither said nor used, and what it speaks of is over."""
    return max(0.0, now - max(memory.message_time, memory.last_used_at or 0.0, memory.event_end or 0.0))


def faded(memories: Iterable[Memory], policy: Policy, now: float) -> list[Memory]:
    """Those that may be archived."""
    return [memory for memory in memories if not memory.pinned and _may_go(memory, policy, now)]


def _may_go(memory: Memory, policy: Policy, now: float) -> bool:
    idle = idle_s(memory, now)
    if memory.kind is Kind.EPISODE:
        return 0 < policy.episodes_after_s <= idle and memory.uses == 0
    if memory.confidence <= REJECTED:
        return True
    if memory.kind not in _FADING or (memory.attributes or {}).get("state") == "open":
        return False
    return 0 < policy.weak_after_s <= idle and strength(memory, now) < WEAK


async def search_archived(database: Database, cube: str, question: str, limit: int = 3) -> list[Memory]:
    """Archived memories that can come back and share most of the question's words (at least two), the best first."""
    wanted = set(terms(question))
    if len(wanted) < 2:
        return []
    table = sql.memories
    text = sa.func.lower(table.c.text + " " + table.c.answer)
    some = sa.or_(*(text.contains(term[:-1] if len(term) > 5 else term, autoescape=True) for term in sorted(wanted)))
    async with database.read() as connection:
        query = (
            sa.select(table.c.id).where(*_asleep(cube), some).order_by(table.c.message_time.desc()).limit(_LOOKED_AT)
        )
        ids = [row[0] for row in (await connection.execute(query)).all()]
        found = await select(connection, table.c.cube == cube, table.c.id.in_(ids))
    fits = []
    for memory in found:
        shared = wanted & set(terms(f"{memory.text} {memory.answer}"))
        if len(shared) >= 2 and len(shared) / len(wanted) >= FITS:
            fits.append((-len(shared) / len(wanted), -memory.message_time, memory.id, memory))
    return [memory for *_, memory in sorted(fits, key=lambda fit: fit[:3])[:limit]]


async def any_archived(database: Database, cube: str) -> bool:
    """Whether there is anything that could come back."""
    async with database.read() as connection:
        query = sa.select(sql.memories.c.id).where(*_asleep(cube)).limit(1)
        return (await connection.execute(query)).first() is not None


async def reactivate(database: Database, cube: str, ids: Sequence[str], at: float) -> list[Memory]:
    """Bring archived memories back, as used just now. Those that are not true any more, or not there, are left alone."""

    async def work(connection: AsyncConnection) -> list[Memory]:
        back = []
        for memory in await select(connection, *_asleep(cube), sql.memories.c.id.in_(list(ids))):
            awake = memory.evolve(status=Status.ACTIVE, last_used_at=at, confidence=max(memory.confidence, 0.3))
            back.append(await save(connection, awake, action="restore", at=at))
        return back

    return await database.write(work)


def is_question(text: str) -> bool:
    """Whether a message asks something."""
    return "?" in text or "？" in text or fold(text).rstrip(" 。.!！").endswith(("吗", "呢"))


def _asleep(cube: str) -> tuple[sa.ColumnElement[bool], ...]:
    table = sql.memories
    away = table.c.kind.in_(_EVERY) & (table.c.status == Status.ARCHIVED.value)  # as the index goes
    return (table.c.cube == cube, away, table.c.valid_to.is_(None))
