"""Prefix states computed ahead, in a sequence of their own, only while no chat is being worked on.

A prefix is what every prompt of a cube begins with. It begins with what another state of the cube has already, and is decoded
in small chunks: a chat that comes waits for at most one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from memory.activation.states import Held
from memory.engine.errors import EngineError
from memory.engine.keeping import Keeper
from memory.engine.llama import Context
from memory.engine.settings import EngineSettings
from memory.engine.slots import Owner, Slot

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Built:
    """A prefix state. `present`: it was there already."""

    held: Held
    present: bool


@dataclass(slots=True, eq=False)
class Build:
    """One prefix to compute. `done`: None when it was not kept, because its cube was forgotten or it is too large."""

    owner: Owner
    tokens: list[int]
    done: Future[Built | None] = field(default_factory=Future)


class Builder:
    """The queue of prefixes, and the one that is being computed. Single-threaded."""

    def __init__(self, context: Context, settings: EngineSettings, keeper: Keeper) -> None:
        self._context = context
        self._settings = settings
        self._keeper = keeper
        self._slot = Slot(settings.slots)  # the sequence after those of the chats
        self._waiting: deque[Build] = deque()
        self._build: Build | None = None

    def __len__(self) -> int:
        return len(self._waiting) + (self._build is not None)

    def add(self, build: Build) -> None:
        """Queue one; if just this one waits already, both get what comes of it."""
        for other in (*self._waiting, *([self._build] if self._build else [])):
            if (other.owner, other.tokens) == (build.owner, build.tokens):
                other.done.add_done_callback(lambda done: _pass_on(done, build.done))
                return
        self._waiting.append(build)

    def adapter(self) -> str:
        """Under which the next step works."""
        build = self._build or (self._waiting[0] if self._waiting else None)
        return build.owner.adapter if build else ""

    def step(self) -> None:
        """Compute a part of one. Raises EngineError: then call `fail`."""
        if self._build is None:
            self._begin()
        build = self._build
        if build is None:
            return
        slot = self._slot
        if rest := build.tokens[len(slot.tokens) :]:
            chunk = part(rest, self._settings.idle_chunk)
            self._context.decode([(slot.sequence, len(slot.tokens), chunk)])
            slot.tokens += chunk
        if len(slot.tokens) == len(build.tokens):
            held = self._keeper.put(slot, "prefix")
            self._end(Built(held, False) if held else None)

    def forget(self, cube: str) -> None:
        """Nothing of this cube is built."""
        for build in [build for build in self._waiting if build.owner.cube == cube]:
            self._waiting.remove(build)
            settle(build.done, None)
        if self._build is not None and self._build.owner.cube == cube:
            self._end(None)

    def fail(self, message: str, *, waiting_too: bool = False) -> None:
        """Give up what is being computed."""
        builds = [self._build] if self._build else []
        if waiting_too:
            builds += self._waiting
            self._waiting.clear()
        self._build = None
        self._clear()
        for build in builds:
            if build.done.set_running_or_notify_cancel():
                build.done.set_exception(EngineError(message))

    def give_up(self, message: str) -> None:
        """Give up the one whose turn it is, begun or not."""
        if self._build is None and self._waiting:
            self._build = self._waiting.popleft()
        self.fail(message)

    def _begin(self) -> None:
        if not self._waiting:
            return
        build = self._build = self._waiting.popleft()
        self._slot.owner = build.owner
        if state := self._keeper.known(self._slot, build.tokens):
            self._end(Built(state.held(), True))
            return
        self._keeper.borrow(self._slot, build.tokens)

    def _end(self, built: Built | None) -> None:
        build, self._build = self._build, None
        self._clear()
        if build is not None:
            settle(build.done, built)

    def _clear(self) -> None:
        self._slot.tokens = []
        self._context.keep(self._slot.sequence, 0)


def _pass_on(done: Future[Built | None], to: Future[Built | None]) -> None:
    if (error := done.exception()) is None:
        settle(to, done.result())
    elif to.set_running_or_notify_cancel():
        to.set_exception(error)


def settle(future: Future[T], result: T) -> None:
    """Give a result to whoever still waits for it."""
    if future.set_running_or_notify_cancel():
        future.set_result(result)


def settle_with(future: Future[T], work: Callable[[], T]) -> None:
    """Give what `work` returns, or raises, to whoever still waits for it."""
    try:
        result = work()
    except Exception as error:  # it is the asker's
        if future.set_running_or_notify_cancel():
            future.set_exception(error)
        return
    settle(future, result)


def part(todo: list[int], size: int) -> list[int]:
    """The tokens to decode next: at most `size`, but never such that a single one is left."""
    return todo[: size - 1] if len(todo) == size + 1 else todo[:size]
