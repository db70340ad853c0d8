"""The upstream kind `llama_server`: a running llama-server, its slots given to sessions, their states in its slot files.

A chat with a cube goes to the slot that has its session; another's is saved first, and what is known of this one is restored (the
session, or the beginning that was read ahead). All other bytes go through as with kind openai. What of a prompt was there is taken
from the server's own figures, never from what we meant it to do. A server without slot files keeps sessions in slots alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from memory.sql import DatabaseError
from proxy import saved
from proxy.errors import ApiError, UpstreamUnreachable
from proxy.upstreams.kv_reply import look
from proxy.upstreams.port import KV_HEADERS, Call, Reply, UpstreamBroken
from proxy.upstreams.slot_files import SlotFile, SlotFiles
from proxy.upstreams.slots import Props, Server, Slot
from proxy.upstreams.states import Built, Forgotten, Room, SavedState
from proxy.upstreams.wire import WireUpstream

log = logging.getLogger(__name__)
_CHAT = "/chat/completions"
_JSON = [("content-type", "application/json"), ("accept", "application/json")]
_LOOK_S = 2.0  # so long what the server said of itself is believed
_BUILDER = 3  # from so many slots on the last one is for reading ahead, and no chat's
_PINS = ("id_slot", "cache_prompt", "return_progress")  # a client that sets these has plans of its own


class LlamaServer:
    """One server. Implements Upstream and KeepsStates. `files` None: nothing is saved; `folder`: its --slot-save-path, where this
    machine has it; `budget`: bytes of all saved states."""

    kind = "llama_server"

    def __init__(
        self,
        wire: WireUpstream,
        server: Server,
        files: SlotFiles | None,
        *,
        folder: Path | None = None,
        budget: int = 4096 << 20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = wire.name
        self._wire = wire
        self._server = server
        self._files = files
        self._folder = folder
        self._budget = budget
        self._clock = clock
        self._slots: list[Slot] = []
        self._props: Props | None = None
        self._looked_at = -_LOOK_S
        self._count = 0
        self._erasing: set[asyncio.Task[None]] = set()

    # --- chats ----------------------------------------------------------------------------------------------------------

    async def send(self, call: Call) -> Reply:
        """See Upstream.send."""
        given = _chat(call)
        if given is None or (slot := await self._take(call.cube, call.session)) is None:
            return await self._wire.send(call)
        try:
            source = await self._fill(slot, call, given)
            reply = await self._wire.send(replace(call, body=_pinned(call, slot.id)))
            seen = await look(reply, lambda: self._leave(slot))
        except BaseException as error:
            slot.session = ""  # nobody knows what is in it now
            self._leave(slot)
            if isinstance(error, UpstreamBroken):
                raise UpstreamUnreachable(f"upstream {self.name} broke off") from error
            raise
        if seen.cached is not None:
            proven = (f"restored:{seen.cached}", source) if seen.cached else ("cold", "")
            seen.headers = [*seen.headers, *((n, v) for n, v in zip(KV_HEADERS, proven, strict=True) if v)]
        return seen

    async def models(self) -> list[dict[str, object]]:
        """See Upstream.models."""
        return await self._wire.models()

    async def close(self) -> None:
        """See Upstream.close. Sessions that are in slots are saved, so that they go on after a restart of ours."""
        await asyncio.gather(*self._erasing, return_exceptions=True)
        for slot in self._slots:
            if not slot.busy:
                await self._save(slot)
        await self._wire.close()
        await self._server.wire.close()

    async def _take(self, cube: str, session: str) -> Slot | None:
        """A slot for this session, which is busy from now on. None: all are, or the server is away."""
        props = await self._look()
        if props is None:
            return None
        chats = self._slots[:-1] if len(self._slots) >= _BUILDER else self._slots
        free = [slot for slot in chats if not slot.busy]
        if not free:
            return None
        own = [slot for slot in free if session and (slot.cube, slot.session) == (cube, session)]
        slot = own[0] if own else min(free, key=lambda slot: (bool(slot.cube), slot.used))
        slot.busy = True
        return slot

    async def _fill(self, slot: Slot, call: Call, given: Mapping[str, Any]) -> str:
        """Have in the slot what is known of the session; returns where that comes from."""
        if call.session and (slot.cube, slot.session) == (call.cube, call.session):
            return "slot"
        await self._save(slot)
        await self._fit(slot)
        slot.clear()
        restored = await self._restore(slot, call, given)
        slot.cube, slot.session = call.cube, call.session
        return "disk" if restored else "slot"

    async def _restore(self, slot: Slot, call: Call, given: Mapping[str, Any]) -> bool:
        wanted = [("session", call.session)] if call.session else []
        wanted.append(("prefix", self._key(given)))
        try:
            for sort, key in wanted:
                file = await self._find(call.cube, sort, key)
                if file is None:
                    continue
                if await self._server.restore(slot.id, file.name):
                    await self._used(file.name)
                    return True
                if (
                    self._files is not None and await self._look(fresh=True) is not None
                ):  # it is gone, or not what it was
                    await self._files.drop(file.name)
        except DatabaseError as error:
            log.warning("saved states of %s are not known: %s", self.name, error)
        return False

    def _leave(self, slot: Slot) -> None:
        """A chat has left its slot."""
        self._count += 1
        slot.busy, slot.used, slot.dirty = False, self._count, bool(slot.session)
        if slot.forget:
            slot.busy = True
            task = asyncio.create_task(self._erase(slot))
            self._erasing.add(task)
            task.add_done_callback(self._erasing.discard)

    async def _erase(self, slot: Slot) -> None:
        await self._server.erase(slot.id)
        slot.clear()
        slot.busy = False

    async def _save(self, slot: Slot) -> None:
        """Write down a session that may be saved and was not yet."""
        if not (slot.cube and slot.session and slot.dirty and not slot.forget and self._files and self._server.files):
            return
        try:
            name = await self._files.name(slot.cube, "session", slot.session)
            if done := await self._server.save(slot.id, name):
                await self._keep(name, slot.cube, "session", slot.session, done)
                slot.dirty = False
        except DatabaseError as error:
            log.warning("a session at %s was not saved: %s", self.name, error)

    # --- states ---------------------------------------------------------------------------------------------------------

    async def build(self, cube: str, body: bytes, adapter: str = "") -> Built:
        """See KeepsStates."""
        props, given = await self._look(fresh=True), _decoded(body)
        if props is None or given is None:
            return Built("away" if props is None else "refused")
        if self._files is None or not self._server.files:
            return Built("off")
        key = self._key(given)
        try:
            if there := await self._find(cube, "prefix", key):
                return Built("present", there.tokens, there.bytes, key)
            slot = await self._builder()
            if slot is None:
                return Built("busy")
            try:
                return await self._built(slot, cube, given, key)
            finally:
                await self._erase(slot)
        except DatabaseError:
            return Built("away")

    async def _built(self, slot: Slot, cube: str, given: Mapping[str, Any], key: str) -> Built:
        await self._save(slot)
        slot.clear()
        asked = {**given, "messages": [*given["messages"], {"role": "user", "content": "."}], "max_tokens": 1}
        status = await self._read_ahead({**asked, "id_slot": slot.id})
        if status != 200 or self._files is None:
            return Built("away" if status == 0 else "busy" if status in (429, 503) else "refused")
        name = await self._files.name(cube, "prefix", key)
        done = await self._server.save(slot.id, name)
        if done is None:
            return Built("busy" if self._server.files else "off")
        await self._keep(name, cube, "prefix", key, done)
        await self._fit(slot)
        return Built("built", *done, key)

    async def of(self, cube: str) -> list[SavedState]:
        """See KeepsStates."""
        try:
            files = await self._files.of(cube) if self._files else []
        except DatabaseError:
            return []
        return [_told(file) for file in files]

    async def room(self) -> Room | None:
        """See KeepsStates."""
        try:
            files = await self._files.every() if self._files else []
        except DatabaseError:
            return None
        return Room(disk_budget=self._budget, disk_bytes=sum(file.bytes for file in files))

    async def forget(self, cube: str) -> Forgotten:
        """See KeepsStates. Slots of the cube are erased, one that answers when it has answered; its files are deleted, or, where
        the folder is not on this machine, written over with an empty state. Not sure while the server cannot be reached."""
        try:
            files = await self._files.of(cube) if self._files else []
        except DatabaseError:
            return Forgotten(sure=False)
        for slot in self._slots:
            if slot.cube == cube:
                slot.session, slot.forget = "", slot.busy
                if not slot.busy:
                    slot.busy = True
                    await self._erase(slot)
        gone = await self._remove(files)
        return Forgotten(len(files), sum(file.bytes for file in files), gone == len(files))

    async def _remove(self, files: list[SlotFile]) -> int:
        """Leave nothing of these files; how many are gone for sure."""
        if self._files is None or not files:
            return 0
        if self._folder is not None:
            for file in files:
                await asyncio.to_thread((self._folder / file.name).unlink, missing_ok=True)
                await self._files.drop(file.name)
            return len(files)
        if await self._look(fresh=True) is None or (slot := await self._builder()) is None:
            return 0
        await self._save(slot)
        try:
            return await self._write_over(slot, files)
        finally:
            await self._erase(slot)

    async def _write_over(self, slot: Slot, files: list[SlotFile]) -> int:
        """Write an empty state under each name, by a slot whose session is saved."""
        gone = 0
        slot.clear()
        if self._files is not None and await self._server.erase(slot.id):
            for file in files:
                done = await self._server.save(slot.id, file.name)
                if (done is not None and done[0] == 0) or not self._server.files:
                    await self._files.drop(file.name)
                    gone += 1
        return gone

    async def _fit(self, slot: Slot) -> None:
        """Let the states go that are worth least, until the rest are within the budget; by a slot whose session is saved."""
        if self._files is None:
            return
        try:
            now = self._clock()
            files = await self._files.every()
            total, leaving = sum(file.bytes for file in files), []
            for file in sorted(files, key=lambda file: saved.worth(_as_state(file), now)):
                if total <= self._budget:
                    break
                total -= file.bytes
                leaving.append(file)
            if leaving:
                await self._write_over(slot, leaving)
        except DatabaseError as error:
            log.warning("states at %s were not let go of: %s", self.name, error)

    async def _builder(self) -> Slot | None:
        """A slot to work in that no chat needs now, busy from now on."""
        idle = await self._server.idle()
        free = [slot for slot in reversed(self._slots) if not slot.busy and (idle is None or slot.id in idle)]
        if len(self._slots) < _BUILDER:
            free.sort(key=lambda slot: (bool(slot.cube), slot.used))
        if not free:
            return None
        free[0].busy = True
        return free[0]

    async def _read_ahead(self, asked: Mapping[str, Any]) -> int:
        """The status of an answer that nobody reads; 0 when there was none."""
        try:
            reply = await self._wire.send(Call("POST", _CHAT, json.dumps(asked, ensure_ascii=False).encode(), _JSON))
            try:
                async for _ in reply.chunks():
                    pass
            finally:
                await reply.close()
        except (ApiError, UpstreamBroken):
            return 0
        return reply.status

    async def _look(self, *, fresh: bool = False) -> Props | None:
        """What the server is now. When it is another one than before, or was started anew, its slots are taken for empty."""
        if self._props is not None and not fresh and time.monotonic() - self._looked_at < _LOOK_S:
            return self._props
        props = await self._server.props()
        self._looked_at = time.monotonic()
        if props is not None and props != self._props:
            self._slots = [Slot(number) for number in range(props.slots)]
            self._server.files = True
        self._props = props or self._props
        return props

    def _key(self, given: Mapping[str, Any]) -> str:
        """Of what a beginning's state depends on: the server, the messages before the first question, the tools."""
        leading = []
        for message in given["messages"]:
            if not isinstance(message, Mapping) or message.get("role") not in ("system", "developer"):
                break
            leading.append(message)
        parts = [self._props.fingerprint if self._props else "", given.get("model"), leading, given.get("tools") or []]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    async def _find(self, cube: str, sort: str, key: str) -> SlotFile | None:
        file = await self._files.find(cube, sort, key) if self._files else None
        if file is not None and self._folder is not None and self._files is not None:
            path = self._folder / file.name
            if not await asyncio.to_thread(_has, path, file.bytes):
                await self._files.drop(file.name)
                return None
        return file

    async def _keep(self, name: str, cube: str, sort: str, key: str, done: tuple[int, int]) -> None:
        if self._files is not None:
            now = self._clock()
            await self._files.keep(SlotFile(name, cube, sort, key, *done, created=now, used_at=now))

    async def _used(self, name: str) -> None:
        if self._files is not None:
            await self._files.used(name)


def _chat(call: Call) -> dict[str, Any] | None:
    """The request, if it is a chat for which a slot may be chosen."""
    if call.path != _CHAT or call.method != "POST" or not call.cube or not isinstance(call.body, bytes):
        return None
    given = _decoded(call.body)
    return None if given is None or any(name in given for name in _PINS) else given


def _decoded(body: bytes) -> dict[str, Any] | None:
    try:
        given = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    return given if isinstance(given.get("messages"), list) else None


def _pinned(call: Call, slot: int) -> bytes:
    """The body for this slot; a streamed answer shall tell ahead what was there. All other bytes stay."""
    body = call.body if isinstance(call.body, bytes) else b""
    start = body.index(b"{") + 1
    ahead = b'"return_progress":true,' if call.stream else b""
    return body[:start] + b'"id_slot":%d,%s' % (slot, ahead) + body[start:]


def _told(file: SlotFile) -> SavedState:
    session = file.key if file.sort == "session" else None
    here = (file.tokens, file.bytes, False, True)
    return SavedState(file.key, file.sort, *here, session, file.uses, file.used_at, file.created)


def _as_state(file: SlotFile) -> saved.Saved:
    return file


def _has(path: Path, size: int) -> bool:
    """Whether the file is there, as long as it was written."""
    try:
        return path.stat().st_size == size
    except OSError:
        return False
