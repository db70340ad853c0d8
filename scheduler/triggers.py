"""Triggers: what happens at the hooks, and which jobs follow from it. One table."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scheduler.jobs import JobQueue, QueueError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trigger:
    """When `event` happens in a cube, run `task` after `delay_s`; further events until then need no job of their own."""

    event: str
    task: str
    priority: int = 5
    delay_s: float = 0.0


TURN_FINISHED = "turn_finished"
MEMORY_WRITTEN = "memory_written"
MEMORY_ERASED = "memory_erased"
INDEX_BROKEN = "index_broken"
CUBE_CHANGED = "cube_changed"  # its quota or time to live
CUBE_ARCHIVED = "cube_archived"
FEEDBACK_GIVEN = "feedback_given"
CUBE_ERASED = "cube_erased"
CUBE_FUSED = "cube_fused"


def table(*, debounce_s: float, quiet_s: float = 60.0) -> list[Trigger]:
    """The built-in triggers. `debounce_s`: how long to gather turns before one extraction call; `quiet_s`: silence after which
    the next session is thought of."""
    return [
        Trigger(TURN_FINISHED, "learn", priority=5, delay_s=debounce_s),
        Trigger(TURN_FINISHED, "predict", priority=8, delay_s=quiet_s),
        Trigger(MEMORY_WRITTEN, "index", priority=3),
        Trigger(MEMORY_ERASED, "erase", priority=1),
        Trigger(INDEX_BROKEN, "rebuild", priority=2),
        Trigger(CUBE_ERASED, "wipe", priority=1),
        Trigger(CUBE_FUSED, "fuse", priority=5),
        Trigger(CUBE_CHANGED, "trim", priority=6),
        Trigger(CUBE_ARCHIVED, "close", priority=6),
        Trigger(FEEDBACK_GIVEN, "reflect", priority=8, delay_s=5.0),
    ]


class Triggers:
    """Turns events into jobs. A queue that cannot be reached costs a log line: the executor's own sweep finds the work."""

    def __init__(self, queue: JobQueue, rules: Sequence[Trigger]) -> None:
        self._queue = queue
        self._rules = list(rules)

    async def fire(self, event: str, cube: str, arguments: Mapping[str, str] | None = None) -> list[str]:
        """Put in the jobs that follow from `event`; returns their ids."""
        ids: list[str] = []
        for rule in self._rules:
            if rule.event != event:
                continue
            try:
                job = await self._queue.put(
                    rule.task, cube, arguments or {}, priority=rule.priority, delay_s=rule.delay_s
                )
            except QueueError as error:
                log.warning("job %s for cube %s was not queued: %s", rule.task, cube, error)
                continue
            ids.append(job)
        return ids
