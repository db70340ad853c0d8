"""Is a note supported by the turns it cites? Names, numbers and most content words must stand there. Pure, any language."""

from __future__ import annotations

import re
import unicodedata

from memory.extract.dates_en import COUNTS
from memory.extract.dates_zh import number
from memory.extract.text import bigrams, content_words, numbers

SHARE = 0.6  # of the content words; below, the model added something of its own
SHARE_CJK = 0.4  # of the character pairs, which a changed particle already breaks
_NAME = re.compile(r"(?<![.!?。]\s)(?<!^)\b[A-ZÀ-Þ][\w'’-]+")
_FIRST = frozenset("i i'm i've i'd i'll user the my we our".split())
_CJK_NUMBER = re.compile(r"[零〇一二两三四五六七八九十]{1,4}")


class Source:
    """The words of some turns, prepared for many comparisons."""

    def __init__(self, text: str, aside: str = "") -> None:
        """`aside` may lend names (speaker, what is known already) but supports nothing."""
        self._words = content_words(text)
        self._folded = unicodedata.normalize("NFKC", f"{text} {aside}").casefold()
        self._numbers = _said_numbers(f"{text} {aside}")

    def share(self, text: str) -> float:
        """The share of `text`'s content words that occur, 0 to 1 (1 for a text without any)."""
        words = content_words(text)
        pairs = bigrams(text)
        plain = words - pairs
        shares = [len(part & self._words) / len(part) for part in (plain, pairs) if part]
        return min(shares) if shares else 1.0

    def supports(self, text: str) -> bool:
        """Whether names and numbers all occur, and enough of the rest."""
        words, pairs = content_words(text), bigrams(text)
        plain = words - pairs
        if not words or not numbers(text) <= self._numbers or not all(self.names(name) for name in _names(text)):
            return False
        enough = not plain or len(plain & self._words) >= SHARE * len(plain)
        return enough and (not pairs or len(pairs & self._words) >= SHARE_CJK * len(pairs))

    def names(self, name: str) -> bool:
        """Whether a name occurs, in any case."""
        folded = unicodedata.normalize("NFKC", name).casefold().replace("’", "'").removesuffix("'s")
        return bool(folded.strip()) and folded in self._folded


def _names(text: str) -> list[str]:
    return [name for name in _NAME.findall(text) if name.casefold().replace("’", "'") not in _FIRST]


def _said_numbers(text: str) -> set[str]:
    """Digits, and number words as digits: "two", 三, 二十五."""
    said = numbers(text)
    said |= {str(COUNTS[word]) for word in re.findall(r"[a-z]+", text.lower()) if word in COUNTS}
    for word in _CJK_NUMBER.findall(text):
        try:
            said.add(str(number(word)))
        except (KeyError, ValueError):
            continue
    return said
