"""Our blocks inside a prompt: how they are written, recognised and taken out again. Pure.

A block opens and closes with a nonce that is a keyed hash, so that no remembered text can close it early: of its session, or for
the stable block of its cube, so that sessions which begin alike have the same bytes, and a model's state of them serves all.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import defaultdict, deque

STABLE = "stable"
RECALL = "recall"
_TAG = re.compile(r'</?(memrelay:(?:stable|recall) n="[0-9a-f]{8}")>')
_MARK = re.compile(r"<(?=\s*+/?\s*+memrelay\s*+:)", re.IGNORECASE)


def nonce(secret: bytes, cube: str, session: str) -> str:
    """Eight hex digits, the same for a session at all times; for STABLE as session the same for the whole cube."""
    return hmac.new(secret, f"{cube}\x1f{session}".encode(), hashlib.sha256).hexdigest()[:8]


def wrap(kind: str, mark: str, heading: str, lines: list[str]) -> str:
    """A block with its lines; text that looks like a fence loses its bracket."""
    body = "\n".join(_MARK.sub("‹", line) for line in lines)
    return f'<memrelay:{kind} n="{mark}">\n{heading}\n{body}\n</memrelay:{kind} n="{mark}">'


def strip(text: str) -> str:
    """The text without any of our blocks, whatever their nonce."""
    if "<memrelay:" not in text:
        return text
    *before, last = outside(text, _TAG)
    return "".join([*(piece.removesuffix("\n\n") for piece in before), last])


def outside(text: str, tags: re.Pattern[str]) -> list[str]:
    """The pieces of `text` outside of what `tags` enclose; an opening tag without its end encloses nothing.

    `tags` matches opening (<…) and closing (</…) tags, with the name as group 1. One pass, whatever a client sends.
    """
    found = list(tags.finditer(text))
    ends: dict[str, deque[int]] = defaultdict(deque)
    for tag in found:
        if tag.group().startswith("</"):
            ends[tag.group(1).lower()].append(tag.end())
    pieces, at = [], 0
    for tag in found:
        later = ends[tag.group(1).lower()]
        while later and later[0] <= tag.end():
            later.popleft()
        if tag.start() >= at and later and not tag.group().startswith("</"):
            pieces.append(text[at : tag.start()])
            at = later[0]
    return [*pieces, text[at:]]
