"""What was said of a task or goal since it was told: the entries of `attributes["feedback"]`, each citing its turn.

Goes in: a memory's attributes and a report. Comes out: attributes with it. `unsay` takes out what an erased turn had said; it runs
inside the caller's transaction. Which report belongs to which task is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.types import Kind

MOST = 50  # reports that one task keeps; the latest ones
HOWS = ("done", "cancelled", "moved", "reopened", "progress", "failed")


@dataclass(frozen=True, slots=True)
class Report:
    """`how` is one of HOWS, `at` the second it was said; `was` is, of a move, the due date before."""

    how: str
    text: str
    turn: str = ""
    at: float = 0.0
    was: float | None = None


def reports(attributes: Mapping[str, Any] | None) -> tuple[Report, ...]:
    """The reports in a memory's attributes, oldest first. Anything that is none is left out; a bare text (as older archives have
    it) says how the task ended."""
    given = (attributes or {}).get("feedback")
    if isinstance(given, str) and given:
        return (Report(str((attributes or {}).get("state", "")), given),)
    found = []
    for entry in given if isinstance(given, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("text"), str):
            at, was = entry.get("at"), entry.get("was")
            found.append(
                Report(
                    how=str(entry.get("how", "")),
                    text=entry["text"],
                    turn=str(entry.get("turn", "")),
                    at=float(at) if isinstance(at, int | float) else 0.0,
                    was=float(was) if isinstance(was, int | float) else None,
                )
            )
    return tuple(found)


def reported(attributes: Mapping[str, Any] | None, report: Report, **changes: Any) -> dict[str, Any]:
    """The attributes with one more report, and with `changes`."""
    told = [*reports(attributes), report][-MOST:]
    return {**(attributes or {}), **changes, "feedback": [asdict(one) for one in told]}


async def unsay(connection: AsyncConnection, cube: str, turns: Collection[str], rev: int) -> list[str]:
    """Take what these turns had reported out of every task and goal of the cube, also out of their history; a due date that such
    a turn had set is as it was before. Returns the ids of the memories that changed."""
    table, history, gone = sql.memories, sql.history, set(turns)
    kinds = table.c.kind.in_([Kind.TASK.value, Kind.GOAL.value])
    query = sa.select(table.c.id, table.c.attributes).where(table.c.cube == cube, kinds)
    changed = []
    for row in (await connection.execute(query)).all():
        left = _without(row.attributes, gone)
        if left is None:
            continue
        changed.append(row.id)
        here = (table.c.cube == cube, table.c.id == row.id)
        await connection.execute(sa.update(table).where(*here).values(attributes=left, rev=rev))
        before = (history.c.cube == cube, history.c.memory == row.id)
        versions = sa.select(history.c.version, history.c.before).where(*before)
        for entry in (await connection.execute(versions)).all():
            older = _without((entry.before or {}).get("attributes"), gone)
            if older is not None:
                where = (*before, history.c.version == entry.version)
                kept = {**entry.before, "attributes": older}
                await connection.execute(sa.update(history).where(*where).values(before=kept))
    return changed


def _without(attributes: Mapping[str, Any] | None, turns: set[str]) -> dict[str, Any] | None:
    """The attributes without what these turns said; None when they say nothing in it."""
    told = reports(attributes)
    left = [one for one in told if one.turn not in turns or not one.turn]
    if attributes is None or len(left) == len(told):
        return None
    out = {**attributes, "feedback": [asdict(one) for one in left]}
    moves = [one for one in told if one.how == "moved"]
    if moves and moves[-1].turn in turns:
        first = next(move for move in reversed(moves) if move.turn in turns and _since(moves, move, turns))
        out["due"] = first.was
    return out


def _since(moves: list[Report], move: Report, turns: set[str]) -> bool:
    """Whether nothing but what is taken out has moved it since that move, and what stood before it stays."""
    at = moves.index(move)
    return all(one.turn in turns for one in moves[at:]) and (at == 0 or moves[at - 1].turn not in turns)
