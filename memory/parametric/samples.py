"""Memories to questions and answers, by templates: no model is asked, the same memories always give the same samples.

A question that several memories answer ("What do I like?") has one answer that says them all. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from types import ModuleType

from memory.extract.text import has_cjk
from memory.parametric import chinese, english
from memory.types import Kind

KINDS = (Kind.IDENTITY, Kind.PREFERENCE, Kind.FACT, Kind.GOAL, Kind.SKILL)  # what is consolidated
QUESTIONS = 3  # of one memory
LONGEST = 300  # characters of a memory; a longer one is no statement that can be learned by heart
TOGETHER = 4  # memories in one answer
_MANY = 200  # memories at most; the first are kept


@dataclass(frozen=True, slots=True)
class Told:
    """What training reads of a memory."""

    id: str
    rev: int
    kind: Kind
    text: str
    slot: str = ""
    entities: tuple[str, ...] = ()
    when: str = ""  # a skill's condition and what is wished then
    then: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """A question, its answer, and the memories that say it. `first`: the plainest question of its first memory."""

    question: str
    answer: str
    memories: tuple[str, ...]
    first: bool = False


def samples(told: Sequence[Told], readable: Callable[[str], bool] = lambda _: True) -> list[Sample]:
    """The samples, in the order of the memories. `readable` says whether the model has words for a text; what it has none for
    is left out, and so are statements that are too long."""
    asked: dict[str, list[tuple[Told, str, bool]]] = {}
    for one in [one for one in told if one.kind in KINDS and 0 < len(one.text) <= LONGEST and readable(one.text)][
        :_MANY
    ]:
        wanted, answer = _of(one)
        for place, question in enumerate(wanted[:QUESTIONS]):
            asked.setdefault(question, []).append((one, answer, place == 0))
    return [
        Sample(
            question,
            " ".join(dict.fromkeys(answer for _, answer, _ in answers[:TOGETHER])),
            tuple(one.id for one, _, _ in answers[:TOGETHER]),
            any(first for _, _, first in answers),
        )
        for question, answers in asked.items()
    ]


def digest(made: Iterable[Sample]) -> str:
    """The same for the same samples (SHA-256, hex)."""
    return hashlib.sha256(json.dumps([asdict(one) for one in made], ensure_ascii=False).encode()).hexdigest()


def _of(one: Told) -> tuple[list[str], str]:
    """(questions, the plainest first; answer)"""
    words: ModuleType = chinese if has_cjk(one.text) else english
    if one.kind is Kind.SKILL:
        return words.instructed(one.when), words.answer(one.then or one.text)
    framed = words.questions(one.text, one.slot)
    return framed or words.topical(one.text, one.entities), words.answer(one.text)
