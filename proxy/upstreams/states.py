"""Whoever keeps KV states for us: the local engine (kind llama), a llama-server with its slots (kind llama_server).

A state is what a model has computed of the beginning of a prompt, for one cube. In: a cube and the beginning of its chats. Out:
whether the state is there, what it takes, what else there is of that cube. What a state holds is as secret as the words it was made
of: `forget` is part of every erasure. Knows nothing of what is worth keeping.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from memory.activation.folder import forget
from proxy.errors import ApiError
from proxy.upstreams.port import Call, Upstream, UpstreamBroken

log = logging.getLogger(__name__)
T = TypeVar("T")
_COMPUTES_S = 300.0  # so long a state may take
_ANSWERS_S = 10.0
_JSON = [("content-type", "application/json"), ("accept", "application/json")]


class Built(msgspec.Struct, frozen=True):
    """What became of a wish to have a state. `state`: built; present, it was there already; slot, states are not kept
    there, but what was read last still is; refused, the model does not read such a beginning; busy, there was no time for it; away,
    nobody answers; off, nothing can be saved there."""

    state: str
    tokens: int = 0
    bytes: int = 0
    key: str = ""

    @property
    def there(self) -> bool:
        """Whether the next session finds it."""
        return self.state in ("built", "present", "slot")


class SavedState(msgspec.Struct, frozen=True):
    """A state that is there. `sort`: prefix, computed ahead, or session; `ram`, `disk`: where; `adapter`: the one that it was
    computed with. Times are seconds since the epoch."""

    key: str
    sort: str
    tokens: int
    bytes: int
    ram: bool
    disk: bool
    session: str | None = None
    uses: int = 0
    used_at: float | None = None
    created: float | None = None
    adapter: str | None = None


class Room(msgspec.Struct, frozen=True):
    """What may be kept and what is kept, of all cubes, in bytes; a budget of None: nobody knows, or there is none. `enabled`:
    whether anything is kept at all."""

    ram_budget: int | None = None
    ram_bytes: int = 0
    disk_budget: int | None = None
    disk_bytes: int = 0
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What an erasure found: `states` and their `bytes`. `sure`: nothing of the cube is left, as far as it can be told."""

    states: int = 0
    bytes: int = 0
    sure: bool = True

    def plus(self, other: Forgotten) -> Forgotten:
        """Both together."""
        return Forgotten(self.states + other.states, self.bytes + other.bytes, self.sure and other.sure)


class KeepsStates(Protocol):
    """One keeper. None of its methods raises but for a bug: states are a convenience, and chats go on without them."""

    name: str  # the upstream's

    async def build(self, cube: str, body: bytes, adapter: str = "") -> Built:
        """Have the state of a beginning: `body` is a chat request with the leading messages and perhaps tools, nothing else.
        `adapter`: under which the chats will be answered; only our own engine has any."""
        ...

    async def of(self, cube: str) -> list[SavedState]:
        """What there is of a cube; empty when nobody answers."""
        ...

    async def room(self) -> Room | None:
        """None when nobody answers."""
        ...

    async def forget(self, cube: str) -> Forgotten:
        """Drop everything of a cube: saved, in memory, in slots. Also when the engine does not run."""
        ...


class EngineStates:
    """The states that our own engine keeps, in `folder` (one folder a cube), which is on this machine."""

    def __init__(self, engine: Upstream, folder: Path) -> None:
        self.name = engine.name
        self._engine = engine
        self._folder = folder

    async def build(self, cube: str, body: bytes, adapter: str = "") -> Built:
        """See KeepsStates."""
        try:
            given = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError:
            return Built("refused")
        asked = {**given, "cube": cube, **({"adapter": adapter} if adapter else {})}
        status, answer = await self._ask("POST", "/kv/states", msgspec.json.encode(asked))
        if status == 200:
            return _read(answer, Built) or Built("away")
        if status in (404, 405) or (status == 400 and not await self._keeps()):
            return await self._in_passing(given)
        return Built(_why(status))

    async def _keeps(self) -> bool:
        """Whether the engine saves anything."""
        room = await self.room()
        return room is None or room.enabled

    async def _in_passing(self, given: dict[str, Any]) -> Built:
        """Have it read by an engine that keeps no states: asked for one token behind it, the engine's slot has it for now."""
        asked = {**given, "messages": [*given["messages"], {"role": "user", "content": "."}], "max_tokens": 1}
        status, _ = await self._ask("POST", "/chat/completions", msgspec.json.encode(asked))
        return Built("slot" if status == 200 else _why(status))

    async def of(self, cube: str) -> list[SavedState]:
        """See KeepsStates."""
        status, answer = await self._ask("GET", "/kv/states", query=f"cube={cube}")
        listed = _read(answer, _List) if status == 200 else None
        return listed.data if listed else []

    async def room(self) -> Room | None:
        """See KeepsStates."""
        status, answer = await self._ask("GET", "/kv")
        return _read(answer, Room) if status == 200 else None

    async def forget(self, cube: str) -> Forgotten:
        """See KeepsStates. The engine owns the folder while it runs; while it does not, or cannot be heard, we remove the cube's
        files ourselves: it never serves a state whose file is gone."""
        known = await self.of(cube)
        await self._ask("DELETE", f"/kv/cubes/{cube}")
        try:
            files = await asyncio.to_thread(forget, self._folder, cube)
        except OSError as error:
            log.error("states of cube %s could not be removed: %s", cube, os.strerror(error.errno or 0))
            return Forgotten(len(known), sum(state.bytes for state in known), sure=False)
        return Forgotten(max(len(known), files), sum(state.bytes for state in known))

    async def _ask(self, method: str, path: str, body: bytes = b"", query: str = "") -> tuple[int, bytes]:
        """(status, body); status 0: nobody answered, or not in time."""
        try:
            async with asyncio.timeout(_COMPUTES_S if body else _ANSWERS_S):
                reply = await self._engine.send(Call(method, path, body, _JSON, query=query, ours=True))
                try:
                    return reply.status, b"".join([chunk async for chunk in reply.chunks()])
                finally:
                    await reply.close()
        except (ApiError, UpstreamBroken, TimeoutError):
            return 0, b""


def _why(status: int) -> str:
    """What a refusal says of a wish to have a state."""
    if status in (429, 503):
        return "busy"
    return "away" if status == 0 or status >= 500 else "refused"


class _List(msgspec.Struct, frozen=True):
    data: list[SavedState]


def _read(answer: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
