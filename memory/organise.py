"""Organising: candidates become memories. Each is added, found to say the same as one we have, or changes older ones.

Exact duplicates (after folding case, accents and spacing) and near ones (same kind, cosine at least NEAR_DUPLICATE, same
numbers, no word exchanged) add their turn to the memory that is there; what says more of the same takes its place. A
candidate with a slot closes the older value of that slot; what a turn ends, corrects, finishes or calls off
(memory.extract.changes) closes what it is about. Nothing that the assistant said closes what the user said. Each candidate
is compared with a bounded number of memories that share its slot or its words. Ids come from turn, kind and text, so that
running twice leaves the same rows.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.agenda import repeats, state_of
from memory.contradict import adds_to, denies, is_hit, keys, like_slot, may_replace, shares_words, with_noun
from memory.correct import corrected
from memory.extract import changes
from memory.extract.reporting import PLACES
from memory.extract.text import normalise
from memory.memories import archive, digest, link, save, select
from memory.models import Embedder
from memory.sql import Database
from memory.tasks import calls_off, is_done
from memory.tending import said_again, tend
from memory.timeline import Slotted, close, open_plans, place, told_in, touching, turn_before
from memory.turns import mark_extracted, still_standing
from memory.types import Candidate, Change, Kind, Memory, Source, Status, Turn, stable_id
from memory.words import fold, terms

log = logging.getLogger(__name__)

NEAR_DUPLICATE = 0.95
# numbers, and the small words on which the direction of a sentence hangs
_FIXED = re.compile(
    r"\d+(?:[.,:]\d+)*|\b(?:from|to|into|before|after|above|below|over|under|until|since|my|your|his|her|our|their)\b"
)
_NEGATION = re.compile(r"\b(?:not|no|never|cannot|hate|dislike|without)\b|n['’]t\b|不|没|别|讨厌")


@dataclass(frozen=True, slots=True)
class Organised:
    """How many candidates were added, skipped as known, and closed something or took the place of what says less."""

    added: int = 0
    skipped: int = 0
    superseded: int = 0
    updated: int = 0


@dataclass(frozen=True, slots=True)
class _Proposal:
    """A candidate as the memory that it may become."""

    memory: Memory
    slot: str
    changes: tuple[Change, ...] = ()
    conditional: bool = False  # worth keeping only when it changes something
    near: str | None = None  # a memory that says the same in nearly the same words


class Organiser:
    """Writes what extraction found for a batch of turns."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self._database = database
        self._embedder = embedder

    async def organise(self, cube: str, turns: Sequence[Turn], candidates: Sequence[Candidate], at: float) -> Organised:
        """Store the candidates of these turns and mark the turns as done, in one transaction."""
        proposals = await self._with_near(cube, _proposals(turns, candidates, at))

        async def work(connection: AsyncConnection) -> Organised:
            # extraction takes its time: what was erased or edited away meanwhile teaches nothing
            standing = await still_standing(connection, turns)
            await _withdraw(connection, cube, standing, keep={one.memory.id for one in proposals}, at=at)
            for turn in standing:
                await _merge_repeated_episode(connection, cube, turn, at)
            learned_from = {turn.id for turn in standing}
            outcomes = [
                await _settle(connection, one, at) for one in proposals if one.memory.sources[0].turn in learned_from
            ]
            await mark_extracted(connection, turns)
            return Organised(*(sum(part) for part in zip(*outcomes, strict=True))) if outcomes else Organised()

        return await self._database.write(work)

    async def _with_near(self, cube: str, proposals: Sequence[_Proposal]) -> list[_Proposal]:
        """The proposals, each with the id of a known memory (or an earlier proposal) that says the same in nearly the same
        words. Only those that share its longest words are looked at."""
        out: list[_Proposal] = []
        async with self._database.read() as connection:
            for one in proposals:
                known = await touching(connection, cube, words=_longest(one.memory.text)) if not one.conditional else []
                others = [memory for memory, _ in known] + [
                    earlier.memory for earlier in out if not earlier.conditional
                ]
                alike = [
                    other
                    for other in others
                    if other.kind is one.memory.kind
                    and other.speaker == one.memory.speaker
                    and other.id != one.memory.id
                    and says_the_same(one.memory.text, other.text)  # cheap: few are left to embed
                ]
                near = await asyncio.to_thread(self._nearest, one.memory, alike) if alike else None
                out.append(replace(one, near=near))
        return out

    def _nearest(self, memory: Memory, alike: Sequence[Memory]) -> str | None:
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
        await save(connection, twin.evolve(sources=sources, confidence=confidence), action="cite", at=at)


def _proposals(turns: Sequence[Turn], candidates: Sequence[Candidate], at: float) -> list[_Proposal]:
    """What the candidates propose, turn by turn as they were said, and what the turns change besides."""
    out: list[_Proposal] = []
    for turn in sorted(turns, key=lambda turn: turn.said_at):
        own = [candidate for candidate in candidates if candidate.turn == turn.id]
        told = _changes(turn)
        stated: list[_Proposal] = []
        for candidate in own:
            said = normalise(candidate.text)
            mine = [one for one in told if candidate.role == "user" and _same_statement(said, normalise(one.text))]
            told = [one for one in told if one not in mine]
            memory = _memory(candidate, turn, at)
            slot = candidate.slot or like_slot(memory)
            stated.append(_Proposal(memory, slot, (*candidate.changes, *(c for one in mine for c in one.changes))))
        besides = [_Proposal(_memory(one, turn, at), "", one.changes, conditional=True) for one in told]
        # what ends comes before what takes its place, a correction after what it corrects
        out += [one for one in besides if not _corrects(one)] + stated + [one for one in besides if _corrects(one)]
    return out


def _corrects(one: _Proposal) -> bool:
    return any(change.how == "corrected" for change in one.changes)


def _changes(turn: Turn) -> list[Candidate]:
    try:
        return changes.find(turn)
    except Exception as error:  # one odd turn must not keep its cube from learning the others
        log.error("changes failed on turn %s: %s", turn.id, type(error).__name__)
        return []


def _same_statement(said: str, sentence: str) -> bool:
    """Whether a candidate is that sentence, or the most of it."""
    return said == sentence or (said in sentence and len(said) >= 0.6 * len(sentence)) or sentence in said


async def _settle(connection: AsyncConnection, one: _Proposal, at: float) -> tuple[int, int, int, int]:
    """(added, skipped, superseded, updated)"""
    memory, slot = one.memory, one.slot
    tended = await tend(connection, memory, one.changes, at)
    if tended and (one.conditional or memory.kind is Kind.TASK):
        return 0, 0, 0, len(tended)
    if (known := await said_again(connection, memory, at)) is not None:
        await _cite(connection, known, memory, at)
        return 0, 1, 0, 0
    hits = [hit for change in one.changes for hit in await _hits(connection, change, memory)]
    hits = list({old.id: (old, was, how) for old, was, how in hits}.values())
    twin = await _twin(connection, memory, one.near)
    if one.conditional and twin is None:
        if not hits:
            return await _correct(connection, one, at)
        old, slot, how = hits[0]
        slot = slot or _after(old)
        memory = memory.evolve(
            kind=old.kind,
            text=with_noun(memory.text, slot),
            tags=old.tags,
            entities=old.entities,
            importance=old.importance,
            attributes=_settling(old, how),
        )
    elif hits and not slot and memory.kind is Kind.EVENT and hits[0][0].kind is Kind.IDENTITY and twin is None:
        old, was, how = hits[0]  # "we got divorced" says what the user is from now on
        memory = memory.evolve(kind=Kind.IDENTITY, attributes={"denies": not denies(old)} if how == "ended" else None)
        slot = slot or was
    elif memory.kind in (Kind.TASK, Kind.GOAL) and twin is None:
        settled = next((how for old, _, how in hits if _done(old, how)), "")
        if settled:  # whatever a model called it, it asks for nothing any more
            memory = memory.evolve(attributes={**(memory.attributes or {}), "state": settled})
    if twin is not None:
        for old, _, how in hits:
            if old.id != twin.id and twin.status is Status.ACTIVE and not one.conditional:
                await close(connection, old, twin, at=at, until=memory.valid_from, state=_done(old, how))
        await _cite(connection, twin, memory, at)
        return 0, 1, 0, 0
    same = await touching(connection, memory.cube, slots=(slot, _after(memory)), limit=16)
    if any(not may_replace(memory, other) for other, other_slot in same if other.speaker == memory.speaker and slot):
        return 0, 1, 0, 0  # the user said otherwise
    fits = [other for other, other_slot in same if other_slot == slot and denies(other) == denies(memory)]
    if slot.startswith("like.") and fits and not one.conditional:
        await _cite(connection, fits[0], memory, at)
        return 0, 1, 0, 0
    merged, known = await _refine(connection, one, memory, [old for old, *_ in hits], at)
    if known is not None:
        await _cite(connection, known, memory, at)
        return 0, 1, 0, 0
    if merged:
        memory = memory.evolve(
            sources=tuple(dict.fromkeys((*memory.sources, *(s for old in merged for s in old.sources)))),
            valid_from=min([memory.valid_from, *(old.valid_from for old in merged)]),
        )
    before = memory.supersedes
    others = [other for other, was in same if was == slot]
    carried = await _carry(connection, memory, slot, others, at)
    slot = "" if carried else slot
    if slot and memory.kind is Kind.EVENT and any(old.kind is Kind.IDENTITY for old in others):
        memory = memory.evolve(kind=Kind.IDENTITY)  # it stands where that stood
    memory = await place(connection, memory, [slot, _after(memory)] if slot else [_after(memory)], at)
    for old, _, how in hits:
        if how == "corrected":
            memory = memory.evolve(valid_from=old.valid_from)
        if old.id != memory.supersedes and not (carried and old in others):
            await close(connection, old, memory, at=at, state=_done(old, how))
            memory = memory.evolve(supersedes=memory.supersedes or old.id)
    await save(connection, memory, action="add", at=at, slot=slot)
    for old in merged:
        await save(connection, old.evolve(status=Status.MERGED, supersedes=memory.id), action="merge", at=at)
        await link(connection, memory.cube, memory.id, "updates", old.id)
    closed = (memory.supersedes is not None and memory.supersedes != before) or carried
    return 1, 0, int(closed), len(merged)


async def _carry(connection: AsyncConnection, memory: Memory, slot: str, others: Sequence[Memory], at: float) -> bool:
    """An event that gives a slot a new value ("we moved to Rome") stays what happened; what stood in the slot ("I live in
    Oslo") is said anew with that value, so that it goes on standing among what is known. True when the slot is cared for."""
    if not slot or not memory.entities:
        return False
    if memory.kind is not Kind.EVENT:
        for event in others:
            if event.kind is Kind.EVENT and set(event.entities) & set(memory.entities):
                await save(connection, event, action="update", at=at, slot="")
        return False
    value = memory.entities[0]
    for old in reversed(others):
        if old.kind is Kind.EVENT or not old.entities or not old.text.rstrip(" .!。！").endswith(old.entities[0]):
            continue
        if fold(old.entities[0]) == fold(value):
            return True
        text = value.join(old.text.rsplit(old.entities[0], 1))
        said = memory.evolve(
            id=stable_id(memory.sources[0].turn, old.kind.value, fold(text)),
            kind=old.kind,
            text=text,
            entities=(value, *old.entities[1:]),
            tags=old.tags,
            importance=old.importance,
            event_time=None,
            event_end=None,
            attributes=old.attributes,
        )
        said = await place(connection, said, [slot], at)
        await save(connection, said, action="add", at=at, slot=slot)
        return True
    return False


async def _hits(connection: AsyncConnection, change: Change, said: Memory) -> list[tuple[Memory, str, str]]:
    """(memory, slot, how) for what is changed by it."""
    if change.how == "corrected" or change.how in PLACES:
        return []
    if change.how in ("done", "cancelled"):
        known = await open_plans(connection, said.cube)
    else:
        known = await touching(
            connection, said.cube, slots=change.slots, words=_longest(f"{change.about} {change.old}")
        )
        if change.how == "replaced" and change.about:
            known += await open_plans(connection, said.cube)
    found = [
        (old, slot, change.how)
        for old, slot in known
        if old.message_time <= said.message_time
        and said.sources[0].turn not in {source.turn for source in old.sources}
        and is_hit(change, said, old, slot)
        and (change.how != "done" or _says_done(change, said, old))
    ]
    return found[:1] if change.how == "done" else found[:8]


async def _correct(connection: AsyncConnection, one: _Proposal, at: float) -> tuple[int, int, int, int]:
    """Put the right value into what was said before. What was wrong never held: its time is taken over."""
    said, source = one.memory, one.memory.sources[0]
    for change in one.changes:
        if change.how != "corrected":
            continue
        before = await turn_before(connection, said.cube, source.session, said.message_time)
        just_said = await told_in(connection, said.cube, [turn for turn in (source.turn, before) if turn])
        named = await touching(connection, said.cube, words=_longest(f"{change.old} {change.new}", shortest=1))
        found = [(old, slot, corrected(change, old)) for old, slot in [*just_said, *named] if may_replace(said, old)]
        recent = {old.id for old, _ in just_said}
        fit = [(old, slot, right) for old, slot, right in found if right and (right.sure or old.id in recent)]
        fit.sort(key=lambda each: not (each[2] and each[2].sure))
        if not fit:
            continue
        old, slot, right = fit[0]
        assert right is not None
        swap = {right.wrong: right.right}
        memory = old.evolve(
            id=stable_id(source.turn, old.kind.value, fold(right.text)),
            text=right.text,
            entities=tuple(swap.get(name, name) for name in old.entities),
            sources=(*said.sources, *old.sources),
            message_time=said.message_time,
            created_at=at,
            supersedes=old.id,
            event_time=said.event_time if said.event_time and old.event_time else old.event_time,
            event_end=said.event_end if said.event_time and old.event_time else old.event_end,
            uses=0,
            last_used_at=None,
        )
        twin = await _twin(connection, memory, None)
        await close(connection, old, memory if twin is None else twin, at=at, until=old.valid_from, action="correct")
        if twin is not None:
            await _cite(connection, twin, memory, at)
            return 0, 1, 0, 0
        await save(connection, memory, action="add", at=at, slot=slot)
        return 1, 0, 1, 0
    return 0, 0, 0, 0


async def _refine(
    connection: AsyncConnection, one: _Proposal, memory: Memory, closed: Sequence[Memory], at: float
) -> tuple[list[Memory], Memory | None]:
    """(what says less of the same and gives way, what says more of the same and stays)"""
    if one.conditional or memory.kind not in (Kind.IDENTITY, Kind.FACT):
        return [], None
    gone = {old.id for old in closed}
    known: list[Slotted] = await touching(connection, memory.cube, slots=[one.slot], words=_longest(memory.text, 3))
    near = [
        (old, adds_to(memory, old))
        for old, slot in known
        if old.id not in gone and (slot == one.slot or not slot or not one.slot) and may_replace(memory, old)
    ]
    more = next((old for old, way in near if way < 0), None)
    less = [old for old, way in near if way > 0 and old.message_time <= memory.message_time and not old.pinned]
    return ([], more) if more is not None else (less, None)


def _after(memory: Memory) -> str:
    """The slot of a statement that ended one without a slot: the same said again finds it there."""
    return f"after.{digest(memory.text)}"


def _done(old: Memory, how: str) -> str:
    """What becomes of a task or goal."""
    if old.kind is Kind.GOAL and how == "ended":
        return "cancelled"
    if how == "cancelled" and old.kind is Kind.TASK and calls_off(old):
        return "done"
    return how if old.kind in (Kind.TASK, Kind.GOAL) and how in ("done", "cancelled") else ""


def _settling(old: Memory, how: str) -> dict[str, object]:
    """The attributes of a statement that settles a task or goal, or denies what else was said."""
    told: dict[str, object] = {} if old.kind is Kind.TASK else {"denies": not denies(old)}
    return told | ({"state": state} if (state := _done(old, how)) else {})


def _says_done(change: Change, said: Memory, old: Memory) -> bool:
    """Whether an open task or goal is done; a model's word for it counts where the words are the task's. What comes again is
    never over."""
    if state_of(old) != "open" or repeats(old) or old.message_time > said.message_time:
        return False
    vouched = bool((said.attributes or {}).get("about"))
    return is_done(said, old) or (vouched and shares_words(said.text, old))


def _longest(text: str, most: int = 4, *, shortest: int = 3) -> list[str]:
    """The words by which memories are looked up: the longest, as stems; pairs of Chinese characters."""
    found = [term.removesuffix("y") if term.isascii() else term for term in dict.fromkeys(terms(text))]
    wide = [term for term in found if not term.isascii()]
    if len(wide) <= 2:  # too little to go by in pairs
        wide += [char for char in dict.fromkeys(text) if char >= "\u3400" and char in keys(char)]
    latin = sorted((term for term in found if term.isascii() and len(term) >= shortest), key=lambda t: (-len(t), t))
    return latin[:most] + wide[: 4 * most]
