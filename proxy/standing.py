"""The stable block that a session of a cube begins with: one way to make it, for the chat that injects it and for the job that has
its KV state computed ahead, which are two processes.

In: a cube's id. Out: the same bytes for as long as the same is known, all day long: no clock finer than a day decides.
"""

from __future__ import annotations

from collections.abc import Callable

from memory.memories import Memories
from memory.sql import Database
from proxy import fence, inject
from proxy.blocks import newest
from proxy.forecasts import Forecasts
from scheduler.policy import DAY_S


class Standing:
    """Made once per process. `secret`: the installation's, see db.shared_secret; `budget`: tokens of the block."""

    def __init__(self, database: Database, secret: bytes, budget: int, clock: Callable[[], float]) -> None:
        self._database = database
        self._memories = Memories(database, clock)
        self._forecasts = Forecasts(database)
        self._secret = secret
        self._budget = budget
        self._clock = clock

    async def block(self, cube: str) -> inject.Block:
        """What a session of this cube would begin with now. Raises DatabaseError."""
        standing = await self._memories.standing(cube, inject.STANDING)
        mark, today = fence.nonce(self._secret, cube, fence.STABLE), self._clock() // DAY_S * DAY_S
        chances, before = await self._choosing(cube) if inject.crowded(standing, self._budget) else ({}, ())
        return inject.stable_block(standing, mark, self._budget, now=today, before=before, chances=chances)

    async def _choosing(self, cube: str) -> tuple[dict[str, float], tuple[str, ...]]:
        """(chances of what is foreseen for the opening, what stood in the block of the last session)"""
        opening, last = await self._forecasts.of(cube), await newest(self._database, cube)
        chances = {one.memory: one.chance for one in opening.foreseen} if opening else {}
        return chances, last[0].memories if last else ()
