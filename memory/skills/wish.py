"""The shape of a wish, and of the tables that recognise one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LASTING, ALONE, ONCE = "lasting", "alone", "once"


@dataclass(frozen=True, slots=True)
class Wish:
    """One wish on how to be answered. `slot` says what it is about: a later wish with the same slot replaces it."""

    text: str  # the user's sentence
    slot: str
    then: str  # what to do, in few words
    when: str = ""  # the condition; empty: always
    lasting: bool = True  # False: asked for once, which counts only when it is repeated
    lifts: bool = False  # takes an earlier wish back


@dataclass(frozen=True, slots=True)
class Topic:
    """A manner of answering. `pattern` must match the whole core of a sentence; `then` and `slot` take its groups;
    an empty `then` is the core itself, an empty `slot` what the core is about.

    `scope`: lasting = the words alone say that it is meant to last; alone = it is when nothing else is asked in the
    message; once = it is not, unless a word such as "always" says so.
    """

    pattern: re.Pattern[str]
    slot: str
    then: str
    scope: str = ALONE


@dataclass(frozen=True, slots=True)
class Manner:
    """All that recognising needs to know of one language."""

    lead: re.Pattern[str]  # taken from the start: please, no, by the way
    wrong: re.Pattern[str]  # a lead with it corrects the answer
    lasting: re.Pattern[str]  # words that make a wish last; taken out before topics are tried
    courtesy: re.Pattern[str]  # taken out likewise, and means nothing
    never: re.Pattern[str]  # of the lasting words, those that forbid: `dont` takes their place
    dont: str
    here: re.Pattern[str]  # bound to this one answer or text
    guard: re.Pattern[str]  # not the speaker's own wish: reported, supposed
    asks: re.Pattern[str]  # another sentence with it wants something done now
    condition: re.Pattern[str]  # groups `when` and `then`
    topics: Sequence[Topic]
    instruct: re.Pattern[str]  # what a lasting instruction of any other kind begins with
    not_instruct: re.Pattern[str]
    lifted: Sequence[re.Pattern[str]]  # group `what`: the wish that is taken back, as an instruction or by its subject
    subjects: Sequence[tuple[re.Pattern[str], str, str]]  # what a lifted wish can be called: (pattern, slot, then)
    key: Callable[[str], str]  # what an instruction is about, whichever way it is put
    values: dict[str, str]  # words as they are said → as they are written in `then`
    slots: dict[str, str]  # those → as they are written in a slot, the same in every language
