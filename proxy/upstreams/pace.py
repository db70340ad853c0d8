"""The pace of calls: so many a minute, evenly spaced, and none while the other side has asked for a pause.

One pace for all callers of one process. Knows neither HTTP nor models; the clock and the waiting are passed in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC
from email.utils import parsedate_to_datetime


class Pace:
    """`per_minute`: calls a minute, 0 for no limit."""

    def __init__(
        self,
        per_minute: float = 0.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._apart = 60.0 / per_minute if per_minute > 0 else 0.0
        self._clock = clock
        self._sleep = sleep
        self._free_at = 0.0  # when the next call may begin
        self._paused_until = 0.0

    async def turn(self) -> None:
        """Wait until it is this caller's turn: in the order of asking, and after every pause that was asked for since."""
        at = max(self._clock(), self._free_at)
        self._free_at = at + self._apart
        while (wait := max(at, self._paused_until) - self._clock()) > 0:
            await self._sleep(wait)

    def pause(self, seconds: float) -> None:
        """Let nobody begin for so long."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)


def asked_pause(value: str, now: float) -> float | None:
    """The seconds that a Retry-After header asks for: a number, or a date against `now` (seconds since the epoch).
    None when it says neither."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    return max(0.0, seconds) if seconds == seconds else None  # not a number
