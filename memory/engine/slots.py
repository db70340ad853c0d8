"""Slots, each holding one chat's KV state, and the choice of the slot where a prompt finds most of itself computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from memory.engine.generation import Generation, TokenLogprob
from memory.engine.llama import Context
from memory.engine.sampler import Sampler
from memory.engine.settings import EngineSettings
from memory.engine.text import TextStream


@dataclass(slots=True)
class Work:
    """One request as the worker sees it. `todo` are the tokens to decode next: first the prompt, then the last choice."""

    generation: Generation
    prompt: list[int]
    sampler: Sampler
    text: TextStream
    limit: int  # of answer tokens
    todo: list[int] = field(default_factory=list)
    answering: bool = False  # the prompt is done
    read_at: int = 0  # the step at which its last part of the prompt was decoded; readers take turns
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of tokens whose text was not given out yet


@dataclass(slots=True, eq=False)
class Slot:
    """`tokens` is exactly what the KV cells of `sequence` were computed from; it outlives the request.

    The first `prompted` of them were computed as part of a prompt, the rest one by one as an answer. `stale` are an
    ended answer's tokens, to be computed again the way a prompt is.
    """

    sequence: int
    tokens: list[int] = field(default_factory=list)
    prompted: int = 0
    stale: list[int] = field(default_factory=list)
    used: int = 0  # the batch at which its last request ended; 0: never
    work: Work | None = None


def shared(a: Sequence[int], b: Sequence[int]) -> int:
    """The length of the longest common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def place(work: Work, slots: Sequence[Slot], context: Context, settings: EngineSettings) -> Slot | None:
    """Put `work` into a free slot with as much of its prompt computed as any slot can give; None if all are taken.

    A slot's state is taken over if at least half of it is of use. Otherwise it is another chat's that merely begins the
    same way (one system prompt, many users): then the least recently used slot is taken and the shared part copied.
    """
    free = [slot for slot in slots if slot.work is None]
    if not free:
        return None
    found = {slot.sequence: _reusable(slot, work.prompt, settings.exact) for slot in slots}
    slot = max(free, key=lambda s: (found[s.sequence], -s.used))
    if found[slot.sequence] * 2 < len(slot.tokens):
        slot = min(free, key=lambda s: s.used)
    source = max(slots, key=lambda s: found[s.sequence])
    kept = found[slot.sequence]
    if found[source.sequence] >= kept + settings.copy_from:
        context.copy(source.sequence, slot.sequence)
        slot.tokens, slot.prompted = list(source.tokens), source.prompted
        kept = found[source.sequence]
    if not context.keep(slot.sequence, kept):
        kept = 0
    del slot.tokens[kept:]
    slot.prompted = min(slot.prompted, kept)
    slot.stale = []
    slot.work = work
    work.todo = work.prompt[kept:]
    work.generation.cached_tokens = kept
    return slot


def _reusable(slot: Slot, prompt: Sequence[int], exact: bool) -> int:
    """How many of the prompt's tokens the slot's state covers. At least two are left: see `Batcher.step`."""
    return max(0, min(shared(slot.tokens, prompt), len(prompt) - 2, slot.prompted if exact else len(prompt)))
