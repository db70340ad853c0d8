"""Who may run: the most urgent, one of a cube, not more of a task than its limit."""

from __future__ import annotations

import asyncio

import pytest

from scheduler.desk import Desk


class Line:
    """Jobs in the order in which they were let in."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.inside, self.tasks = desk, [], {}  # type: ignore[var-annotated]

    async def comes(self, name: str, cube: str, *, task: str = "t", priority: int = 5) -> None:
        async def work() -> None:
            await self.desk.enter(task, cube, priority)
            self.inside.append(name)

        self.tasks[name] = asyncio.create_task(work())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def goes(self, cube: str, *, task: str = "t") -> None:
        self.desk.leave(task, cube)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_the_most_urgent_is_next_then_the_first() -> None:
    line = Line(Desk(1, {}))
    await line.comes("a", "1")
    for name, priority in (("late", 5), ("later", 5), ("urgent", 1)):
        await line.comes(name, name, priority=priority)
    for cube in ("1", "urgent", "late"):
        await line.goes(cube)
    assert line.inside == ["a", "urgent", "late", "later"]


async def test_one_of_a_cube_and_the_others_pass_by() -> None:
    line = Line(Desk(3, {}))
    for name, cube in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")):
        await line.comes(name, cube)
    assert line.inside == ["a1", "b1"]
    await line.goes("a")
    assert line.inside == ["a1", "b1", "a2"]


async def test_a_task_has_no_more_places_than_its_limit() -> None:
    line = Line(Desk(4, {"heavy": 1}))
    for name, task in (("h1", "heavy"), ("h2", "heavy"), ("light", "t")):
        await line.comes(name, name, task=task)
    assert line.inside == ["h1", "light"]
    await line.goes("h1", task="heavy")
    assert line.inside == ["h1", "light", "h2"]


async def test_the_same_that_waits_is_known() -> None:
    desk = Desk(1, {})
    await desk.enter("t", "a", 5, "key")
    assert not desk.waits("key"), "it has begun"
    waiting = asyncio.create_task(desk.enter("t", "a", 5, "key"))
    await asyncio.sleep(0)
    assert desk.waits("key")
    desk.leave("t", "a")
    await waiting
    assert not desk.waits("key")


async def test_who_gives_up_waiting_takes_no_place() -> None:
    line = Line(Desk(1, {}))
    await line.comes("a", "a")
    await line.comes("b", "b")
    line.tasks["b"].cancel()
    with pytest.raises(asyncio.CancelledError):
        await line.tasks["b"]
    await line.goes("a")
    assert line.desk.running == 0
    await line.comes("c", "c")
    assert line.inside == ["a", "c"]
