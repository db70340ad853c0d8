"""Is a note supported by the turns it cites? Names, numbers and most content words must stand there. Pure, any language."""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress

from memory.extract.dates_en import COUNTS
from memory.extract.dates_zh import number
from memory.extract.text import bigrams, content_words, numbers, stem

SHARE = 0.6  # of the content words; below, the model added something of its own
SHARE_CJK = 0.4  # of the character pairs, which a changed particle already breaks
_NAME = re.compile(r"(?<![.!?。]\s)(?<!^)\b[A-ZÀ-Þ][\w'’-]+")
_FIRST = frozenset("i i'm i've i'd i'll user the my we our".split())
_COUNTED = {word: str(count) for word, count in COUNTS.items() if count > 1 and word not in ("couple", "few")}
_BY_STEM = {stem(word): count for word, count in _COUNTED.items()}
_CJK_NUMBER = re.compile(r"[零〇一二两三四五六七八九十]{1,4}")
_CJK_COUNT = re.compile(r"[二两三四五六七八九十]{1,4}(?=[个岁年月日号天周只条次斤块元口名位点])")


class Source:
    """The words of some turns, prepared for many comparisons."""

    def __init__(self, text: str, aside: str = "") -> None:
        """`aside` may lend names (speaker, what is known already) but supports nothing."""
        self._words = _counted(content_words(text))
        self._folded = unicodedata.normalize("NFKC", f"{text} {aside}").casefold()
        self._numbers = _said_numbers(f"{text} {aside}")

    def share(self, text: str) -> float:
        """The share of `text`'s content words that occur, 0 to 1 (1 for a text without any)."""
        shares = [len(part & self._words) / len(part) for part in _parts(text) if part]
        return min(shares) if shares else 1.0

    def supports(self, text: str, *, share: float = SHARE) -> bool:
        """Whether names and numbers all occur, and enough of the rest: `share` of the content words."""
        plain, pairs = _parts(text)
        if not (plain or pairs) or not _told_numbers(text) <= self._numbers:
            return False
        if not all(self.names(name) for name in _names(text)):
            return False
        enough = len(plain & self._words) >= share * len(plain)
        return enough and len(pairs & self._words) >= SHARE_CJK * len(pairs)

    def names(self, name: str) -> bool:
        """Whether a name occurs, in any case."""
        folded = unicodedata.normalize("NFKC", name).casefold().replace("’", "'").removesuffix("'s")
        return bool(folded.strip()) and folded in self._folded


def _names(text: str) -> list[str]:
    return [name for name in _NAME.findall(text) if name.casefold().replace("’", "'") not in _FIRST]


def _parts(text: str) -> tuple[set[str], set[str]]:
    """Content words (number words as digits) and character pairs."""
    pairs = bigrams(text)
    return _counted(content_words(text) - pairs), pairs


def _counted(words: set[str]) -> set[str]:
    return {_BY_STEM.get(word, word) for word in words}


def _told_numbers(text: str) -> set[str]:
    """The numbers a note states; each must have been said."""
    told = numbers(text) | {_COUNTED[word] for word in re.findall(r"[a-z]+", text.lower()) if word in _COUNTED}
    return told | _read(_CJK_COUNT.findall(text))


def _said_numbers(text: str) -> set[str]:
    """Digits, and number words as digits: "two", 三, 二十五."""
    said = numbers(text) | {str(COUNTS[word]) for word in re.findall(r"[a-z]+", text.lower()) if word in COUNTS}
    return said | _read(_CJK_NUMBER.findall(text))


def _read(words: list[str]) -> set[str]:
    read = set()
    for word in words:
        with suppress(ValueError):  # 二三十: "twenty or thirty"
            read.add(str(number(word)))
    return read
