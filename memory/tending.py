"""Reports on tasks that stay the tasks they are: moved, half done, failed, taken up again, done for this time.

Functions run inside the caller's transaction. The task's row is changed in place: its history keeps what it was, and its
feedback cites the turn. The same turn told twice changes nothing the second time.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.agenda import repeats, state_of
from memory.contradict import may_replace
from memory.extract.changes import about_another
from memory.extract.reporting import PLACES
from memory.memories import save, select
from memory.progress import Report, reported, reports
from memory.tasks import is_done, meant, restates, settles, speaks_of
from memory.timeline import MOST, turn_before
from memory.types import Change, Kind, Memory, Status


async def tend(connection: AsyncConnection, said: Memory, changes: Sequence[Change], at: float) -> list[Memory]:
    """Write what a statement reports into the tasks that it speaks of; returns those."""
    wanted = [change for change in changes if change.how in PLACES]
    done = any(change.how == "done" for change in changes)
    if not wanted and not done:
        return []
    known = await _known(connection, said.cube)
    live = [task for task in known if state_of(task) == "open"]
    mine = not about_another(said.text)
    again = [task for task in live if done and mine and repeats(task) and is_done(said, task)]
    if again:
        return [await _report(connection, again[0], Report("done", said.text, _turn(said), said.message_time), at)]
    for change in wanted:
        if change.how == "settled":
            just = await _just_spoken_of(connection, said, [one for one in live if repeats(one) is None])
            fits = just is not None and settles(change.old, just)
            return [await _settle_in_place(connection, just, said, at)] if just is not None and fits else []
        task = meant(change, said, [one for one in known if _may(change, one)])
        if task is not None:
            return [await _apply(connection, task, change, said, at)]
    return []


def _may(change: Change, task: Memory) -> bool:
    """Whether this can happen to the task: what is open is not taken up again; a goal or a rhythm has no date to move."""
    if change.how == "reopened":
        return state_of(task) in ("done", "cancelled")
    return state_of(task) == "open" and (change.how != "moved" or (task.kind is Kind.TASK and repeats(task) is None))


async def said_again(connection: AsyncConnection, said: Memory, at: float) -> Memory | None:
    """The open task that a statement asks for once more; a new due date is taken over."""
    if said.kind is not Kind.TASK or state_of(said) != "open":
        return None
    for task in await _known(connection, said.cube):
        if state_of(task) != "open" or task.id == said.id or not restates(said, task):
            continue
        due = (said.attributes or {}).get("due")
        if due is not None and due != (task.attributes or {}).get("due") and said.message_time > task.message_time:
            return await _apply(connection, task, Change("moved", due=due), said, at)
        return task
    return None


async def _known(connection: AsyncConnection, cube: str) -> list[Memory]:
    """Tasks and goals of the cube, open or settled, the latest first. Of a task and the statement that settled it, the task."""
    table = sql.memories
    where = (
        table.c.cube == cube,
        table.c.kind.in_([Kind.TASK.value, Kind.GOAL.value]),
        table.c.status.in_([Status.ACTIVE.value, Status.SUPERSEDED.value]),
    )
    newest = sa.select(table.c.id).where(*where).order_by(table.c.message_time.desc(), table.c.id).limit(4 * MOST)
    found = await select(connection, table.c.cube == cube, table.c.id.in_(newest))
    ids = {memory.id for memory in found}
    return [one for one in reversed(found) if state_of(one) == "open" or (state_of(one) and one.supersedes not in ids)]


async def _just_spoken_of(connection: AsyncConnection, said: Memory, live: Sequence[Memory]) -> Memory | None:
    """The one open task that the turn before told, or that its answer named; None when there is none, or more than one."""
    before = (
        await turn_before(connection, said.cube, said.sources[0].session, said.message_time) if said.sources else None
    )
    if before is None:
        return None
    told = [one for one in live if before in {source.turn for source in one.sources}]
    if not told:
        table = sql.turns
        query = sa.select(table.c.assistant_text).where(table.c.cube == said.cube, table.c.id == before)
        answer = str((await connection.execute(query)).scalar_one_or_none() or "")
        told = [one for one in live if speaks_of(answer, one) >= 1]
    mine = [one for one in told if may_replace(said, one)]
    return mine[0] if len(mine) == 1 else None


async def _settle_in_place(connection: AsyncConnection, task: Memory, said: Memory, at: float) -> Memory:
    """ "Done!" says nothing that is worth a memory of its own."""
    done = task.evolve(status=Status.SUPERSEDED, valid_to=said.message_time)
    report = Report("done", said.text, _turn(said), said.message_time)
    return await _report(connection, done, report, at, state="done")


async def _apply(connection: AsyncConnection, task: Memory, change: Change, said: Memory, at: float) -> Memory:
    before = (task.attributes or {}).get("due")
    report = Report(change.how, said.text, _turn(said), said.message_time)
    if change.how == "moved":
        due = change.due if change.due is not None else (before or said.message_time) + change.later_s
        report = Report("moved", said.text, _turn(said), said.message_time, before)
        return await _report(connection, task, report, at, due=due)
    if change.how == "reopened":
        await _close_settling(connection, task, said, at)
        opened = task.evolve(status=Status.ACTIVE, valid_to=None)
        return await _report(connection, opened, report, at, state="open")
    return await _report(connection, task, report, at)


async def _report(connection: AsyncConnection, task: Memory, report: Report, at: float, **changes: object) -> Memory:
    if any(one.turn == report.turn and one.how == report.how for one in reports(task.attributes)):
        return task
    told = task.evolve(attributes=reported(task.attributes, report, **changes))
    return await save(connection, told, action="update", at=at)


async def _close_settling(connection: AsyncConnection, task: Memory, said: Memory, at: float) -> None:
    """The statement that the task was done holds no longer."""
    table = sql.memories
    where = (table.c.cube == task.cube, table.c.supersedes == task.id, table.c.status == Status.ACTIVE.value)
    for settling in await select(connection, *where):
        ended = settling.evolve(status=Status.SUPERSEDED, valid_to=said.message_time)
        await save(connection, ended, action="supersede", at=at)


def _turn(said: Memory) -> str:
    return said.sources[0].turn if said.sources else ""
