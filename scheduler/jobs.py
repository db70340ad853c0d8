"""What a task and a job are. Values and Protocols only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

LONGEST = 10  # times its debounce a job is put off at most
STATES = ("waiting", "running", "done", "failed", "cancelled")
Arguments = Mapping[str, str]  # ids only: arguments are stored, and what people said must not be


@dataclass(frozen=True, slots=True)
class Task:
    """A function that jobs run. It may be started more than once for the same arguments, and must then do no harm."""

    name: str
    run: Callable[[str, Arguments], Awaitable[Mapping[str, Any]]]  # (cube, arguments) → counts for the job list
    attempts: int = 5
    backoff_s: float = 1.0  # doubled after each failure


@dataclass(frozen=True, slots=True)
class Job:
    """One call of a task. `state`: waiting, running, done, failed (in the dead letters) or cancelled."""

    id: str
    task: str
    cube: str
    state: str
    priority: int
    created_at: float
    updated_at: float
    arguments: dict[str, str]
    result: dict[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """How many jobs of a task are waiting, running or failed, and when the oldest of them was put in."""

    task: str
    state: str
    number: int
    oldest_at: float


class QueueError(Exception):
    """The queue cannot be reached or refused."""


class JobQueue(Protocol):
    """The monitoring queue, seen from where jobs are put in and looked at."""

    async def put(
        self,
        task: str,
        cube: str,
        arguments: Arguments | None = None,
        *,
        priority: int = 5,
        delay_s: float = 0.0,
        debounce_s: float = 0.0,
    ) -> str:
        """Add a job; one that waits for the same task, cube and arguments already is enough, and its id is returned.
        A smaller priority runs first. With `debounce_s` the job waits so long, and one that waits already so long from now,
        but not longer than LONGEST times that in all. Raises QueueError."""
        ...

    async def jobs(
        self,
        cube: str | None = None,
        *,
        states: tuple[str, ...] = (),
        task: str | None = None,
        limit: int = 50,
        after: str = "",
    ) -> list[Job]:
        """Newest first; `after` is the last job of the page before. Raises QueueError."""
        ...

    async def counts(self) -> list[Count]:
        """What waits, runs and lies in the dead letters, by task. Raises QueueError."""
        ...

    async def get(self, job: str) -> Job | None:
        """One job. Raises QueueError."""
        ...

    async def cancel(self, job: str) -> bool:
        """Take a waiting job out; False when there is none. Raises QueueError."""
        ...

    async def retry(self, job: str) -> str | None:
        """Put a failed or cancelled job in again; the new id. Raises QueueError."""
        ...

    async def purge(self, older_than_s: float, now: float, dead_s: float | None = None) -> int:
        """Delete jobs that ended so long ago; failed ones when they are older than `dead_s`, or never. Returns how many.
        Raises QueueError."""
        ...
