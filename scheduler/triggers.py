"""Triggers: what happens, and which jobs follow from it. One table, in whatever order; the queue joins what waits already.

A trigger waits for an event. Three of them are not simply announced:

session_quiet  nobody has spoken in a cube for `quiet_s`. There is no timer that waits for it: its jobs are put in when a turn
               ends, debounced by `quiet_s`, so that each further turn moves the waiting job back and it runs after the last.
clock          every `every_s`, for each active cube; `Clock` fires it when the executor beats.
query_arrived  a question was asked, and its answer is not there yet.

Knows no metrics: `counted` is told of each put.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from scheduler.jobs import JobQueue, QueueError

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


def table(*, debounce_s: float, quiet_s: float = 60.0) -> list[Trigger]:
    """The built-in triggers. `debounce_s`: how long to gather turns before one extraction call; `quiet_s`: silence after which
    the session is thought over and the next one thought of."""
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
    ]


def built_in_tasks() -> frozenset[str]:
    """The names of the tasks that the built-in triggers start."""
    return frozenset(rule.task for rule in table(debounce_s=0.0))


class Triggers:
    """Turns events into jobs. A queue that cannot be reached costs a log line: the executor's own sweep finds the work.
    `counted(event, outcome)` is told of every put: queued, joined (one waits already) or refused."""

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

    def heard(self, event: str) -> bool:
        """Whether anything follows from `event`."""
        return event in self._rules

    async def fire(self, event: str, cube: str, arguments: Mapping[str, str] | None = None) -> list[str]:
        """Put in the jobs that follow from `event`; returns their ids. Never raises."""
        return [job for rule in self._rules.get(event, ()) if (job := await self._follow(rule, cube, arguments or {}))]

    async def start(self, rule: Trigger, cube: str) -> str | None:
        """Put in the job of one trigger, for whoever knows that its time has come; its id, None when the queue refused."""
        return await self._follow(rule, cube, {})

    async def _follow(self, rule: Trigger, cube: str, arguments: Mapping[str, str]) -> str | None:
        try:
            job = await self._queue.put(
                rule.task,
                cube,
                arguments,
                priority=rule.priority,
                delay_s=rule.delay_s,
                debounce_s=rule.debounce_s,
            )
        except QueueError as error:
            log.warning("job %s for cube %s was not queued: %s", rule.task, cube, error)
            self._counted(rule.event, "refused")
            return None
        self._counted(rule.event, "joined" if job in self._put else "queued")
        self._put[job] = None
        self._put.move_to_end(job)
        while len(self._put) > _REMEMBERED:
            self._put.popitem(last=False)
        return job


class Clock:
    """Fires the event clock. Called now and then, it puts in the job of each trigger whose `every_s` has passed, for every cube
    that `cubes` names. When it last did so is kept in memory only: after a start each fires once at the first call."""

    def __init__(
        self,
        triggers: Triggers,
        rules: Sequence[Trigger],
        cubes: Callable[[], Awaitable[Sequence[str]]],
        clock: Callable[[], float],
    ) -> None:
        self._triggers = triggers
        self._rules = [rule for rule in rules if rule.event == CLOCK]
        self._cubes = cubes
        self._clock = clock
        self._fired: dict[Trigger, float] = {}

    async def __call__(self) -> None:
        """One look. Raises what `cubes` raises."""
        now = self._clock()
        due = [rule for rule in self._rules if now - self._fired.get(rule, float("-inf")) >= rule.every_s]
        if not due:
            return
        cubes = await self._cubes()
        for rule in due:
            self._fired[rule] = now
            for cube in cubes:
                await self._triggers.start(rule, cube)
