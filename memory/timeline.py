"""The course of what holds: looking up what a statement may touch, closing it, and putting late news where they belong.

Functions run inside the caller's transaction. Every link from a statement to what it closed is an `updates` edge, so that it
can be undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.memories import from_row, link, save
from memory.progress import Report, reported
from memory.types import Kind, Memory, Status

MOST = 64  # memories that one statement is compared with
_HELD = (Status.ACTIVE.value, Status.SUPERSEDED.value)
_DERIVED = tuple(kind.value for kind in Kind if kind is not Kind.EPISODE)
Slotted = tuple[Memory, str]  # a memory and its slot


async def touching(
    connection: AsyncConnection, cube: str, *, slots: Iterable[str] = (), words: Iterable[str] = (), limit: int = MOST
) -> list[Slotted]:
    """Active derived memories with one of these slots, or with one of these words in them; the latest first."""
    table = sql.memories
    ways = [table.c.slot.in_(list(slots))] if (slots := [slot for slot in slots if slot]) else []
    ways += [table.c.text.ilike(f"%{_escaped(word)}%", escape="\\") for word in words if word]
    if not ways:
        return []
    query = (
        sa.select(table)
        .where(table.c.cube == cube, table.c.kind.in_(_DERIVED), table.c.status == Status.ACTIVE.value)
        .where(sa.or_(*ways))
        .order_by(table.c.message_time.desc(), table.c.id)
        .limit(limit)
    )
    return [(from_row(row), row.slot) for row in (await connection.execute(query)).all()]


async def open_plans(connection: AsyncConnection, cube: str, limit: int = 2 * MOST) -> list[Slotted]:
    """Active tasks, events and goals, the latest first."""
    table = sql.memories
    kinds = [Kind.TASK.value, Kind.EVENT.value, Kind.GOAL.value]
    query = (
        sa.select(table)
        .where(table.c.cube == cube, table.c.kind.in_(kinds), table.c.status == Status.ACTIVE.value)
        .order_by(table.c.message_time.desc(), table.c.id)
        .limit(limit)
    )
    return [(from_row(row), row.slot) for row in (await connection.execute(query)).all()]


async def told_in(connection: AsyncConnection, cube: str, turns: Sequence[str]) -> list[Slotted]:
    """Active memories that were learned from these turns, the latest first."""
    table, lineage = sql.memories, sql.lineage
    ids = sa.select(lineage.c.memory).where(lineage.c.cube == cube, lineage.c.turn.in_(list(turns)))
    query = (
        sa.select(table)
        .where(table.c.cube == cube, table.c.id.in_(ids), table.c.kind != Kind.EPISODE.value)
        .where(table.c.status == Status.ACTIVE.value)
        .order_by(table.c.message_time.desc(), table.c.id)
    )
    return [(from_row(row), row.slot) for row in (await connection.execute(query)).all()]


async def turn_before(connection: AsyncConnection, cube: str, session: str, at: float) -> str | None:
    """The turn that was said just before, in the same session."""
    table = sql.turns
    query = (
        sa.select(table.c.id)
        .where(table.c.cube == cube, table.c.session == session, table.c.said_at < at, table.c.replaced == 0)
        .order_by(table.c.said_at.desc())
        .limit(1)
    )
    return (await connection.execute(query)).scalar_one_or_none()


async def close(
    connection: AsyncConnection,
    old: Memory,
    by: Memory,
    *,
    at: float,
    until: float | None = None,
    action: str = "supersede",
    state: str = "",
) -> None:
    """End what an earlier statement said; `state` and the words of the later one go into a task."""
    closed = old.evolve(status=Status.SUPERSEDED, valid_to=by.valid_from if until is None else until)
    if state:
        turn = by.sources[0].turn if by.sources else ""
        ended = Report(state, by.text, turn, by.message_time)
        closed = closed.evolve(attributes=reported(old.attributes, ended, state=state))
    await save(connection, closed, action=action, at=at)
    await link(connection, by.cube, by.id, "updates", old.id)


async def place(connection: AsyncConnection, memory: Memory, slots: Sequence[str], at: float) -> Memory:
    """Put a statement into the course of its slots: what was said before it is closed by it; what was said after it closes
    it. Returns it as it is to be stored. All values of a slot are looked at, so what comes late lands in the past."""
    table = sql.memories
    query = (
        sa.select(table)
        .where(table.c.cube == memory.cube, table.c.slot.in_(list(slots)), table.c.status.in_(_HELD))
        .where(table.c.speaker == memory.speaker, table.c.id != memory.id)
        .order_by(table.c.message_time, table.c.id)
    )
    course = [from_row(row) for row in (await connection.execute(query)).all()]
    later = [other for other in course if other.message_time > memory.message_time]
    if later:
        memory = memory.evolve(status=Status.SUPERSEDED, valid_to=later[0].valid_from)
    for other in course:
        if other.message_time > memory.message_time:
            break
        if other.valid_to is None or other.valid_to > memory.valid_from:
            memory = memory.evolve(supersedes=other.id)
            await close(connection, other, memory, at=at)
    if later and later[0].supersedes in (None, memory.supersedes):
        await save(connection, later[0].evolve(supersedes=memory.id), action="update", at=at)
        await link(connection, memory.cube, later[0].id, "updates", memory.id)
    return memory


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
