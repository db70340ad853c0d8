"""What a saved KV state is worth to the scheduler's policy, for whoever keeps some and has to let others go."""

from __future__ import annotations

from typing import Protocol

from scheduler.policy import Item, value

_AHEAD = 1.0  # uses with which a state begins that was computed before anybody asked
_READ = 0.5


class Saved(Protocol):
    """A saved KV state, as far as its worth goes; see memory.activation. Times are seconds since the epoch."""

    @property
    def key(self) -> str: ...
    @property
    def sort(self) -> str: ...
    @property
    def uses(self) -> int: ...
    @property
    def used_at(self) -> float: ...
    @property
    def created(self) -> float: ...


def worth(state: Saved, now: float) -> float:
    """What a saved state is worth, from 0 to 1: the least leaves first. A larger one costs as much more to compute again as it
    takes, so its size neither helps nor hurts it; one that was computed ahead begins with credit for its first use."""
    prior = _AHEAD if state.sort == "prefix" else _READ
    return value(Item(state.key, {}, state.created, state.uses, state.used_at, prior=prior), now).total
