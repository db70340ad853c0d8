"""Where a chat stands: whose cube, which session, and what may be done with memory there. Knows no hits and no prompt."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from memory.cube import Cube, Cubes
from memory.grants import ARCHIVED, ERASED, Grants, Level
from memory.turns import SAME_TURN_S, TurnLog
from memory.types import stable_id
from proxy.auth import access, cube_of, named_cube
from proxy.blocks import Blocks, Recalled
from proxy.config import Sessions
from proxy.hooks import Exchange
from proxy.sessions import Conversation

_LOOKED_BACK = 3  # answers of a resent history by which its session is looked for


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a chat stands: its cube, its session, and what may be done with memory. `info` is the cube's row, None when
    there is none yet; `guest` is who writes into another's cube."""

    cube: str
    info: Cube | None
    home: bool  # the cube is made when it is first written to
    guest: str
    session: str
    named: bool  # the client named the session
    conversation: Conversation
    reads: bool
    writes: bool
    old: Mapping[str, Recalled]
    begins: bool  # nobody has heard of the session before


class Scenes:
    """Finds the scene of a chat."""

    def __init__(
        self,
        *,
        reading: Sessions,
        cubes: Cubes,
        grants: Grants,
        turns: TurnLog,
        blocks: Blocks,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reading = reading
        self._cubes = cubes
        self._grants = grants
        self._turns = turns
        self._blocks = blocks
        self._clock = clock

    async def find(self, exchange: Exchange, conversation: Conversation, mode: str) -> Scene:
        cube = self.cube(exchange)
        info = await self._cubes.get(cube)
        if info is not None and info.status == ERASED:
            info = None
        may_write = await self.may_write(exchange, mode)
        named = self.named_session(exchange)
        salt = named or ""
        old = await self._blocks.at(cube, [stable_id(salt, anchor) for _, anchor in conversation.anchors])
        session = self._session(exchange, info)
        session = session or conversation.session or await self._continued(cube, conversation, old)
        scene = self.make(exchange, conversation, mode, cube, session, named, old)
        archived = info is not None and info.status == ARCHIVED
        return replace(
            scene,
            info=info,
            guest=exchange.principal.id if info is not None and info.owner != exchange.principal.id else "",
            reads=scene.reads and not archived,
            writes=scene.writes and may_write and not archived,
        )

    def blind(self, exchange: Exchange, conversation: Conversation, mode: str) -> Scene:
        """What can be said without the database, so that the turn can still be recorded when it comes back."""
        cube, named = self.cube(exchange), self.named_session(exchange)
        session = self._session(exchange, None)
        return self.make(exchange, conversation, mode, cube, session, named, {})

    def make(
        self,
        exchange: Exchange,
        conversation: Conversation,
        mode: str,
        cube: str,
        session: str,
        named: str,
        old: Mapping[str, Recalled],
    ) -> Scene:
        principal = exchange.principal
        return Scene(
            cube=cube,
            info=None,
            home=not named_cube(exchange.headers) or cube == self._home(exchange),
            guest="",
            session=session or str(uuid.uuid4()),
            named=bool(named),
            conversation=conversation,
            reads=mode in ("on", "read") and principal.has("memory:read") and not named.startswith("channel:"),
            writes=mode in ("on", "write") and principal.has("memory:write") and not passing(named),
            old=old,
            begins=not session,
        )

    async def may_write(self, exchange: Exchange, mode: str) -> bool:
        """Whether turns may be recorded; when the client names a cube, it must be one that it may use. Raises NotFound,
        Forbidden."""
        if not named_cube(exchange.headers):
            return True
        found = await access(
            self._grants, exchange.principal, exchange.headers, exchange.body, self._reading.user_headers
        )
        if mode == "write":
            found.require("memory:write", "GET")
        return found.level is not Level.READ

    def cube(self, exchange: Exchange) -> str:
        return named_cube(exchange.headers) or self._home(exchange)

    def named_session(self, exchange: Exchange) -> str:
        return named_session(exchange.headers, self._reading)

    def _session(self, exchange: Exchange, info: Cube | None) -> str:
        """The id of the session that the client names. Two principals who use one cube may both name theirs "1"."""
        named, principal = self.named_session(exchange), exchange.principal.id
        if not named:
            return ""
        cube = self.cube(exchange)
        own = info is None or info.owner == principal
        return stable_id(cube, "session", named) if own else stable_id(cube, "session", named, principal)

    async def _continued(self, cube: str, conversation: Conversation, old: Mapping[str, Recalled]) -> str:
        """The session that a resent history belongs to. Its newest answer may come back changed (cut off, without its
        thoughts, joined with tool rounds): then an earlier answer tells, or a block that stood in the history."""
        for place in reversed(conversation.places[-_LOOKED_BACK:]):
            if session := await self._turns.session_at(cube, place):
                return session
        for index, anchor in reversed(conversation.anchors):
            known = old.get(stable_id("", anchor))
            again = conversation.later_round or (known and self._clock() - known.at < SAME_TURN_S)
            if known and (index < conversation.asks or again):
                return known.session
        return ""

    def _home(self, exchange: Exchange) -> str:
        return cube_of(exchange.principal, exchange.headers, exchange.body, self._reading.user_headers)


def named_session(headers: Mapping[str, str], reading: Sessions) -> str:
    """The session that the client names; empty when it names none."""
    return next((headers[n].strip()[:512] for n in reading.session_headers if headers.get(n, "").strip()), "")


def passing(named: str) -> bool:
    """Whether nothing of the session with this name is to be stored: it is temporary, or has many users (a channel)."""
    return named.startswith(("temporary:", "local:", "channel:"))
