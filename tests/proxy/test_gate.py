"""Who may retrieve when more come than can be served."""

from __future__ import annotations

import asyncio

import pytest

from proxy.gate import Gate


class Visits:
    """Questions that go through a gate, and stay inside until they are let go."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.inside: list[str] = []
        self.out: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, within_s: float = 60.0) -> None:
        async def visit() -> None:
            async with self.gate.turn(within_s):
                self.inside.append(name)
                await self.out[name].wait()

        self.out[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(visit())
        await settle()

    async def go(self, name: str) -> None:
        self.out[name].set()
        await self.tasks[name]
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_so_many_are_inside_at_a_time_and_nobody_is_overtaken() -> None:
    visits = Visits(Gate(2))
    for name in "abcde":
        await visits.come(name)
    assert visits.inside == ["a", "b"]
    assert visits.gate.locked()
    for name in "ab":
        await visits.go(name)
    assert visits.inside == ["a", "b", "c", "d"]
    for name in "cde":
        await visits.go(name)
    assert not visits.gate.locked()


async def test_when_not_all_can_be_ready_in_time_the_newest_comes_first() -> None:
    visits = Visits(Gate(1))
    await visits.come("slow")
    await asyncio.sleep(0.5)  # on average 0.1 s now
    for name in "abcde":
        await visits.come(name, within_s=0.9)
    await visits.go("slow")
    assert visits.inside == ["slow", "e"]
    await visits.go("e")  # and quick again: those who are left can all wait
    assert visits.inside == ["slow", "e", "a"]
    for name in "abcd":
        await visits.go(name)
    assert not visits.gate.locked()


async def test_users_who_ask_again_at_once_all_have_their_turn() -> None:
    gate, turns = Gate(2), dict.fromkeys(range(8), 0)

    async def user(name: int) -> None:
        while sum(turns.values()) < 200:
            async with gate.turn(5.0):
                turns[name] += 1
                await asyncio.sleep(0.001)

    await asyncio.gather(*map(user, turns))
    assert min(turns.values()) >= 20


async def test_who_has_too_little_time_left_is_told_at_once_and_takes_no_place() -> None:
    visits = Visits(Gate(1))
    await visits.come("slow")
    await asyncio.sleep(0.2)
    await visits.come("patient")
    await visits.come("hurried", within_s=0.02)
    await visits.go("slow")
    with pytest.raises(TimeoutError):
        await visits.tasks["hurried"]
    assert visits.inside == ["slow", "patient"]
    await visits.go("patient")


async def test_a_deadline_ends_the_wait_and_the_visit() -> None:
    visits = Visits(Gate(1))
    await visits.come("inside", within_s=0.05)
    await visits.come("outside", within_s=0.01)
    for name in ("outside", "inside"):
        with pytest.raises(TimeoutError):
            await visits.tasks[name]
    assert not visits.gate.locked()


async def test_who_goes_away_gives_up_place_and_turn() -> None:
    visits = Visits(Gate(1))
    for name in "abc":
        await visits.come(name)
    visits.tasks["c"].cancel()
    await settle()
    visits.out["a"].set()
    visits.tasks["b"].cancel()  # its turn may just have come
    await asyncio.gather(*visits.tasks.values(), return_exceptions=True)
    await visits.come("d")
    assert visits.inside[-1] == "d"
    await visits.go("d")
    assert not visits.gate.locked()
