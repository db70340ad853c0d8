"""Where the memories of a cube are in this process now. Pure: the cube's row, what of it is in memory and the block of its newest
session in; each memory's tier, since when and why out."""

from __future__ import annotations

from dataclasses import dataclass

from memory.cube import Cube
from memory.grants import ARCHIVED
from memory.memories import Change
from memory.types import Memory, Status
from memory.warm import Held
from proxy.blocks import Begun
from scheduler.policy import DAY_S, Tier, day


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """`at`: now; `begun_at`: when the newest session began."""

    at: float
    info: Cube
    held: Held | None
    begun: Begun
    begun_at: float

    @property
    def in_block(self) -> frozenset[str]:
        """The memories in the newest session's stable block."""
        return frozenset(self.begun.memories)

    @property
    def asleep(self) -> bool:
        """The whole cube is archived."""
        return self.info.status == ARCHIVED

    def tier(self, memory: Memory) -> Tier:
        """Where a memory is."""
        if memory.status is Status.ARCHIVED or self.asleep:
            return Tier.ARCHIVE
        if memory.id in self.in_block and memory.status is Status.ACTIVE:
            return Tier.KV
        if self.held is not None and (self.held.whole or memory.id in self.held.memories):
            return Tier.RAM
        return Tier.INDEX

    def reason(self, memory: Memory, put_away: Change | None) -> tuple[float, str]:
        """(since when it is there, why); `put_away`: the change that archived it."""
        tier = self.tier(memory)
        if self.asleep:
            return self.info.archived_at or memory.created_at, "its cube is archived"
        if tier is Tier.ARCHIVE:
            at = put_away.at if put_away is not None else memory.created_at
            idle = (at - max(memory.message_time, memory.last_used_at or 0.0)) / DAY_S
            by = put_away.action if put_away is not None else "archive"
            return at, f"archived ({by}) when it had not been said or used for {max(idle, 0.0):.0f} days"
        if tier is Tier.KV:
            return self.begun_at, f"it stands in the block with which the session of {day(self.begun_at)} began"
        if tier is Tier.RAM and self.held is not None:
            since = max(self.at - self.held.age_s, memory.created_at)
            return since, "its cube is in memory" if self.held.whole else "it is newer than the index"
        return memory.created_at, "its cube is not in memory"

    def those(self, wanted: Tier | None) -> tuple[frozenset[str] | None, frozenset[str]]:
        """(only these, None: any; but not these) of the memories that may be in the tier by their status."""
        nobody: frozenset[str] = frozenset()
        if wanted in (None, Tier.ARCHIVE):
            return None, nobody
        if wanted is Tier.KV or self.asleep:
            return self.in_block, nobody
        part = self.held.memories if self.held is not None else nobody
        if self.held is not None and self.held.whole:
            return (None, self.in_block) if wanted is Tier.RAM else (nobody, nobody)
        return (part - self.in_block, nobody) if wanted is Tier.RAM else (None, self.in_block | part)
