"""What a cube's chats begin with is kept, a few of each cube, and never what must not be."""

from __future__ import annotations

from typing import Any

import pytest

from memory.sql import Database
from proxy.background import Background
from proxy.heads import LONGEST, MOST, Head, Heads, head_of
from tests.memory.make import record, turn

CUBE = "c"
SYSTEM = {"role": "system", "content": "You are brief."}
ASK = {"role": "user", "content": "Hello?"}


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 60
        return self.now


class Ear:
    """A process in which chats begin."""

    def __init__(self, database: Database) -> None:
        self.background = Background()
        self.heads = Heads(database, self.background, Clock())

    async def hears(self, *heads: Head | None) -> None:
        for head in heads:
            self.heads.heard(CUBE, head)
            await self.background.drain(10)

    async def kept(self) -> list[Head]:
        return await self.heads.of(CUBE)


@pytest.fixture
async def ear(database: Database) -> Ear:
    await record(database, turn(cube=CUBE))
    return Ear(database)


def said(text: str, model: str = "m") -> Head:
    head = head_of(model, [{"role": "system", "content": text}, ASK], None)
    assert head is not None
    return head


def test_a_head_is_what_stands_before_the_first_question() -> None:
    head = head_of("m", [SYSTEM, {"role": "developer", "content": "Metric."}, ASK, SYSTEM], [{"type": "function"}])
    assert head is not None
    assert [message["role"] for message in head.messages] == ["system", "developer"]
    assert len(head.tools) == 1


@pytest.mark.parametrize(
    "content",
    ["x" * LONGEST, "Use the key sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD.", "a\x00b", "lone \ud800"],
)
def test_what_is_too_long_or_secret_or_no_text_is_not_kept(content: str) -> None:
    assert head_of("m", [{"role": "system", "content": content}], None) is None


async def test_another_process_knows_it(ear: Ear, database: Database) -> None:
    await ear.hears(said("You are brief."), said("You are brief."))
    (head,) = await Heads(database, None, Clock()).of(CUBE)
    assert (head.messages, head.uses) == ((SYSTEM,), 2)


async def test_one_that_changes_every_day_does_not_push_out_the_one_that_is_used(ear: Ear) -> None:
    usual = said("You are brief.")
    for day in range(2 * MOST):
        await ear.hears(usual, said(f"Today is day {day}."))
    kept = await ear.kept()
    assert len(kept) == MOST
    assert usual.id in {head.id for head in kept}
    assert kept[0].id == said(f"Today is day {2 * MOST - 1}.").id, "who was just used is there"


async def test_nothing_is_kept_for_a_cube_that_is_not_there(database: Database) -> None:
    ear: Any = Ear(database)
    await ear.hears(said("You are brief."))
    assert await ear.kept() == []


async def test_what_its_state_took_is_written_down(ear: Ear) -> None:
    await ear.hears(said("You are brief."))
    await ear.heads.built(CUBE, said("You are brief.").id, 57, 1_300_000)
    (head,) = await ear.kept()
    assert (head.tokens, head.size) == (57, 1_300_000)
