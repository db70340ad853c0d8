"""Memory as a hook: before a chat, what is known goes into it; after it, what was said is written down.

The way of a request: whose cube and which session → what stood in earlier turns is put there again → memories are retrieved
under a deadline → blocks are spliced in. The way of an answer: the turn is made durable → the working set learns it →
a trigger fires. Whatever fails, the chat goes on without memory and the response says `x-memory-state: degraded:<reason>`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from memory.agenda import Agenda
from memory.cube import Cube, Cubes
from memory.grants import ARCHIVED, Grants
from memory.memories import Memories
from memory.retrieve import Result, Retriever
from memory.sql import DatabaseError
from memory.turns import SAME_TURN_S, TurnLog
from memory.types import stable_id
from memory.words import tokens
from proxy import fence, inject, sessions
from proxy.activating import Activation
from proxy.blocks import Begun, Blocks, Recalled, Spawn
from proxy.config import MemorySettings, Sessions
from proxy.errors import ApiError, BadRequest
from proxy.foresight import Foresight
from proxy.gate import Gate
from proxy.heads import head_of
from proxy.hooks import Exchange, Hook
from proxy.metrics import Metrics
from proxy.recall import Recall
from proxy.record import Record
from proxy.scene import Scene, Scenes
from proxy.sessions import Conversation
from proxy.splice import CannotSplice
from proxy.standing import Standing
from scheduler.executor import where
from scheduler.triggers import INDEX_BROKEN, QUERY_ARRIVED, Triggers

log = logging.getLogger(__name__)
MODES = ("on", "off", "read", "write")
_AT_A_TIME = 4
_NEAR = 3  # turns in which a memory that was shown is not shown again


class Remember(Hook):
    """The memory hook. One per proxy."""

    def __init__(
        self,
        *,
        settings: MemorySettings,
        reading: Sessions,
        secret: bytes,
        cubes: Cubes,
        grants: Grants,
        turns: TurnLog,
        memories: Memories,
        standing: Standing,
        retriever: Retriever,
        agenda: Agenda,
        blocks: Blocks,
        foresight: Foresight,
        states: Activation,
        triggers: Triggers,
        metrics: Metrics,
        spawn: Spawn,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._reading = reading
        self._secret = secret
        self._standing = standing
        self._blocks = blocks
        self._foresight = foresight
        self._states = states
        self._triggers = triggers
        self._metrics = metrics
        self._clock = clock
        self._scenes = Scenes(reading=reading, cubes=cubes, grants=grants, turns=turns, blocks=blocks, clock=clock)
        self._recall = Recall(settings, retriever, memories, agenda)
        self._record = Record(
            settings=settings,
            turns=turns,
            memories=memories,
            retriever=retriever,
            blocks=blocks,
            foresight=foresight,
            triggers=triggers,
            metrics=metrics,
            spawn=spawn,
            clock=clock,
        )
        self._gate = Gate(_AT_A_TIME)
        self._record.quiet = self._gate.empty
        foresight.busy = self._gate.locked
        retriever.give_way(self._gate.locked)
        triggers.give_way(self._gate.locked)

    # --- before ---------------------------------------------------------------------------------------------------------

    async def on_request(self, exchange: Exchange) -> None:
        """Inject what is known. Memory's faults never fail a chat; raises BadRequest for an X-Memory that means nothing,
        NotFound and Forbidden for an X-Memory-Cube that may not be used so."""
        started = time.perf_counter()
        mode = exchange.headers.get("x-memory", "on").strip().lower() or "on"
        if mode not in MODES:
            raise BadRequest(f"X-Memory must be one of {', '.join(MODES)}", param="X-Memory")
        conversation = None
        if mode != "off" and not sessions.is_task(exchange.as_chat, exchange.headers, self._reading.task_markers):
            conversation = await self._read(exchange)
        state = "off"
        if conversation is not None:
            state = await self._guarded(exchange, conversation, mode)
            self._asked(exchange.notes["scene"])
        exchange.response_headers["x-memory-state"] = state
        exchange.response_headers["x-memory-ms"] = f"{(time.perf_counter() - started) * 1000:.1f}"
        self._metrics.memory.labels(state.partition(":")[0]).inc()
        self._metrics.retrieval.observe(time.perf_counter() - started)

    def _asked(self, scene: Scene) -> None:
        """Say that a question has arrived, if anybody listens."""
        archived = scene.info is not None and scene.info.status == ARCHIVED
        if self._triggers.heard(QUERY_ARRIVED) and not archived and not scene.conversation.later_round:
            self._triggers.tell(QUERY_ARRIVED, scene.cube)

    async def _read(self, exchange: Exchange) -> Conversation | None:
        """The conversation; where its history is at the upstream, with what is known of that."""
        follows = exchange.told_as.follows  # what stands before it is in the request already
        answer = follows or exchange.surface.goes_on(exchange.body)
        if not answer:
            return sessions.read(exchange.messages)
        known = None
        try:
            async with asyncio.timeout(self._settings.deadline_ms / 1000):
                known = await self._blocks.before(self._scenes.cube(exchange), answer)
        except (TimeoutError, DatabaseError) as error:
            log.warning("chat %s: what stood before it is not known (%s)", exchange.id, type(error).__name__)
        if follows:
            conversation = sessions.read(exchange.messages)
            return replace(conversation, session=known.session) if conversation and known else conversation
        return sessions.read(exchange.messages, known or sessions.unknown(answer))

    async def _guarded(self, exchange: Exchange, conversation: Conversation, mode: str) -> str:
        """Find the scene and inject, under the deadline; returns the state."""
        try:
            async with self._gate.turn(self._settings.deadline_ms / 1000):
                if mode != "write":
                    self._recall.expect(conversation)  # it is embedded meanwhile
                scene = await self._scenes.find(exchange, conversation, mode)
                exchange.notes["scene"] = scene
                if scene.info is not None and scene.info.status == ARCHIVED:
                    return "off"
                if scene.reads:
                    exchange.cube, exchange.session = scene.cube, scene.session if scene.writes else ""
                    exchange.adapter = await self._states.adapter(scene.cube)
                return await self._inject(exchange, scene) if scene.reads else "empty"
        except ApiError:
            raise
        except TimeoutError:
            reason = "deadline"
        except DatabaseError as error:
            reason = f"database {error}".replace(" ", "_")
        except CannotSplice:
            return "empty"
        except Exception as error:  # memory's fault is not the chat's
            log.error("memory failed for %s: %s\n%s", exchange.id, type(error).__name__, where(error))
            reason = "error"
        log.warning("chat %s goes on without memory: %s", exchange.id, reason)
        if "scene" not in exchange.notes:
            exchange.notes["scene"] = self._scenes.blind(exchange, conversation, mode)
        return f"degraded:{reason}"

    async def _inject(self, exchange: Exchange, scene: Scene) -> str:
        conversation = scene.conversation
        mark = fence.nonce(self._secret, scene.cube, scene.session)
        named = self._scenes.named_session(exchange)
        recalls: dict[int, str] = {}
        for index, anchor in conversation.anchors:
            known = scene.old.get(stable_id(named, anchor))
            if known is not None:
                recalls[index] = known.recall
        cube = scene.info
        begun, new = await self._begin(scene, cube)
        degraded = None
        anchor = stable_id(named, conversation.anchor)
        now = scene.old.get(anchor)
        shown: tuple[str, ...] = ()
        if conversation.later_round and now:  # the same block in every round of a turn, also when there was none
            shown = now.memories
        elif conversation.asks >= 0:
            first = new or (not conversation.places and bool(now) and _is_recent(now, self._clock()))
            near, before = _near(scene, named), now if now and now.session == scene.session else None
            block, degraded = await self._recall.block(
                exchange, scene, cube, begun, mark, first=first, near=near, before=before
            )
            recalls[conversation.asks] = block.text
            shown = block.memories
            at, rev = self._clock(), cube.rev if cube else 0
            if block.text or begun.stable or exchange.body.get("tools") or now:
                self._blocks.keep(scene.cube, Recalled(anchor, scene.session, at, block.text, shown, rev))
        if new and scene.writes and self._states.kept(exchange.model):
            exchange.notes["head"] = head_of(exchange.model, exchange.messages, exchange.as_chat.get("tools"))
        exchange.edit(inject.edits(exchange.messages, begun.stable, recalls))
        ids = tuple(dict.fromkeys((*begun.memories, *shown, *exchange.notes.get("stood", ()))))
        exchange.notes["shown"] = shown
        found = exchange.notes.get("found")
        if isinstance(found, Result):
            ahead = self._foresight.asked(scene.cube, scene.session, found.hits, found.scores, shown, begins=new)
            exchange.response_headers["x-memory-foreseen"] = str(ahead)
        if ids:
            exchange.response_headers["x-memory-ids"] = ",".join(ids[:100])
        cost = tokens(begun.stable) + sum(tokens(text) for text in recalls.values())
        exchange.response_headers["x-memory-tokens"] = str(cost)
        if degraded:
            self._triggers.tell(INDEX_BROKEN, scene.cube)
            return f"degraded:{degraded}"
        return "hit" if ids else "empty"

    async def _begin(self, scene: Scene, cube: Cube | None) -> tuple[Begun, bool]:
        """The stable block that the session began with; for a new session (True), what it shall be."""
        begun = None if scene.begins else await self._blocks.begun(scene.cube, scene.session)
        if begun is not None:
            return begun, False
        block = await self._standing.block(scene.cube) if cube else inject.EMPTY
        begun = Begun(scene.session, block.text, block.memories, cube.rev if cube else 0)
        self._blocks.begin(scene.cube, begun, self._clock())
        return begun, True

    # --- after ----------------------------------------------------------------------------------------------------------

    async def on_response(self, exchange: Exchange) -> None:
        """Write the turn down; returns when it is durable, or when waiting longer would keep the client."""
        await self._record(exchange)
        if head := exchange.notes.pop("head", None):
            self._states.heard(exchange.cube, head)

    async def had_later(self, exchange: Exchange) -> None:
        """Write down the turn of an answer that was made in the background, when its client comes for it. What was asked, and
        whether it may be written, was kept with the answer's id."""
        answer = exchange.answer
        if answer is None or not (answer.final and answer.complete):
            return
        cube = self._scenes.cube(exchange)
        link = await self._blocks.before(cube, answer.id)
        conversation = sessions.read([], link) if link is not None and link.asked else None
        if link is None or conversation is None or not await self._scenes.may_write(exchange, "on"):
            return
        exchange.notes["scene"] = self._scenes.make(
            exchange, conversation, "write", cube, link.session, self._scenes.named_session(exchange), {}
        )
        await self.on_response(exchange)

    async def on_error(self, exchange: Exchange, error: BaseException) -> None:
        """A client that hung up had asked and been answered in part: that is remembered, a failed call is not."""
        if exchange.answer is not None and exchange.answer.text:
            await self.on_response(exchange)


def _near(scene: Scene, named: str) -> dict[str, int]:
    """What the last few blocks that are put again show: memory → the cube's revision then."""
    conversation = scene.conversation
    earlier = [stable_id(named, anchor) for index, anchor in conversation.anchors if index < conversation.asks]
    blocks = [scene.old[anchor] for anchor in earlier[-_NEAR:] if anchor in scene.old]
    return {memory: block.rev for block in blocks for memory in block.memories}


def _is_recent(block: Recalled | None, now: float) -> bool:
    """Whether a block was made so lately that the same question means the same turn once more."""
    return block is not None and now - block.at < SAME_TURN_S
