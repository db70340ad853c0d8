"""What became of an import: counts, the same for archives and for other products' dumps."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Imported:
    """`turns` and `memories` are new here (a turn's episode is a memory). `skipped`: already here, or newer here.
    `merged`: here in an older form, now as imported. `restored`: had been erased here. `refused`: of a dump, what is no
    conversation or memory that can be kept. `waiting`: turns from which nothing was extracted yet."""

    turns: int = 0
    memories: int = 0
    skipped: int = 0
    merged: int = 0
    restored: int = 0
    refused: int = 0
    waiting: int = 0

    def __add__(self, other: Imported) -> Imported:
        return Imported(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Imported)))
