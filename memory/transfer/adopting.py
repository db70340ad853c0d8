"""Another product's dump taken over into a cube: conversations become turns, its own memories become memories.

The dump is read through once before the first row is written, so a broken one leaves nothing behind. Keys and ids come
from the dump's ids: importing it again, or a newer dump of the same account, adds only what is new. Turns wait for the
usual extraction. A memory that says what one here says already is not added.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import BinaryIO

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.cube import ensure
from memory.memories import digest, save, select
from memory.redact import redact
from memory.sql import Database
from memory.transfer import chatgpt, claude, mem0
from memory.transfer.foreign import Conversation, Dump, Exchange, Found, Given
from memory.transfer.format import Limits, Refused
from memory.transfer.importing import Target
from memory.transfer.outcome import Imported
from memory.turns import Place, TurnLog
from memory.types import Memory, Status, Turn, stable_id

FORMATS = ("chatgpt", "claude", "mem0")
TOGETHER = 64  # turns in one commit
Progress = Callable[[int, int], None]  # entries done, entries in all


class Adopter:
    """Takes dumps over."""

    def __init__(self, database: Database, limits: Limits | None = None) -> None:
        self._database = database
        self._turns = TurnLog(database)
        self._limits = limits or Limits()

    async def run(
        self, file: BinaryIO, form: str, target: Target, *, user: str = "", progress: Progress | None = None
    ) -> Imported:
        """`user`: whose memories, when a mem0 dump holds those of several. Raises Refused and CubeRefused
        (nothing was written), DatabaseError."""
        total = await asyncio.to_thread(self._look_through, file, form, target.at, user)
        await self._database.write(lambda c: ensure(c, target.cube, target.owner, "", target.at, make=target.make))
        found, done, number = self._found(file, form, target.at, user), Imported(), 0
        while page := await asyncio.to_thread(lambda: list(islice(found, TOGETHER))):
            conversations = [conversation for each in page for conversation in each.conversations]
            done += await self._record(form, conversations, target)
            givens = [given for each in page for given in each.givens]
            done += await self._database.write(lambda c, givens=givens: _keep(c, form, givens, target), long=True)  # type: ignore[misc]
            done += Imported(refused=sum(each.refused for each in page))
            number += len(page)
            if progress is not None:
                progress(number, total)
        return replace(done, waiting=done.turns + done.merged)

    def _look_through(self, file: BinaryIO, form: str, now: float, user: str) -> int:
        """How many entries there are. Raises Refused when there is nothing that can be used, or several users'."""
        users, number, useful = Counter[str](), 0, False
        for found in self._found(file, form, now, ""):
            number += 1
            users.update(given.user for given in found.givens if given.user)
            useful = useful or bool(found.conversations or found.givens)
        if not number:
            raise Refused(f"there is nothing of {form} in the file")
        if not useful:
            raise Refused(f"no entry of this {form} dump could be read; its format may have changed")
        if user and user not in users:
            raise Refused(f"the dump holds nothing of the user {user[:64]!r}")
        if not user and len(users) > 1:
            known = ", ".join(repr(name[:64]) for name, _ in users.most_common(5))
            raise Refused(f"the dump holds memories of {len(users)} users ({known} …): say whose with `user`")
        return number

    def _found(self, file: BinaryIO, form: str, now: float, user: str) -> Iterator[Found]:
        dump = Dump(file, self._limits)
        if form == "mem0":
            for raw in dump.entries("memories.json", "results", "memories"):
                found = mem0.entry(raw, now)
                yield found if not user else Found([], [g for g in found.givens if g.user == user], found.refused)
            return
        reader = chatgpt if form == "chatgpt" else claude
        for raw in dump.conversations():
            if form == "claude" and isinstance(raw, dict) and "conversations_memory" in raw:  # that file alone
                yield claude.memory_entry(raw, now)
            else:
                yield reader.entry(raw, now)
        if dump.zipped:
            for raw in dump.entries("memories.json", "memories"):
                yield reader.memory_entry(raw, now)
            if form == "claude":
                for raw in dump.entries("projects.json", "projects"):
                    yield claude.project_entry(raw, now)

    # --- conversations --------------------------------------------------------------------------------------------------

    async def _record(self, form: str, conversations: Sequence[Conversation], target: Target) -> Imported:
        """Write down what is new in these. Each turn's place is the one before it, so that a question that was edited since
        the last dump replaces what stood there."""
        turns: list[tuple[Turn, Place]] = []
        for conversation in conversations:
            session = stable_id(target.cube, "import", form, conversation.id)
            before = "start"
            for exchange in conversation.exchanges:
                place = Place(stable_id(session, before), stable_id(session, exchange.id), named=True)
                turns.append((_turn(target.cube, session, exchange), place))
                before = exchange.id
        known = await self._known(target.cube, [turn.key for turn, _ in turns])
        fresh = [
            (turn, place) for turn, place in turns if known.get(turn.key) != (turn.user_text, turn.assistant_text, 0)
        ]
        for start in range(0, len(fresh), TOGETHER):  # one commit
            await asyncio.gather(
                *(
                    self._turns.record(turn, place, target.owner, make=target.make)
                    for turn, place in fresh[start : start + TOGETHER]
                )
            )
        new = sum(turn.key not in known for turn, _ in fresh)
        return Imported(turns=new, memories=new, merged=len(fresh) - new, skipped=len(turns) - len(fresh))

    async def _known(self, cube: str, keys: Sequence[str]) -> dict[str, tuple[str, str, int]]:
        """What the turns with these keys say, and whether they were edited away since."""
        t, found = sql.turns, dict[str, tuple[str, str, int]]()
        async with self._database.read() as connection:
            for start in range(0, len(keys), 500):
                query = sa.select(t.c.key, t.c.user_text, t.c.assistant_text, t.c.replaced).where(
                    t.c.cube == cube, t.c.key.in_(list(keys[start : start + 500]))
                )
                for row in (await connection.execute(query)).all():
                    found[row.key] = (row.user_text, row.assistant_text, row.replaced)
        return found


def _turn(cube: str, session: str, exchange: Exchange) -> Turn:
    return Turn(
        id="",
        cube=cube,
        session=session,
        key=stable_id(session, exchange.id),
        user_text=redact(exchange.user),
        assistant_text=redact(exchange.assistant),
        said_at=exchange.said_at,
        answered_at=exchange.answered_at,
        model=exchange.model,
        complete=bool(exchange.assistant),
    )


# --- memories -------------------------------------------------------------------------------------------------------------


async def _keep(connection: AsyncConnection, form: str, givens: Sequence[Given], target: Target) -> Imported:
    """Write down what is new of the memories; one that was changed in the dump since is changed here."""
    table, done = sql.memories, Imported()
    for given in givens:
        told = _memory(form, given, target)
        says_it = sa.and_(table.c.digest == digest(told.text), table.c.kind == told.kind.value)
        where = (table.c.cube == told.cube, sa.or_(table.c.id == told.id, says_it))
        here = {memory.id: memory for memory in await select(connection, *where)}
        old = here.get(told.id)
        if old is not None and old.status is Status.DELETED and target.erased == "restore":
            await connection.execute(sa.delete(table).where(table.c.cube == told.cube, table.c.id == told.id))
            done += Imported(restored=1)
        elif old is not None and old.status is not Status.DELETED and _newer(given, old, told):
            await save(connection, old.evolve(text=told.text, tags=told.tags), action="import", at=target.at)
            done += Imported(merged=1)
            continue
        elif old is not None or any(memory.status is Status.ACTIVE for memory in here.values()):
            done += Imported(skipped=1)
            continue
        else:
            done += Imported(memories=1)
        await save(connection, told, action="add", at=target.at)
    return done


def _memory(form: str, given: Given, target: Target) -> Memory:
    at = given.at if given.at is not None else target.at
    return Memory(
        id=stable_id("import", form, given.id),
        cube=target.cube,
        kind=given.kind,
        text=redact(given.text),
        tags=tuple(redact(tag) for tag in given.tags),
        message_time=at,
        created_at=target.at,
        valid_from=at,
        trust=given.trust,
    )


def _newer(given: Given, old: Memory, told: Memory) -> bool:
    """Whether the dump's text was written after the one here was imported."""
    return old.text != told.text and (given.updated_at or 0.0) > old.created_at
