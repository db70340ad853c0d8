"""Hooks: where others join in. Our own memory is the first of them.

on_request    before the upstream is called: read the exchange, change the request, or refuse it by raising an ApiError
on_response   the answer is complete, and the client has not yet been told so: keep it short
on_error      the upstream failed, answered with an error, or the client hung up (`error` is then ClientGone)
tasks         what the executor shall be able to run besides its own tasks
triggers      which tasks shall follow from which events

A hook that raises anything but an ApiError costs a log line and a count, never the chat. Hooks run in the order of the
configuration, on_response in the reverse order; memory is innermost, so it sees what user hooks made of the request. The proxy
and the executor each make hooks of their own: what one of them keeps in memory, the other does not see.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from proxy import bodies
from proxy.auth import Principal
from proxy.config import ConfigError
from proxy.errors import ApiError
from proxy.splice import Edit
from proxy.stream import Answer
from proxy.surface import CHAT, Surface
from proxy.upstreams.port import ToldAs
from scheduler.executor import where
from scheduler.jobs import Task
from scheduler.triggers import Trigger

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Exchange:
    """One chat on its way: what came in, what goes out, and what hooks leave for one another."""

    id: str
    principal: Principal
    headers: Mapping[str, str]  # the client's, names in lower case
    parsed: dict[str, Any]  # the request as it came
    raw: bytes  # the request as it will be sent
    received_at: float
    surface: Surface = CHAT
    status: int = 0
    answer: Answer | None = None
    response_headers: dict[str, str] = field(default_factory=dict)  # added to the answer's headers
    cube: str = ""  # whose saved KV states a local model may go by; empty: nobody's
    adapter: str = ""  # under which a local model shall answer; empty: none
    upstream: str = ""  # the name of the one that serves, once it has begun to answer
    session: str = ""  # in whose name it may save what it has read; empty: it shall save nothing
    told_as: ToldAs = field(default_factory=ToldAs)  # how a response is told that its upstream does not keep
    notes: dict[str, Any] = field(default_factory=dict)
    _stale: bool = False

    @property
    def body(self) -> dict[str, Any]:
        """The request as it will be sent; read it, change it through `edit` and `replace`."""
        if self._stale:
            self.parsed, self._stale = bodies.parse(self.raw), False
        return self.parsed

    @property
    def model(self) -> str:
        """The model asked for."""
        return str(self.body.get("model", ""))

    @property
    def as_chat(self) -> dict[str, Any]:
        """The request as chat completions would say it, whatever surface it came over; to be read."""
        return self.surface.as_chat(self.body)

    @property
    def messages(self) -> list[Any]:
        """The messages as they will be sent, in the shape of chat completions; their indices are those that edits name."""
        messages: list[Any] = self.as_chat["messages"]
        return messages

    def edit(self, edits: Sequence[Edit]) -> None:
        """Add text to messages; every other byte of the request stays. Raises splice.CannotSplice."""
        if edits:
            self.raw, self._stale = self.surface.edit(self.raw, edits), True

    def replace(self, body: dict[str, Any]) -> None:
        """Send another body altogether (written anew as JSON)."""
        self.parsed, self.raw, self._stale = body, msgspec.json.encode(body), False


class Hook:
    """Derive from this and override what you need."""

    async def on_request(self, exchange: Exchange) -> None:
        """Before the upstream is called."""

    async def on_response(self, exchange: Exchange) -> None:
        """The answer is complete (`exchange.answer`)."""

    async def on_error(self, exchange: Exchange, error: BaseException) -> None:
        """There will be no complete answer; `exchange.answer` holds what came, if anything did."""

    def tasks(self) -> Sequence[Task]:
        """Further tasks for the executor. Asked once, at the start of each process."""
        return ()

    def triggers(self) -> Sequence[Trigger]:
        """Further triggers, of our tasks or of the hook's own. Asked once, at the start of each process."""
        return ()


class Hooks:
    """Runs the hooks of one event; `failed` is told the name of each that raised."""

    def __init__(self, hooks: Sequence[Hook], failed: Callable[[str], None] = lambda name: None) -> None:
        self._hooks = list(hooks)
        self._failed = failed

    async def on_request(self, exchange: Exchange) -> None:
        """Raises what a hook refuses with."""
        for hook in self._hooks:
            try:
                await hook.on_request(exchange)
            except ApiError:
                raise
            except Exception as error:  # a hook's fault is not the chat's
                self._log("on_request", hook, exchange, error)

    async def on_response(self, exchange: Exchange) -> None:
        """Never raises."""
        for hook in reversed(self._hooks):
            try:
                await hook.on_response(exchange)
            except Exception as error:
                self._log("on_response", hook, exchange, error)

    async def on_error(self, exchange: Exchange, error: BaseException) -> None:
        """Never raises."""
        for hook in reversed(self._hooks):
            try:
                await hook.on_error(exchange, error)
            except Exception as fault:
                self._log("on_error", hook, exchange, fault)

    def _log(self, event: str, hook: Hook, exchange: Exchange, error: Exception) -> None:
        name = type(hook).__name__
        log.error("%s of hook %s failed for %s: %s\n%s", event, name, exchange.id, type(error).__name__, where(error))
        self._failed(name)


def load(paths: Sequence[str]) -> list[Hook]:
    """The hooks named by dotted paths (`package.module:Name`, a Hook class or an instance). Raises ConfigError."""
    return [_load(path) for path in paths]


def _load(path: str) -> Hook:
    module, _, name = path.partition(":")
    if not name:
        module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
        hook = found() if isinstance(found, type) else found
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"hooks: cannot load {path}: {error}") from error
    if not isinstance(hook, Hook):
        raise ConfigError(f"hooks: {path} is not a proxy.hooks.Hook")
    return hook
