"""After the answer: the turn is made durable, where the conversation stands is kept, and what follows from it is fired."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from memory.grants import CubeRefused
from memory.memories import Memories, digest
from memory.redact import redact
from memory.retrieve import Retriever
from memory.sql import DatabaseError
from memory.turns import Place, TurnLog
from memory.types import Turn, stable_id
from proxy import sessions
from proxy.blocks import Blocks, Link, Spawn
from proxy.config import MemorySettings
from proxy.foresight import Foresight
from proxy.hooks import Exchange
from proxy.metrics import Metrics
from proxy.scene import Scene
from proxy.sessions import Conversation
from scheduler.triggers import TURN_FINISHED, Triggers

log = logging.getLogger(__name__)
_AFTER_S = 0.02  # between an answer and what nobody waits for
_COUNTED_S = 0.5  # between two writings of what was used
_SEEN = 200  # of what was said in a conversation whose history is at the upstream
_RETRIES_S = (0.5, 1, 2, 5, 10, 30, 60, 120, 300)


class Record:
    """Writes turns down."""

    def __init__(
        self,
        *,
        settings: MemorySettings,
        turns: TurnLog,
        memories: Memories,
        retriever: Retriever,
        blocks: Blocks,
        foresight: Foresight,
        triggers: Triggers,
        metrics: Metrics,
        spawn: Spawn,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.quiet: Callable[[], bool] = lambda: True  # whether nobody waits for memory
        self._settings = settings
        self._turns = turns
        self._memories = memories
        self._retriever = retriever
        self._blocks = blocks
        self._foresight = foresight
        self._triggers = triggers
        self._metrics = metrics
        self._spawn = spawn
        self._clock = clock
        self._used: dict[str, Counter[str]] = {}  # cube → memory → uses that are not written yet

    async def __call__(self, exchange: Exchange) -> None:
        """Write the turn down, once; returns when it is durable, or when waiting longer would keep the client."""
        if "recorded" in exchange.notes:  # its client has hung up while it was written
            return
        exchange.notes["recorded"] = True
        scene, used = exchange.notes.get("scene"), (*exchange.notes.get("shown", ()), *exchange.notes.get("stood", ()))
        if isinstance(scene, Scene) and used and not scene.conversation.later_round:
            self._count(scene.cube, used)
        if isinstance(scene, Scene):
            self._link(exchange, scene)
        turn = self._turn(exchange)
        if turn is None:
            return
        started = time.perf_counter()
        recording = asyncio.ensure_future(self._record(exchange, turn))
        self._spawn(_finish(recording))
        done, _ = await asyncio.wait({recording}, timeout=self._settings.record_deadline_ms / 1000)
        self._metrics.recording.observe(time.perf_counter() - started)
        if not done:
            log.warning("turn of %s is not durable yet; it stays queued", exchange.id)
            self._metrics.recorded.labels("late").inc()

    def _count(self, cube: str, used: Sequence[str]) -> None:
        """Count uses; those of a while are written together."""
        if cube not in self._used:
            self._used[cube] = Counter()
            self._spawn(self._write_uses(cube))
        self._used[cube].update(set(used))

    async def _write_uses(self, cube: str) -> None:
        await asyncio.sleep(_COUNTED_S)
        await self._memories.used(cube, self._used.pop(cube), self._clock())

    def _link(self, exchange: Exchange, scene: Scene) -> None:
        """Keep where the conversation stands, for the request that goes on from here and brings no history."""
        answer, conversation = exchange.answer, scene.conversation
        names = exchange.surface.leads_to(exchange.body, answer.id) if answer is not None else ()
        if answer is None or not names:
            return
        told = _storable(conversation.text)
        seen = (*conversation.seen, digest(told))[-_SEEN:]
        if answer.final and (answer.complete or answer.text):
            here, asked = conversation.tail(_said(conversation, answer.text)), ""
        else:  # a tool round, or an answer that is still being made
            here, asked = conversation.here, redact(told) if scene.writes else ""
        link = Link(scene.session, self._clock(), conversation.position, here, asked, seen)
        for name in names:
            self._blocks.link(scene.cube, name, link)

    def _turn(self, exchange: Exchange) -> tuple[Turn, Place] | None:
        scene, answer = exchange.notes.get("scene"), exchange.answer
        if not isinstance(scene, Scene) or not scene.writes or answer is None or not answer.final:
            return None
        conversation = scene.conversation
        text = _storable(conversation.text)
        said = _said(conversation, answer.text)
        if not text or (not said and not answer.complete):
            return None
        turn = Turn(
            id="",
            cube=scene.cube,
            session=scene.session,
            key=turn_key(scene),
            user_text=redact(text),
            assistant_text=redact(said),
            said_at=exchange.received_at,
            answered_at=self._clock(),
            model=_storable(exchange.model[:200]),
            speaker=_storable(conversation.speaker)[:100],
            complete=answer.complete,
            request_id=exchange.id,
        )
        return turn, Place(conversation.position, conversation.tail(said), scene.named)

    async def _record(self, exchange: Exchange, turn: tuple[Turn, Place]) -> None:
        for attempt, pause in enumerate((*_RETRIES_S, None), 1):
            try:
                scene: Scene = exchange.notes["scene"]
                owner = exchange.principal.id
                await self._turns.record(*turn, owner=owner, make=scene.home, waited=attempt > 1)
                break
            except CubeRefused as refused:  # revoked, archived or erased while the model was answering
                log.warning("turn of %s was not recorded: its cube is %s", exchange.id, refused.reason)
                self._metrics.recorded.labels("refused").inc()
                return
            except DatabaseError as error:
                if pause is None:
                    log.error("turn of %s was lost after %d attempts: %s", exchange.id, attempt, error)
                    self._metrics.recorded.labels("lost").inc()
                    return
                log.warning("turn of %s not written yet (%s)", exchange.id, error)
                await asyncio.sleep(pause)
        self._metrics.recorded.labels("stored").inc()
        self._spawn(self._follow(turn[0]))

    async def _follow(self, turn: Turn) -> None:
        self._triggers.tell(TURN_FINISHED, turn.cube)
        await asyncio.sleep(_AFTER_S)  # the answer leaves first
        try:
            if self.quiet():  # a question brings its cube up to date itself, while it is embedded
                await self._retriever.warm(turn.cube)
            await self._foresight.answered(turn.cube, turn.session, f"{turn.user_text}\n{turn.assistant_text}")
        except DatabaseError as error:
            log.warning("working set of cube %s: %s", turn.cube, error)


def turn_key(scene: Scene) -> str:
    """By which the same turn is known, seen again."""
    session = scene.session if scene.named else scene.guest
    return stable_id(session, scene.conversation.position, _storable(scene.conversation.text))


async def _finish(recording: asyncio.Future[None]) -> None:
    """Hold on to a recording until it is through."""
    await recording


def _said(conversation: Conversation, answer: str) -> str:
    """An answer's words, with what the client had begun them with."""
    return _storable(sessions.spoken({"role": "assistant", "content": conversation.prefill + answer}))


def _storable(text: str) -> str:
    """Text that every database takes: no lone surrogates, no NUL."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "").strip()
