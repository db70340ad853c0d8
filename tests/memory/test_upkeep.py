"""A cube keeps within its quota and its time to live, and loses nothing by it."""

from __future__ import annotations

from typing import Any

import pytest

from memory import upkeep
from memory.cube import Cubes
from memory.memories import Memories
from memory.sql import Database
from memory.types import Status
from tests.memory.make import CUBE, NOW, OWNER, memory

DAY = 86400.0


async def stored(database: Database, **limits: Any) -> Memories:
    """Five memories: old, unimportant, pinned, used, new."""
    memories = Memories(database)
    for name, given in {
        "old": {"created_at": NOW - 90 * DAY},
        "unimportant": {"importance": 0.01},
        "pinned": {"created_at": NOW - 900 * DAY, "pinned": True, "importance": 0.0},
        "used": {"created_at": NOW - 90 * DAY, "last_used_at": NOW - DAY},
        "new": {},
    }.items():
        await memories.add(memory(id=name, text=f"I am {name}.", **given), OWNER)
    await Cubes(database).change(CUBE, limits)
    return memories


async def active(memories: Memories) -> set[str]:
    return {m.id for m in await memories.page(CUBE)}


@pytest.mark.parametrize(
    ("quota", "left"),
    [
        (5, {"old", "unimportant", "pinned", "used", "new"}),
        (4, {"old", "pinned", "used", "new"}),
        (3, {"pinned", "used", "new"}),
        (1, {"pinned"}),
    ],
)
async def test_the_least_valuable_beyond_the_quota_are_archived(database: Database, quota: int, left: set[str]) -> None:
    memories = await stored(database, quota=quota)
    assert await upkeep.due(database, NOW) == ([CUBE] if quota < 5 else [])
    assert (await upkeep.trim(database, CUBE, NOW))["too_many"] == 5 - len(left)
    assert await active(memories) == left
    assert await upkeep.due(database, NOW) == []
    assert {m.id for m in await memories.since(CUBE, 0) if m.status is Status.ARCHIVED and m.text} == {
        "old", "unimportant", "used", "new"} - left  # fmt: skip


async def test_what_was_not_used_for_too_long_is_archived(database: Database) -> None:
    memories = await stored(database, ttl_s=30 * DAY)
    assert await upkeep.due(database, NOW) == [CUBE]
    assert await upkeep.trim(database, CUBE, NOW) == {"unused": 1, "too_many": 0}
    assert await active(memories) == {"unimportant", "pinned", "used", "new"}
    assert await upkeep.trim(database, CUBE, NOW) == {"unused": 0, "too_many": 0}
    assert [change.action for change in await memories.history(CUBE, "old")] == ["archive"]


async def test_what_was_archived_can_be_brought_back(database: Database) -> None:
    memories = await stored(database, quota=3)
    await upkeep.trim(database, CUBE, NOW)
    await Cubes(database).change(CUBE, {"quota": None})
    for name in ("old", "unimportant"):
        await memories.undo(CUBE, name)
    assert await active(memories) == {"old", "unimportant", "pinned", "used", "new"}


async def test_many_are_archived_in_several_transactions(database: Database) -> None:
    for number in range(1030):
        await Memories(database).add(memory(id=f"n{number:04}", created_at=NOW + number), OWNER)
    await Cubes(database).change(CUBE, {"quota": 10})
    assert await upkeep.trim(database, CUBE, NOW + 1000) == {"unused": 0, "too_many": 1020}
    assert await active(Memories(database)) == {f"n{number:04}" for number in range(1020, 1030)}


async def test_an_archived_cube_is_left_alone(database: Database) -> None:
    memories = await stored(database, quota=1, ttl_s=1.0, status="archived")
    assert await upkeep.due(database, NOW) == []
    await upkeep.trim(database, CUBE, NOW)
    assert len(await active(memories)) == 5
