"""The slots of a running llama-server: what it says of itself, and its actions save, restore and erase.

Each call is one request on the server's own routes (below its root, not below /v1). Nothing here raises for a server that is away
or refuses: the answer is then None, 0 or False.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy.errors import ApiError
from proxy.upstreams.port import Call, UpstreamBroken
from proxy.upstreams.wire import WireUpstream

_JSON = [("content-type", "application/json"), ("accept", "application/json")]
_ANSWERS_S = 60.0  # an action waits until the slot has answered
_NO_FILES = (404, 405, 501)  # started without --slot-save-path, or without slots


@dataclass(slots=True)
class Slot:
    """One slot as we left it. `cube` empty: nobody's, or unknown; `session` empty: what is in it must not be saved. `dirty`: it
    holds more of the session than the file does. `forget`: erase it when it is free. `mark`: how often its cube had been forgotten
    when it was filled, -1 for unknown."""

    id: int
    cube: str = ""
    session: str = ""
    busy: bool = False
    dirty: bool = False
    forget: bool = False
    used: int = 0
    mark: int = -1

    def clear(self) -> None:
        """It holds nothing of anybody."""
        self.cube = self.session = ""
        self.dirty = self.forget = False
        self.mark = -1


class _Props(msgspec.Struct, frozen=True):
    total_slots: int = 1
    model_path: str = ""
    build_info: str = ""
    chat_template: str = ""
    media_marker: str = ""  # another one at each start of the server
    default_generation_settings: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Props:
    """What a server says of itself. `fingerprint`: of what a state depends on, as far as the server tells; `start`: differs from
    one start of it to the next, where it tells that."""

    slots: int
    fingerprint: str
    start: str


@dataclass(slots=True)
class Server:
    """A llama-server at its root URL. `files`: whether it saves slots; it is taken to until it says that it does not."""

    wire: WireUpstream
    files: bool = True

    async def props(self) -> Props | None:
        """`GET /props`; None when it is away."""
        status, body = await self._ask("GET", "/props")
        try:
            told = msgspec.json.decode(body, type=_Props) if status == 200 else None
        except (msgspec.DecodeError, msgspec.ValidationError):
            told = None
        if told is None:
            return None
        lora = (told.default_generation_settings.get("params") or {}).get("lora")
        context = told.default_generation_settings.get("n_ctx")
        parts = [told.model_path, told.build_info, told.chat_template, context, told.total_slots, lora]
        digest = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]
        return Props(max(told.total_slots, 1), digest, told.media_marker)

    async def idle(self) -> set[int] | None:
        """The slots that work on nothing (`GET /slots`); None: the server does not tell."""
        status, body = await self._ask("GET", "/slots")
        try:
            listed = msgspec.json.decode(body) if status == 200 else None
            return {int(slot["id"]) for slot in listed if not slot["is_processing"]} if listed is not None else None
        except (msgspec.DecodeError, KeyError, TypeError, ValueError):
            return None

    async def save(self, slot: int, name: str) -> tuple[int, int] | None:
        """Write a slot's state under a name: (tokens, bytes). None: it could not."""
        done = await self._act(slot, "save", name)
        return None if done is None else (int(done.get("n_saved", 0)), int(done.get("n_written", 0)))

    async def restore(self, slot: int, name: str) -> int:
        """Read a file into a slot; how many tokens came, 0 when none did."""
        done = await self._act(slot, "restore", name)
        return 0 if done is None else int(done.get("n_restored", 0))

    async def erase(self, slot: int) -> bool:
        """Free a slot's cells. False: it could not."""
        return await self._act(slot, "erase", "") is not None

    async def _act(self, slot: int, action: str, name: str) -> dict[str, Any] | None:
        body = msgspec.json.encode({"filename": name} if name else {})
        status, answer = await self._ask("POST", f"/slots/{slot}", body, f"action={action}")
        if status in _NO_FILES:
            self.files = False
        try:
            done = msgspec.json.decode(answer) if status == 200 else None
        except msgspec.DecodeError:
            return None
        return done if isinstance(done, dict) else None

    async def _ask(self, method: str, path: str, body: bytes = b"", query: str = "") -> tuple[int, bytes]:
        """(status, body); status 0: nobody answered, or not in time."""
        try:
            async with asyncio.timeout(_ANSWERS_S):
                reply = await self.wire.send(Call(method, path, body, _JSON, query=query))
                try:
                    return reply.status, b"".join([chunk async for chunk in reply.chunks()])
                finally:
                    await reply.close()
        except (ApiError, UpstreamBroken, TimeoutError):
            return 0, b""


def decoded(body: bytes) -> dict[str, Any] | None:
    """A chat request; None when it is none."""
    try:
        given = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    return given if isinstance(given.get("messages"), list) else None
