"""What a key may use: requests and tokens per minute, requests at a time, and budgets of tokens and money per day and month.

Minutes and requests at a time are counted in this process: behind two proxies a key has twice of them. Budgets are sums of the
table `usage` and of what is not written yet; the table is looked into again every few seconds, so several proxies can go over by
what they serve in that time. A key without limits costs nothing here.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec

from memory.sql import DatabaseError
from proxy.config import Quota
from proxy.errors import RateLimited
from proxy.usage import Usage, Used, day

_MINUTE_S = 60.0
_LOOK_AGAIN_S = 5.0
_KEPT = 10_000  # keys
_MOMENT_S, _PATIENCE = 0.02, 10
_NONE = Quota()


@dataclass(slots=True)
class _Meter:
    """One key in this process: its requests and tokens of the last minute with their times, and how many are under way."""

    requests: deque[float] = field(default_factory=deque)
    tokens: deque[tuple[float, int]] = field(default_factory=deque)
    under_way: int = 0
    looked_at: float = -math.inf
    spent: tuple[Used, Used] = (Used(), Used())  # today, this month: as the table had it

    def roll(self, now: float) -> None:
        while self.requests and self.requests[0] <= now - _MINUTE_S:
            self.requests.popleft()
        while self.tokens and self.tokens[0][0] <= now - _MINUTE_S:
            self.tokens.popleft()


class Limiter:
    """Lets requests in, or refuses them. One per proxy."""

    def __init__(self, usage: Usage, usual: Quota, clock: Callable[[], float] = time.time) -> None:
        self._usage = usage
        self._usual = usual
        self._clock = clock
        self._meters: OrderedDict[str, _Meter] = OrderedDict()

    def of(self, own: Quota | None) -> Quota:
        """A key's limits: its own, and the usual ones where it has none."""
        if own is None:
            return self._usual
        given = {name: value for name, value in msgspec.structs.asdict(own).items() if value}
        return msgspec.structs.replace(self._usual, **given)

    async def enter(self, key: str, own: Quota | None) -> dict[str, str]:
        """Let a request in and say in headers what is left; `leave` must follow. Raises RateLimited."""
        quota = self.of(own)
        if quota == _NONE:
            return {}
        meter = self._meter(key)
        left = self._check_minute(meter, quota, self._clock())
        await self._check_budgets(key, meter, quota, self._clock(), left)
        if quota.concurrent and not await _place(meter, quota.concurrent):
            raise _refused(f"more than {quota.concurrent} requests at a time", 1, left)
        now = self._clock()
        left = self._check_minute(
            meter, quota, now
        )  # others were let in while this one waited; from here on nothing waits
        meter.requests.append(now)
        meter.under_way += 1
        if quota.requests_per_minute:
            left["x-ratelimit-remaining-requests"] = str(quota.requests_per_minute - len(meter.requests))
        return left

    def leave(self, key: str, own: Quota | None, tokens: int) -> None:
        """The request that was let in is over."""
        if self.of(own) == _NONE:
            return
        meter = self._meter(key)
        meter.under_way = max(0, meter.under_way - 1)
        if tokens:
            meter.tokens.append((self._clock(), tokens))

    def spend(self, key: str, tokens: int) -> None:
        """Tokens of a request that was over before they were known."""
        if key in self._meters:
            self._meters[key].tokens.append((self._clock(), tokens))

    def _check_minute(self, meter: _Meter, quota: Quota, now: float) -> dict[str, str]:
        left: dict[str, str] = {}
        meter.roll(now)
        if quota.requests_per_minute:
            free = quota.requests_per_minute - len(meter.requests)
            reset = meter.requests[0] + _MINUTE_S - now if meter.requests else 0.0
            left |= _headers("requests", quota.requests_per_minute, free, reset)
            if free <= 0:
                raise _refused(f"more than {quota.requests_per_minute} requests a minute", reset, left)
        if quota.tokens_per_minute:
            free = quota.tokens_per_minute - sum(count for _, count in meter.tokens)
            reset = meter.tokens[0][0] + _MINUTE_S - now if meter.tokens else 0.0
            left |= _headers("tokens", quota.tokens_per_minute, free, reset)
            if free <= 0:
                raise _refused(f"more than {quota.tokens_per_minute} tokens a minute", reset, left)
        return left

    async def _check_budgets(self, key: str, meter: _Meter, quota: Quota, now: float, left: dict[str, str]) -> None:
        if not (quota.tokens_per_day or quota.tokens_per_month or quota.cost_per_day or quota.cost_per_month):
            return
        today, month = day(now), day(now)[:8] + "01"
        if now - meter.looked_at >= _LOOK_AGAIN_S:
            try:
                meter.spent = (await self._usage.since(key, today), await self._usage.since(key, month))
                meter.looked_at = now
            except DatabaseError:  # what was last known still holds; the chat does not wait for a database
                pass
        spent = [
            known.plus(self._usage.pending(key, first))
            for known, first in zip(meter.spent, (today, month), strict=True)
        ]
        checks = (
            (quota.tokens_per_day, quota.cost_per_day, spent[0], "day", _next_day(now)),
            (quota.tokens_per_month, quota.cost_per_month, spent[1], "month", _next_month(now)),
        )
        for most, price, used, name, ends in checks:
            if most and used.prompt + used.completion >= most:
                raise _refused(
                    f"the budget of {most} tokens a {name} is used up", ends - now, left, "insufficient_quota"
                )
            if price and used.cost >= price:
                raise _refused(f"the budget of {price:g} a {name} is used up", ends - now, left, "insufficient_quota")

    def _meter(self, key: str) -> _Meter:
        meter = self._meters.setdefault(key, _Meter())
        self._meters.move_to_end(key)
        while len(self._meters) > _KEPT and not next(iter(self._meters.values())).under_way:
            self._meters.popitem(last=False)
        return meter


async def _place(meter: _Meter, most: int) -> bool:
    """Whether there is a place, or will be in a moment: a client that has its answer asks again before its place is free."""
    for _ in range(_PATIENCE):
        if meter.under_way < most:
            return True
        await asyncio.sleep(_MOMENT_S)
    return meter.under_way < most


def _headers(what: str, most: int, free: int, reset_s: float) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{what}": str(most),
        f"x-ratelimit-remaining-{what}": str(max(free, 0)),
        f"x-ratelimit-reset-{what}": f"{max(reset_s, 0):.0f}s",
    }


def _refused(why: str, after_s: float, left: dict[str, str], code: str = "rate_limit_exceeded") -> RateLimited:
    headers = {**left, "retry-after": str(max(1, math.ceil(after_s)))}
    return RateLimited(f"this key's limit is reached: {why}", code=code, headers=headers)


def _next_day(now: float) -> float:
    return (math.floor(now / 86_400) + 1) * 86_400.0


def _next_month(now: float) -> float:
    first = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1).timestamp()
