"""Responses that follow one another, where the upstream keeps none: what stands before is put before what is new, and what is
answered is kept. Also those that are made in the background, in this process.

A request that names no response of ours costs no SQL here; nor does an answer that its upstream keeps.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from memory.sql import DatabaseError
from proxy.auth import cube_of
from proxy.config import Sessions
from proxy.errors import ApiError, Unavailable
from proxy.hooks import Exchange, Hooks
from proxy.kept import MOST, STOPPED, Kept, Names, Responses, encoded, failed
from proxy.record import turn_key
from proxy.scene import Scene, named_session, passing
from proxy.upstreams.port import Reply, ToldAs, UpstreamBroken
from scheduler.executor import where

log = logging.getLogger(__name__)
Ask = Callable[[], Awaitable[Reply]]
_HELD_S = 60.0  # after which a response whose process is gone counts as ended
_RENEWED_S = 15.0


class Chains:
    """One per proxy."""

    def __init__(
        self, names: Names, kept: Responses, hooks: Hooks, reading: Sessions, clock: Callable[[], float]
    ) -> None:
        self._names = names
        self._kept = kept
        self._hooks = hooks
        self._reading = reading
        self._clock = clock
        self._making: dict[str, asyncio.Task[None]] = {}

    def follows(self, body: Mapping[str, Any]) -> str:
        """The response of ours that the request goes on from; empty: none."""
        named = body.get("previous_response_id")
        return named if isinstance(named, str) and self._names.ours(named) else ""

    async def go_on(self, exchange: Exchange) -> None:
        """Put what stands before into the request, and say how its answer is kept. Raises BadRequest, Unavailable."""
        body, follows = exchange.body, self.follows(exchange.body)
        exchange.notes["input"] = body.get("input")
        stays = self._kept.keep_s > 0 and exchange.surface.keeps(body) and len(exchange.raw) <= MOST
        if passing(named_session(exchange.headers, self._reading)):
            stays = False
        exchange.told_as = ToldAs(self._names.new() if stays else "", follows)
        if not follows:
            return
        try:
            chain = await self._kept.chain(exchange.principal.id, follows)
        except DatabaseError as error:
            raise Unavailable("what stands before cannot be read", headers={"retry-after": "5"}) from error
        before = [item for kept in chain for item in (*kept.input, *map(_bare, kept.response.get("output", ())))]
        whole = {name: value for name, value in body.items() if name != "previous_response_id"}
        exchange.parsed = whole | {"input": [*before, *_items(body.get("input"))]}
        exchange.raw = encoded(exchange.parsed)

    def told_as(self, exchange: Exchange) -> ToldAs:
        """How the answer is told; hooks may have said meanwhile that it is not to be stored."""
        if exchange.told_as.name and not exchange.surface.keeps(exchange.body):
            exchange.told_as = ToldAs("", exchange.told_as.follows)
        return exchange.told_as

    async def keep(self, exchange: Exchange, sent: bytes) -> bytes:
        """Keep an answer that its upstream does not. What is sent to the client then says so; where it could not be kept, it says
        that it was not."""
        answer = exchange.answer
        if answer is None or not answer.id or answer.id != exchange.told_as.name:
            return sent
        response = answer.response or {}
        if response.get("status") in ("completed", "incomplete") and await self._save(exchange, response):
            return sent
        return sent.replace(b'"store":true', b'"store":false')

    async def begin(self, exchange: Exchange, ask: Ask, begun: Mapping[str, Any], ended: Callable[[], None]) -> None:
        """Make a response in the background; `ended` is called when it is over. Raises Unavailable when it cannot be kept."""
        name = exchange.told_as.name
        begun = {**begun, "status": "in_progress"}
        if not await self._save(exchange, begun, held_until=self._clock() + _HELD_S):
            raise Unavailable("the response cannot be kept at the moment", headers={"retry-after": "5"})
        making = asyncio.create_task(self._make(exchange, ask, begun))
        self._making[name] = making

        def over(_: object) -> None:
            self._making.pop(name, None)
            ended()

        making.add_done_callback(over)

    def cancel(self, name: str) -> None:
        """Stop making a response, if this process does."""
        if name in self._making:
            self._making[name].cancel()

    async def close(self) -> None:
        """Give up what is being made; it is told as failed."""
        making = list(self._making.values())
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)

    async def _make(self, exchange: Exchange, ask: Ask, begun: Mapping[str, Any]) -> None:
        name = exchange.told_as.name
        working = asyncio.create_task(self._answer(exchange, ask, begun))
        try:
            while not (await asyncio.wait({working}, timeout=_RENEWED_S))[0]:
                if not await self._renew(name):
                    return
            response = working.result()
            if response["status"] != "failed" and await self._renew(name):
                await self._hooks.on_response(exchange)
            await self._finish(name, response)
        except asyncio.CancelledError:  # asked for, and then it has ended already; or this process stops
            await self._finish(name, failed(begun, STOPPED))
            raise
        except Exception as error:  # nobody waits for it: log it here or nowhere
            log.error("response %s failed: %s\n%s", name, type(error).__name__, where(error))
            await self._finish(name, failed(begun, "internal error"))
        finally:
            working.cancel()
            await asyncio.wait({working})

    async def _answer(self, exchange: Exchange, ask: Ask, begun: Mapping[str, Any]) -> Mapping[str, Any]:
        """The response as it is when the upstream has answered."""
        try:
            reply = await ask()
            exchange.status = reply.status
            heard = exchange.surface.listener(sse=False, encoding="")
            try:
                async for chunk in reply.chunks():
                    heard.feed(chunk)
            finally:
                await reply.close()
        except (ApiError, UpstreamBroken) as error:
            exchange.status = 502
            await self._hooks.on_error(exchange, error)
            return failed(begun, str(error))
        answer = heard.answer()
        if reply.status >= 400 or answer.response is None or answer.id != exchange.told_as.name:
            refused = UpstreamBroken(f"the upstream answered {reply.status}")
            await self._hooks.on_error(exchange, refused)
            return failed(begun, str(refused))
        exchange.answer = answer
        return answer.response

    async def _renew(self, name: str) -> bool:
        try:
            return await self._kept.renew(name, self._clock() + _HELD_S)
        except DatabaseError as error:
            log.warning("response %s could not be held on to: %s", name, error)
            return True

    async def _finish(self, name: str, response: Mapping[str, Any]) -> None:
        try:
            await self._kept.finish(name, response)
        except DatabaseError as error:
            log.error("response %s was made and could not be kept: %s", name, error)

    async def _save(self, exchange: Exchange, response: Mapping[str, Any], held_until: float | None = None) -> bool:
        found = exchange.notes.get("scene")
        scene = found if isinstance(found, Scene) else None
        principal, name = exchange.principal, exchange.told_as.name
        kept = Kept(
            id=name,
            principal=principal.id,
            cube=scene.cube if scene else self._home(exchange),
            session=scene.session if scene else "",
            turn=turn_key(scene) if scene and scene.writes else "",
            request=exchange.id,
            previous=exchange.told_as.follows,
            at=self._clock(),
            input=_items(exchange.notes.get("input")),
            response=response,
            held_until=held_until,
        )
        try:
            return await self._kept.keep(kept, exchange.received_at)
        except DatabaseError as error:
            log.warning("the response of %s was not kept: %s", exchange.id, error)
            return False

    def _home(self, exchange: Exchange) -> str:
        """Whose response it is where memory has stayed out."""
        return cube_of(exchange.principal, exchange.headers, exchange.body, self._reading.user_headers)


def _items(given: Any) -> list[Any]:
    """A request's input as items."""
    return [{"role": "user", "content": given}] if isinstance(given, str) else list(given or ())


def _bare(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item of an answer as a client would tell it itself: its id is one that no upstream knows."""
    return {name: value for name, value in item.items() if name not in ("id", "status")}
