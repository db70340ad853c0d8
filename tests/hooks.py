"""Hooks that tests load by dotted path, as users do."""

from __future__ import annotations

from proxy.errors import Forbidden
from proxy.hooks import Exchange, Hook
from proxy.splice import Append, Lead


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
