"""Triggers: what happens, and which jobs follow from it. One table, in whatever order; the queue joins what waits already.

A trigger waits for an event. Three of them are not simply announced:

session_quiet  nobody has spoken in a cube for `quiet_s`. There is no timer that waits for it: its jobs are put in when a turn
               ends, debounced by `quiet_s`, so that each further turn moves the waiting job back and it runs after the last.
clock          every `every_s`, for each active cube; the `Clock` of one of the executors fires it.
query_arrived  a question was asked, and its answer is not there yet.

Chats only `tell` what has happened and go on; the API's routes `fire`, and may answer with the jobs' ids. Knows no metrics:
`counted` is told of each put.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from scheduler.jobs import JobQueue, QueueError
from scheduler.outbox import Outbox

log = logging.getLogger(__name__)

TURN_FINISHED = "turn_finished"
QUERY_ARRIVED = "query_arrived"
SESSION_QUIET = "session_quiet"
MEMORY_WRITTEN = "memory_written"
MEMORY_ERASED = "memory_erased"
INDEX_BROKEN = "index_broken"
CUBE_CHANGED = "cube_changed"  # its quota or time to live
CUBE_ARCHIVED = "cube_archived"
FEEDBACK_GIVEN = "feedback_given"
CUBE_ERASED = "cube_erased"
CUBE_FUSED = "cube_fused"
CLOCK = "clock"
EVENTS = (
    TURN_FINISHED, QUERY_ARRIVED, SESSION_QUIET, MEMORY_WRITTEN, MEMORY_ERASED, INDEX_BROKEN, CUBE_CHANGED, CUBE_ARCHIVED,
    FEEDBACK_GIVEN, CUBE_ERASED, CUBE_FUSED, CLOCK,
)  # fmt: skip
_PATIENCE_S = 3.0  # so long who waits for a job to be put in waits for the queue
_SPACING_S = 1.0  # between two jobs of one trigger in one cube that chats have set off
_MOVES = 30  # times within its debounce a waiting job is moved back
_SETTLES_S = 3.0  # after a change; then what a session begins with is read ahead
_REMEMBERED = 4096  # jobs by which it is noticed that a put was joined to one that waits


@dataclass(frozen=True, slots=True)
class Trigger:
    """When `event` happens in a cube, run `task` after `delay_s`; further events until then need no job of their own. With
    `debounce_s` each of them moves the waiting job back to so long after it (at most ten times so long after the first); the
    longer of the two waits counts. `every_s`: how often, for the event clock."""

    event: str
    task: str
    priority: int = 5
    delay_s: float = 0.0
    debounce_s: float = 0.0
    every_s: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError, which says what cannot be."""
        if self.event not in EVENTS:
            raise ValueError(f"there is no event {self.event!r}; there are {', '.join(EVENTS)}")
        if self.priority < 1:
            raise ValueError("priority must be 1 (first) or more")
        for name in ("delay_s", "debounce_s", "every_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative")
        if (self.event == CLOCK) != (self.every_s > 0):
            raise ValueError("every_s goes with the event clock, and the event clock needs it")


def table(*, debounce_s: float, quiet_s: float = 60.0, activates: bool = False) -> list[Trigger]:
    """The built-in triggers. `debounce_s`: how long to gather turns before one extraction call; `quiet_s`: silence after which
    the session is thought over and the next one thought of; `activates`: somebody keeps KV states."""
    return [
        Trigger(TURN_FINISHED, "learn", priority=5, delay_s=debounce_s),
        Trigger(SESSION_QUIET, "predict", priority=8, debounce_s=quiet_s),
        Trigger(SESSION_QUIET, "reflect", priority=8, debounce_s=quiet_s),
        Trigger(MEMORY_WRITTEN, "index", priority=3),
        Trigger(MEMORY_ERASED, "erase", priority=1),
        Trigger(INDEX_BROKEN, "rebuild", priority=2),
        Trigger(CUBE_ERASED, "wipe", priority=1),
        Trigger(CUBE_FUSED, "fuse", priority=5),
        Trigger(CUBE_CHANGED, "trim", priority=6),
        Trigger(CUBE_ARCHIVED, "close", priority=6),
        Trigger(FEEDBACK_GIVEN, "reflect", priority=8, delay_s=5.0),
        *(_activating(debounce_s) if activates else ()),
    ]


def _activating(debounce_s: float) -> list[Trigger]:
    """Whatever may change what a cube's sessions begin with: behind the jobs that change it, and once for many changes."""
    return [
        Trigger(TURN_FINISHED, "activate", priority=7, debounce_s=debounce_s + _SETTLES_S),
        Trigger(MEMORY_WRITTEN, "activate", priority=7, debounce_s=_SETTLES_S),
        Trigger(MEMORY_ERASED, "activate", priority=7, debounce_s=_SETTLES_S),
    ]


def built_in_tasks() -> frozenset[str]:
    """The names of the tasks that the built-in triggers start."""
    return frozenset(rule.task for rule in table(debounce_s=0.0, activates=True))


_Put = tuple[Trigger, str, tuple[tuple[str, str], ...]]


class Triggers:
    """Turns events into jobs. `counted(event, outcome)` is told what became of each: queued, joined (one waits already), refused
    (the queue is away; it is tried again) or lost (it was away for too long). What is lost the executor's sweep finds."""

    def __init__(
        self,
        queue: JobQueue,
        rules: Sequence[Trigger],
        counted: Callable[[str, str], None] = lambda event, outcome: None,
    ) -> None:
        self._queue = queue
        self._counted = counted
        self._rules: dict[str, list[Trigger]] = {}
        for rule in rules:
            self._rules.setdefault(TURN_FINISHED if rule.event == SESSION_QUIET else rule.event, []).append(rule)
        self._put: OrderedDict[str, None] = OrderedDict()
        self._outbox: Outbox[_Put] = Outbox(self._send, self._give_up)
        self._away = False

    def give_way(self, busy: Callable[[], bool]) -> None:
        """Put in what `tell` was told while `busy` says no, if that comes about soon."""
        self._outbox.busy = busy

    def heard(self, event: str) -> bool:
        """Whether anything follows from `event`."""
        return event in self._rules

    def tell(self, event: str, cube: str, arguments: Mapping[str, str] | None = None) -> None:
        """Put in the jobs that follow from `event` behind the scenes: returns at once, whatever the queue does."""
        for rule in self._rules.get(event, ()):
            self._later(rule, cube, arguments or {})

    async def fire(self, event: str, cube: str, arguments: Mapping[str, str] | None = None) -> list[str]:
        """Put in the jobs that follow from `event`; returns their ids. Never raises, and takes no more than a few seconds: what
        could not be put in by then follows behind the scenes."""
        return [job for rule in self._rules.get(event, ()) if (job := await self._follow(rule, cube, arguments or {}))]

    async def start(self, rule: Trigger, cube: str) -> str | None:
        """Put in the job of one trigger, for whoever knows that its time has come; its id, None when the queue refused."""
        return await self._follow(rule, cube, {})

    async def close(self, timeout_s: float = 5.0) -> None:
        """Put in what waits, while there is time."""
        left = await self._outbox.close(timeout_s)
        if left:
            log.warning("%d jobs were not queued: the sweep finds their work", left)

    def _later(self, rule: Trigger, cube: str, arguments: Mapping[str, str]) -> None:
        # the first turn is learned from at once; those of a burst together, and what waits for a silence is moved back now and then
        spacing_s = max(_SPACING_S, rule.debounce_s / _MOVES)
        if not self._outbox.add((rule, cube, tuple(sorted(arguments.items()))), spacing_s):
            self._counted(rule.event, "joined")

    async def _follow(self, rule: Trigger, cube: str, arguments: Mapping[str, str]) -> str | None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await self._queued(rule, cube, arguments)
        except (QueueError, TimeoutError) as error:
            log.warning("job %s for cube %s is not queued yet: %s", rule.task, cube, error or "slow")
            self._counted(rule.event, "refused")
            self._outbox.add((rule, cube, tuple(sorted(arguments.items()))))
            return None

    async def _send(self, put: _Put) -> bool:
        rule, cube, arguments = put
        try:
            await self._queued(rule, cube, dict(arguments))
        except QueueError as error:
            self._counted(rule.event, "refused")
            if not self._away:  # once, not for every chat
                log.warning("the queue is away (%s); jobs wait here and are put in later", error)
            self._away = True
            return False
        self._away = False
        return True

    def _give_up(self, put: _Put) -> None:
        self._counted(put[0].event, "lost")

    async def _queued(self, rule: Trigger, cube: str, arguments: Mapping[str, str]) -> str:
        job = await self._queue.put(
            rule.task, cube, arguments, priority=rule.priority, delay_s=rule.delay_s, debounce_s=rule.debounce_s
        )
        self._counted(rule.event, "joined" if job in self._put else "queued")
        self._put[job] = None
        self._put.move_to_end(job)
        while len(self._put) > _REMEMBERED:
            self._put.popitem(last=False)
        return job


class Clock:
    """Fires the event clock. Called now and then, it puts in the job of each trigger whose `every_s` has passed, for every cube
    that `cubes` names. `mine(name, every_s)` says whether the time has come, and to one of all who ask (see scheduler.ticks)."""

    def __init__(
        self,
        triggers: Triggers,
        rules: Sequence[Trigger],
        cubes: Callable[[], Awaitable[Sequence[str]]],
        mine: Callable[[str, float], Awaitable[bool]],
    ) -> None:
        self._triggers = triggers
        self._rules = [rule for rule in rules if rule.event == CLOCK]
        self._cubes = cubes
        self._mine = mine

    async def __call__(self) -> None:
        """One look. Raises what `cubes` and `mine` raise."""
        for rule in self._rules:
            if await self._mine(f"{rule.task} every {rule.every_s:g} s", rule.every_s):
                for cube in await self._cubes():
                    await self._triggers.start(rule, cube)
