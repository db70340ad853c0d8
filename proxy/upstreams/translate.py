"""An upstream asked in a language that it speaks: over its own surfaces byte for byte, over others translated.

`speaks` names its surfaces (chat, responses, messages). Where the configuration does not say, each is tried as it is; one that the
upstream answers with "no such route" is translated from then on. What is translated goes out as a chat completion, and its
answer comes back event by event.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from proxy.errors import ApiError, NotFound
from proxy.upstreams.litellm_surfaces import Translation, translate
from proxy.upstreams.port import Call, Headers, Reply, Upstream, UpstreamBroken

log = logging.getLogger(__name__)
SURFACES = {"/chat/completions": "chat", "/responses": "responses", "/messages": "messages"}
_CHAT = "/chat/completions"
_FORGET_S = 600.0  # then it is asked again whether it has learned the surface
_LOOKED_AT = 1 << 16  # bytes of a refusal
_LINE_END = re.compile(rb"\r\n|\r|\n")
_NOT_THEIRS = frozenset({"content-type", "content-length", "content-encoding", "transfer-encoding"})


class Translating:
    """`native` takes what it speaks, and every other path; `chat` answers chat completions, natively or through litellm."""

    def __init__(
        self,
        native: Upstream,
        chat: Upstream,
        speaks: frozenset[str] | None,
        *,
        to_openai: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = native.name
        self.kind = native.kind
        self._native = native
        self._chat = chat
        self._speaks = speaks
        self._to_openai = to_openai
        self._clock = clock
        self._missing: dict[str, float] = {}  # surface → when it was not there

    async def send(self, call: Call) -> Reply:
        """See Upstream.send. Raises BadRequest for what cannot be translated."""
        surface = SURFACES.get(call.path)
        if surface is None or call.method != "POST" or (self._speaks is not None and surface in self._speaks):
            return await self._native.send(call)
        if surface == "chat":
            return await self._chat.send(call)
        if self._speaks is not None or self._clock() - self._missing.get(surface, -_FORGET_S) < _FORGET_S:
            return await self._translated(call)
        reply = await self._native.send(call)
        if reply.status not in (404, 405, 501):
            return reply
        refused = await _read(reply)
        if not _no_such_route(refused):
            return refused
        try:
            translated = await self._translated(call)
        except ApiError as error:
            log.info("upstream %s has no %s, and it could not be translated: %s", self.name, call.path, error.code)
            if isinstance(error, NotFound) or error.status >= 500:
                return refused
            raise
        if translated.status < 400:
            self._missing[surface] = self._clock()
        return translated

    async def models(self) -> list[dict[str, object]]:
        """See Upstream.models."""
        return await self._native.models()

    async def close(self) -> None:
        """See Upstream.close."""
        await self._native.close()
        if self._chat is not self._native:
            await self._chat.close()

    async def _translated(self, call: Call) -> Reply:
        if not isinstance(call.body, bytes):
            raise NotFound(f"upstream {self.name} does not speak {call.path}")
        through = self._chat.kind == "litellm"
        translation = await asyncio.to_thread(
            translate, call.path, call.body, to_openai=self._to_openai, to_litellm=through, told_as=call.told_as
        )
        if translation.begun:
            return Begun(translation.begun, lambda: self._ask(call, translation))
        return await self._ask(call, translation)

    async def _ask(self, call: Call, translation: Translation) -> Reply:
        theirs = [(n, v) for n, v in call.headers if not n.lower().startswith("anthropic-")]
        reply = await self._chat.send(replace(call, path=_CHAT, body=translation.body, headers=theirs, query=""))
        headers = [(name, value) for name, value in reply.headers if name.lower() not in _NOT_THEIRS]
        if reply.status < 400 and _kind(reply).startswith("text/event-stream"):
            return Streamed(reply.status, [("content-type", "text/event-stream"), *headers], reply, translation)
        return Whole(reply.status, [("content-type", "application/json"), *headers], reply, translation)


@dataclass(slots=True)
class Whole:
    """An answer that is translated when it is complete. Implements Reply."""

    status: int
    headers: Headers
    reply: Reply
    translation: Translation

    async def chunks(self) -> AsyncIterator[bytes]:
        """The surface's body. Raises UpstreamBroken."""
        body = b"".join([chunk async for chunk in self.reply.chunks()])
        yield self.translation.error(self.status, body) if self.status >= 400 else self.translation.whole(body)

    async def close(self) -> None:
        """See Reply.close."""
        await self.reply.close()


@dataclass(slots=True)
class Streamed:
    """A stream that is translated event by event. Implements Reply."""

    status: int
    headers: Headers
    reply: Reply
    translation: Translation

    async def chunks(self) -> AsyncIterator[bytes]:
        """The surface's events. Raises UpstreamBroken, also for an error that the upstream tells in the middle of its stream,
        and for a stream without its end."""
        try:
            async for event in self.translation.stream(_events(self.reply.chunks())):
                yield event
        except UpstreamBroken:
            raise
        except Exception as error:  # whatever litellm lets out: its message may repeat what was said
            raise UpstreamBroken(f"the upstream's stream cannot be translated ({type(error).__name__})") from None

    async def close(self) -> None:
        """See Reply.close."""
        await self.reply.close()


@dataclass(slots=True)
class Begun:
    """Says that an answer will be made; `later` asks for it. Implements Reply."""

    body: bytes
    later: Callable[[], Awaitable[Reply]]
    status: int = 200
    headers: Headers = (("content-type", "application/json"),)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The response as it stands now."""
        yield self.body

    async def close(self) -> None:
        """Nothing is open."""


@dataclass(slots=True)
class Held:
    """An answer that was read already. Implements Reply."""

    status: int
    headers: Headers
    body: bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body."""
        yield self.body

    async def close(self) -> None:
        """Nothing is open."""


async def _read(reply: Reply) -> Held:
    """The beginning of a refusal."""
    body = b""
    try:
        async for chunk in reply.chunks():
            body += chunk
            if len(body) > _LOOKED_AT:
                break
    except UpstreamBroken:
        pass
    finally:
        await reply.close()
    return Held(reply.status, reply.headers, body)


def _no_such_route(refused: Held) -> bool:
    """Whether it is the route that is not there, rather than the model or what the request names: servers say so in a
    sentence that speaks of neither."""
    return refused.status != 404 or not re.search(
        rb"model|previous_response|conversation|resp_", refused.body, re.IGNORECASE
    )


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a streamed chat completion. Raises UpstreamBroken when one is an error, or the last one is missing."""
    rest, ended = b"", False
    async for piece in chunks:
        *lines, rest = _LINE_END.split(rest + piece)
        for line in lines:
            data = line[5:].strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                return
            event = _parse(data)
            if event is None:
                continue
            if event.get("error"):
                raise UpstreamBroken(_said(event["error"]))
            choices = event.get("choices")
            ended = ended or any(choice.get("finish_reason") for choice in choices or () if isinstance(choice, dict))
            yield event
    if not ended:
        raise UpstreamBroken("the upstream's stream ended before the answer was complete")


def _parse(data: bytes) -> dict[str, Any] | None:
    try:
        event = msgspec.json.decode(data) if data else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return event if isinstance(event, dict) else None


def _said(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return message[:500] if isinstance(message, str) else "the upstream failed"


def _kind(reply: Reply) -> str:
    return next((value.lower() for name, value in reply.headers if name.lower() == "content-type"), "")
