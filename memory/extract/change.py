"""The shape of the tables that say how people change what they said; the tables are changes_en.py and changes_zh.py."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`pattern` is searched in a sentence; its group `o` is what the change is about, `old` and `new` are the values of a
    correction. `slots` are closed besides what it is about."""

    how: str  # ended | begun | replaced | corrected | cancelled
    pattern: re.Pattern[str]
    slots: tuple[str, ...] = ()
    veto: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """One language's table. A sentence with `guard` changes nothing; with `other` it is about somebody else (`who`)."""

    rows: tuple[Row, ...]
    guard: re.Pattern[str]
    other: re.Pattern[str]
    done: re.Pattern[str]  # something happened …
    undone: re.Pattern[str]  # … or did not yet
