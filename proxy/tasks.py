"""The tasks: which function a job runs. The one place where jobs and memory meet."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memory import skills, upkeep
from memory.activation.folder import forget as remove_folder
from memory.adapters.files import Folder
from memory.adapters.table import Adapters
from memory.cube import Cubes
from memory.erase import Receipts, forget_table
from memory.extract import ExtractionFailed, LlmExtractor, rules
from memory.feedback import Feedback, shares, verdict
from memory.fuse import fuse
from memory.grants import ACTIVE, ARCHIVED, CubeRefused
from memory.graph import Graph
from memory.index import Index, Indexed
from memory.memories import Memories
from memory.organise import Organised, Organiser
from memory.reflect import Reflector, reactivate, search_archived
from memory.reflect.fading import any_archived, is_question
from memory.sql import Database
from memory.store import Store
from memory.topics import Topics
from memory.turns import TurnLog
from memory.types import Candidate, Turn
from proxy import kept
from proxy.activating import Activation
from proxy.blocks import purge, shown_for
from proxy.predicting import Predictor
from proxy.upstreams.states import Forgotten
from scheduler.executor import where
from scheduler.jobs import Arguments, JobQueue, QueueError, Task

log = logging.getLogger(__name__)
# priority of what the sweep finds
_SWEPT = {"wipe": 1, "rebuild": 4, "learn": 6, "close": 6, "trim": 6, "index": 7, "reflect": 8}
_PAUSE_S = 5.0
_DAY_S = 86400.0
_KEEP_JOBS_S = 7 * 86400
_KEEP_BLOCKS_S = 60 * 86400


class StillHeld(Exception):
    """Erased text may still stand in the database's log, because somebody was reading; or in a state that cannot be reached."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What the extraction model took, and what it gave. `cut`: answers that broke off, read as far as they came."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    proposed: int = 0
    cut: int = 0

    def plus(self, other: Spent) -> Spent:
        """Both together."""
        return Spent(**{name: value + getattr(other, name) for name, value in asdict(self).items()})


@dataclass(frozen=True, slots=True)
class Work:
    """What the tasks work with; made by the executor process."""

    database: Database
    cubes: Cubes
    receipts: Receipts
    turns: TurnLog
    organiser: Organiser
    index: Index
    store: Store
    extractor: LlmExtractor | None
    batch: int
    clock: Callable[[], float] = time.time
    reflector: Reflector | None = None
    predictor: Predictor | None = None
    states: Activation | None = None
    quiet_s: float = 60.0  # silence after which a cube is thought over
    adapters: Folder | None = None
    files: Path | None = None  # a folder a cube, of its other forms

    async def active(self) -> list[str]:
        """The cubes that are neither archived nor erased."""
        return [info.id for info in await self.cubes.every() if info.status == ACTIVE]

    @property
    def memories(self) -> Memories:
        """The stored memories."""
        return Memories(self.database, self.clock)

    @property
    def graph(self) -> Graph:
        """Names, and what leads from memory to memory."""
        return Graph(self.database)

    @property
    def topics(self) -> Topics:
        """The groups of like memories."""
        return Topics(self.database, self.index.embedder_id)

    @property
    def feedback(self) -> Feedback:
        """Where verdicts are written down."""
        return Feedback(self.database, self.clock)

    async def learn(self, cube: str, _: Arguments) -> dict[str, Any]:
        """Extract from every turn that waits, organise, and bring the index up to date."""
        turns = added = skipped = superseded = judged = woken = 0
        mode, spent = "rules", Spent()
        while waiting := await self.turns.unextracted(cube, self.batch):
            candidates, mode, cost = await self._extract(waiting)
            done: Organised = await self.organiser.organise(cube, waiting, candidates, self.clock())
            judged += await self._heed(cube, waiting)
            woken += await self._wake(cube, waiting)
            turns, spent = turns + len(waiting), spent.plus(cost)
            added, skipped, superseded = added + done.added, skipped + done.skipped, superseded + done.superseded
        indexed = await self._catch_up(cube)
        return {
            "turns": turns,
            "added": added,
            "skipped": skipped,
            "superseded": superseded,
            "judged": judged,
            "woken": woken,
            "extraction": mode,
            "tokens": spent.prompt_tokens + spent.completion_tokens,
            **asdict(spent),
            "pieces": indexed.pieces,
        }

    async def reflect(self, cube: str, _: Arguments) -> dict[str, Any]:
        """Think over what is new, and bring the index up to date."""
        if self.reflector is None or await self._asleep(cube):
            return {"mode": "nothing"}
        done = await self.reflector.reflect(cube)
        indexed = await self._catch_up(cube)
        ready = (await self.states.activate(cube)).ready if self.states else False
        return asdict(done) | {"pieces": indexed.pieces, "ready": ready}

    async def _wake(self, cube: str, turns: Sequence[Turn]) -> int:
        """What was archived for want of use comes back when a question found nothing else; returns how many."""
        asked = [turn for turn in turns if is_question(turn.user_text)]
        if not asked or not await any_archived(self.database, cube):
            return 0
        woken = 0
        for turn in asked:
            if not await shown_for(self.database, turn):
                fits = await search_archived(self.database, cube, turn.user_text)
                back = await reactivate(self.database, cube, [memory.id for memory in fits], self.clock())
                woken += len(back)
        return woken

    async def _heed(self, cube: str, turns: Sequence[Turn]) -> int:
        """What turns say of the answers before them moves the memories shown for those; returns how many were moved."""
        moved = 0
        for turn in turns:
            said = verdict(turn.user_text)
            earlier = await self.turns.before(turn) if said else None
            if earlier is None:
                continue
            shown = await self.memories.by_ids(cube, await shown_for(self.database, earlier))
            weights = shares(shown.values(), earlier.assistant_text)
            moved += len(await self.feedback.judge(cube, weights, said > 0, by=turn.id))
        return moved

    async def _extract(self, turns: Sequence[Turn]) -> tuple[list[Candidate], str, Spent]:
        """(candidates, how they were found, what the model took for it)"""
        spent = Spent()
        if self.extractor is not None:
            try:
                got = await self.extractor.extract(turns)
                spent = Spent(got.prompt_tokens, got.completion_tokens, got.attempts, got.items, int(got.cut))
                return skills.joined(got.candidates, turns), got.mode, spent
            except ExtractionFailed as error:
                spent = Spent(error.prompt_tokens, error.completion_tokens, error.attempts)
                # nothing is lost: the words are in the turn log, and the rules' result stands
                log.warning("extraction model failed (%s): rules instead", type(error).__name__)
        found = [candidate for turn in turns for candidate in _by_rules(turn)]
        return skills.joined(found, turns), "rules" if self.extractor is None else "rules after a failed model", spent

    async def bring_index_up(self, cube: str, _: Arguments) -> dict[str, Any]:
        """Index what was written by other ways than a chat."""
        done = await self._catch_up(cube)
        return {"action": done.action, "pieces": done.pieces}

    async def _catch_up(self, cube: str) -> Indexed:
        if await self._asleep(cube):
            return Indexed("nothing", 0)
        done = await self.index.catch_up(cube)
        if done.action == "erased":  # a crash came between an erasure and its own job
            await self._wipe()
        await self._draw(cube)
        return done

    async def _draw(self, cube: str) -> None:
        """Bring the graph up to date: names and links first, then topics, which need the vectors of the index."""
        await self.graph.link(cube)
        await self.topics.place(cube)

    async def _withdraw(self, cube: str) -> int:
        """Delete the files of adapters that rested on what was erased; how many."""
        if self.adapters is None:
            return 0
        standing = await Adapters(self.database).standing(cube)
        return len(await asyncio.to_thread(self.adapters.keep_only, cube, standing))

    async def _wipe(self) -> None:
        """Leave no bytes of erased rows in the database. Raises StillHeld, to be tried again."""
        if not await self.database.vacuum():
            raise StillHeld("a reader held the log of the database")

    async def erase(self, cube: str, _: Arguments) -> dict[str, Any]:
        """After a memory was erased from SQL: build the index anew without it, and leave no bytes in the database.
        Raises StillHeld, to be tried again."""
        states = await self._forget_states(cube)
        await self._withdraw(cube)
        if await self._asleep(cube):
            done = Indexed("dropped", 0)
            await self.store.drop(cube, keep=None)
        else:
            done = await self.index.rebuild(cube)
            await self._draw(cube)
        await self._wipe()
        return {"action": done.action, "pieces": done.pieces, "states": states, "vacuumed": True}

    async def _forget_states(self, cube: str) -> int:
        """Drop what models have computed of the cube; returns how many states. Raises StillHeld, to be tried again."""
        found = await self.states.forget(cube) if self.states else Forgotten()
        if not found.sure:
            raise StillHeld("saved states could not be reached")
        return found.states

    async def _asleep(self, cube: str) -> bool:
        """Whether the cube is out of retrieval and has no index."""
        info = await self.cubes.get(cube)
        return info is not None and info.status != ACTIVE

    async def close(self, cube: str, _: Arguments) -> dict[str, Any]:
        """Drop the table of an archived cube; SQL keeps everything that it was built from."""
        if not await self.cubes.close(cube):
            return {"action": "nothing"}
        await self._forget_states(cube)
        return {"action": "closed", "tables": await self.store.drop(cube, keep=None)}

    async def wipe(self, cube: str, _: Arguments) -> dict[str, Any]:
        """After everything in a cube was erased from SQL: drop its tables and files, leave no bytes in the database, sign the
        receipts. What was said since then is indexed anew. Raises StillHeld and OSError, to be tried again."""
        asked = await self.receipts.pending(cube)
        states = await self._forget_states(cube)
        await forget_table(self.database, cube)
        await self._withdraw(cube)
        if self.files is not None:
            await asyncio.to_thread(remove_folder, self.files, cube)
        tables = await self.store.drop(cube, keep=None)
        if (await self.cubes.counts([cube]))[cube]:
            await self._catch_up(cube)
        await self._wipe()
        await self.receipts.sign(asked, self.clock())
        return {"tables": tables, "receipts": len(asked), "states": states, "vacuumed": True}

    async def fuse(self, cube: str, arguments: Arguments) -> dict[str, Any]:
        """Copy another cube into this one, as its principal was allowed to when he asked and still is; then put the other away
        if he wanted that."""
        source, principal = arguments["from"], arguments["principal"]
        try:
            done = await self.database.write(lambda c: fuse(c, cube, source, principal, self.clock()))
        except CubeRefused as refused:
            return {"action": "refused", "reason": refused.reason}
        if arguments.get("archive") == "yes":
            await self.cubes.archive(source, principal, self.clock())
        indexed = await self._catch_up(cube)
        return {"action": "fused", **asdict(done), "pieces": indexed.pieces}

    async def trim(self, cube: str, _: Arguments) -> dict[str, Any]:
        """Archive what is beyond the cube's quota or was unused for longer than its time to live."""
        archived = await upkeep.trim(self.database, cube, self.clock())
        indexed = await self._catch_up(cube)
        return {**archived, "pieces": indexed.pieces}

    async def rebuild(self, cube: str, arguments: Arguments) -> dict[str, Any]:
        """Build the index anew if it does not hold what SQL says, or in any case with {"force": "yes"}."""
        if await self._asleep(cube):
            return {"action": "nothing"}
        fault = "asked for" if arguments.get("force") == "yes" else await self.index.verify(cube)
        if fault is None:
            return {"action": "nothing"}
        log.warning("index of cube %s: %s; building it anew", cube, fault)
        done = await self.index.rebuild(cube)
        return {"action": done.action, "pieces": done.pieces}

    def tasks(self, attempts: int) -> list[Task]:
        """All of them."""
        return [
            Task("learn", self.learn, attempts),
            Task("reflect", self.reflect, attempts),
            *([Task("predict", self.predictor.task, attempts)] if self.predictor else []),
            *([Task("activate", self.states.task, attempts)] if self.states else []),
            Task("index", self.bring_index_up, attempts),
            Task("erase", self.erase, attempts),
            Task("rebuild", self.rebuild, attempts),
            Task("wipe", self.wipe, attempts),
            Task("close", self.close, attempts),
            Task("fuse", self.fuse, attempts),
            Task("trim", self.trim, attempts),
        ]


def _by_rules(turn: Turn) -> list[Candidate]:
    try:
        return rules.extract(turn)
    except Exception as error:  # one odd turn must not keep its cube from learning the others
        log.error("rules failed on turn %s: %s\n%s", turn.id, type(error).__name__, where(error))
        return []


class Sweep:
    """The clock trigger: finds work that no event has announced (a crash between a commit and its trigger, another
    process's write), cubes gone quiet with something new to think over and, once after the start, damage to any index."""

    def __init__(
        self,
        work: Work,
        queue: JobQueue,
        keep_failed_s: float | None = None,
        keep_responses_s: float = 30 * _DAY_S,
    ) -> None:
        """`keep_failed_s`: so long jobs lie in the dead letters; None: until somebody looks at them. `keep_responses_s`: and so
        long the responses that are kept here."""
        self._work = work
        self._keep_responses_s = keep_responses_s
        self._queue = queue
        self._keep_failed_s = keep_failed_s
        self._verified = False
        self._purged_at = 0.0
        self._aged_at = 0.0
        self._pauses: dict[tuple[str, str], tuple[float, float]] = {}  # what keeps coming up: (not before, pause)

    async def __call__(self) -> None:
        """One round."""
        found = {("learn", cube) for cube in await self._work.turns.waiting()}
        found |= {("wipe", receipt.cube) for receipt in await self._work.receipts.pending()}
        found |= {("trim", cube) for cube in await upkeep.due(self._work.database, self._work.clock())}
        thoughtless: list[str] = []
        aging = self._ages()
        for info in await self._work.cubes.every():
            if info.status == ARCHIVED:
                if info.embedder:
                    found.add(("close", info.id))
            elif not self._verified and info.generation:
                found.add(("rebuild", info.id))
            elif ("learn", info.id) in found:
                continue  # that indexes too
            elif info.rev != info.indexed_rev or info.embedder != self._work.index.embedder_id:
                found.add(("index", info.id))
            elif info.rev != info.reflected_rev:
                thoughtless.append(info.id)
            elif aging:
                found.add(("reflect", info.id))
        found |= {("reflect", cube) for cube in await self._quiet(thoughtless)}
        self._pauses = {work: pause for work, pause in self._pauses.items() if work in found}
        try:
            for task, cube in sorted(found):
                if self._work.clock() >= self._pauses.get((task, cube), (0.0, 0.0))[0]:
                    if task == "reflect" and await self._at_it(task, cube):
                        continue
                    await self._queue.put(task, cube, priority=_SWEPT[task])
                    self._tried(task, cube)
            self._verified = True
            await self._purge()
        except QueueError as error:
            log.warning("sweep: the queue is not reachable (%s)", error)

    async def _at_it(self, task: str, cube: str) -> bool:
        """Whether the trigger's own job has begun already: what waits is joined, what runs would be put in once more."""
        return bool(await self._queue.jobs(cube, states=("waiting", "running"), task=task, limit=1))

    async def _quiet(self, cubes: Sequence[str]) -> list[str]:
        """Those of the cubes in which nobody has spoken for a while: the time to think over what was said."""
        if self._work.reflector is None or not cubes:
            return []
        busy = await self._work.turns.spoken_since(cubes, self._work.clock() - self._work.quiet_s)
        return [cube for cube in cubes if cube not in busy]

    def _ages(self) -> bool:
        """Once a day, when memories fade with time, every cube is looked at."""
        reflector, now = self._work.reflector, self._work.clock()
        if reflector is None or not reflector.ages or now - self._aged_at < _DAY_S:
            return False
        self._aged_at = now
        return True

    def _tried(self, task: str, cube: str) -> None:
        """What does not go away is tried more and more seldom."""
        _, pause = self._pauses.get((task, cube), (0.0, _PAUSE_S))
        self._pauses[task, cube] = (self._work.clock() + pause, min(pause * 2, 3600.0))

    async def _purge(self) -> None:
        now = self._work.clock()
        if now - self._purged_at > 3600:
            self._purged_at = now
            await self._queue.purge(_KEEP_JOBS_S, now, self._keep_failed_s)
            await purge(self._work.database, now - _KEEP_BLOCKS_S)
            await kept.purge(self._work.database, now - self._keep_responses_s)
