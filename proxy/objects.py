"""Whose is what the upstreams keep for us. All keys share the account there: what one of them made is not there for another.

In: ids out of paths, queries and bodies. Out: which upstream keeps them, or NotFound for one that belongs to another principal.
What nobody made through us belongs to the account, so to everybody.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory.sql import Database, DatabaseError
from proxy import db
from proxy.blocks import Spawn
from proxy.errors import NotFound, Unavailable

log = logging.getLogger(__name__)
_ID = re.compile(r"[A-Za-z0-9][\w.-]{7,199}")
# what a body may name; ids of messages, calls and reasoning come back with every history and are not kept apart
KINDS = tuple(
    b"resp conv file vs batch asst thread run ft ftjob cntr container upload chatcmpl msgbatch skill video prompt pmpt".split()
)
_NAMED = re.compile(rb'"((?:%b)[-_][A-Za-z0-9_-]{6,190})"' % b"|".join(KINDS))
# a field whose name says that it holds ids, of whichever kind
_FIELD = re.compile(rb'"\w{0,60}(?:id|ids|file|files)"\s*+:\s*+(?:("[^"\\]++")|\[([^][{}]*+)\])')
_QUOTED = re.compile(rb'"([A-Za-z0-9][A-Za-z0-9_.-]{7,199})"')
_ESCAPED = re.compile(rb"\\u00([2-7][0-9A-Fa-f])")  # a character of an id, told by its number
_AT_ONCE = 500  # ids per query
_RETRIES_S = (0.5, 1, 2, 5, 10, 30, 60, 120, 300)


@dataclass(frozen=True, slots=True)
class Kept:
    """An object at an upstream, by the names of its owner and of that upstream."""

    principal: str
    upstream: str


class Objects:
    """The table `objects`."""

    def __init__(self, database: Database, spawn: Spawn, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._spawn = spawn
        self._clock = clock
        self._held: dict[str, Kept] = {}  # until it is written

    def claim(self, name: str, principal: str, upstream: str) -> None:
        """Note that the principal has made this object; the first to do so owns it."""
        if _ID.fullmatch(name) and name not in self._held:
            self._held[name] = Kept(principal, upstream)
            self._spawn(self._write(name))

    async def owners(self, names: Iterable[str]) -> Mapping[str, Kept]:
        """Those of the ids that somebody owns. Raises Unavailable: who may not be told from who may gets nothing."""
        wanted = sorted({name for name in names if _ID.fullmatch(name)})
        found = {name: self._held[name] for name in wanted if name in self._held}
        table = db.objects
        try:
            for at in range(0, len(wanted), _AT_ONCE):
                query = sa.select(table).where(table.c.id.in_(wanted[at : at + _AT_ONCE]))
                async with self._database.read() as connection:
                    rows = (await connection.execute(query)).all()
                found |= {row.id: Kept(row.principal, row.upstream) for row in rows}
        except DatabaseError as error:
            raise Unavailable("it cannot be checked whose this is", headers={"retry-after": "5"}) from error
        return found

    async def require(self, principal: str, names: Iterable[str]) -> str:
        """The upstream that keeps what is named; empty when nobody knows. Raises NotFound, Unavailable."""
        upstream = ""
        for name, kept in (await self.owners(names)).items():
            if kept.principal != principal:
                raise NotFound(f"there is no {name!r}")
            upstream = kept.upstream
        return upstream

    async def _write(self, name: str) -> None:
        kept = self._held[name]
        values = {"id": name, "principal": kept.principal, "upstream": kept.upstream, "at": self._clock()}

        async def work(connection: AsyncConnection) -> None:
            known = sa.select(db.objects.c.id).where(db.objects.c.id == name)
            if (await connection.execute(known)).first() is None:
                await connection.execute(sa.insert(db.objects).values(values))

        for pause in (*_RETRIES_S, None):  # until it is written, it is known here alone
            try:
                await self._database.write(work)
                break
            except DatabaseError as error:
                if pause is None:
                    log.error("whose an object at upstream %s is was not written down: %s", kept.upstream, error)
                    return
                await asyncio.sleep(pause)
        self._held.pop(name, None)


def told(*texts: str) -> set[str]:
    """What in a path or a query may be an id."""
    return {name for text in texts for name in _ID.findall(text)}


def named(body: bytes, kinds: Sequence[bytes] = KINDS) -> set[str]:
    """The ids of kept objects that a body names, however it spells them; `kinds` are those that it can name."""
    body = _plain(body)
    if not any(b'"' + kind in body for kind in kinds):
        return set()
    return {name.decode() for name in _NAMED.findall(body)}


def in_fields(body: bytes) -> set[str]:
    """What may be an id, of an upstream's own making too, in the fields of a JSON body that are named so (`file_id`,
    `training_file`, `ids` …)."""
    found = _FIELD.findall(_plain(body))
    return {name.decode() for one, several in found for name in _QUOTED.findall(one or several)}


def _plain(body: bytes) -> bytes:
    if (encoding := json.detect_encoding(body)) not in ("utf-8", "utf-8-sig"):
        body = body.decode(encoding, "replace").encode("utf-8", "replace")
    return _ESCAPED.sub(_unescaped, body) if b"\\u00" in body else body


def _unescaped(found: re.Match[bytes]) -> bytes:
    character = bytes.fromhex(found[1].decode())
    return character if character.isalnum() or character in b"_-" else found[0]
