"""Our blocks inside a prompt: how they are written, recognised and taken out again. Pure.

A block opens and closes with a nonce that is a keyed hash of its session, so that no remembered text can close it early,
and so that a block put again into the same session has the same bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import re

STABLE = "stable"
RECALL = "recall"
_BLOCK = re.compile(r'\s*<memrelay:(stable|recall) n="([0-9a-f]{8})">.*?</memrelay:\1 n="\2">', re.DOTALL)
_MARK = re.compile(r"<(?=/?\s*memrelay\s*:)", re.IGNORECASE)


def nonce(secret: bytes, cube: str, session: str) -> str:
    """Eight hex digits, the same for a session at all times."""
    return hmac.new(secret, f"{cube}\x1f{session}".encode(), hashlib.sha256).hexdigest()[:8]


def wrap(kind: str, mark: str, heading: str, lines: list[str]) -> str:
    """A block with its lines; text that looks like a fence loses its bracket."""
    body = "\n".join(_MARK.sub("‹", line) for line in lines)
    return f'<memrelay:{kind} n="{mark}">\n{heading}\n{body}\n</memrelay:{kind} n="{mark}">'


def strip(text: str) -> str:
    """The text without any of our blocks, whatever their nonce."""
    return _BLOCK.sub("", text) if "<memrelay:" in text else text
