"""Hooks that tests load by dotted path, as users do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proxy.errors import Forbidden
from proxy.hooks import Exchange, Hook
from proxy.splice import Append, Lead
from scheduler.jobs import Task
from scheduler.triggers import MEMORY_WRITTEN, SESSION_QUIET, TURN_FINISHED, Trigger


class Faulty(Hook):
    """Raises whenever it can."""

    async def on_request(self, exchange: Exchange) -> None:
        raise RuntimeError("faulty")

    async def on_response(self, exchange: Exchange) -> None:
        raise RuntimeError("faulty")


class Recorder(Hook):
    """Keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def on_request(self, exchange: Exchange) -> None:
        self.seen.append(f"request {exchange.model}")
        exchange.edit([Append(len(exchange.messages) - 1, "(be polite)")])
        exchange.response_headers["x-recorder"] = "was here"

    async def on_response(self, exchange: Exchange) -> None:
        self.seen.append(f"response {exchange.answer.text if exchange.answer else ''}")

    async def on_error(self, exchange: Exchange, error: BaseException) -> None:
        self.seen.append(f"error {exchange.status}")


recorder = Recorder()


class Bouncer(Hook):
    """Refuses what it does not like."""

    async def on_request(self, exchange: Exchange) -> None:
        if "forbidden" in str(exchange.messages):
            raise Forbidden("not here")


class Leading(Hook):
    """Puts a system message before all others."""

    async def on_request(self, exchange: Exchange) -> None:
        exchange.edit([Lead("House rules apply.")])


class Working(Hook):
    """Brings a task, and two triggers for it."""

    def tasks(self) -> Sequence[Task]:
        return [Task("work", self.work)]

    def triggers(self) -> Sequence[Trigger]:
        return [Trigger(MEMORY_WRITTEN, "work"), Trigger(SESSION_QUIET, "work")]

    async def work(self, cube: str, arguments: Mapping[str, str]) -> dict[str, int]:
        return {"done": 1}


class Usurper(Hook):
    """Brings a task under a name of ours."""

    def tasks(self) -> Sequence[Task]:
        return [Task("learn", Working().work)]


class Lost(Hook):
    """Brings a trigger for a task that there is not."""

    def triggers(self) -> Sequence[Trigger]:
        return [Trigger(MEMORY_WRITTEN, "nowhere")]


class Confused(Hook):
    """Brings a trigger that makes no sense."""

    def triggers(self) -> Sequence[Trigger]:
        return [Trigger("sunrise", "index")]


class Failing(Hook):
    """Brings a task that raises, and lets it run after every turn."""

    def tasks(self) -> Sequence[Task]:
        return [Task("sour", self.work, attempts=2, backoff_s=0.1)]

    def triggers(self) -> Sequence[Trigger]:
        return [Trigger(TURN_FINISHED, "sour")]

    async def work(self, cube: str, arguments: Mapping[str, str]) -> dict[str, int]:
        raise RuntimeError("sour")
