"""Who has which slot of a llama-server, and which files hold what was saved of them. One per process and server: what another
process does with the slots shows in what the server says of each answer, never as a wrong one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from memory.sql import DatabaseError
from proxy import saved
from proxy.upstreams.slot_files import SlotFile, SlotFiles
from proxy.upstreams.slots import Props, Server, Slot

log = logging.getLogger(__name__)
_LOOK_S = 2.0  # so long what the server said of itself is believed
_BUILDER = 3  # from so many slots on the last one is for reading ahead, and no chat's


class SlotTable:
    """The slots of one server. `files` None: nothing is saved; `folder`: the server's --slot-save-path, where this machine has it;
    `budget`: bytes of all saved states."""

    def __init__(
        self,
        name: str,
        server: Server,
        files: SlotFiles | None,
        *,
        folder: Path | None = None,
        budget: int = 4096 << 20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.server = server
        self.files = files
        self.folder = folder
        self.budget = budget
        self.slots: list[Slot] = []
        self.erasing: set[asyncio.Task[None]] = set()
        self._clock = clock
        self._props: Props | None = None
        self._looked_at = -_LOOK_S
        self._count = 0

    async def take(self, cube: str, session: str) -> Slot | None:
        """A slot for this session, which is busy from now on. None: all are, or the server is away."""
        props = await self.look()
        if props is None:
            return None
        chats = self.slots[:-1] if len(self.slots) >= _BUILDER else self.slots
        free = [slot for slot in chats if not slot.busy]
        if not free:
            return None
        own = [slot for slot in free if session and (slot.cube, slot.session) == (cube, session)]
        slot = own[0] if own else min(free, key=lambda slot: (bool(slot.cube), slot.used))
        slot.busy = True
        return slot

    def leave(self, slot: Slot) -> None:
        """A chat has left its slot."""
        self._count += 1
        slot.busy, slot.used, slot.dirty = False, self._count, bool(slot.session)
        if slot.forget:
            slot.busy = True
            task = asyncio.create_task(self.erase(slot))
            self.erasing.add(task)
            task.add_done_callback(self.erasing.discard)

    async def erase(self, slot: Slot) -> None:
        """Empty a slot that is busy, and free it."""
        await self.server.erase(slot.id)
        slot.clear()
        slot.busy = False

    async def save(self, slot: Slot) -> None:
        """Write down a session that may be saved and was not yet."""
        if not (slot.cube and slot.session and slot.dirty and not slot.forget and self.files and self.server.files):
            return
        try:
            if not await self.fresh(slot):
                await self.server.erase(slot.id)
                slot.clear()
                return
            cube, key = slot.cube, self.session_key(slot.session)
            name = await self.files.name(cube, "session", key)
            if done := await self.server.save(slot.id, name):
                if not await self.keep(slot, name, cube, "session", key, done):
                    slot.clear()
                slot.dirty = False
        except DatabaseError as error:
            log.warning("a session at %s was not saved: %s", self.name, error)

    async def fit(self, slot: Slot) -> None:
        """Let the states go that are worth least, until the rest are within the budget; by a slot whose session is saved."""
        if self.files is None:
            return
        try:
            now = self._clock()
            files = await self.files.every()
            total, leaving = sum(file.bytes for file in files), []
            for file in sorted(files, key=lambda file: saved.worth(_as_state(file), now)):
                if total <= self.budget:
                    break
                total -= file.bytes
                leaving.append(file)
            if leaving:
                await self.write_over(slot, leaving)
        except DatabaseError as error:
            log.warning("states at %s were not let go of: %s", self.name, error)

    async def write_over(self, slot: Slot, files: list[SlotFile]) -> int:
        """Write an empty state under each name, by a slot whose session is saved."""
        gone = 0
        slot.clear()
        if self.files is not None and await self.server.erase(slot.id):
            for file in files:
                done = await self.server.save(slot.id, file.name)
                if done is not None and done[0] == 0:
                    await self.files.drop(file.name)
                    gone += 1
        return gone

    async def builder(self) -> Slot | None:
        """A slot to work in that no chat needs now, busy from now on."""
        idle = await self.server.idle()
        free = [slot for slot in reversed(self.slots) if not slot.busy and (idle is None or slot.id in idle)]
        if len(self.slots) < _BUILDER:
            free.sort(key=lambda slot: (bool(slot.cube), slot.used))
        if not free:
            return None
        free[0].busy = True
        return free[0]

    async def look(self, *, fresh: bool = False) -> Props | None:
        """What the server is now. When it is another one than before, or was started anew, its slots are taken for empty."""
        if self._props is not None and not fresh and time.monotonic() - self._looked_at < _LOOK_S:
            return self._props
        props = await self.server.props()
        self._looked_at = time.monotonic()
        if props is not None and props != self._props:
            self.slots = [Slot(number) for number in range(props.slots)]
            self.server.files = True
        self._props = props or self._props
        return props

    async def find(self, cube: str, sort: str, key: str) -> SlotFile | None:
        """A file of the cube that is there, as far as that can be seen. Raises DatabaseError."""
        file = await self.files.find(cube, sort, key) if self.files else None
        if file is not None and self.folder is not None and self.files is not None:
            path = self.folder / file.name
            if not await asyncio.to_thread(_has, path, file.bytes):
                await self.files.drop(file.name)
                return None
        return file

    async def mark(self, cube: str) -> int:
        """How often the cube was forgotten; -1 when that is not known."""
        try:
            return await self.files.mark(cube) if self.files else -1
        except DatabaseError:
            return -1

    async def fresh(self, slot: Slot) -> bool:
        """Whether nobody, in whatever process, has forgotten the slot's cube since it was filled."""
        return self.files is None or (slot.mark >= 0 and await self.mark(slot.cube) == slot.mark)

    async def keep(self, slot: Slot, name: str, cube: str, sort: str, key: str, done: tuple[int, int]) -> bool:
        """Write down what of a slot lies under a name: (tokens, bytes). When the cube was forgotten meanwhile, the slot and the
        file are emptied instead; then False. Raises DatabaseError."""
        if self.files is None:
            return False
        now = self._clock()
        file = SlotFile(name, cube, sort, key, *done, created=now, used_at=now)
        if await self.files.keep(file, slot.mark):
            return True
        await self.server.erase(slot.id)
        if self.folder is not None:
            await asyncio.to_thread((self.folder / name).unlink, missing_ok=True)
        else:
            await self.server.save(slot.id, name)
        return False

    async def used(self, name: str) -> None:
        """Note that a file was restored. Raises DatabaseError."""
        if self.files is not None:
            await self.files.used(name)

    def key(self, given: Mapping[str, Any]) -> str:
        """Of what a beginning's state depends on: the server, the messages before the first question, the tools."""
        leading = []
        for message in given["messages"]:
            if not isinstance(message, Mapping) or message.get("role") not in ("system", "developer"):
                break
            leading.append(message)
        return self._hash(given.get("model"), leading, given.get("tools") or [])

    def session_key(self, session: str) -> str:
        """The same of a session's state, which ends wherever it had come to."""
        return self._hash(session)

    def _hash(self, *parts: Any) -> str:
        whole = [self._props.fingerprint if self._props else "", *parts]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def _as_state(file: SlotFile) -> saved.Saved:
    return file


def _has(path: Path, size: int) -> bool:
    """Whether the file is there, as long as it was written."""
    try:
        return path.stat().st_size == size
    except OSError:
        return False
