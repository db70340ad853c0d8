"""Secrets are taken out before anything is stored: API keys, tokens, private keys, card numbers. Pure.

Only shapes that are secrets beyond reasonable doubt; an order number or a phone number stays.
"""

from __future__ import annotations

import re

_SECRETS = re.compile(
    r"""
      -----BEGIN[ A-Z]*PRIVATE\ KEY-----.*?(?:-----END[ A-Z]*PRIVATE\ KEY-----|\Z)
    | \bsk-[A-Za-z0-9_-]{16,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
    | \bgh[pousr]_[A-Za-z0-9]{30,}
    | \bgithub_pat_[A-Za-z0-9_]{30,}
    | \bxox[abprs]-[A-Za-z0-9-]{10,}
    | \bAIza[A-Za-z0-9_-]{35}
    | \beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}
    """,
    re.VERBOSE | re.DOTALL,
)
_CARD = re.compile(r"(?<![\d.])(?:\d[ -]?){12,18}\d(?![\d.])")
GONE = "[secret removed]"


def redact(text: str) -> str:
    """The text without secrets."""
    text = _SECRETS.sub(GONE, text)
    return _CARD.sub(lambda match: GONE if _is_card(match.group()) else match.group(), text)


def _is_card(text: str) -> bool:
    """A payment card: 13 to 19 digits of a known issuer range with a right Luhn check digit (ISO/IEC 7812-1)."""
    digits = [int(c) for c in text if c.isdigit()]
    if not 13 <= len(digits) <= 19 or digits[0] not in (2, 3, 4, 5, 6):
        return False
    doubled = [d if i % 2 == 0 else (d * 2 - 9 if d > 4 else d * 2) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0
