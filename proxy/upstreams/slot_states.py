"""The states that lie with a llama-server: read ahead, listed, forgotten. What is in the slots of chats: slot_table.py."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from memory.sql import DatabaseError
from proxy.errors import ApiError
from proxy.upstreams.port import CHAT_PATH, Call, UpstreamBroken
from proxy.upstreams.slot_files import SlotFile
from proxy.upstreams.slot_table import SlotTable
from proxy.upstreams.slots import Slot, decoded
from proxy.upstreams.states import Built, Forgotten, Room, SavedState
from proxy.upstreams.wire import WireUpstream

log = logging.getLogger(__name__)
_JSON = [("content-type", "application/json"), ("accept", "application/json")]


class SlotStates:
    """Implements KeepsStates over one server's slots and files."""

    def __init__(self, wire: WireUpstream, table: SlotTable) -> None:
        self.name = wire.name
        self._wire = wire
        self._table = table

    async def build(self, cube: str, body: bytes, adapter: str = "") -> Built:
        """See KeepsStates."""
        props, given = await self._table.look(fresh=True), decoded(body)
        if props is None or given is None:
            return Built("away" if props is None else "refused")
        if self._table.files is None or not self._table.server.files:
            return Built("off")
        key = self._table.key(given)
        try:
            if there := await self._table.find(cube, "prefix", key):
                return Built("present", there.tokens, there.bytes, key)
            slot = await self._table.builder()
            if slot is None:
                return Built("busy")
            try:
                return await self._built(slot, cube, given, key)
            finally:
                await self._table.erase(slot)
        except DatabaseError:
            return Built("away")

    async def _built(self, slot: Slot, cube: str, given: Mapping[str, Any], key: str) -> Built:
        await self._table.save(slot)
        slot.clear()
        slot.mark = await self._table.mark(cube)
        asked = {**given, "messages": [*given["messages"], {"role": "user", "content": "."}], "max_tokens": 1}
        status = await self._read_ahead({**asked, "id_slot": slot.id})
        if status != 200 or self._table.files is None:
            return Built("away" if status == 0 else "busy" if status in (429, 503) else "refused")
        name = await self._table.files.name(cube, "prefix", key)
        done = await self._table.server.save(slot.id, name)
        if done is None:
            return Built("busy" if self._table.server.files else "off")
        if not await self._table.keep(slot, name, cube, "prefix", key, done):
            return Built("busy")
        await self._table.fit(slot)
        return Built("built", *done, key)

    async def of(self, cube: str) -> list[SavedState]:
        """See KeepsStates."""
        try:
            files = await self._table.files.of(cube) if self._table.files else []
        except DatabaseError:
            return []
        return [_told(file) for file in files]

    async def room(self) -> Room | None:
        """See KeepsStates."""
        try:
            files = await self._table.files.every() if self._table.files else []
        except DatabaseError:
            return None
        return Room(disk_budget=self._table.budget, disk_bytes=sum(file.bytes for file in files))

    async def forget(self, cube: str) -> Forgotten:
        """See KeepsStates. Slots of the cube are erased, one that answers when it has answered; its files are deleted, or, where
        the folder is not on this machine, written over with an empty state. Not sure while the server cannot be reached."""
        try:
            if self._table.files is not None:
                await self._table.files.forgotten(cube)
            files = await self._table.files.of(cube) if self._table.files else []
        except DatabaseError:
            return Forgotten(sure=False)
        for slot in self._table.slots:
            if slot.cube == cube:
                slot.session, slot.forget = "", slot.busy
                if not slot.busy:
                    slot.busy = True
                    await self._table.erase(slot)
        try:
            gone = await self._remove(files)
        except (DatabaseError, OSError) as error:
            log.error("states at %s could not be removed: %s", self.name, type(error).__name__)
            gone = 0
        return Forgotten(len(files), sum(file.bytes for file in files), gone == len(files))

    async def _remove(self, files: list[SlotFile]) -> int:
        """Leave nothing of these files; how many are gone for sure."""
        if self._table.files is None or not files:
            return 0
        if self._table.folder is not None:
            for file in files:
                await asyncio.to_thread((self._table.folder / file.name).unlink, missing_ok=True)
                await self._table.files.drop(file.name)
            return len(files)
        if await self._table.look(fresh=True) is None or (slot := await self._table.builder()) is None:
            return 0
        await self._table.save(slot)
        try:
            return await self._table.write_over(slot, files)
        finally:
            await self._table.erase(slot)

    async def _read_ahead(self, asked: Mapping[str, Any]) -> int:
        """The status of an answer that nobody reads; 0 when there was none."""
        try:
            reply = await self._wire.send(
                Call("POST", CHAT_PATH, json.dumps(asked, ensure_ascii=False).encode(), _JSON)
            )
            try:
                async for _ in reply.chunks():
                    pass
            finally:
                await reply.close()
        except (ApiError, UpstreamBroken):
            return 0
        return reply.status


def _told(file: SlotFile) -> SavedState:
    here = (file.tokens, file.bytes, False, True)
    return SavedState(file.key, file.sort, *here, None, file.uses, file.used_at, file.created)
