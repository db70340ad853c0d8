"""A cube as a Markdown document for its owner to read: profile, facts by topic, timeline, sessions.

What holds no longer is struck out, with the day until which it held. What people wrote is escaped, so that it can neither
become a heading nor a link. No clock: the same memories give the same text. Out: pieces of text, a few KB each.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.memories import select
from memory.pieces import day
from memory.sql import Database
from memory.types import Kind, Memory, Status

_PROFILE = (
    (Kind.IDENTITY, "Identity"),
    (Kind.PREFERENCE, "Preferences"),
    (Kind.GOAL, "Goals"),
    (Kind.TASK, "Open tasks"),
    (Kind.SKILL, "Skills"),
    (Kind.INSIGHT, "Insights"),
)
_SHOWN = (Status.ACTIVE, Status.SUPERSEDED)
_DONE = frozenset(("done", "closed", "cancelled", "dropped"))
_INLINE = re.compile(r"([\\`*_{}\[\]<>|~#!$&])")
_LEADING = re.compile(r"^([ \t]*\d*)(?:(?<!\d)([-+=])|(?<=\d)([.)]))", re.MULTILINE)
_SPACE = re.compile(r"\s+")
PAGE = 200


class Document:
    """Writes a cube's Markdown view."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, cube: str, *, turns: bool = False) -> AsyncIterator[str]:
        """The document, piece by piece; with `turns` the words of every session. Raises DatabaseError."""
        async with self._database.read(long=True) as connection:
            t = sql.memories
            shown = t.c.status.in_([status.value for status in _SHOWN])
            info = (await connection.execute(sa.select(sql.cubes.c.name).where(sql.cubes.c.id == cube))).first()
            found = await select(connection, t.c.cube == cube, shown, t.c.kind != Kind.EPISODE.value)
            topics = await _topics(connection, cube)
            yield f"# Memory{': ' + line(info.name) if info and info.name else ''}\n"
            for part in (*_profile(found), *_facts(found, topics), *_timeline(found)):
                yield part
            async for part in _sessions(connection, cube, turns):
                yield part


def _profile(found: Sequence[Memory]) -> Iterator[str]:
    yield "\n## Profile\n"
    for kind, title in _PROFILE:
        mine = [m for m in found if m.kind is kind]
        if kind is Kind.TASK:
            mine = [m for m in mine if m.status is Status.ACTIVE and (m.attributes or {}).get("state") not in _DONE]
        if mine:
            yield f"\n### {title}\n\n" + "".join(map(_item, _in_order(mine)))


def _facts(found: Sequence[Memory], topics: dict[str, str]) -> Iterator[str]:
    groups: dict[str, list[Memory]] = defaultdict(list)
    for memory in found:
        if memory.kind is Kind.FACT:
            groups[topics.get(memory.id) or next(iter(memory.entities), "") or next(iter(memory.tags), "")].append(
                memory
            )
    if groups:
        yield "\n## Facts\n"
    for name in sorted(groups, key=lambda name: (not name, name.casefold(), name)):
        yield f"\n### {line(name) or 'Other'}\n\n" + "".join(map(_item, _in_order(groups[name])))


def _timeline(found: Sequence[Memory]) -> Iterator[str]:
    dated = [m for m in found if m.event_time is not None or m.kind is Kind.EVENT]
    if dated:
        yield "\n## Timeline\n\n"
    for memory in sorted(dated, key=lambda m: (_when(m), m.id)):
        end = f" – {day(memory.event_end)}" if memory.event_end and day(memory.event_end) != day(_when(memory)) else ""
        yield f"- **{day(_when(memory))}{end}** {_struck(memory)}\n"


async def _sessions(connection: AsyncConnection, cube: str, turns: bool) -> AsyncIterator[str]:
    t = sql.turns
    begun = sa.func.min(t.c.said_at).label("begun")
    query = (
        sa.select(t.c.session, begun, sa.func.max(t.c.said_at).label("ended"), sa.func.count().label("number"))
        .where(t.c.cube == cube, t.c.replaced == 0)
        .group_by(t.c.session)
        .order_by(begun, t.c.session)
    )
    sessions = (await connection.execute(query)).all()
    if sessions:
        yield "\n## Sessions\n" + ("" if turns else "\n")
    for session in sessions:
        when = day(session.begun) + (f" – {day(session.ended)}" if day(session.begun) != day(session.ended) else "")
        count = f"{session.number} turn{'s' if session.number != 1 else ''}"
        if not turns:
            yield f"- {when}, {count}\n"
            continue
        yield f"\n### {when}, {count}\n"
        after: tuple[float, str] = (session.begun - 1, "")
        while page := await _page(connection, cube, session.session, after):
            for turn in page:
                yield f"\n**{line(turn.speaker) or 'User'}** ({day(turn.said_at)})\n\n{_quoted(turn.user_text)}\n"
                if turn.assistant_text:
                    yield f"\n**Assistant**\n\n{_quoted(turn.assistant_text)}\n"
            after = (page[-1].said_at, page[-1].id)


async def _page(connection: AsyncConnection, cube: str, session: str, after: tuple[float, str]) -> Sequence[Any]:
    t = sql.turns
    later = sa.or_(t.c.said_at > after[0], sa.and_(t.c.said_at == after[0], t.c.id > after[1]))
    query = (
        sa.select(t.c.id, t.c.speaker, t.c.user_text, t.c.assistant_text, t.c.said_at)
        .where(t.c.cube == cube, t.c.session == session, t.c.replaced == 0, later)
        .order_by(t.c.said_at, t.c.id)
        .limit(PAGE)
    )
    return (await connection.execute(query)).all()


async def _topics(connection: AsyncConnection, cube: str) -> dict[str, str]:
    """Memory → the name of its topic."""
    e, n = sql.edges, sql.nodes
    query = (
        sa.select(e.c.source, n.c.name)
        .where(e.c.cube == cube, n.c.cube == cube, e.c.target == n.c.id, e.c.kind == "part_of", n.c.kind == "topic")
        .order_by(e.c.source, e.c.weight, n.c.id.desc())
    )
    return {row[0]: row[1] for row in (await connection.execute(query)).all()}


def _in_order(memories: Iterable[Memory]) -> list[Memory]:
    return sorted(memories, key=lambda m: (m.message_time, m.id))


def _when(memory: Memory) -> float:
    return memory.event_time if memory.event_time is not None else memory.message_time


def _item(memory: Memory) -> str:
    due = (memory.attributes or {}).get("due")
    more = f", due {day(due - 1)}" if isinstance(due, int | float) and not isinstance(due, bool) else ""
    return f"- {_struck(memory)} ({day(memory.message_time)}{more})\n"


def _struck(memory: Memory) -> str:
    text = line(memory.text)
    if memory.status is Status.SUPERSEDED:
        until = f" until {day(memory.valid_to)}" if memory.valid_to is not None else ""
        return f"~~{text}~~{until}"
    return text


def line(text: str) -> str:
    """A text as one line of Markdown that says just this text."""
    return _LEADING.sub(r"\1\\\2\3", _INLINE.sub(r"\\\1", _SPACE.sub(" ", text).strip()))


def _quoted(text: str) -> str:
    """A text of several lines as a quotation."""
    escaped = _LEADING.sub(r"\1\\\2\3", _INLINE.sub(r"\\\1", text.strip()))
    return "\n".join(f"> {row}".rstrip() for row in escaped.splitlines())
