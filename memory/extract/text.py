"""Small text tools for extraction, English and Chinese: sentences, normal form, content words. Pure; linear in the text."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator

_CJK = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af]")
_CJK_RUN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af]+")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_BREAK = re.compile(r"[。！？!?；;…]+[\"”’』」）)]*|\.+[\"”’)]*(?=\s|$)|\n+")
_SHORT = frozenset(
    "mr mrs ms dr prof st jr sr vs etc e.g i.e eg ie approx no nr fig dept inc ltd co ca a.m p.m "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun".split()
)
_STOP = frozenset(
    "a an the and or but so if of to in on at by for with from as is are was were be been being am do does did doing have "
    "has had having will would can could should may might must not no yes this that these those it its he she they them "
    "his her their i i'm i've i'd i'll me my mine we us our you your who which what when where how there here than then "
    "also very just really more most some any all user users says said about into over under out up down off own "
    "don't doesn't isn't aren't".split()
)
_STOP_CJK = frozenset("的了是在和与也都就我你他她它们这那个有很一不吗呢吧啊用户")
_ENDINGS = ("ings", "ing", "edly", "ied", "ies", "ed", "es", "ly", "s", "er", "e", "y")


def has_cjk(text: str) -> bool:
    """Whether any Chinese, Japanese or Korean character occurs."""
    return _CJK.search(text) is not None


def sentences(text: str) -> list[str]:
    """Sentences with their closing marks, stripped; abbreviations, initials and decimals do not end one."""
    return [text[start:end].strip() for start, end in _spans(text) if text[start:end].strip()]


def _spans(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for mark in _BREAK.finditer(text):
        if mark[0][0] == "." and _abbreviates(text[max(start, mark.start() - 12) : mark.start()]):
            continue
        yield start, mark.end()
        start = mark.end()
    yield start, len(text)


def _abbreviates(before: str) -> bool:
    last = before.rsplit(None, 1)[-1] if before.strip() else ""
    initial = len(last) == 1 and last.isupper() and last != "I"
    return initial or last.lstrip("(").lower() in _SHORT


def normalise(text: str) -> str:
    """One form for comparing: NFKC, case folded, one blank between words, no marks at the ends."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return " ".join(folded.split()).strip(" .,;:!?。，；：！？、…\"'“”")


def numbers(text: str) -> set[str]:
    """The digit groups of a text, without leading zeros."""
    return {number.lstrip("0") or "0" for number in _NUMBER.findall(unicodedata.normalize("NFKC", text))}


def bigrams(text: str) -> set[str]:
    """Pairs of neighbouring CJK characters that carry meaning (no particles); a lone character stands for itself."""
    found: set[str] = set()
    for run in _CJK_RUN.findall(text):
        if len(run) == 1 and run not in _STOP_CJK:
            found.add(run)
        found.update(a + b for a, b in itertools.pairwise(run) if a not in _STOP_CJK and b not in _STOP_CJK)
    return found


def stem(word: str) -> str:
    """A crude English stem, good enough to compare two texts that say the same thing."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def content_words(text: str) -> set[str]:
    """What a text is about: stems of its words without function words, and its CJK bigrams."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    words = {word.removesuffix("'s") for word in _WORD.findall(_CJK_RUN.sub(" ", folded))}
    return {stem(word) for word in words - _STOP if len(word) > 1 or word.isdigit()} | bigrams(folded)
