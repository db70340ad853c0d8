"""Usage in every provider's words, what it costs, how it is kept; and what a key may use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from memory.sql import Database
from proxy.config import Price, Quota, UpstreamConfig
from proxy.errors import RateLimited
from proxy.limits import Limiter
from proxy.metering import Tail
from proxy.usage import Prices, Tokens, Usage, Used, read

NOON = 1_795_435_200.0  # 2026-11-23 12:00 UTC


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
            Tokens(9, 4, 0, 2),
        ),
        ({"input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}}, Tokens(9, 4, 0, 2)),
        (
            {"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2},
            Tokens(9, 4, 2, 2),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 4}, Tokens(9, 4, 0, 2)),
        ({"timings": {"cache_n": 4, "prompt_n": 5, "predicted_n": 2}}, Tokens(9, 4, 0, 2)),
        ({"prompt_tokens": 9, "completion_tokens": 2, "timings": {"cache_n": 4}}, Tokens(9, 4, 0, 2)),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": None}, Tokens(9, 0, 0, 2)),
        ({"prompt_tokens": "many"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_usage_is_understood_whoever_tells_it(told: Any, expected: Tokens | None) -> None:
    assert read(told) == expected


def test_what_comes_from_the_cache_costs_its_own_price() -> None:
    price = Price(input=2.0, cached=0.5, output=10.0)
    entry = UpstreamConfig(name="one", kind="openai", base_url="http://x", prices={"gpt-*": price})
    assert Prices([entry]).cost("one", "gpt-x", Tokens(1_000_000, 400_000, 0, 100_000)) == pytest.approx(
        1.2 + 0.2 + 1.0
    )
    assert Prices([entry]).cost("one", "other", Tokens(1_000_000)) == 0


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [1, 2], "usage": {"prompt_tokens": 7, "total_tokens": 7}}',
        b'data: {"choices": [], "usage": null}\n\ndata: {"usage": {"prompt_tokens": 7}}\n\ndata: [DONE]\n\n',
        b'{"model": "m", "usage": {"prompt_tokens": 7}, "data": ['
        + b"0.123, " * 4000
        + b"1]}",  # llama.cpp's embeddings
    ],
)
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_ends_of_what_is_passed_through_tell_its_usage(body: bytes, size: int) -> None:
    tail = Tail()
    for at in range(0, len(body), size):
        tail.feed(body[at : at + size])
    assert read(tail.usage()) == Tokens(7)


async def test_requests_of_one_day_add_up_over_processes(database: Database) -> None:
    clock = Clock()
    one, two = Usage(database, clock), Usage(database, clock)
    for usage in (one, two, one):
        usage.add("key_1", "first", "m", Used(requests=1, prompt=10, cached=4, cost=0.5))
        await usage.flush()
    clock.now += 86_400
    one.add("key_1", "first", "m", Used(requests=1, unknown=1))
    rows = await one.rows(keys=["key_1"])
    assert [(row["day"], row["requests"], row["prompt"], row["cost"]) for row in rows] == [
        ("2026-11-23", 3, 30, 1.5),
        ("2026-11-24", 1, 0, 0.0),
    ]
    assert (await two.since("key_1", "2026-11-01")).requests == 4


async def test_usage_that_cannot_be_written_waits(database: Database) -> None:
    usage = Usage(database, Clock())
    usage.add("key_1", "first", "m", Used(requests=1, prompt=10))
    assert usage.pending("key_1", "2026-11-23").prompt == 10
    await usage.flush()
    assert usage.pending("key_1", "2026-11-23").prompt == 0


@pytest.fixture
def limiter(database: Database) -> Callable[..., tuple[Limiter, Usage, Clock]]:
    def make(**usual: Any) -> tuple[Limiter, Usage, Clock]:
        clock = Clock()
        usage = Usage(database, clock)
        return Limiter(usage, Quota(**usual), clock), usage, clock

    return make


async def test_requests_a_minute(limiter: Callable[..., tuple[Limiter, Usage, Clock]]) -> None:
    limits, _, clock = limiter(requests_per_minute=2)
    assert (await limits.enter("k", None))["x-ratelimit-remaining-requests"] == "1"
    clock.now += 20
    await limits.enter("k", None)
    with pytest.raises(RateLimited) as refused:
        await limits.enter("k", None)
    assert refused.value.headers["retry-after"] == "40"
    await limits.enter("another", None)
    clock.now += 40
    await limits.enter("k", None)


async def test_a_keys_own_limit_stands_in_place_of_the_usual_one(
    limiter: Callable[..., tuple[Limiter, Usage, Clock]],
) -> None:
    limits, _, _ = limiter(requests_per_minute=1, concurrent=9)
    own = Quota(requests_per_minute=5)
    for _ in range(5):
        await limits.enter("k", own)
    assert limits.of(own).concurrent == 9


async def test_tokens_a_minute_count_when_they_were_used(limiter: Callable[..., tuple[Limiter, Usage, Clock]]) -> None:
    limits, _, clock = limiter(tokens_per_minute=100)
    await limits.enter("k", None)
    limits.leave("k", None, 150)
    with pytest.raises(RateLimited, match="tokens a minute"):
        await limits.enter("k", None)
    clock.now += 61
    await limits.enter("k", None)


async def test_tokens_that_are_told_later_count_when_they_are(
    limiter: Callable[..., tuple[Limiter, Usage, Clock]],
) -> None:
    limits, _, _ = limiter(tokens_per_minute=100)
    await limits.enter("k", None)
    limits.leave("k", None, 0)
    limits.spend("k", 150)
    with pytest.raises(RateLimited, match="tokens a minute"):
        await limits.enter("k", None)


async def test_requests_at_a_time(limiter: Callable[..., tuple[Limiter, Usage, Clock]]) -> None:
    limits, _, _ = limiter(concurrent=1)
    await limits.enter("k", None)
    with pytest.raises(RateLimited, match="at a time"):
        await limits.enter("k", None)
    limits.leave("k", None, 0)
    await limits.enter("k", None)


async def test_who_waited_for_a_place_is_counted_with_those_who_were_let_in_meanwhile(
    limiter: Callable[..., tuple[Limiter, Usage, Clock]],
) -> None:
    limits, _, _ = limiter(requests_per_minute=2, concurrent=1)

    async def ask() -> str:
        try:
            left = await limits.enter("k", None)
        except RateLimited as refused:
            return str(refused.code)
        await asyncio.sleep(0)
        limits.leave("k", None, 0)
        return left["x-ratelimit-remaining-requests"]

    assert sorted(await asyncio.gather(*(ask() for _ in range(4)))) == ["0", "1", *["rate_limit_exceeded"] * 2]


async def test_places_are_counted_behind_a_slow_look_at_the_budget(
    limiter: Callable[..., tuple[Limiter, Usage, Clock]],
) -> None:
    limits, usage, _ = limiter(concurrent=1, tokens_per_day=100)
    look = usage.since

    async def slowly(key: str, first: str) -> Used:
        await asyncio.sleep(0.01)
        return await look(key, first)

    usage.since = slowly  # type: ignore[method-assign]
    outcomes = await asyncio.gather(*(limits.enter("k", None) for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(outcome, RateLimited) for outcome in outcomes) == 2


async def test_a_budget_ends_at_midnight_and_is_kept_by_all_proxies_together(
    limiter: Callable[..., tuple[Limiter, Usage, Clock]],
) -> None:
    limits, usage, clock = limiter(tokens_per_day=100, cost_per_month=5.0)
    other = Usage(usage._database, clock)
    other.add("k", "first", "m", Used(requests=1, prompt=90, completion=20, cost=1.0))
    await other.flush()
    with pytest.raises(RateLimited) as refused:
        await limits.enter("k", None)
    assert (refused.value.code, refused.value.headers["retry-after"]) == ("insufficient_quota", str(12 * 3600))
    clock.now += 12 * 3600 + 6
    await limits.enter("k", None)
    usage.add("k", "first", "m", Used(requests=1, cost=4.5))
    with pytest.raises(RateLimited, match="a month"):
        await limits.enter("k", None)
