"""Stored memories: pages, changes with their history, forgetting."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from memory import sql
from memory.memories import Memories, digest
from memory.sql import Database
from memory.types import Kind, Memory, Status
from tests.memory.make import CUBE, NOW, OWNER, learned_from, memory, put, record, turn


@pytest.fixture
def memories(database: Database) -> Memories:
    return Memories(database, clock=lambda: NOW + 5)


async def added(memories: Memories, *given: Memory) -> list[Memory]:
    return [await memories.add(one, OWNER) for one in given]


async def ids_of_every_page(memories: Memories, limit: int) -> list[str]:
    found: list[str] = []
    after = None
    while page := await memories.page(CUBE, after=after, limit=limit):
        found += [one.id for one in page]
        after = (page[-1].created_at, page[-1].id)
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
async def test_pages_have_no_gaps_and_no_repeats(memories: Memories, limit: int) -> None:
    kept = await added(memories, *(memory(created_at=NOW + n // 4) for n in range(10)))
    expected = [one.id for one in sorted(kept, key=lambda one: (one.created_at, one.id), reverse=True)]
    assert await ids_of_every_page(memories, limit) == expected


async def test_a_page_can_be_narrowed(memories: Memories) -> None:
    goal, cafe, old = memory(kind=Kind.GOAL), memory(tags=("work",), entities=("Café",)), memory(status=Status.ARCHIVED)
    await added(memories, goal, cafe, old)
    assert [one.id for one in await memories.page(CUBE, kinds=[Kind.GOAL])] == [goal.id]
    assert [one.id for one in await memories.page(CUBE, tag="work")] == [cafe.id]
    assert [one.id for one in await memories.page(CUBE, entity="cafe")] == [cafe.id]
    assert [one.id for one in await memories.page(CUBE, statuses=[Status.ARCHIVED])] == [old.id]


async def test_what_goes_in_comes_out(memories: Memories) -> None:
    given = memory(text="日本 café\n<b>", attributes={"state": "open"}, event_time=NOW, pinned=True, tags=("a", "b"))
    (kept,) = await added(memories, given)
    assert await memories.get(CUBE, given.id) == kept
    assert kept.evolve(rev=0) == given


async def test_a_change_keeps_what_was(memories: Memories) -> None:
    (kept,) = await added(memories, memory(text="Old."))
    changed = await memories.change(CUBE, kept.id, {"text": "New.", "pinned": True})
    assert changed is not None
    assert (changed.text, changed.pinned, changed.rev) == ("New.", True, 2)
    (was,) = await memories.history(CUBE, kept.id)
    assert (was.version, was.action, was.at, was.before["text"]) == (1, "update", NOW + 5, "Old.")


async def test_nobody_else_changes_or_forgets_it(memories: Memories) -> None:
    (kept,) = await added(memories, memory())
    assert await memories.change("c2", kept.id, {"text": "x"}) is None
    assert await memories.forget("c2", kept.id) is None
    assert await memories.get("c2", kept.id) is None
    assert await memories.get(CUBE, kept.id) == kept


async def test_standing_memories_are_those_kinds_and_the_pinned(memories: Memories) -> None:
    name, fact = memory(kind=Kind.IDENTITY), memory(pinned=True, message_time=NOW - 1)
    await added(memories, name, fact, memory(), memory(kind=Kind.IDENTITY, status=Status.SUPERSEDED))
    assert [one.id for one in await memories.standing(CUBE, [Kind.IDENTITY])] == [fact.id, name.id]


async def test_a_forgotten_memory_is_seen_as_gone_by_who_holds_a_copy(memories: Memories) -> None:
    (kept,) = await added(memories, memory(text="Secret.", tags=("x",), entities=("Bob",), attributes={"a": 1}))
    assert await memories.forget(CUBE, kept.id) == [kept.id]
    (gone,) = await memories.since(CUBE, kept.rev)
    assert (gone.status, gone.text, gone.tags, gone.entities, gone.attributes) == (Status.DELETED, "", (), (), None)
    assert await memories.get(CUBE, kept.id) is None
    assert await memories.forget(CUBE, kept.id) is None


async def test_forgetting_an_episode_takes_what_only_it_taught(database: Database, memories: Memories) -> None:
    here, there = await record(database, turn()), await record(database, turn())
    await put(database, memory(id="only here", sources=learned_from(here)))
    await put(database, memory(id="both", sources=learned_from(here, there)))
    await memories.forget(CUBE, (await _episode_of(memories, here.id)).id)
    left = {one.id for one in await memories.page(CUBE)}
    assert left == {"both", (await _episode_of(memories, there.id)).id}


async def test_forgetting_a_fact_takes_the_turns_where_it_stands(database: Database, memories: Memories) -> None:
    here, there, elsewhere = [await record(database, turn()) for _ in range(3)]
    await put(database, memory(id="fact", sources=learned_from(here, there)))
    await put(database, memory(id="other fact", sources=learned_from(here)))
    await memories.forget(CUBE, "fact")
    assert {one.text for one in await memories.page(CUBE, kinds=[Kind.EPISODE])} == {elsewhere.user_text}
    assert await memories.get(CUBE, "other fact") is not None
    assert await _turns(database) == {elsewhere.id}


async def test_forgetting_a_turn_takes_its_repetitions(database: Database, memories: Memories) -> None:
    first, again = [await record(database, turn(user_text="My PIN is 0000.")) for _ in range(2)]
    one, two = [await _episode_of(memories, said.id) for said in (first, again)]
    await put(database, two.evolve(status=Status.MERGED, supersedes=one.id))
    await memories.forget(CUBE, one.id)
    assert await memories.page(CUBE, statuses=list(set(Status) - {Status.DELETED})) == []
    assert await _turns(database) == set()


async def test_a_forgotten_text_leaves_no_bytes(database: Database, memories: Memories, data: Path) -> None:
    def stands() -> bool:
        return any(b"zanzibar" in file.read_bytes() for file in data.iterdir() if file.is_file())

    said = await record(database, turn(key="k", user_text="zanzibar one"))
    await record(database, turn(key="k", user_text="zanzibar two"))
    await memories.change(CUBE, (await _episode_of(memories, said.id)).id, {"text": "zanzibar three"})
    assert stands()
    await memories.forget(CUBE, (await _episode_of(memories, said.id)).id)
    await database.vacuum()
    assert not stands()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("I like Tea.", "i  like tea", True),
        ("Café!", "cafe", True),
        ("我住在杭州。", "我住在杭州", True),
        ("ＡＢＣ", "abc", True),
        ("I like tea", "I like teas", False),
        ("서울에 살아요", "서울에 살아요.", True),
        ("", "x", False),
    ],
)
def test_texts_that_say_exactly_the_same(one: str, other: str, same: bool) -> None:
    assert (digest(one) == digest(other)) is same


def test_question_and_answer_are_not_interchangeable() -> None:
    assert digest("a", "b") != digest("b", "a")
    assert digest("ab", "") != digest("a", "b")


async def _episode_of(memories: Memories, turn_id: str) -> Memory:
    page = await memories.page(CUBE, kinds=[Kind.EPISODE])
    return next(one for one in page if one.sources[0].turn == turn_id)


async def _turns(database: Database) -> set[str]:
    async with database.read() as connection:
        return {row[0] for row in (await connection.execute(sa.select(sql.turns.c.id))).all()}
