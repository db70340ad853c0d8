"""Activation: what a cube's next session begins with is read by the model before anybody asks, and forgotten with the memories.

The way of a change: something is learned, edited or forgotten (scheduler/triggers.py), or a session is foreseen → the stable block
as it would be injected now, at the end of each beginning that the cube's chats are known to have → whoever keeps states for that
model computes and saves it, unless it has it. What is worth the room is for the policy to say. A guess that is wrong costs idle
time and nothing else: the engine compares every prompt token by token with what it has.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memory.cube import Cubes
from memory.grants import ACTIVE
from proxy import inject
from proxy.errors import ApiError
from proxy.heads import Head, Heads, item
from proxy.splice import CannotSplice, splice
from proxy.standing import Standing
from proxy.upstreams.routing import Routes
from proxy.upstreams.states import Built, Forgotten, KeepsStates, Room, SavedState
from scheduler.jobs import Arguments
from scheduler.policy import Budget, Tier, place

MOST = 3  # beginnings of a cube that are held ready
SHARE = 8  # a cube may take the room that is free, or one part in so many of all
AGAIN = 0.8  # the chance that a session which is said to be about to begin does
_TOKEN = 24_000  # bytes of a token's state, where none was built yet
_CHARS = 4  # of a token, about


@dataclass(frozen=True, slots=True)
class Activated:
    """What became of a cube's beginnings: how many by their state (see upstreams.states.Built), and what those that are there
    take. `action`: activated; nothing, no beginning is known or there is no such cube; overtaken, something of what it begins with
    was erased meanwhile, and nothing is kept."""

    action: str
    states: Mapping[str, int]
    tokens: int = 0
    bytes: int = 0

    @property
    def ready(self) -> bool:
        """Whether the next session finds one."""
        return any(self.states.get(state) for state in ("built", "present", "slot"))


@dataclass(frozen=True, slots=True)
class Keeping:
    """What one keeper has of a cube."""

    upstream: str
    states: Sequence[SavedState]
    room: Room | None


class Activation:
    """Made once per process; the proxy and the executor each have one."""

    def __init__(
        self,
        *,
        routes: Routes,
        cubes: Cubes,
        heads: Heads,
        standing: Standing,
        clock: Any,
        adapter: Callable[[str], Awaitable[str]] | None = None,
    ) -> None:
        """`adapter`: under which a local model answers a cube's chats, empty for none; without it, all are answered without."""
        self._routes = routes
        self._cubes = cubes
        self._heads = heads
        self._standing = standing
        self._clock = clock
        self._adapter = adapter

    async def adapter(self, cube: str) -> str:
        """Under which adapter a local model answers the cube's chats; empty: none. Raises DatabaseError."""
        return await self._adapter(cube) if self._adapter else ""

    def kept(self, model: str) -> bool:
        """Whether states are kept for this model."""
        try:
            return self._routes.states_of(model) is not None
        except ApiError:
            return False

    def heard(self, cube: str, head: Head | None) -> None:
        """A session of the cube has begun so."""
        self._heads.heard(cube, head)

    async def task(self, cube: str, _: Arguments) -> dict[str, Any]:
        """Run as a job."""
        done = await self.activate(cube)
        return {"action": done.action, **done.states, "tokens": done.tokens, "bytes": done.bytes}

    async def activate(self, cube: str, expected: float | None = None) -> Activated:
        """Have the states that the cube's next session may begin with; `expected`: the chance that it begins soon. Raises
        DatabaseError."""
        info = await self._cubes.get(cube)
        heads = await self._heads.of(cube) if info is not None and info.status == ACTIVE else []
        if not heads:
            return Activated("nothing", {})
        begins, adapter = await self._standing.block(cube), await self.adapter(cube)
        block = begins.text
        states: dict[str, int] = {}
        tokens = size = 0
        for head in await self._worth(cube, heads, block, expected):
            keeper, body = self._keeper(head), _begun(head, block)
            if keeper is None or body is None:
                continue
            built = await keeper.build(cube, body, adapter)
            states[built.state] = states.get(built.state, 0) + 1
            now = await self._standing.block(cube)
            if set(begins.memories) - set(now.memories):  # something of it was erased, or holds no longer
                await self.forget(cube)
                return Activated("overtaken", {})
            if built.there:
                tokens, size = tokens + built.tokens, size + built.bytes
                await self._note(cube, head, built)
            if now.text != block:  # what has changed it has this done again
                break
        return Activated("activated", states, tokens, size)

    async def read_ahead(self, cube: str) -> bool:
        """The same for the proxy, when a session is about to begin: whether a state is ready. Raises DatabaseError."""
        return (await self.activate(cube, AGAIN)).ready

    async def forget(self, cube: str) -> Forgotten:
        """Drop every state of a cube, wherever one may be; for before it is said that something was erased."""
        return await self._routes.forget(cube)

    async def kept_of(self, cube: str) -> list[Keeping]:
        """What there is of a cube, by keeper."""
        return [Keeping(k.name, await k.of(cube), await k.room()) for k in self._routes.keepers()]

    async def _worth(self, cube: str, heads: Sequence[Head], block: str, expected: float | None) -> list[Head]:
        """The beginnings that are worth their room, the best first."""
        budgets = [await self._budget(cube, keeper) for keeper in self._routes.keepers()]
        items = [item(head, size=_size(head, block), expected=expected) for head in heads]
        found = place(items, Budget({Tier.KV: max(budgets, default=0)}), self._clock())
        kept = [head for head in heads if found[head.id].tier is Tier.KV]
        kept.sort(key=lambda head: (-found[head.id].value.total, head.id))
        return kept[:MOST]

    @staticmethod
    async def _budget(cube: str, keeper: KeepsStates) -> int:
        """Bytes that a cube's states may take: what is free and what it has, or its share of all."""
        room = await keeper.room()
        if room is None or room.disk_budget is None:
            return 1 << 62
        own = sum(state.bytes for state in await keeper.of(cube) if state.disk)
        return max(room.disk_budget - room.disk_bytes + own, room.disk_budget // SHARE)

    def _keeper(self, head: Head) -> KeepsStates | None:
        try:
            return self._routes.states_of(head.model)
        except ApiError:  # that model is not served any more
            return None

    async def _note(self, cube: str, head: Head, built: Built) -> None:
        if (built.tokens, built.bytes) != (head.tokens, head.size):
            await self._heads.built(cube, head.id, built.tokens, built.bytes)


def _begun(head: Head, block: str) -> bytes | None:
    """The beginning with the block in it, byte for byte as a chat has it; None: it has no words before the question."""
    raw = head.body()
    try:
        edited = splice(raw, edits) if (edits := inject.edits(head.messages, block, {})) else raw
    except CannotSplice:
        return None
    return edited if head.messages or head.tools or block else None


def _size(head: Head, block: str) -> int:
    """Bytes of its state: of the last one that was built, else about."""
    if head.size:
        return head.size
    return (len(head.body()) + len(block)) // _CHARS * _TOKEN
