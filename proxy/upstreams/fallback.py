"""An upstream with others behind it, which are asked when it cannot answer: on a refused connection, on silence before the first
byte, and on a status that says "not now" (429, 500, 502, 503, 504, 52x). Never after the first byte, never on any other status,
never for a body that is passed on as it comes and so cannot be sent twice.

An upstream that failed some times in a row is left out for a while (`Breaker`), or for as long as its Retry-After says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from proxy.errors import ApiError, Unavailable, UpstreamTimeout, UpstreamUnreachable
from proxy.forms import put_model
from proxy.splice import CannotSplice, put
from proxy.upstreams.port import Call, Headers, Reply, Upstream, later_of

Told = Callable[[str, str], None]  # from which upstream to which
_NOT_NOW = frozenset({429, 500, 502, 503, 504, *range(520, 531)})
_BEGINNING = 1 << 16  # bytes of a body in pieces in which its model may stand
_IN_A_ROW = 3
_REST_S = 15.0
_LONGEST_REST_S = 120.0


@dataclass(slots=True)
class Breaker:
    """Whether an upstream is worth asking. After `_IN_A_ROW` failures it rests; then one more failure makes it rest again."""

    clock: Callable[[], float] = time.monotonic
    failures: int = 0
    until: float = 0.0

    @property
    def rests(self) -> bool:
        """Whether it is left out now."""
        return self.clock() < self.until

    def failed(self, pause_s: float = 0.0) -> None:
        """Count a failure; `pause_s`: how long it asked to be left alone."""
        self.failures += 1
        rest = max(_REST_S if self.failures >= _IN_A_ROW else 0.0, min(pause_s, _LONGEST_REST_S))
        self.until = max(self.until, self.clock() + rest) if rest else self.until

    def served(self) -> None:
        """It answered."""
        self.failures, self.until = 0, 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """An upstream that may serve, and the model it is then asked for (empty: the client's)."""

    upstream: Upstream
    model: str = ""


class ServedBy:
    """A reply that knows whose it is."""

    def __init__(self, reply: Reply, upstream: Upstream) -> None:
        self.upstream = upstream
        self.later = later_of(reply)
        self.status = reply.status
        self.headers: Headers = reply.headers
        self.chunks = reply.chunks
        self.close = reply.close


@dataclass(slots=True)
class Falling:
    """An upstream, and those that are asked in its stead, in their order. `first_byte_s`: how long each may be silent (0: as
    long as its own timeout). `breakers`, by name, are shared by all that fall back to the same upstreams."""

    first: Upstream
    others: Sequence[Choice]
    breakers: Mapping[str, Breaker]
    first_byte_s: float = 0.0
    told: Told = lambda before, after: None
    name: str = field(init=False)
    kind: str = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.kind = self.first.name, self.first.kind

    async def send(self, call: Call) -> Reply:
        """See Upstream.send. When nobody serves, the answer is the first upstream's own: its refusal, or its error."""
        if not isinstance(call.body, bytes):
            return await self.first.send(call)
        refused: Reply | None = None
        error: ApiError | None = None
        before = ""
        try:
            for choice in self._choices():
                upstream, breaker = choice.upstream, self.breakers[choice.upstream.name]
                if before:
                    self.told(before, upstream.name)
                before = upstream.name
                try:
                    reply = await self._ask(upstream, _renamed(call, choice.model))
                except (UpstreamUnreachable, UpstreamTimeout, Unavailable) as failure:
                    breaker.failed()
                    error = error or (failure if refused is None else None)
                    continue
                if reply.status not in _NOT_NOW:
                    breaker.served()
                    return ServedBy(reply, upstream)
                breaker.failed(_asked_pause(reply))
                if refused is None and error is None:
                    refused = ServedBy(reply, upstream)
                else:
                    await reply.close()
            if refused is not None:
                kept, refused = refused, None
                return kept
        finally:
            if refused is not None:
                await refused.close()
        raise error or Unavailable(f"upstream {self.name} cannot answer at the moment", headers={"retry-after": "5"})

    def _choices(self) -> list[Choice]:
        """Who is asked, in order; when all of them rest, all."""
        every = [Choice(self.first), *self.others]
        return [choice for choice in every if not self.breakers[choice.upstream.name].rests] or every

    async def _ask(self, upstream: Upstream, call: Call) -> Reply:
        if not self.first_byte_s:
            return await upstream.send(call)
        try:
            async with asyncio.timeout(self.first_byte_s):
                return await upstream.send(call)
        except TimeoutError as error:
            raise UpstreamTimeout(f"upstream {upstream.name} did not answer in time") from error

    async def models(self) -> list[dict[str, object]]:
        """See Upstream.models; the first one's."""
        return await self.first.models()

    async def close(self) -> None:
        """See Upstream.close; the others are closed as what they are themselves."""
        await self.first.close()


@dataclass(slots=True)
class Renamed:
    """An upstream that is asked for another model than the client named: an alias."""

    upstream: Upstream
    model: str
    name: str = field(init=False)
    kind: str = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.kind = self.upstream.name, self.upstream.kind

    async def send(self, call: Call) -> Reply:
        """See Upstream.send."""
        if isinstance(call.body, bytes):
            return await self.upstream.send(_renamed(call, self.model))
        return await self.upstream.send(await _renamed_on_its_way(call, call.body, self.model))

    async def models(self) -> list[dict[str, object]]:
        """See Upstream.models."""
        return await self.upstream.models()

    async def close(self) -> None:
        """See Upstream.close."""
        await self.upstream.close()


def _renamed(call: Call, model: str) -> Call:
    """The call with another model in its body; no other byte of it changes."""
    if not model or not isinstance(call.body, bytes):
        return call
    if "multipart/" in (kind := _header(call.headers, "content-type")).lower():
        return replace(call, body=put_model(call.body, kind, model))
    try:
        return replace(call, body=put(call.body, "model", model))
    except CannotSplice:
        return call


async def _renamed_on_its_way(call: Call, body: AsyncIterator[bytes], model: str) -> Call:
    """The same of a form in pieces, of which only the beginning is held."""
    held = b""
    async for chunk in body:
        held += chunk
        if len(held) >= _BEGINNING:
            break
    begun = put_model(held, _header(call.headers, "content-type"), model)
    longer = len(begun) - len(held)
    headers = [(n, str(int(v) + longer) if n.lower() == "content-length" else v) for n, v in call.headers]
    return replace(call, body=_then(begun, body), headers=headers)


async def _then(begun: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield begun
    async for chunk in rest:
        yield chunk


def _header(headers: Headers, name: str) -> str:
    return next((value for key, value in headers if key.lower() == name), "")


def _asked_pause(reply: Reply) -> float:
    asked = _header(reply.headers, "retry-after")
    return float(asked) if asked.isdecimal() else 0.0
