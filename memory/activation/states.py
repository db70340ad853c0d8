"""What is known of a state while it is held, and what is told of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from memory.activation.container import Head, Payload, Tokens

Worth = Callable[["Held", float], float]  # a state and the time: the least is let go first


@dataclass(slots=True, eq=False)
class State:
    """One state, in RAM (`payload`), in a file (`on_disk`: its bytes), or both."""

    head: Head
    tokens: Tokens
    used_at: float
    payload: Payload | None = None
    on_disk: int = 0
    uses: int = 0
    loading: threading.Lock = field(default_factory=threading.Lock)

    @property
    def ram(self) -> int:
        """Bytes that it takes in RAM."""
        return 0 if self.payload is None else self.head.size

    def held(self) -> Held:
        """What may be told."""
        head = self.head
        return Held(
            head.key,
            head.cube,
            head.sort,
            head.session,
            head.count,
            head.size,
            self.payload is not None,
            self.on_disk > 0,
            self.uses,
            self.used_at,
            head.created,
            head.adapter,
        )


@dataclass(frozen=True, slots=True)
class Held:
    """A state as others see it. `bytes`: of its payload; `uses`: since the start; times are seconds since the epoch."""

    key: str
    cube: str
    sort: str
    session: str
    tokens: int
    bytes: int
    ram: bool
    disk: bool
    uses: int
    used_at: float
    created: float
    adapter: str


@dataclass(frozen=True, slots=True)
class Budgets:
    """What all states may take at most, in bytes; 0: none are kept there."""

    ram: int = 512 * 2**20
    disk: int = 4096 * 2**20


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose a state is to be. `epoch`: that of the cube when the work began."""

    cube: str
    epoch: str
    sort: str
    session: str = ""
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class Sums:
    """All states together. `counts`: what happened since the start, by name; `damaged`: files that were not used, by reason."""

    budgets: Budgets
    states: int
    ram_bytes: int
    disk_bytes: int
    counts: dict[str, int]
    damaged: dict[str, int]


@dataclass(slots=True)
class Tally:
    """Counters; under the store's lock."""

    counts: Counter[str] = field(default_factory=Counter)
    damaged: Counter[str] = field(default_factory=Counter)


def latest(held: Held, now: float) -> float:
    """Worth that keeps what was used last."""
    return held.used_at
