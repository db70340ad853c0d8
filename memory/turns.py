"""The turn log: every finished turn, written durably before the client is told that its answer is complete.

A turn and its episode memory are one transaction. The same turn seen again (retry, regenerate) replaces its row; a turn
whose question was edited replaces the one that stood at the same place of the same session.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.cube import ensure, next_rev
from memory.grants import CubeRefused
from memory.memories import add, archive, save, select
from memory.prepared import made_once
from memory.progress import unsay
from memory.sql import Database
from memory.types import Kind, Memory, Source, Status, Trust, Turn, stable_id

SAME_TURN_S = 900.0  # a first question repeated within a quarter of an hour is a retry, later it is a new conversation
_WAITS = (sql.turns.c.extracted == 0, sql.turns.c.replaced == 0)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a turn stands in its conversation. `position` and `tail` are hashes of all that was said before it and up to
    its end (empty: unknown or nothing). `named` says that the client itself named the session."""

    position: str = ""
    tail: str = ""
    named: bool = False


def _session_at() -> sa.Select[Any]:
    table, later = sql.turns, sql.turns.alias()
    cube: sa.BindParameter[str] = sa.bindparam("cube")
    position: sa.BindParameter[str] = sa.bindparam("position")
    went_on = sa.exists().where(
        later.c.cube == cube,
        later.c.session == table.c.session,
        later.c.position == position,
        later.c.replaced == 0,
    )
    return (
        sa.select(table.c.session)
        .where(table.c.cube == cube, table.c.tail == position)
        .order_by(went_on, table.c.answered_at.desc())
        .limit(1)
    )


_SESSION_AT = _session_at()
_T = sql.turns
_INSERT = made_once(sa.insert(_T))
_AT_KEY = made_once(sa.select(_T).where(_T.c.cube == sa.bindparam("cube"), _T.c.key == sa.bindparam("key")))
_SAME_PLACE = made_once(
    sa.select(_T.c.id, _T.c.user_text).where(
        _T.c.cube == sa.bindparam("cube"),
        _T.c.session == sa.bindparam("session"),
        _T.c.position == sa.bindparam("position"),
        _T.c.id != sa.bindparam("not_id"),
        _T.c.replaced == 0,
    )
)


class TurnLog:
    """The table of turns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, turn: Turn, place: Place, owner: str, *, make: bool = True, waited: bool = False) -> Memory:
        """Write the turn and its episode for a principal who may; returns the episode. Durable when it returns. Makes the
        cube when it is new, unless `make` is false. `waited`: it could not be written at once, so the cube may have been erased
        since. Raises DatabaseError, CubeRefused."""

        async def work(connection: AsyncConnection) -> Memory:
            if waited and await _erased_since(connection, turn):
                raise CubeRefused("erased")
            await ensure(connection, turn.cube, owner, "", turn.said_at, make=make)
            known = await _known(connection, turn, place)
            kept = known or replace(turn, id=str(uuid.uuid4()))
            await _replace_edited(connection, kept, place)
            values = _row(kept) | {"position": place.position, "tail": place.tail, "extracted": 0, "replaced": 0}
            if known is None:
                await connection.execute(_INSERT, values)
                return await add(connection, episode(kept))
            here = (sql.turns.c.cube == kept.cube, sql.turns.c.id == kept.id)
            await connection.execute(sa.update(sql.turns).where(*here).values(**values))
            return await save(
                connection, await _as_kept(connection, episode(kept)), action="update", at=kept.answered_at
            )

        return await self._database.write(work, again=True)

    async def session_at(self, cube: str, position: str) -> str | None:
        """The session whose last known words hash to `position`: the one that a resent history continues. Of several that
        began alike, one that has not gone on from there yet, else the latest."""
        rows = await self._database.rows(_SESSION_AT, cube=cube, position=position)
        return str(rows[0][0]) if rows else None

    async def waiting(self) -> list[str]:
        """Cubes that have turns from which nothing was extracted yet."""
        async with self._database.read() as connection:
            rows = await connection.execute(sa.select(sql.turns.c.cube).where(*_WAITS).distinct())
            return [str(row[0]) for row in rows.all()]

    async def spoken_since(self, cubes: Sequence[str], at: float) -> set[str]:
        """Those of the cubes in which somebody has spoken since then."""
        table = sql.turns
        query = sa.select(table.c.cube).where(table.c.cube.in_(list(cubes)), table.c.answered_at > at).distinct()
        async with self._database.read() as connection:
            return {str(row[0]) for row in (await connection.execute(query)).all()}

    async def unextracted(self, cube: str, limit: int) -> list[Turn]:
        """The oldest turns of a cube from which nothing was extracted yet."""
        return await self._select(sql.turns.c.cube == cube, *_WAITS, limit=limit)

    async def get(self, cube: str, ids: Sequence[str]) -> list[Turn]:
        """Those of the turns that exist, in the order in which they were said."""
        return await self._select(sql.turns.c.cube == cube, sql.turns.c.id.in_(list(ids)))

    async def of_request(self, cube: str, request_id: str) -> Turn | None:
        """The turn that a request recorded."""
        found = await self._select(sql.turns.c.cube == cube, sql.turns.c.request_id == request_id, limit=1)
        return found[0] if found else None

    async def latest(self, cube: str, limit: int) -> list[Turn]:
        """The last turns of the session that was last spoken in, newest first."""
        table = sql.turns
        here = (table.c.cube == cube, table.c.replaced == 0)
        newest = sa.select(table.c.session).where(*here).order_by(table.c.answered_at.desc(), table.c.id).limit(1)
        query = (
            sa.select(table)
            .where(*here, table.c.session == newest.scalar_subquery())
            .order_by(table.c.said_at.desc(), table.c.id)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [_turn(row._mapping) for row in (await connection.execute(query)).all()]

    async def before(self, turn: Turn) -> Turn | None:
        """The turn before this one in its session."""
        table = sql.turns
        earlier = (table.c.cube == turn.cube, table.c.session == turn.session, table.c.said_at < turn.said_at)
        query = sa.select(table).where(*earlier, table.c.replaced == 0).order_by(table.c.said_at.desc()).limit(1)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return _turn(row._mapping) if row else None

    async def _select(self, *where: sa.ColumnElement[bool], limit: int | None = None) -> list[Turn]:
        table = sql.turns
        query = sa.select(table).where(*where).order_by(table.c.said_at, table.c.id).limit(limit)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [_turn(row._mapping) for row in rows]


async def mark_extracted(connection: AsyncConnection, turns: Sequence[Turn]) -> None:
    """Nothing more to extract, unless the turn was replaced meanwhile."""
    table = sql.turns
    for turn in turns:
        await connection.execute(
            sa.update(table)
            .where(table.c.cube == turn.cube, table.c.id == turn.id, table.c.answered_at == turn.answered_at)
            .values(extracted=1)
        )


async def still_standing(connection: AsyncConnection, turns: Sequence[Turn]) -> list[Turn]:
    """Those of the turns that are in the log as they are here: not erased, not edited away, not answered anew."""
    table = sql.turns
    ids = [turn.id for turn in turns]
    here = (table.c.cube.in_({turn.cube for turn in turns}), table.c.id.in_(ids), table.c.replaced == 0)
    query = sa.select(table.c.cube, table.c.id, table.c.answered_at).where(*here)
    there = {tuple(row) for row in (await connection.execute(query)).all()}
    return [turn for turn in turns if (turn.cube, turn.id, turn.answered_at) in there]


def episode(turn: Turn) -> Memory:
    """The memory that holds a turn verbatim."""
    return Memory(
        id=stable_id(turn.id, "episode"),
        cube=turn.cube,
        kind=Kind.EPISODE,
        text=turn.user_text,
        answer=turn.assistant_text,
        speaker=turn.speaker,
        message_time=turn.said_at,
        created_at=turn.answered_at,
        valid_from=turn.said_at,
        sources=(Source(turn.id, turn.session, "user"),),
        trust=Trust.USER,
    )


async def _erased_since(connection: AsyncConnection, turn: Turn) -> bool:
    """Whether all of the cube was erased after the turn had ended."""
    table = sql.receipts
    query = sa.select(table.c.id).where(table.c.cube == turn.cube, table.c.asked_at >= turn.answered_at).limit(1)
    return (await connection.execute(query)).first() is not None


async def _known(connection: AsyncConnection, turn: Turn, place: Place) -> Turn | None:
    """The turn with the id (and session) of the row it replaces; None for a new one."""
    table = sql.turns
    old = (await connection.execute(_AT_KEY, {"cube": turn.cube, "key": turn.key})).first()
    if old is None:
        return None
    known = _turn(old._mapping)
    if await _is_the_same(connection, turn, known, place):
        return replace(turn, id=known.id, session=turn.session if place.named else known.session)
    # the same words said again, or another conversation that begins alike: the old turn gives the key up
    here, aside = (table.c.cube == turn.cube, table.c.key == turn.key), f"{turn.key}@{known.id}"
    await connection.execute(sa.update(table).where(*here).values(key=aside))
    return None


async def _is_the_same(connection: AsyncConnection, turn: Turn, known: Turn, place: Place) -> bool:
    """Whether a turn with the key of a known one is that turn once more (retry, regenerate). Where the client names the
    session and resends its history, the key says so; otherwise it must be recent, and nothing may have been said since."""
    if place.position:
        return place.named or turn.said_at - known.answered_at < SAME_TURN_S
    table = sql.turns
    since = (table.c.cube == known.cube, table.c.session == known.session, table.c.said_at > known.said_at)
    later = (await connection.execute(sa.select(table.c.position).where(*since, table.c.replaced == 0))).all()
    if place.named and any(row[0] for row in later):  # a client that resends its history asks its first question again
        return True
    return not later and (place.named or turn.said_at - known.answered_at < SAME_TURN_S)


async def _as_kept(connection: AsyncConnection, told: Memory) -> Memory:
    """The episode with what its owner and its use have added to the one it replaces."""
    table = sql.memories
    for old in await select(connection, table.c.cube == told.cube, table.c.id == told.id):
        told = told.evolve(tags=old.tags, pinned=old.pinned, uses=old.uses, last_used_at=old.last_used_at)
    return told


async def _replace_edited(connection: AsyncConnection, turn: Turn, place: Place) -> None:
    if not place.position:
        return
    table = sql.turns
    here = {"cube": turn.cube, "session": turn.session, "position": place.position, "not_id": turn.id}
    for row in (await connection.execute(_SAME_PLACE, here)).all():
        if not place.named and not _alike(row[1], turn.user_text):
            continue  # rather another conversation that began with the same words
        await connection.execute(
            sa.update(table).where(table.c.cube == turn.cube, table.c.id == row[0]).values(replaced=1)
        )
        ids = sa.select(sql.lineage.c.memory).where(sql.lineage.c.cube == turn.cube, sql.lineage.c.turn == row[0])
        known = (sql.memories.c.cube == turn.cube, sql.memories.c.id.in_(ids))
        for memory in await select(connection, *known, sql.memories.c.status == Status.ACTIVE.value):
            if {source.turn for source in memory.sources} == {row[0]}:
                await archive(connection, memory, at=turn.said_at, valid_to=turn.said_at)
        await unsay(connection, turn.cube, [row[0]], await next_rev(connection, turn.cube))


def _alike(a: str, b: str) -> bool:
    """Whether one text can be the edited other: most words (in Chinese: characters) are the same, in the same order."""
    one, two = ([*text[:1000].split()] if " " in text.strip() else [*text[:1000]] for text in (a, b))
    return SequenceMatcher(None, one, two, autojunk=False).ratio() >= 0.6


def _row(turn: Turn) -> dict[str, Any]:
    row = {name: getattr(turn, name) for name in sql.turns.c.keys() if hasattr(turn, name)}
    return row | {"complete": int(turn.complete)}


def _turn(row: Any) -> Turn:
    names = Turn.__dataclass_fields__
    return Turn(**{name: row[name] for name in names if name != "complete"}, complete=bool(row["complete"]))
