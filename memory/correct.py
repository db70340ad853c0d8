"""Corrections: a value is put in the place of a wrong one in a sentence that was said before. Pure; no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

from memory.extract.dates import find_dates
from memory.extract.text import has_cjk
from memory.types import Change, Memory
from memory.words import fold

ALIKE = 0.6  # share of letters from which one name can be the other misspelt
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_DIGITS = re.compile(r"\+?\d(?:[\d ()./-]{2,}\d)?")
_LEAD = re.compile(r"^(?:on|at|in|called|named|spelled|the)\s+|^[在叫是]", re.IGNORECASE)
_NAME = re.compile(r"(?-i:[A-ZÀ-Þ])[\w'.-]*(?: (?-i:[A-ZÀ-Þ])[\w'.-]*){0,3}|[\u4e00-\u9fff·]{1,8}")


@dataclass(frozen=True, slots=True)
class Corrected:
    """The right sentence, and the value that gave way. `sure`: the wrong value was named, or nearly is the right one."""

    text: str
    wrong: str
    right: str
    sure: bool


def corrected(change: Change, old: Memory) -> Corrected | None:
    """What the earlier statement should have said; None when the correction is not about it."""
    right = _LEAD.sub("", change.new).strip()
    if not right or fold(right) in fold(old.text):
        return None
    if change.old:
        wrong = _LEAD.sub("", change.old).strip()
        return _put(old, wrong, right, sure=True) if wrong else None
    wrong = _of_the_same_sort(right, old)
    if not wrong:
        return None
    return _put(old, wrong, right, sure=alike(wrong, right))


def alike(wrong: str, right: str) -> bool:
    """Whether one can be the other with a slip of the pen."""
    need = 0.5 if has_cjk(right) else ALIKE
    return SequenceMatcher(None, fold(wrong), fold(right), autojunk=False).ratio() >= need


def _of_the_same_sort(right: str, old: Memory) -> str:
    """The value in the sentence that is a date, an address, a number or a name like the right one."""
    dates = find_dates(right, old.message_time)
    if dates and len(dates[0].text) * 2 >= len(right):
        there = find_dates(old.text, old.message_time)
        return there[0].text if there else ""
    for sort in (_MAIL, _DIGITS):
        if sort.fullmatch(right):
            found = sort.findall(old.text)
            return found[0] if len(found) == 1 else ""
    if not _NAME.fullmatch(right):
        return ""
    named = [name for name in old.entities if name in old.text]
    return max(named, key=lambda name: SequenceMatcher(None, fold(name), fold(right)).ratio(), default="")


def _put(old: Memory, wrong: str, right: str, *, sure: bool) -> Corrected | None:
    at = old.text.lower().find(wrong.lower())
    if at < 0:
        return None
    return Corrected(old.text[:at] + right + old.text[at + len(wrong) :], old.text[at : at + len(wrong)], right, sure)
