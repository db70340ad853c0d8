"""The upstream kind `llama_server`: a running llama-server, its slots given to sessions, their states in its slot files.

A chat with a cube goes to the slot that has its session; another's is saved first, and what is known of this one is restored (the
session, or the beginning that was read ahead). All other bytes go through as with kind openai. What of a prompt was there is taken
from the server's own figures, never from what we meant it to do. A server without slot files keeps sessions in slots alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from memory.sql import DatabaseError
from proxy.errors import UpstreamUnreachable
from proxy.upstreams.kv_reply import look
from proxy.upstreams.port import CHAT_PATH, KV_HEADERS, Call, Reply, UpstreamBroken
from proxy.upstreams.slot_table import SlotTable
from proxy.upstreams.slots import Slot, decoded
from proxy.upstreams.wire import WireUpstream

log = logging.getLogger(__name__)
_PINS = ("id_slot", "cache_prompt", "return_progress")  # a client that sets these has plans of its own


class LlamaServer:
    """One server. Implements Upstream."""

    kind = "llama_server"

    def __init__(self, wire: WireUpstream, table: SlotTable) -> None:
        self.name = wire.name
        self._wire = wire
        self._table = table

    async def send(self, call: Call) -> Reply:
        """See Upstream.send."""
        given = _chat(call)
        if given is None or (slot := await self._table.take(call.cube, call.session)) is None:
            return await self._wire.send(call)
        try:
            source = await self._fill(slot, call, given)
            reply = await self._wire.send(replace(call, body=_pinned(call, slot.id)))
            seen = await look(reply, lambda: self._table.leave(slot))
        except BaseException as error:
            slot.session = ""  # nobody knows what is in it now
            self._table.leave(slot)
            if isinstance(error, UpstreamBroken):
                raise UpstreamUnreachable(f"upstream {self.name} broke off") from error
            raise
        if seen.cached is not None:
            proven = (f"restored:{seen.cached}", source) if seen.cached else ("cold", "")
            seen.headers = [*seen.headers, *((n, v) for n, v in zip(KV_HEADERS[:2], proven, strict=True) if v)]
        return seen

    async def models(self) -> list[dict[str, object]]:
        """See Upstream.models."""
        return await self._wire.models()

    async def close(self) -> None:
        """See Upstream.close. Sessions that are in slots are saved, so that they go on after a restart of ours."""
        await asyncio.gather(*self._table.erasing, return_exceptions=True)
        for slot in self._table.slots:
            if not slot.busy:
                await self._table.save(slot)
        await self._wire.close()
        await self._table.server.wire.close()

    async def _fill(self, slot: Slot, call: Call, given: Mapping[str, Any]) -> str:
        """Have in the slot what is known of the session; returns where that comes from."""
        if call.session and (slot.cube, slot.session) == (call.cube, call.session):
            if await self._table.fresh(slot):
                return "slot"
            await self._table.server.erase(slot.id)
            slot.clear()
        await self._table.save(slot)
        await self._table.fit(slot)
        slot.clear()
        slot.mark = await self._table.mark(call.cube)
        restored = await self._restore(slot, call, given)
        slot.cube, slot.session = call.cube, call.session
        return "disk" if restored else "slot"

    async def _restore(self, slot: Slot, call: Call, given: Mapping[str, Any]) -> bool:
        if await self._table.look(fresh=True) is None:  # a state of another model's must not come back into this one
            return False
        wanted = [("session", self._table.session_key(call.session))] if call.session else []
        wanted.append(("prefix", self._table.key(given)))
        try:
            for sort, key in wanted:
                file = await self._table.find(call.cube, sort, key)
                if file is None:
                    continue
                if await self._table.server.restore(slot.id, file.name):
                    await self._table.used(file.name)
                    return True
                if self._table.files is not None and await self._table.look(fresh=True) is not None:
                    await self._table.files.drop(file.name)  # it is gone, or not what it was
        except DatabaseError as error:
            log.warning("saved states of %s are not known: %s", self.name, error)
        return False


def _chat(call: Call) -> dict[str, Any] | None:
    """The request, if it is a chat for which a slot may be chosen."""
    if call.path != CHAT_PATH or call.method != "POST" or not call.cube or not isinstance(call.body, bytes):
        return None
    given = decoded(call.body)
    return None if given is None or any(name in given for name in _PINS) else given


def _pinned(call: Call, slot: int) -> bytes:
    """The body for this slot; a streamed answer shall tell ahead what was there. All other bytes stay."""
    body = call.body if isinstance(call.body, bytes) else b""
    start = body.index(b"{") + 1
    ahead = b'"return_progress":true,' if call.stream else b""
    return body[:start] + b'"id_slot":%d,%s' % (slot, ahead) + body[start:]
