"""What is on its way into the queue: few of many, bounded, polite, and sent in the end."""

from __future__ import annotations

import asyncio

from scheduler.outbox import Outbox


class Post:
    """Takes what is sent, unless it is `away`."""

    def __init__(self) -> None:
        self.came: list[str] = []
        self.away = False

    async def __call__(self, letter: str) -> bool:
        if not self.away:
            self.came.append(letter)
        return not self.away


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def sent(box: Outbox[str]) -> None:
    async with asyncio.timeout(10):
        while len(box):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await settle()


async def test_what_waits_is_sent_once_in_order() -> None:
    post = Post()
    box = Outbox(post)
    assert [box.add(letter) for letter in "abab"] == [True, True, False, False]
    await settle()
    assert post.came == ["a", "b"]
    assert len(box) == 0


async def test_the_same_again_is_held_back_for_its_spacing_and_sent_at_the_end() -> None:
    post = Post()
    box = Outbox(post)
    for _ in range(3):
        box.add("a", 60.0)
        await settle()
    assert (post.came, len(box)) == (["a"], 1)
    box.add("b", 60.0)
    await settle()
    assert post.came == ["a", "b"]
    assert await box.close(1.0) == 0
    assert post.came == ["a", "b", "a"]


async def test_when_too_many_wait_the_oldest_is_given_up_and_told() -> None:
    post, lost = Post(), list[str]()
    box = Outbox(post, lost.append, most=2)
    for letter in "abc":
        box.add(letter)
    await settle()
    assert (lost, post.came) == (["a"], ["b", "c"])


async def test_it_gives_way_to_what_is_more_urgent() -> None:
    post = Post()
    box = Outbox(post)
    box.busy = lambda: True
    box.add("a")
    await settle()
    assert post.came == []
    box.busy = lambda: False
    await sent(box)
    assert post.came == ["a"]


async def test_what_is_given_up_while_it_lets_others_pass_stops_nobody() -> None:
    post, lost = Post(), list[str]()
    box = Outbox(post, lost.append, most=1)
    box.busy = lambda: True
    box.add("a")
    await settle()  # it has been taken up, and waits for a quiet moment
    box.add("b")
    box.busy = lambda: False
    await sent(box)
    assert (lost, post.came) == (["a"], ["b"])


async def test_what_cannot_be_sent_is_told_at_the_end() -> None:
    post, lost = Post(), list[str]()
    post.away = True
    box = Outbox(post, lost.append)
    box.add("a")
    box.add("b")
    await settle()
    assert await box.close(0.05) == 2
    assert sorted(lost) == ["a", "b"]
