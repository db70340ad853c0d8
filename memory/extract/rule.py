"""The shape of a rule: a clause that matches becomes one candidate. Tables of rules live in rules_en.py and rules_zh.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from memory.types import Kind

When = Literal["", "past", "future", "due"]  # past, future: a date must be there; due: one may be


@dataclass(frozen=True, slots=True)
class Rule:
    """`pattern` is matched at the start of a clause without fillers; its groups fill `{…}` in `slot`; `e` is an entity."""

    kind: Kind
    pattern: re.Pattern[str]
    slot: str = ""
    when: When = ""
    state: str = ""  # a task's: open | done
    veto: re.Pattern[str] | None = None  # must not occur in the clause
    importance: float = 0.5


@dataclass(frozen=True, slots=True)
class Language:
    """All that the engine needs to know of one language."""

    first_person: re.Pattern[str]  # a sentence without it can only be a standing instruction
    guard: re.Pattern[str]  # a sentence with it says nothing certain about the user
    question: re.Pattern[str]  # a clause with it asks
    filler: re.Pattern[str]  # taken from the start of a clause
    clauses: Callable[[str], list[str]]
    standing: tuple[Rule, ...]  # instructions on how to answer: matched on the whole sentence
    rules: tuple[Rule, ...]
    condition: re.Pattern[str]  # the "when" of an instruction
    names: re.Pattern[str]
    tags: tuple[tuple[str, re.Pattern[str]], ...]
    slots: dict[str, str]  # words in slots → the stable ones: colour → color
