"""What a cube's chats begin with: model, leading system messages and tools, as clients write them, without our blocks.

Kept durably, because the job that has the model read it ahead runs in another process. Of each cube the MOST that are worth most
(scheduler/policy.py), so that a system message with the date in it does not pile up. Erased with the cube.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.redact import redact
from memory.sql import Database, DatabaseError
from proxy import db
from proxy.blocks import Spawn
from scheduler.policy import Budget, Item, Tier, place

log = logging.getLogger(__name__)
MOST = 6  # of a cube; who was just used is always among them
LONGEST = 200_000  # characters of messages and tools that are kept


@dataclass(frozen=True, slots=True)
class Head:
    """One beginning. `size` (bytes), `tokens`: what its state took when it was last built, 0 when it never was."""

    id: str
    model: str
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Any, ...]
    uses: int = 1
    since: float = 0.0
    used_at: float = 0.0
    tokens: int = 0
    size: int = 0

    def body(self) -> bytes:
        """As a chat request that asks for nothing yet."""
        given: dict[str, Any] = {"model": self.model, "messages": list(self.messages)}
        return json.dumps(given | ({"tools": list(self.tools)} if self.tools else {}), ensure_ascii=False).encode()


def head_of(model: str, messages: Sequence[Any], tools: Any) -> Head | None:
    """The beginning of a request. None: it is too long to be kept, or holds a secret that must not be."""
    leading: list[Mapping[str, Any]] = []
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in ("system", "developer"):
            break
        leading.append(message)
    given = tuple(tools) if isinstance(tools, list) else ()
    try:
        text = json.dumps([model, leading, given], ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError):
        return None
    if len(text) > LONGEST or "\x00" in text or "\\u0000" in text or redact(text) != text:
        return None
    return Head(hashlib.sha256(text.encode()).hexdigest()[:32], model, tuple(leading), given)


def item(head: Head, *, size: int, expected: float | None = None) -> Item:
    """A head as the policy weighs it; `size`: bytes that its state takes, or is thought to."""
    return Item(head.id, {Tier.KV: size}, head.since, head.uses, head.used_at, prior=0.0, expected=expected)


class Heads:
    """The table `heads`. `spawn` None: a process in which no chats begin."""

    def __init__(self, database: Database, spawn: Spawn | None, clock: Callable[[], float]) -> None:
        self._database = database
        self._spawn = spawn
        self._clock = clock

    def heard(self, cube: str, head: Head | None) -> None:
        """A session of the cube has begun so. Written behind the request."""
        if head is not None and self._spawn is not None:
            self._spawn(self._note(cube, head))

    async def of(self, cube: str) -> list[Head]:
        """Those of a cube, last used first. Raises DatabaseError."""
        async with self._database.read() as connection:
            return await _of(connection, cube)

    async def built(self, cube: str, head: str, tokens: int, size: int) -> None:
        """Write down what its state takes."""
        table = db.heads
        here = (table.c.cube == cube, table.c.id == head)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(sa.update(table).where(*here).values(tokens=tokens, bytes=size))

        await self._database.write(work)

    async def _note(self, cube: str, head: Head) -> None:
        table, now = db.heads, self._clock()
        values: dict[str, Any] = {"model": head.model, "messages": list(head.messages), "tools": list(head.tools)}

        async def work(connection: AsyncConnection) -> None:
            there = sa.select(sql.cubes.c.id).where(sql.cubes.c.id == cube, sql.cubes.c.status == "active")
            if (await connection.execute(there)).first() is None:
                return  # nothing is known of it yet, or it was erased meanwhile
            known = await _of(connection, cube)
            if any(other.id == head.id for other in known):
                here = (table.c.cube == cube, table.c.id == head.id)
                again = {"uses": table.c.uses + 1, "used_at": now}
                await connection.execute(sa.update(table).where(*here).values(again))
                return
            more = {"uses": 1, "since": now, "used_at": now, "tokens": 0, "bytes": 0}
            await connection.execute(sa.insert(table).values(cube=cube, id=head.id, **values, **more))
            # each takes one place, and the newcomer has his
            found = place([item(other, size=1) for other in known], Budget({Tier.KV: MOST - 1}), now)
            gone = [id_ for id_, one in found.items() if one.tier is not Tier.KV]
            await connection.execute(sa.delete(table).where(table.c.cube == cube, table.c.id.in_(gone)))

        try:
            await self._database.write(work)
        except DatabaseError as error:  # costs a cold start of some session, no more
            log.warning("how a session began was not kept: %s", error)


async def _of(connection: AsyncConnection, cube: str) -> list[Head]:
    table = db.heads
    rows = await connection.execute(
        sa.select(table).where(table.c.cube == cube).order_by(table.c.used_at.desc(), table.c.id)
    )
    return [
        Head(r.id, r.model, tuple(r.messages), tuple(r.tools), r.uses, r.since, r.used_at, r.tokens, r.bytes)
        for r in rows.all()
    ]
