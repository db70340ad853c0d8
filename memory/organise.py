"""Organising: candidates become memories. Each is added, found to say the same as one we have, or supersedes an older one.

Exact duplicates (after folding case, accents and spacing) and near ones (same kind, cosine at least NEAR_DUPLICATE, same
numbers, no word exchanged) add their turn to the memory that is there. A candidate with a slot closes the older value of
that slot. Ids come from turn, kind and text, so that running twice leaves the same rows.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.memories import archive, digest, save, select
from memory.models import Embedder
from memory.sql import Database
from memory.turns import mark_extracted, still_standing
from memory.types import Candidate, Kind, Memory, Source, Status, Turn, stable_id
from memory.words import fold, terms

NEAR_DUPLICATE = 0.95
# numbers, and the small words on which the direction of a sentence hangs
_FIXED = re.compile(
    r"\d+(?:[.,:]\d+)*|\b(?:from|to|into|before|after|above|below|over|under|until|since|my|your|his|her|our|their)\b"
)
_NEGATION = re.compile(r"\b(?:not|no|never|cannot|hate|dislike|without)\b|n['’]t\b|不|没|别|讨厌")


@dataclass(frozen=True, slots=True)
class Organised:
    """How many candidates were added, skipped as known, and superseded something."""

    added: int = 0
    skipped: int = 0
    superseded: int = 0


class Organiser:
    """Writes what extraction found for a batch of turns."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self._database = database
        self._embedder = embedder

    async def organise(self, cube: str, turns: Sequence[Turn], candidates: Sequence[Candidate], at: float) -> Organised:
        """Store the candidates of these turns and mark the turns as done, in one transaction."""
        by_turn = {turn.id: turn for turn in turns}
        proposals = [
            _memory(candidate, by_turn[candidate.turn], at) for candidate in candidates if candidate.turn in by_turn
        ]
        slots = [candidate.slot for candidate in candidates if candidate.turn in by_turn]
        known = await self._active(cube, {memory.kind for memory in proposals})
        same = await asyncio.to_thread(self._near, proposals, known)

        async def work(connection: AsyncConnection) -> Organised:
            added = skipped = superseded = 0
            # extraction takes its time: what was erased or edited away meanwhile teaches nothing
            standing = await still_standing(connection, turns)
            await _withdraw(connection, cube, standing, keep={memory.id for memory in proposals}, at=at)
            for turn in standing:
                await _merge_repeated_episode(connection, cube, turn, at)
            learned_from = {turn.id for turn in standing}
            for memory, slot, near in zip(proposals, slots, same, strict=True):
                if memory.sources[0].turn not in learned_from:
                    continue
                twin = await _twin(connection, memory, near)
                if twin is not None:
                    await _cite(connection, twin, memory, at)
                    skipped += 1
                    continue
                placed = await _supersede(connection, memory, slot, at) if slot else memory
                await save(connection, placed, action="add", at=at, slot=slot)
                added += 1
                superseded += placed.supersedes is not None
            await mark_extracted(connection, turns)
            return Organised(added, skipped, superseded)

        return await self._database.write(work)

    async def _active(self, cube: str, kinds: set[Kind]) -> list[Memory]:
        if not kinds:
            return []
        table = sql.memories
        async with self._database.read() as connection:
            return await select(
                connection,
                table.c.cube == cube,
                table.c.kind.in_([kind.value for kind in kinds]),
                table.c.status == Status.ACTIVE.value,
            )

    def _near(self, proposals: Sequence[Memory], known: Sequence[Memory]) -> list[str | None]:
        """For each proposal the id of a known memory that says the same in nearly the same words."""
        return [self._nearest(memory, [other for other in known if other.kind is memory.kind]) for memory in proposals]

    def _nearest(self, memory: Memory, known: Sequence[Memory]) -> str | None:
        alike = [other for other in known if says_the_same(memory.text, other.text)]  # cheap: few are left to embed
        if not alike:
            return None
        new, *old = self._embedder.embed([memory.text, *(other.text for other in alike)])
        nearness = np.array(old) @ new
        best = int(np.argmax(nearness))
        return alike[best].id if float(nearness[best]) >= NEAR_DUPLICATE else None


def says_the_same(a: str, b: str) -> bool:
    """False when numbers, direction, negation or the order of words differ, when a word is exchanged for another, or when
    more than one word in eight is added: vectors are blind to just these."""
    one, two = fold(a), fold(b)
    if _FIXED.findall(one) != _FIXED.findall(two) or len(_NEGATION.findall(one)) != len(_NEGATION.findall(two)):
        return False
    first, second = terms(a), terms(b)
    only_first, only_second = set(first) - set(second), set(second) - set(first)
    if only_first and only_second:
        return False
    if [t for t in first if t not in only_first] != [t for t in second if t not in only_second]:
        return False
    return len(only_first | only_second) <= len({*first, *second}) // 8


def _memory(candidate: Candidate, turn: Turn, at: float) -> Memory:
    return Memory(
        id=stable_id(turn.id, candidate.kind.value, fold(candidate.text)),
        cube=turn.cube,
        kind=candidate.kind,
        text=candidate.text,
        speaker=turn.speaker if candidate.role == "user" else "",
        entities=candidate.entities,
        tags=candidate.tags,
        event_time=candidate.event_time,
        event_end=candidate.event_end,
        message_time=turn.said_at,
        created_at=at,
        valid_from=turn.said_at,
        sources=(Source(turn.id, turn.session, candidate.role),),
        trust=candidate.trust,
        confidence=candidate.confidence,
        importance=candidate.importance,
        attributes=candidate.attributes,
    )


async def _withdraw(connection: AsyncConnection, cube: str, turns: Sequence[Turn], keep: set[str], at: float) -> None:
    """What was learned from an earlier version of these turns and is not said any more is archived."""
    table, lineage = sql.memories, sql.lineage
    ids = [turn.id for turn in turns]
    from_here = sa.select(lineage.c.memory).where(lineage.c.cube == cube, lineage.c.turn.in_(ids))
    where = (table.c.cube == cube, table.c.id.in_(from_here), table.c.kind != Kind.EPISODE.value)
    for memory in await select(connection, *where, table.c.status == Status.ACTIVE.value):
        if memory.id not in keep and {source.turn for source in memory.sources} <= set(ids):
            await archive(connection, memory, at=at, valid_to=at)


async def _merge_repeated_episode(connection: AsyncConnection, cube: str, turn: Turn, at: float) -> None:
    """The same question with the same answer a second time adds nothing: the later episode points to the first."""
    table = sql.memories
    where = (
        table.c.cube == cube,
        table.c.digest == digest(turn.user_text, turn.assistant_text),
        table.c.kind == Kind.EPISODE.value,
        table.c.status == Status.ACTIVE.value,
    )
    same = await select(connection, *where)
    for later in same[1:]:
        merged = later.evolve(status=Status.MERGED, supersedes=same[0].id)
        await save(connection, merged, action="merge", at=at)


async def _twin(connection: AsyncConnection, memory: Memory, near: str | None) -> Memory | None:
    table = sql.memories
    alike = table.c.digest == digest(memory.text)
    if near is not None:
        alike = sa.or_(alike, table.c.id == near)
    says_it = sa.and_(table.c.kind == memory.kind.value, table.c.status == Status.ACTIVE.value, alike)
    # learned from this very turn before: superseded since then, or written otherwise by its owner
    stands = table.c.status.in_([Status.ACTIVE.value, Status.SUPERSEDED.value, Status.MERGED.value])
    itself = sa.and_(table.c.id == memory.id, stands)
    found = await select(connection, table.c.cube == memory.cube, sa.or_(says_it, itself))
    return min(found, key=lambda twin: twin.id != memory.id, default=None)


async def _cite(connection: AsyncConnection, twin: Memory, again: Memory, at: float) -> None:
    sources = tuple(dict.fromkeys((*twin.sources, *again.sources)))
    if sources != twin.sources:
        confidence = max(twin.confidence, again.confidence)
        await save(connection, twin.evolve(sources=sources, confidence=confidence), action="update", at=at)


async def _supersede(connection: AsyncConnection, memory: Memory, slot: str, at: float) -> Memory:
    """Close the older values of the slot; returns the memory with the newest of them, itself closed when it is not the
    latest that was said."""
    table = sql.memories
    where = (table.c.cube == memory.cube, table.c.slot == slot, table.c.status == Status.ACTIVE.value)
    others = await select(connection, *where, table.c.id != memory.id)
    for other in others:
        if other.message_time <= memory.message_time:
            closed = other.evolve(status=Status.SUPERSEDED, valid_to=memory.valid_from)
            await save(connection, closed, action="supersede", at=at)
            memory = memory.evolve(supersedes=other.id)
        elif memory.status is Status.ACTIVE:
            memory = memory.evolve(status=Status.SUPERSEDED, valid_to=other.valid_from)
    return memory
