"""Words: how text is cut into terms for matching, roughly as the full-text index does, and how many tokens it costs.

Latin script gives folded, lightly stemmed words without function words; Chinese, Japanese and Korean give character pairs.
Pure functions.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# LanceDB's built-in English list also holds "dog" and "cat" (seen in 0.40); ours holds function words only
STOP_WORDS = frozenset(
    """a about above after again against all also am an and any are as at be because been before being below between both
    but by can could did do does doing don down during each else ever few for from further get got had has have having he
    her here hers herself him himself his how i if in into is it its itself just ll me more most my myself no nor not now of
    off on once only or other our ours ourselves out over own please re s same shall she should so some such t than that
    the their theirs them themselves then there these they this those through to too under until up us ve very was we were
    what when where which while who whom why will with would you your yours yourself yourselves""".split()
)
_WIDE = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_TERM = re.compile(rf"[{_WIDE}]+|[^\W_{_WIDE}]+(?:['’][^\W_{_WIDE}]+)?")
_CJK = re.compile(rf"[{_WIDE}]")
_CLIPPED = frozenset(("", "s", "ll", "re", "ve", "d", "m"))  # what stands after an apostrophe and is no word


def terms(text: str) -> list[str]:
    """The matching terms of a text, in order, repeated as they occur."""
    out: list[str] = []
    for word in _TERM.findall(fold(text)):
        if word.isascii() and "'" not in word:  # nearly all
            if word not in STOP_WORDS:
                out.append(stem(word))
            continue
        if _CJK.match(word):
            out += [word] if len(word) == 1 else [word[i : i + 2] for i in range(len(word) - 1)]
            continue
        head, _, tail = word.replace("’", "'").partition("'")
        if tail == "t":  # isn't, won't: auxiliaries all
            continue
        parts = [head] if tail in _CLIPPED else [head, tail]
        out += [stem(part) for part in parts if part not in STOP_WORDS]
    return out


def fold(text: str) -> str:
    """Lower case without accents, full-width letters made narrow."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", text).lower()
    if text.isascii():
        return text
    bare = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    return unicodedata.normalize("NFC", bare)  # Korean syllables whole again


@lru_cache(1 << 15)
def stem(word: str) -> str:
    """A light English stem: plural, -ing, -ed, -ly. Made for matching, not for reading."""
    if len(word) < 4 or not word.isascii():
        return word
    for ending, rest in (("ies", "y"), ("ing", ""), ("edly", ""), ("ed", ""), ("ly", ""), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) + len(rest) >= 3:
            if ending == "s" and word.endswith(("ss", "us", "is")):
                return word
            base = word[: -len(ending)] + rest
            if ending in ("ing", "ed") and len(base) > 3 and base[-1] == base[-2] and base[-1] not in "lsz":
                base = base[:-1]
            return base[:-1] if base.endswith("e") and len(base) > 3 else base
    return word[:-1] if word.endswith("e") else word


def squeeze(text: str) -> str:
    """White space folded, ends trimmed."""
    # nothing that can be printed is white space but a space
    if text.isprintable() and "  " not in text and text[:1] != " " != text[-1:]:
        return text
    return " ".join(text.split())


def whole(text: str) -> str:
    """Without lone halves of surrogate pairs, as clients send that cut an emoji in two: nothing can store or embed them;
    and without NUL, which PostgreSQL cannot store."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "")


def tokens(text: str) -> int:
    """About how many model tokens a text costs: a CJK character counts one, other text a token per four bytes."""
    if text.isascii():
        return (len(text) + 3) // 4
    wide = len(_CJK.findall(text))
    return wide + (len(text.encode("utf-8", "replace")) - 3 * wide + 3) // 4
