"""Memory as a hook: before a chat, what is known goes into it; after it, what was said is written down.

The way of a request: whose cube and which session → what stood in earlier turns is put there again → memories are retrieved
under a deadline → blocks are spliced in. The way of an answer: the turn is made durable → the working set learns it →
a trigger fires. Whatever fails, the chat goes on without memory and the response says `x-memory-state: degraded:<reason>`.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from memory.agenda import Agenda
from memory.agenda_questions import Asked, asked
from memory.cube import Cube, Cubes
from memory.grants import ARCHIVED, ERASED, CubeRefused, Grants, Level
from memory.memories import Memories, digest
from memory.redact import redact
from memory.retrieve import Question, Result, Retriever
from memory.sql import DatabaseError
from memory.turns import SAME_TURN_S, Place, TurnLog
from memory.types import Hit, Kind, Memory, Turn, stable_id
from memory.words import tokens
from proxy import agenda_lines, fence, inject, sessions
from proxy.auth import access, cube_of, named_cube
from proxy.blocks import Begun, Blocks, Link, Recalled, Spawn
from proxy.config import MemorySettings, Sessions
from proxy.errors import ApiError, BadRequest
from proxy.foresight import Foresight
from proxy.hooks import Exchange, Hook
from proxy.metrics import Metrics
from proxy.sessions import Conversation
from proxy.splice import CannotSplice
from scheduler.executor import where
from scheduler.triggers import INDEX_BROKEN, QUERY_ARRIVED, TURN_FINISHED, Triggers

log = logging.getLogger(__name__)
MODES = ("on", "off", "read", "write")
_AT_A_TIME = 4
_LONGEST_QUESTION = 4000  # characters; of a longer message its end is asked, where questions stand
_SEEN = 200  # of what was said in a conversation whose history is at the upstream
_BEST = 3  # hits that count as found when none was shown
_LOOKED_BACK = 3  # answers of a resent history by which its session is looked for
_RETRIES_S = (0.5, 1, 2, 5, 10, 30, 60, 120, 300)


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
        retriever: Retriever,
        agenda: Agenda,
        blocks: Blocks,
        foresight: Foresight,
        triggers: Triggers,
        metrics: Metrics,
        spawn: Spawn,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._reading = reading
        self._secret = secret
        self._cubes = cubes
        self._grants = grants
        self._turns = turns
        self._memories = memories
        self._retriever = retriever
        self._agenda = agenda
        self._blocks = blocks
        self._foresight = foresight
        self._triggers = triggers
        self._metrics = metrics
        self._spawn = spawn
        self._clock = clock
        self._gate = asyncio.Semaphore(_AT_A_TIME)
        foresight.busy = self._gate.locked

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
            self._spawn(self._triggers.fire(QUERY_ARRIVED, scene.cube))

    async def _read(self, exchange: Exchange) -> Conversation | None:
        """The conversation; where its history is at the upstream, with what is known of that."""
        answer = exchange.surface.goes_on(exchange.body)
        if not answer:
            return sessions.read(exchange.messages)
        known = None
        try:
            async with asyncio.timeout(self._settings.deadline_ms / 1000):
                known = await self._blocks.before(self._cube(exchange), answer)
        except (TimeoutError, DatabaseError) as error:
            log.warning("chat %s: what stood before it is not known (%s)", exchange.id, type(error).__name__)
        return sessions.read(exchange.messages, known or sessions.unknown(answer))

    async def _guarded(self, exchange: Exchange, conversation: Conversation, mode: str) -> str:
        """Find the scene and inject, under the deadline; returns the state."""
        try:
            # in a burst a few at a time: all at once, none would be ready before its deadline
            async with asyncio.timeout(self._settings.deadline_ms / 1000), self._gate:
                scene = await self._scene(exchange, conversation, mode)
                exchange.notes["scene"] = scene
                if scene.info is not None and scene.info.status == ARCHIVED:
                    return "off"
                if scene.reads:
                    exchange.cube, exchange.session = scene.cube, scene.session if scene.writes else ""
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
            exchange.notes["scene"] = self._blind_scene(exchange, conversation, mode)
        return f"degraded:{reason}"

    async def _scene(self, exchange: Exchange, conversation: Conversation, mode: str) -> Scene:
        cube = self._cube(exchange)
        info = await self._cubes.get(cube)
        if info is not None and info.status == ERASED:
            info = None
        may_write = await self._may_write(exchange, mode)
        named = self._named_session(exchange)
        salt = named or ""
        old = await self._blocks.at(cube, [stable_id(salt, anchor) for _, anchor in conversation.anchors])
        session = self._session(exchange, info)
        session = session or conversation.session or await self._continued(cube, conversation, old)
        scene = self._make_scene(exchange, conversation, mode, cube, session, named, old)
        archived = info is not None and info.status == ARCHIVED
        return replace(
            scene,
            info=info,
            guest=exchange.principal.id if info is not None and info.owner != exchange.principal.id else "",
            reads=scene.reads and not archived,
            writes=scene.writes and may_write and not archived,
        )

    async def _may_write(self, exchange: Exchange, mode: str) -> bool:
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

    def _session(self, exchange: Exchange, info: Cube | None) -> str:
        """The id of the session that the client names. Two principals who use one cube may both name theirs "1"."""
        named, principal = self._named_session(exchange), exchange.principal.id
        if not named:
            return ""
        cube = self._cube(exchange)
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

    def _blind_scene(self, exchange: Exchange, conversation: Conversation, mode: str) -> Scene:
        """What can be said without the database, so that the turn can still be recorded when it comes back."""
        cube, named = self._cube(exchange), self._named_session(exchange)
        session = self._session(exchange, None)
        return self._make_scene(exchange, conversation, mode, cube, session, named, {})

    def _make_scene(
        self,
        exchange: Exchange,
        conversation: Conversation,
        mode: str,
        cube: str,
        session: str,
        named: str,
        old: Mapping[str, Recalled],
    ) -> Scene:
        passing = named.startswith(("temporary:", "local:", "channel:"))  # not to be stored; a channel has many users
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
            writes=mode in ("on", "write") and principal.has("memory:write") and not passing,
            old=old,
            begins=not session,
        )

    def _cube(self, exchange: Exchange) -> str:
        return named_cube(exchange.headers) or self._home(exchange)

    def _home(self, exchange: Exchange) -> str:
        return cube_of(exchange.principal, exchange.headers, exchange.body, self._reading.user_headers)

    def _named_session(self, exchange: Exchange) -> str:
        headers = exchange.headers
        return next((headers[n].strip()[:512] for n in self._reading.session_headers if headers.get(n, "").strip()), "")

    async def _inject(self, exchange: Exchange, scene: Scene) -> str:
        conversation = scene.conversation
        mark = fence.nonce(self._secret, scene.cube, scene.session)
        named = self._named_session(exchange)
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
            block, degraded = await self._recall(exchange, scene, cube, begun, mark, first=first)
            recalls[conversation.asks] = block.text
            shown = block.memories
            if block.text or begun.stable or exchange.body.get("tools") or now:
                self._blocks.keep(scene.cube, Recalled(anchor, scene.session, self._clock(), block.text, shown))
        self._foresight.heard(scene.cube, exchange.model, exchange.messages)
        exchange.edit(inject.edits(exchange.messages, begun.stable, recalls))
        ids = tuple(dict.fromkeys((*begun.memories, *shown)))
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
            self._spawn(self._triggers.fire(INDEX_BROKEN, scene.cube))
            return f"degraded:{degraded}"
        return "hit" if ids else "empty"

    async def _begin(self, scene: Scene, cube: Cube | None) -> tuple[Begun, bool]:
        """The stable block that the session began with; for a new session (True), what it shall be."""
        begun = None if scene.begins else await self._blocks.begun(scene.cube, scene.session)
        if begun is not None:
            return begun, False
        block = await self.stable_block(scene.cube) if cube else inject.EMPTY
        begun = Begun(scene.session, block.text, block.memories, cube.rev if cube else 0)
        self._blocks.begin(scene.cube, begun, self._clock())
        return begun, True

    async def _choosing(self, cube: str) -> tuple[dict[str, float], tuple[str, ...]]:
        """(chances of what is foreseen for the opening, what stood in the block of the last session)"""
        opening, newest = await self._foresight.of_opening(cube), await self._blocks.newest(cube)
        chances = {one.memory: one.chance for one in opening.foreseen} if opening else {}
        return chances, newest[0].memories if newest else ()

    async def stable_block(self, cube: str) -> inject.Block:
        """What a session of this cube would begin with now."""
        standing = await self._memories.standing(cube, inject.STANDING)
        mark, budget = fence.nonce(self._secret, cube, fence.STABLE), self._settings.stable_tokens
        chances, before = await self._choosing(cube) if inject.crowded(standing, budget) else ({}, ())
        return inject.stable_block(standing, mark, budget, now=self._clock(), before=before, chances=chances)

    async def _recall(
        self, exchange: Exchange, scene: Scene, cube: Cube | None, begun: Begun, mark: str, *, first: bool
    ) -> tuple[inject.Block, str | None]:
        """The block for the question, and why something is missing in it; `first`: it is the first one of its session."""
        if cube is None:
            return inject.EMPTY, None
        text = scene.conversation.text[-_LONGEST_QUESTION:]
        question = Question(text=text, now=exchange.received_at, seen=scene.conversation.seen)
        result = await self._retriever.retrieve(scene.cube, question, info=cube)
        exchange.notes["found"] = result
        hits = [
            hit
            for hit in result.hits
            if hit.memory.id not in begun.memories and not _is_itself(hit.memory, scene, exchange.received_at)
        ]
        changed = await self._changed(scene, cube, begun)
        budget = self._settings.recall_tokens
        wanted = asked(text, exchange.received_at)
        agenda = await self._due(scene, wanted, exchange.received_at, first=first)
        if wanted is not None:  # the list is complete: what else is known of tasks is over, or was put otherwise
            hits = [hit for hit in hits if hit.memory.kind not in wanted.kinds and not hit.replaced]
            changed = [memory for memory in changed if memory.kind not in wanted.kinds]
        block = inject.recall_block(hits, changed, mark, budget, agenda)
        exchange.notes["stood"] = _stood(result.hits, begun.memories, block.memories)
        return block, result.degraded

    async def _due(self, scene: Scene, wanted: Asked | None, now: float, *, first: bool) -> list[agenda_lines.Line]:
        """The open tasks that a question asks for; of a session's first question else, what presses."""
        budget = self._settings.recall_tokens
        if wanted is not None:
            found = await self._agenda.open(scene.cube, now, kinds=wanted.kinds)
            return agenda_lines.answer(wanted, found, now, budget)
        if not first or not self._settings.remind:
            return []
        standing = await self._memories.standing(scene.cube, (Kind.TASK,))
        return agenda_lines.reminder(standing, now, min(budget, agenda_lines.REMINDER_TOKENS))

    async def _changed(self, scene: Scene, cube: Cube, begun: Begun) -> list[Memory]:
        """Standing memories that other sessions have learned since this one began."""
        if cube.rev == begun.rev:
            return []
        standing = await self._memories.standing(scene.cube, inject.STANDING)
        return [
            memory
            for memory in standing
            if memory.rev > begun.rev
            and memory.id not in begun.memories
            and all(source.session != scene.session for source in memory.sources)
        ]

    # --- after ----------------------------------------------------------------------------------------------------------

    async def on_response(self, exchange: Exchange) -> None:
        """Write the turn down; returns when it is durable, or when waiting longer would keep the client."""
        scene, used = exchange.notes.get("scene"), (*exchange.notes.get("shown", ()), *exchange.notes.get("stood", ()))
        if isinstance(scene, Scene) and used and not scene.conversation.later_round:
            self._spawn(self._memories.used(scene.cube, used, self._clock()))
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

    async def had_later(self, exchange: Exchange) -> None:
        """Write down the turn of an answer that was made in the background, when its client comes for it. What was asked, and
        whether it may be written, was kept with the answer's id."""
        answer = exchange.answer
        if answer is None or not (answer.final and answer.complete):
            return
        cube = self._cube(exchange)
        link = await self._blocks.before(cube, answer.id)
        conversation = sessions.read([], link) if link is not None and link.asked else None
        if link is None or conversation is None or not await self._may_write(exchange, "on"):
            return
        exchange.notes["scene"] = self._make_scene(
            exchange, conversation, "write", cube, link.session, self._named_session(exchange), {}
        )
        await self.on_response(exchange)

    async def on_error(self, exchange: Exchange, error: BaseException) -> None:
        """A client that hung up had asked and been answered in part: that is remembered, a failed call is not."""
        if exchange.answer is not None and exchange.answer.text:
            await self.on_response(exchange)

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
        session = scene.session if scene.named else scene.guest
        turn = Turn(
            id="",
            cube=scene.cube,
            session=scene.session,
            key=stable_id(session, conversation.position, text),
            user_text=redact(text),
            assistant_text=redact(said),
            said_at=exchange.received_at,
            answered_at=self._clock(),
            model=exchange.model[:200],
            speaker=_storable(conversation.speaker)[:100],
            complete=answer.complete,
            request_id=exchange.id,
        )
        return turn, Place(conversation.position, conversation.tail(said), scene.named)

    async def _record(self, exchange: Exchange, turn: tuple[Turn, Place]) -> None:
        for attempt, pause in enumerate((*_RETRIES_S, None), 1):
            try:
                scene: Scene = exchange.notes["scene"]
                await self._turns.record(*turn, owner=exchange.principal.id, make=scene.home)
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
        await self._triggers.fire(TURN_FINISHED, turn.cube)
        try:
            await self._retriever.warm(turn.cube)
            await self._foresight.answered(turn.cube, turn.session, f"{turn.user_text}\n{turn.assistant_text}")
        except DatabaseError as error:
            log.warning("working set of cube %s: %s", turn.cube, error)


async def _finish(recording: asyncio.Future[None]) -> None:
    """Hold on to a recording until it is through."""
    await recording


def _stood(hits: Sequence[Hit], begun: Collection[str], shown: Collection[str]) -> tuple[str, ...]:
    """The memories of the stable block that this question found, so that they would have been shown if they had not stood
    there: no worse than the last one shown, or among the best few when none was."""
    found = list(dict.fromkeys(hit.memory.id for hit in hits))
    last = max((place for place, memory in enumerate(found) if memory in shown), default=_BEST - 1)
    return tuple(memory for memory in found[: last + 1] if memory in begun)


def _is_itself(memory: Memory, scene: Scene, now: float) -> bool:
    """Whether a hit is the question's own earlier try (regenerate, retry)."""
    if memory.kind is not Kind.EPISODE or digest(memory.text) != digest(redact(scene.conversation.text)):
        return False
    here = any(source.session == scene.session for source in memory.sources)
    return here or now - memory.message_time < SAME_TURN_S


def _said(conversation: Conversation, answer: str) -> str:
    """An answer's words, with what the client had begun them with."""
    return _storable(sessions.spoken({"role": "assistant", "content": conversation.prefill + answer}))


def _is_recent(block: Recalled | None, now: float) -> bool:
    """Whether a block was made so lately that the same question means the same turn once more."""
    return block is not None and now - block.at < SAME_TURN_S


def _storable(text: str) -> str:
    """Text that every database takes: no lone surrogates, no NUL."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "").strip()
