"""Slots, each holding one chat's KV state, and the choice of the slot where a prompt finds most of itself computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from memory.engine.generation import Generation, TokenLogprob
from memory.engine.sampler import Sampler
from memory.engine.text import TextStream


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose chat it is. `cube`: whose states it may go by; `session`: in whose name what it has read may be saved, "": nothing
    is; `adapter`: under which the model works. `epoch`: of the cube, filled in by the engine."""

    cube: str = ""
    session: str = ""
    adapter: str = ""
    epoch: str = ""

    def shares(self, other: Owner) -> bool:
        """May one go by the other's states?"""
        return (self.cube, self.adapter, self.epoch) == (other.cube, other.adapter, other.epoch)


@dataclass(slots=True, eq=False)
class Work:
    """One request as the worker sees it. `todo` are the tokens to decode next: first the prompt, then the last choice."""

    generation: Generation
    prompt: list[int]
    sampler: Sampler
    text: TextStream
    limit: int  # of answer tokens
    owner: Owner = Owner()
    todo: list[int] = field(default_factory=list)
    loading: bool = False  # its state comes from a file
    answering: bool = False  # the prompt is done
    read_at: int = 0  # the step at which its last part of the prompt was decoded; readers take turns
    forgotten: bool = False  # its cube was forgotten: nothing of it is kept
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of tokens whose text was not given out yet


@dataclass(slots=True, eq=False)
class Slot:
    """`tokens` is exactly what the KV cells of `sequence` were computed from; it outlives the request.

    The first `prompted` of them were computed as part of a prompt, the rest one by one as an answer. `stale` are an
    ended answer's tokens, to be computed again the way a prompt is. `saved` of them a saved state has, too.
    """

    sequence: int
    owner: Owner = Owner()
    tokens: list[int] = field(default_factory=list)
    prompted: int = 0
    saved: int = 0
    stale: list[int] = field(default_factory=list)
    used: int = 0  # the batch at which its last request ended; 0: never
    idle_since: float = 0.0
    work: Work | None = None


def shared(a: Sequence[int], b: Sequence[int]) -> int:
    """The length of the longest common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def reusable(slot: Slot, work: Work, exact: bool) -> int:
    """How many of the prompt's tokens the slot's state covers. At least two are left: see `Batcher.step`."""
    if not slot.owner.shares(work.owner):
        return 0
    prompt = work.prompt
    return max(0, min(shared(slot.tokens, prompt), len(prompt) - 2, slot.prompted if exact else len(prompt)))


def choose(work: Work, slots: Sequence[Slot], exact: bool) -> Slot | None:
    """The slot that `work` gets; None if all are taken.

    A slot's state is taken over if at least half of it is of use. Otherwise it is another chat's that merely begins the
    same way (one system prompt, many chats): then the least recently used slot is taken.
    """
    free = [slot for slot in slots if slot.work is None]
    if not free:
        return None
    slot = max(free, key=lambda s: (reusable(s, work, exact), -s.used))
    if reusable(slot, work, exact) * 2 < len(slot.tokens):
        slot = min(free, key=lambda s: s.used)
    return slot
