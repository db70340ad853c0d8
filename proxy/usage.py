"""What each key has used: tokens as the upstream counts them, read off the answers, per key, day (UTC), upstream and model.

Counted in memory and written behind, many requests as one statement each; `flush` is called by a clock and at shutdown. An answer
whose upstream told no usage (a stream that was not asked for it) counts as a request of unknown tokens: nothing is guessed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory.sql import Database, DatabaseError
from memory.words import whole
from proxy import db
from proxy.config import Price, UpstreamConfig

log = logging.getLogger(__name__)
_EVERY_S = 2.0
_MILLION = 1_000_000.0


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of one answer. `prompt` is all that was read: `cached` (from the provider's cache) and `written` (into it) are part of it."""

    prompt: int = 0
    cached: int = 0
    written: int = 0
    completion: int = 0


@dataclass(frozen=True, slots=True)
class Used:
    """Counts that add up. `injected`: tokens of memory in prompts (our own count); `unknown`: requests without usage; `cost` in the
    currency of the configured prices."""

    requests: int = 0
    unknown: int = 0
    prompt: int = 0
    cached: int = 0
    written: int = 0
    completion: int = 0
    injected: int = 0
    cost: float = 0.0

    def plus(self, other: Used) -> Used:
        """Both together."""
        return Used(*(getattr(self, name) + getattr(other, name) for name in COUNTS))


COUNTS = tuple(field.name for field in fields(Used))
Place = tuple[str, str, str, str]  # key, day, upstream, model


def read(told: Mapping[str, Any] | None) -> Tokens | None:
    """The usage that an answer carries, in whichever provider's words: OpenAI's of chat completions and of responses, Anthropic's,
    DeepSeek's, llama.cpp's timings. None when it says nothing."""
    if not told:
        return None
    timings = told.get("timings")
    if isinstance(timings, Mapping) and not (_count(told, "prompt_tokens") or _count(told, "input_tokens")):
        cached = _count(timings, "cache_n")
        return Tokens(_count(timings, "prompt_n") + cached, cached, 0, _count(timings, "predicted_n"))
    prompt = _count(told, "prompt_tokens") or _count(told, "input_tokens")
    completion = _count(told, "completion_tokens") or _count(told, "output_tokens")
    written = _count(told, "cache_creation_input_tokens")
    if "cache_read_input_tokens" in told or "cache_creation_input_tokens" in told:
        read_ = _count(told, "cache_read_input_tokens")
        if "prompt_tokens" not in told:  # Anthropic's input_tokens are only what no cache had
            return Tokens(prompt + read_ + written, read_, written, completion)
    details = told.get("prompt_tokens_details") or told.get("input_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, Mapping) else 0
    cached = cached or _count(told, "prompt_cache_hit_tokens") or _count(told, "cache_read_input_tokens")
    if isinstance(timings, Mapping):
        cached = cached or _count(timings, "cache_n")
    if not (prompt or completion):
        return None
    return Tokens(prompt, min(cached, prompt), min(written, prompt), completion)


class Prices:
    """What tokens cost, by upstream and model."""

    def __init__(self, upstreams: Sequence[UpstreamConfig]) -> None:
        self._of = {entry.name: tuple(entry.prices.items()) for entry in upstreams}

    def cost(self, upstream: str, model: str, tokens: Tokens) -> float:
        """Zero where nothing is configured."""
        for pattern, price in self._of.get(upstream, ()):
            if fnmatchcase(model, pattern):
                return _cost(price, tokens)
        return 0.0


def _cost(price: Price, tokens: Tokens) -> float:
    plain = max(tokens.prompt - tokens.cached - tokens.written, 0)
    cached = price.input if price.cached is None else price.cached
    written = price.input if price.written is None else price.written
    whole = plain * price.input + tokens.cached * cached + tokens.written * written + tokens.completion * price.output
    return whole / _MILLION


class Usage:
    """The table `usage`. One per proxy."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._waiting: dict[Place, Used] = {}
        self._writing: dict[Place, Used] = {}

    def add(self, key: str, upstream: str, model: str, used: Used) -> None:
        """Count; costs no statement here."""
        place = (key, day(self._clock()), upstream, whole(model[:200]))
        self._waiting[place] = self._waiting.get(place, Used()).plus(used)

    def pending(self, key: str, since: str) -> Used:
        """What of a key is not in the table yet."""
        total = Used()
        for place, used in (*self._waiting.items(), *self._writing.items()):
            if place[0] == key and place[1] >= since:
                total = total.plus(used)
        return total

    async def run(self) -> None:
        """Write now and then, for ever."""
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits; what cannot be written goes on waiting."""
        if not self._waiting or self._writing:
            return
        self._writing, self._waiting = self._waiting, {}
        counted = list(self._writing.items())

        async def work(connection: AsyncConnection) -> None:
            for place, used in counted:
                await count(connection, place, used)

        try:
            await self._database.write(work)
        except DatabaseError as error:  # it cannot be reached, or another proxy has just made the same row
            log.warning("usage of %d keys and models waits: %s", len(counted), error)
            for place, used in self._writing.items():
                self._waiting[place] = self._waiting.get(place, Used()).plus(used)
        finally:
            self._writing = {}

    async def since(self, key: str, first: str) -> Used:
        """All of a key's from a day on, as far as it is in the table. Raises DatabaseError."""
        table = db.usage
        query = sa.select(*(sa.func.coalesce(sa.func.sum(table.c[name]), 0) for name in COUNTS))
        async with self._database.read() as connection:
            row = (await connection.execute(query.where(table.c.key == key, table.c.day >= first))).one()
        counts = {name: int(row[place]) for place, name in enumerate(COUNTS[:-1])}
        return Used(**counts, cost=float(row[-1]))

    async def rows(
        self, *, keys: Sequence[str] | None = None, first: str = "", last: str = "~"
    ) -> list[dict[str, Any]]:
        """By key, day, upstream and model, oldest first, with what waits here; `keys`, None: all. Raises DatabaseError."""
        await self.flush()
        table = db.usage
        query = sa.select(table).where(table.c.day >= first, table.c.day <= last)
        if keys is not None:
            query = query.where(table.c.key.in_(keys))
        async with self._database.read() as connection:
            found = (await connection.execute(query.order_by(table.c.day, *(table.c[one] for one in _PLACE)))).all()
        return [dict(row._mapping) for row in found]


_PLACE = ("key", "day", "upstream", "model")


def day(at: float) -> str:
    """The day in UTC, as 2026-11-23."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


async def count(connection: AsyncConnection, place: Place, used: Used) -> None:
    """Add to the table. Raises IntegrityError when another process has just made the same row."""
    table = db.usage
    row = dict(zip((*_PLACE, *COUNTS), (*place, *(getattr(used, name) for name in COUNTS)), strict=True))
    here = [table.c[name] == row[name] for name in _PLACE]
    more = {name: table.c[name] + row[name] for name in COUNTS}
    changed = await connection.execute(sa.update(table).where(*here).values(**more))
    if not changed.rowcount:
        await connection.execute(sa.insert(table).values(**row))


def _count(told: Mapping[str, Any], name: str) -> int:
    value = told.get(name)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12 else 0
