"""Every request of a key: let in under its limits, and when it is over, what it used is counted. What an answer of a chat says of
its usage is read by who heard it; of what is passed through, the two ends are looked into. What is made in the background
tells its usage when it is had later.
"""

from __future__ import annotations

import json
from typing import Any

from proxy.auth import Principal
from proxy.blocks import Spawn
from proxy.errors import RateLimited
from proxy.limits import Limiter
from proxy.metrics import Metrics
from proxy.owed import Owed
from proxy.usage import Prices, Tokens, Usage, Used, read

_TAIL = 8192  # bytes of an answer's end, and of its beginning, in which its usage is looked for


class Metering:
    """One per proxy."""

    def __init__(
        self, limiter: Limiter, usage: Usage, prices: Prices, metrics: Metrics, owed: Owed, spawn: Spawn
    ) -> None:
        self._limiter = limiter
        self._owed = owed
        self._spawn = spawn
        self._usage = usage
        self._prices = prices
        self._metrics = metrics

    async def enter(self, principal: Principal) -> dict[str, str]:
        """Headers that say what is left; `leave` must follow. Raises RateLimited."""
        try:
            return await self._limiter.enter(principal.key, principal.limits)
        except RateLimited as refused:
            self._metrics.refused.labels(refused.code).inc()
            raise

    def leave(
        self,
        principal: Principal,
        *,
        upstream: str,
        model: str,
        told: Any,
        injected: int = 0,
        answered: bool = True,
        later: str = "",
    ) -> None:
        """Count what was used; `told`: the answer's usage, as it came; `answered`: an upstream answered with no error; `later`: the
        id of an answer that is made in the background, and tells its usage when it is there."""
        tokens = read(told) if isinstance(told, dict) else None
        spent = tokens or Tokens()
        self._limiter.leave(principal.key, principal.limits, spent.prompt + spent.completion)
        if not answered:
            return
        used = Used(
            requests=1,
            unknown=int(tokens is None),
            prompt=spent.prompt,
            cached=spent.cached,
            written=spent.written,
            completion=spent.completion,
            injected=injected,
            cost=self._prices.cost(upstream, model, spent),
        )
        self._usage.add(principal.key, upstream, model, used)
        self._count(upstream, used)
        if tokens is None and later:
            self._spawn(self._owed.note(later, principal.key, upstream, model))

    def had(self, name: str, told: Any) -> None:
        """Count what an answer with this id has used that was made in the background; once, however often it is had."""
        tokens = read(told) if isinstance(told, dict) else None
        if tokens is not None:
            self._spawn(self._had(name, tokens))

    async def _had(self, name: str, tokens: Tokens) -> None:
        had = await self._owed.had(name, tokens)
        if had is not None:
            self._limiter.spend(had.key, tokens.prompt + tokens.completion)
            self._count(had.upstream, had.used)

    def _count(self, upstream: str, used: Used) -> None:
        for kind in ("prompt", "cached", "completion", "injected"):
            self._metrics.tokens.labels(upstream, kind).inc(getattr(used, kind))


class Tail:
    """The end of an answer that is passed through, or its beginning, and the usage that stands there."""

    def __init__(self) -> None:
        self._begin = self._end = b""

    def feed(self, chunk: bytes) -> None:
        """Listen to one chunk."""
        if len(self._begin) < _TAIL:
            self._begin += chunk[: _TAIL - len(self._begin)]
        self._end = (self._end + chunk[-_TAIL:])[-_TAIL:]

    def usage(self) -> Any:
        """The last usage object in it, or in its beginning (llama.cpp's embeddings); None when there is none."""
        return _told(self._end) or _told(self._begin)


def _told(part: bytes) -> Any:
    at = part.rfind(b'"usage"')
    _, _, rest = part[at:].partition(b":") if at >= 0 else (b"", b"", b"")
    try:
        return json.JSONDecoder().raw_decode(rest.decode("utf-8", "replace").lstrip())[0]
    except ValueError:
        return None
