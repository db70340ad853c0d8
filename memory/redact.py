"""Secrets are taken out before anything is stored: API keys, tokens, private keys, card numbers. Pure.

Only shapes that are secrets beyond reasonable doubt; an order number or a phone number stays. Time grows with the length
of the text only, whatever it holds.
"""

from __future__ import annotations

import re

from memory.words import whole

# ASCII: between a Chinese character and a letter there is a border, too
_SECRETS = re.compile(
    r"""
      -----BEGIN[ A-Z]*PRIVATE\ KEY-----.*?(?:-----END[ A-Z]*PRIVATE\ KEY-----|\Z)
    | \bsk-[A-Za-z0-9_-]{16,}
    | \b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
    | \bgh[pousr]_[A-Za-z0-9]{30,}
    | \bgithub_pat_[A-Za-z0-9_]{30,}
    | \bglpat-[A-Za-z0-9_-]{20,}
    | \bhf_[A-Za-z0-9]{30,}
    | \bxox[abprs]-[A-Za-z0-9-]{10,}
    | \bAIza[A-Za-z0-9_-]{35}
    | (?<![\w-])eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_CARD = re.compile(
    r"""
    (?<![A-Za-z0-9_])(?<!\d\.)
    (?: \d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{1,3}(?!\d))?  # a group more: 19 digits, or what stands beside the number
      | 3\d{3}([ -])\d{6}\2\d{4,5}
      | \d{14,19} )
    (?![A-Za-z0-9_])(?!\.\d)
    """,
    re.VERBOSE,
)
_ISSUER = (
    re.compile(  # ranges in use: Visa, Mastercard, Mir, American Express, Diners, JCB, Discover, UnionPay, Maestro
        r"""
      4\d{15} | 5[1-5]\d{14} | 2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12} | 220[0-4]\d{12}
    | 3[47]\d{13} | 3(?:0[0-5]|[689]\d)\d{11} | 35\d{14} | 6(?:011|4[4-9]\d|5\d\d)\d{12} | 62\d{14,17}
    | (?:5[0678]|6[37])\d{14,17}
    """,
        re.VERBOSE,
    )
)
GONE = "[secret removed]"


def redact(text: str) -> str:
    """The text without secrets, fit to be stored."""
    text = _SECRETS.sub(GONE, whole(text))
    return _CARD.sub(lambda match: GONE if _is_card(match) else match.group(), text)


def _is_card(match: re.Match[str]) -> bool:
    digits = "".join(c for c in match.group() if c.isdigit())
    return _valid(digits) or (match[1] is not None and _valid(digits[:16]))


def _valid(digits: str) -> bool:
    """The length and the first digits of a known issuer, with a right Luhn check digit (ISO/IEC 7812-1)."""
    if not _ISSUER.fullmatch(digits):
        return False
    values = [int(c) for c in reversed(digits)]
    return sum(d if i % 2 == 0 else (d * 2 - 9 if d > 4 else d * 2) for i, d in enumerate(values)) % 10 == 0
