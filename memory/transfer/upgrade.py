"""Older archives brought to the present version, a step at a time. The list only grows. Pure.

Version 0 held turns and memories only, each row with its cube, sources without a role, and neither history nor graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from memory.transfer.format import ROWS, Refused

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Upgrade:
    """From one version to the next: how its manifest and each of its rows change."""

    manifest: Callable[[Raw], Raw]
    row: Callable[[str, Raw, Raw], Raw]  # (member, row, the upgraded manifest) → row


def _manifest_of_0(old: Raw) -> Raw:
    counts = {"turns": 0, "memories": 0} | dict(old.get("counts", {}))
    return old | {
        "version": 1,
        "program": old.get("program", ""),
        "embedder": old.get("embedder", ""),
        "counts": counts | {"nodes": 0, "edges": 0, "vectors": 0, "blobs": 0},
        "vectors": None,
    }


def _row_of_0(member: str, old: Raw, manifest: Raw) -> Raw:
    row = dict(old)
    if row.pop("cube", None) != manifest["cube"]["id"]:
        raise Refused(f"{member}: a row belongs to another cube than the archive")
    if member == "turns.jsonl":
        return row | {"complete": int(bool(row.get("complete", True))), "extracted": 1}
    row["sources"] = [{"turn": turn, "session": "", "role": "user"} for turn in row.get("sources", [])]
    return row | {"pinned": int(bool(row.get("pinned", False)))}


UPGRADES: tuple[Upgrade, ...] = (Upgrade(_manifest_of_0, _row_of_0),)  # the first leads from 0 to 1


def members_of(version: int) -> tuple[str, ...]:
    """The members with rows that an archive of this version must have."""
    return ROWS[:2] if version == 0 else ROWS
