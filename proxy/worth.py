"""Memories as items of the scheduler's policy: what each takes in each tier, and what its worth is reckoned from."""

from __future__ import annotations

import math
from collections.abc import Mapping

from memory.index import INDEXED
from memory.pieces import pieces
from memory.types import Kind, Memory, Status
from scheduler.policy import Item, Tier

STANDING = (Kind.IDENTITY, Kind.PREFERENCE, Kind.SKILL)  # they hold whatever is talked about
_VECTOR = 384 * 4
_PER_WORD = 96  # bytes of the vector of a word piece
_ROW = 700
_MANY = 1e12  # seconds; a client that writes milliseconds gave no date
PIECE = 6000  # bytes of a piece of a cube of which nothing is in memory


def item(memory: Memory, *, tokens: int = 0, expected: float | None = None) -> Item:
    """`tokens`: of its line in the stable block, 0 when it cannot stand there; `expected`: the chance that it is needed next."""
    sizes: dict[Tier, int] = {}
    if tokens:
        sizes[Tier.KV] = tokens
    if memory.status in INDEXED:
        sizes |= {Tier.RAM: in_ram(memory), Tier.INDEX: in_index(memory)}
    due = (memory.attributes or {}).get("due") if memory.kind in (Kind.TASK, Kind.GOAL) else None
    given = isinstance(due, int | float) and math.isfinite(due) and 0 < due < _MANY
    return Item(
        id=memory.id,
        sizes=sizes,
        since=memory.message_time,
        uses=memory.uses,
        last_used=memory.last_used_at,
        prior=memory.importance,
        expected=expected,
        due=float(due) if given else None,  # type: ignore[arg-type]
        standing=memory.kind in STANDING,
        pinned=memory.pinned,
        archived=memory.status is Status.ARCHIVED,
    )


def items(memories: Mapping[Memory, int], expected: Mapping[str, float]) -> list[Item]:
    """The same of many: memory → tokens; memory id → chance."""
    return [item(memory, tokens=tokens, expected=expected.get(memory.id)) for memory, tokens in memories.items()]


def in_ram(memory: Memory) -> int:
    """About how many bytes a memory takes in a cube's view."""
    return in_index(memory) + sum(_ROW + 2 * len(piece.text) for piece in pieces(memory))


def in_index(memory: Memory) -> int:
    """About how many bytes a memory takes in LanceDB."""
    return sum(_VECTOR + len(piece.text) * (1 + _PER_WORD // 4) for piece in pieces(memory))
