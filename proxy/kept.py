"""Responses that no upstream keeps are kept here: what was asked, as the client sent it, and what was answered.

By id and principal, in the cube of their memory: they go with it, with the turn that they were recorded as, and after a while.
One that is still being made is held by a lease, which the process that makes it renews: where it ran out, that process has ended.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.sql import Database
from proxy import blocks, db
from proxy.errors import BadRequest

MOST = 8 << 20  # bytes of one, asked and answered
MOST_OF_A_CHAIN = 32 << 20
LONGEST_CHAIN = 2000  # responses
STOPPED = "memrelay was stopped while this response was being made"
_MARK = 12  # characters of an id that say that it is one of this installation's
_T = db.responses


@dataclass(frozen=True, slots=True)
class Kept:
    """One response. `turn`: the key of the turn that it belongs to, empty when none is recorded; `previous`: the id that it was
    asked to follow; `input`: the items of its request alone; `response`: the object as it was answered; `held_until`: while it is
    being made."""

    id: str
    principal: str
    cube: str
    session: str
    turn: str
    request: str
    previous: str
    at: float
    input: Sequence[Any]
    response: Mapping[str, Any]
    held_until: float | None = None


class Names:
    """Ids that can be told from an upstream's own without asking anybody."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def new(self) -> str:
        """An id that nobody has."""
        drawn = secrets.token_hex(18)
        return f"resp_{drawn}{self._mark(drawn)}"

    def ours(self, name: str) -> bool:
        """Whether this installation has given the id."""
        drawn, mark = name[5:-_MARK], name[-_MARK:]
        known = name.startswith("resp_") and name.isascii() and len(drawn) == 36
        return known and hmac.compare_digest(mark, self._mark(drawn))

    def _mark(self, drawn: str) -> str:
        return hmac.new(self._secret, b"response" + drawn.encode(), hashlib.sha256).hexdigest()[:_MARK]


class Responses:
    """The table `responses`. `keep_s`: for so long; 0: none is kept."""

    def __init__(self, database: Database, keep_s: float, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self.keep_s = keep_s

    async def keep(self, kept: Kept, asked_at: float) -> bool:
        """Durable when it returns. False: it is too large, or its cube was erased since `asked_at`. Raises DatabaseError."""
        asked, answered = encoded(list(kept.input)), encoded(kept.response)
        if len(asked) + len(answered) > MOST:
            return False
        values = {"input": asked, "response": answered, "size": len(asked) + len(answered)}
        values |= {name: getattr(kept, name) for name in _T.c.keys() if name not in values}

        async def work(connection: AsyncConnection) -> bool:
            erased = (sql.receipts.c.cube == kept.cube, sql.receipts.c.asked_at >= asked_at)
            if (await connection.execute(sa.select(sql.receipts.c.id).where(*erased).limit(1))).first() is not None:
                return False
            await connection.execute(sa.insert(_T).values(values))
            return True

        return await self._database.write(work)

    async def get(self, principal: str, name: str) -> Kept | None:
        """One of the principal's; None: there is none, or it is another's. Raises DatabaseError."""
        async with self._database.read() as connection:
            row = (await connection.execute(sa.select(_T).where(*self._mine(principal), _T.c.id == name))).first()
        return self._kept(row) if row is not None else None

    async def chain(self, principal: str, name: str) -> list[Kept]:
        """The response and all that it follows, oldest first. Raises BadRequest when one of them is not there, is still being made,
        or they are too many; DatabaseError."""
        step = _T.alias()
        begin = sa.select(_T.c.id, _T.c.previous, _T.c.size, sa.literal(0).label("place"))
        back = begin.where(*self._mine(principal), _T.c.id == name).cte("back", recursive=True)
        mine = (step.c.principal == principal, step.c.at >= self._clock() - self.keep_s)
        more = sa.select(step.c.id, step.c.previous, step.c.size, back.c.place + 1)
        more = more.where(step.c.id == back.c.previous, *mine, back.c.place < LONGEST_CHAIN)
        back = back.union_all(more)
        async with self._database.read() as connection:
            found = (await connection.execute(sa.select(back).order_by(back.c.place))).all()
            if not found or (found[-1].previous and len(found) <= LONGEST_CHAIN):
                raise unknown(found[-1].previous if found else name)
            if len(found) > LONGEST_CHAIN or sum(row.size for row in found) > MOST_OF_A_CHAIN:
                raise BadRequest(
                    f"what stands before is longer than {LONGEST_CHAIN} responses or {MOST_OF_A_CHAIN >> 20} MB; "
                    "begin anew, with what is needed of it as input",
                    param="previous_response_id",
                    code="previous_response_too_long",
                )
            ids = [row.id for row in found]
            rows: dict[str, Any] = {}
            for at in range(0, len(ids), 500):
                query = sa.select(_T).where(_T.c.id.in_(ids[at : at + 500]))
                rows |= {row.id: row for row in (await connection.execute(query)).all()}
        kept = [self._kept(rows[one]) for one in reversed(ids) if one in rows]
        if kept[-1].response.get("status") in ("queued", "in_progress"):
            raise BadRequest(
                f"Previous response with id '{name}' is still being made.",
                param="previous_response_id",
                code="previous_response_not_completed",
            )
        return kept

    async def renew(self, name: str, until: float) -> bool:
        """Hold on to one that is being made. False: it was cancelled or erased. Raises DatabaseError."""
        return await self._change(name, {"held_until": until})

    async def finish(self, name: str, response: Mapping[str, Any]) -> bool:
        """What became of one that was being made. False: it has ended already, or is gone. Raises DatabaseError."""
        told = encoded(response)
        if len(told) > MOST:
            told = encoded(failed(response, "the response is too large to be kept"))
        return await self._change(name, {"response": told, "held_until": None, "size": _T.c.size + len(told)})

    async def delete(self, principal: str, name: str) -> bool:
        """Whether there was one of the principal's. Raises DatabaseError."""

        async def work(connection: AsyncConnection) -> bool:
            gone = await connection.execute(sa.delete(_T).where(*self._mine(principal), _T.c.id == name))
            return gone.rowcount > 0

        return await self._database.write(work)

    async def _change(self, name: str, values: dict[str, Any]) -> bool:
        async def work(connection: AsyncConnection) -> bool:
            here = (_T.c.id == name, _T.c.held_until.is_not(None))
            return (await connection.execute(sa.update(_T).where(*here).values(values))).rowcount > 0

        return await self._database.write(work)

    def _mine(self, principal: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (_T.c.principal == principal, _T.c.at >= self._clock() - self.keep_s)

    def _kept(self, row: Any) -> Kept:
        values = {name: getattr(row, name) for name in Kept.__dataclass_fields__}
        values["input"], values["response"] = _decoded(row.input), _decoded(row.response)
        kept = Kept(**values)
        if kept.held_until is None or kept.held_until >= self._clock():
            return kept
        ended = failed(kept.response, STOPPED)
        return Kept(**{**values, "response": ended, "held_until": None})


def failed(response: Mapping[str, Any], why: str) -> dict[str, Any]:
    """The response as one that came to nothing."""
    return {**response, "status": "failed", "error": {"code": "server_error", "message": why}, "output": []}


def unknown(name: str) -> BadRequest:
    """What the client is told of a response that is not there, or is another's."""
    return BadRequest(
        f"Previous response with id '{name[:200]}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )


def encoded(value: Any) -> bytes:
    """As JSON, also what is only half a character."""
    try:
        return msgspec.json.encode(value)
    except (ValueError, OverflowError, msgspec.MsgspecError):
        return json.dumps(value).encode()


def _decoded(value: bytes) -> Any:
    try:
        return msgspec.json.decode(value)
    except ValueError:  # half a character
        return json.loads(value)


async def erase(connection: AsyncConnection, memories: Sequence[str], *, cube: str) -> None:
    """Erase what is kept beside these memories: blocks that show one of them (see blocks.erase), and responses whose turn is not
    there any more, or not yet: nobody knows which memories will be made of it."""
    await blocks.erase(connection, memories, cube=cube)
    here = sa.select(_T.c.id, _T.c.session, _T.c.turn, _T.c.request).where(_T.c.cube == cube, _T.c.turn != "")
    kept = (await connection.execute(here)).all()
    if not kept:
        return
    columns = (sql.turns.c.session, sql.turns.c.key, sql.turns.c.request_id)
    turns = (await connection.execute(sa.select(*columns).where(sql.turns.c.cube == cube))).all()
    keys = {(row.session, row.key.partition("@")[0]) for row in turns}  # a key that was given up has an id behind it
    requests = {row.request_id for row in turns}
    for row in kept:
        if (row.session, row.turn) not in keys and row.request not in requests:
            await connection.execute(sa.delete(_T).where(_T.c.id == row.id))


async def purge(database: Database, before: float) -> int:
    """Let go of responses from before that time."""

    async def work(connection: AsyncConnection) -> int:
        return (await connection.execute(sa.delete(_T).where(_T.c.at < before))).rowcount

    return await database.write(work)
