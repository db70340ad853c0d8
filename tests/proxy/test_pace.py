"""How fast the extraction model is called, and what becomes of a provider that asks for a pause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from memory.models import ChatModelError
from proxy.config import Config, UpstreamConfig
from proxy.upstreams import routing
from proxy.upstreams.model import UpstreamModel
from proxy.upstreams.pace import Pace, asked_pause
from tests.fakes import Received, RecordingUpstream, Reply


class Hourglass:
    """A clock that runs only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)


@asynccontextmanager
async def asking(
    upstream: RecordingUpstream, glass: Hourglass, per_minute: float = 0.0
) -> AsyncIterator[UpstreamModel]:
    named = UpstreamConfig(name="r", kind="openai", base_url=upstream.url)
    routes = routing.make(Config(upstreams=(named,)), 0)
    try:
        yield UpstreamModel(routes, "m", Pace(per_minute, clock=glass, sleep=glass.sleep))
    finally:
        await routes.close()


def refusing(times: int, after: str) -> Any:
    """Answers 429 so many times, then as usual."""
    left = [times]

    def answer(_: Received) -> Reply | str:
        left[0] -= 1
        return Reply(429, headers={"retry-after": after}, chunks=[b"{}"]) if left[0] >= 0 else "Noted."

    return answer


async def test_calls_are_spaced_evenly(upstream: RecordingUpstream) -> None:
    glass = Hourglass()
    begun: list[float] = []

    def answer(_: Received) -> str:
        begun.append(glass.now)
        return "Noted."

    upstream.answer = answer
    async with asking(upstream, glass, per_minute=30) as model:
        for _ in range(3):
            await model.complete({"messages": []})
    assert begun == [100.0, 102.0, 104.0]


async def test_those_who_ask_together_go_one_after_the_other() -> None:
    glass = Hourglass()
    pace = Pace(60, clock=glass, sleep=glass.sleep)
    await asyncio.gather(*(pace.turn() for _ in range(4)))
    assert glass.now == 103.0


async def test_without_a_limit_nobody_waits(upstream: RecordingUpstream) -> None:
    glass = Hourglass()
    async with asking(upstream, glass) as model:
        for _ in range(3):
            await model.complete({"messages": []})
    assert glass.slept == []


async def test_a_pause_that_was_asked_for_is_kept_and_the_call_made_again(upstream: RecordingUpstream) -> None:
    glass, upstream.answer = Hourglass(), refusing(2, "7")
    async with asking(upstream, glass) as model:
        answer = await model.complete({"messages": []})
    assert answer["choices"][0]["message"]["content"] == "Noted."
    assert glass.slept == [7.0, 7.0]
    assert len(upstream.requests) == 3


@pytest.mark.parametrize(("times", "after", "calls"), [(9, "1", 4), (1, "3600", 1), (1, "soon", 1)])
async def test_waiting_has_bounds(upstream: RecordingUpstream, times: int, after: str, calls: int) -> None:
    glass, upstream.answer = Hourglass(), refusing(times, after)
    async with asking(upstream, glass) as model:
        with pytest.raises(ChatModelError, match="status 429") as raised:
            await model.complete({"messages": []})
    assert raised.value.retryable
    assert len(upstream.requests) == calls


async def test_a_pause_holds_back_every_caller() -> None:
    glass = Hourglass()
    pace = Pace(clock=glass, sleep=glass.sleep)
    pace.pause(5)
    await asyncio.gather(pace.turn(), pace.turn())
    assert glass.now == 105.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("", None),
        ("nan", None),
        ("later", None),
    ],
)
def test_what_retry_after_says(value: str, seconds: float | None) -> None:
    assert asked_pause(value, 60.0) == seconds
