"""The reflection on one cube: reads what is new, proposes, and writes what still holds, in one transaction.

Running it again changes nothing. It looks at no more than MOST memories and EPISODES episodes, the latest, and asks the model at
most once, and only when FEW or more memories are new.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.cube import Cubes
from memory.extract.ask import Asker, ExtractionFailed
from memory.memories import from_row, save, select
from memory.models import Embedder
from memory.reflect import habits, profile, wishes
from memory.reflect.abstracting import abstract
from memory.reflect.derived import STANDS, Derived, cites, write
from memory.reflect.fading import REJECTED, Policy, faded
from memory.reflect.merging import going, merged
from memory.sql import Database
from memory.types import Kind, Memory, Status

log = logging.getLogger(__name__)
MOST = 2000
EPISODES = 1000
FEW = 5
MODEL_KEPT = 30
_LEARNED = tuple(kind.value for kind in Kind if kind not in (Kind.EPISODE, Kind.INSIGHT))


@dataclass(frozen=True, slots=True)
class Reflected:
    """What became of it. `mode`: nothing (new), rules, or how the model was asked."""

    merged: int = 0
    insights: int = 0
    skills: int = 0
    archived: int = 0
    dropped: int = 0  # derived memories whose ground is gone
    tokens: int = 0
    mode: str = "nothing"

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return bool(self.merged or self.insights or self.skills or self.archived or self.dropped)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the reflection looks at."""

    rev: int  # of the cube, when it was read
    new: set[str]  # ids of what changed since the last time
    learned: list[Memory]
    insights: list[Memory]
    episodes: list[Memory]
    slots: dict[str, float]  # slot of a skill → when it was last given or taken back
    aging: list[Memory]
    grounds: dict[str, tuple[str, ...]]  # insights of a model → what they rest on


class Reflector:
    """Made once; `asker` is the extraction model, if there is one."""

    def __init__(
        self,
        database: Database,
        embedder: Embedder,
        *,
        asker: Asker | None = None,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._cubes = Cubes(database)
        self._embedder = embedder
        self._asker = asker
        self._policy = policy or Policy()
        self._clock = clock

    @property
    def ages(self) -> bool:
        """Whether anything changes with time alone."""
        return self._policy.ages

    async def reflect(self, cube: str) -> Reflected:
        """Think over what is new in a cube. Raises DatabaseError."""
        info = await self._cubes.get(cube)
        if info is None or (info.rev == info.reflected_rev and not self._policy.ages):
            return Reflected()
        now = self._clock()
        seen = await self._look(cube, info.rev, info.reflected_rev)
        groups = await asyncio.to_thread(merged, seen.learned, seen.new, self._embedder)
        gone = {memory.id for _, group in groups for memory in group}
        known = [memory for memory in seen.learned if memory.id not in gone]
        kept = {first.id: first for first, _ in groups}
        known = [kept.get(memory.id, memory) for memory in known]
        derived, tokens, mode = await self._derive(known, seen, now)
        fading = faded([*known, *seen.aging], self._policy, now)

        async def work(connection: AsyncConnection) -> Reflected:
            rev = (await connection.execute(sa.select(sql.cubes.c.rev).where(sql.cubes.c.id == cube))).scalar_one()
            count = await _merge(connection, groups, now)
            archived = await _archive(connection, [m for m in fading if m.id not in gone], now)
            made = [one for one in derived if await write(connection, one, now)]
            for one in made:
                if one.memory.kind is Kind.SKILL:
                    await _supersede(connection, one, now)
            dropped = await _drop(connection, seen, derived, now)
            after = (await connection.execute(sa.select(sql.cubes.c.rev).where(sql.cubes.c.id == cube))).scalar_one()
            # what others wrote meanwhile is for the next time
            done = sa.update(sql.cubes).where(sql.cubes.c.id == cube)
            await connection.execute(done.values(reflected_rev=after if rev == seen.rev else seen.rev))
            skills = sum(one.memory.kind is Kind.SKILL for one in made)
            return Reflected(count, len(made) - skills, skills, archived, dropped, tokens, mode)

        result = await self._database.write(work)
        log.info(
            "reflected on cube %s: new=%d merged=%d insights=%d skills=%d archived=%d dropped=%d mode=%s",
            *(cube, len(seen.new), result.merged, result.insights, result.skills),
            *(result.archived, result.dropped, mode),
        )
        return result

    async def _look(self, cube: str, rev: int, before: int) -> _Seen:
        table = sql.memories
        here = table.c.cube == cube
        active = table.c.status == Status.ACTIVE.value
        latest = table.c.message_time.desc()
        async with self._database.read() as connection:

            async def read(*where: sa.ColumnElement[bool], most: int) -> list[Memory]:
                query = sa.select(table).where(here, *where).order_by(latest, table.c.id).limit(most)
                return [from_row(row) for row in (await connection.execute(query)).all()]

            learned = await read(active, table.c.kind.in_(_LEARNED), most=MOST)
            insights = await read(active, table.c.kind == Kind.INSIGHT.value, most=MOST)
            # the same words with the same answer are merged, but were said again
            episode = table.c.kind == Kind.EPISODE.value
            episodes = await read(table.c.status.in_(STANDS), episode, most=EPISODES)
            skill = sa.and_(table.c.cube == cube, table.c.kind == Kind.SKILL.value, table.c.slot != "")
            last = sa.select(table.c.slot, sa.func.max(table.c.message_time)).where(skill).group_by(table.c.slot)
            slots = {str(row[0]): float(row[1]) for row in (await connection.execute(last)).all()}
            aging: list[Memory] = []
            if self._policy.episodes_after_s > 0:
                old = table.c.message_time < self._clock() - self._policy.episodes_after_s
                aging = await read(active, episode, old, table.c.uses == 0, most=MOST)
            of_model = [one.id for one in insights if (one.attributes or {}).get("by") == "model"]
            grounds = {insight: await cites(connection, cube, insight) for insight in of_model}
        new = {memory.id for memory in (*learned, *episodes) if memory.rev > before}
        return _Seen(rev, new, learned, insights, episodes, slots, aging, grounds)

    async def _derive(self, known: Sequence[Memory], seen: _Seen, now: float) -> tuple[list[Derived], int, str]:
        """(everything that should stand now, tokens spent, how)"""
        told = [memory for memory in known if (memory.attributes or {}).get("state") != "lifted"]
        plain = await asyncio.to_thread(habits.insights, seen.episodes, now)
        repeated = await asyncio.to_thread(wishes.repeated, seen.episodes, seen.slots, now)
        summary = profile.compose(told, now)
        ids = {memory.id for memory in told}
        # a model's profile stands until a part of it does not hold any more
        if summary and set(seen.grounds.get(summary.memory.id, ("none",))) <= ids:
            summary = None
        if self._asker is None or len(seen.new & ids) < FEW:
            return [*plain, *repeated, *([summary] if summary else [])], 0, "rules"
        try:
            found = await abstract(self._asker, told, now)
        except ExtractionFailed as error:
            log.warning("the model had nothing usable to say (%s attempts): rules instead", error.attempts)
            spent = error.prompt_tokens + error.completion_tokens
            return [*plain, *repeated, *([summary] if summary else [])], spent, "rules after a failed model"
        by_model = [one for one in found.derived if one.memory.kind is not Kind.SKILL]
        asked_for = [one for one in found.derived if one.memory.kind is Kind.SKILL and one.slot not in seen.slots]
        if summary and not any(profile.is_profile(one.memory) for one in by_model):
            by_model.append(summary)
        return [*plain, *repeated, *by_model, *asked_for], found.tokens, found.mode


async def _merge(connection: AsyncConnection, groups: Sequence[tuple[Memory, list[Memory]]], at: float) -> int:
    """Merge those groups whose members are as they were seen."""
    count = 0
    for first, group in groups:
        if not await _unchanged(connection, [first, *group]):
            continue
        await save(connection, first, action="merge", at=at)
        for memory in group:
            await save(connection, going(memory, first), action="merge", at=at)
            count += 1
    return count


async def _archive(connection: AsyncConnection, memories: Sequence[Memory], at: float) -> int:
    count = 0
    for memory in memories:
        if await _unchanged(connection, [memory]):
            # what was blamed is not to come back by itself
            over = at if memory.confidence <= REJECTED and memory.kind is not Kind.EPISODE else memory.valid_to
            await save(connection, memory.evolve(status=Status.ARCHIVED, valid_to=over), action="archive", at=at)
            count += 1
    return count


async def _unchanged(connection: AsyncConnection, memories: Sequence[Memory]) -> bool:
    table = sql.memories
    ids = {memory.id: memory.rev for memory in memories}
    query = sa.select(table.c.id, table.c.rev).where(table.c.cube == memories[0].cube, table.c.id.in_(list(ids)))
    return {str(row[0]): int(row[1]) for row in (await connection.execute(query)).all()} == ids


async def _supersede(connection: AsyncConnection, made: Derived, at: float) -> None:
    """A skill of reflection closes older ones about the same."""
    table = sql.memories
    same = (table.c.cube == made.memory.cube, table.c.slot == made.slot, table.c.status == Status.ACTIVE.value)
    for old in await select(connection, *same, table.c.id != made.memory.id):
        closed = old.evolve(status=Status.SUPERSEDED, valid_to=made.memory.message_time)
        await save(connection, closed, action="supersede", at=at)


async def _drop(connection: AsyncConnection, seen: _Seen, wanted: Sequence[Derived], at: float) -> int:
    """Insights of reflection that stand on nothing any more are archived: those of rules that are not found again, those of a
    model of which a part does not hold, and the oldest of these beyond MODEL_KEPT."""
    table, count = sql.memories, 0
    found = {one.memory.id for one in wanted}
    of_model = 0
    for insight in seen.insights:  # the latest first
        by = (insight.attributes or {}).get("by")
        if insight.id in found or by not in ("rules", "model") or insight.pinned:
            continue
        if by == "model":
            ground = seen.grounds[insight.id]
            here = (table.c.cube == insight.cube, table.c.id.in_(ground), table.c.status.in_(STANDS))
            holds = bool(ground) and len(await select(connection, *here)) == len(ground)
            of_model += holds
            if holds and of_model <= MODEL_KEPT:
                continue
        if await _unchanged(connection, [insight]):
            gone = insight.evolve(status=Status.ARCHIVED, valid_to=at)
            await save(connection, gone, action="archive", at=at)
            count += 1
    return count
