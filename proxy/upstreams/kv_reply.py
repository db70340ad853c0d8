"""What a llama-server says of the state that it began with, read from its answers: `timings.cache_n` of a whole one, the progress
that is told ahead of a streamed one. The client gets the same bytes as without us.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import msgspec

from proxy.upstreams.port import Headers, Reply

_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_PROGRESS = b'"prompt_progress"'
_HEAD_BYTES = 1 << 16  # of the first event


class _Timings(msgspec.Struct, frozen=True):
    cache_n: int | None = None


class _Progress(msgspec.Struct, frozen=True):
    cache: int | None = None


class _Told(msgspec.Struct, frozen=True):
    timings: _Timings = _Timings()
    prompt_progress: _Progress | None = None


@dataclass(slots=True)
class KvReply:
    """An answer whose beginning has been looked at. `cached`: how many of the prompt's tokens were there; None: not told."""

    status: int
    headers: Headers
    cached: int | None
    body: AsyncIterator[bytes]
    reply: Reply
    done: Callable[[], None]
    closed: bool = False

    def chunks(self) -> AsyncIterator[bytes]:
        """See Reply.chunks."""
        return self.body

    async def close(self) -> None:
        """See Reply.close. The slot is free then."""
        if not self.closed:
            self.closed = True
            try:
                await self.reply.close()
            finally:
                self.done()


async def look(reply: Reply, done: Callable[[], None]) -> KvReply:
    """Read as much of an answer as tells how it began; `done` is called once when the answer is closed. Raises UpstreamBroken; the
    answer is closed then, and `done` is not called."""
    try:
        return await _looked(reply, done)
    except BaseException:
        await reply.close()
        raise


async def _looked(reply: Reply, done: Callable[[], None]) -> KvReply:
    kind = next((value for name, value in reply.headers if name.lower() == "content-type"), "")
    if reply.status >= 400:
        return KvReply(reply.status, reply.headers, None, reply.chunks(), reply, done)
    if kind.lower().startswith("text/event-stream"):
        return await _streamed(reply, done)
    whole = b"".join([chunk async for chunk in reply.chunks()])
    told = _read(whole)
    return KvReply(reply.status, reply.headers, told.timings.cache_n if told else None, _one(whole), reply, done)


async def _streamed(reply: Reply, done: Callable[[], None]) -> KvReply:
    chunks = reply.chunks()
    held = b""
    async for chunk in chunks:
        held += chunk
        if _EVENT_END.search(held) or len(held) > _HEAD_BYTES:
            break
    first = _EVENT_END.split(held, 1)[0]
    told = _read(first.partition(b"data:")[2]) if _PROGRESS in first else None
    progress = told.prompt_progress if told else None
    rest = _chain(held, chunks)
    body = _without_progress(rest) if progress else rest
    return KvReply(reply.status, reply.headers, progress.cache if progress else None, body, reply, done)


async def _without_progress(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same events without those that only tell of progress, which nobody asked for but we."""
    held, begun = b"", False
    async for chunk in chunks:
        if begun:  # the prompt is read: nothing more of the kind
            yield chunk
            continue
        held += chunk
        while found := _EVENT_END.search(held):
            event, held = held[: found.end()], held[found.end() :]
            if _PROGRESS not in event:
                begun = True
                yield event + held
                held = b""
                break
    if held:
        yield held


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for chunk in rest:
        yield chunk


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _read(text: bytes) -> _Told | None:
    try:
        return msgspec.json.decode(text, type=_Told)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
