"""What a task and a job are. Values and Protocols only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

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


class QueueError(Exception):
    """The queue cannot be reached or refused."""


class JobQueue(Protocol):
    """The monitoring queue, seen from where jobs are put in and looked at."""

    async def put(
        self, task: str, cube: str, arguments: Arguments | None = None, *, priority: int = 5, delay_s: float = 0.0
    ) -> str:
        """Add a job; one that waits for the same task, cube and arguments already is enough, and its id is returned.
        A smaller priority runs first. Raises QueueError."""
        ...

    async def jobs(self, cube: str | None = None, *, states: tuple[str, ...] = (), limit: int = 50) -> list[Job]:
        """Newest first. Raises QueueError."""
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

    async def purge(self, older_than_s: float, now: float) -> int:
        """Delete finished jobs; failed ones stay until somebody looks at them. Returns how many. Raises QueueError."""
        ...
