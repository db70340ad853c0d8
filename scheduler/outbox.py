"""The outbox: what is on its way into the queue while those who asked for it have gone on.

An entry that is added again before it was sent is sent once; one that was sent a moment ago is held back for a while, so that
many of the same become few. Entries are sent one after the other, after whoever is busy with more urgent things, and again when the
queue was away. It is bounded: when too many wait the oldest is given up, and `lost` is told. Knows neither jobs nor triggers.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)
MOST = 20_000  # entries that wait
_POLITE_S = 0.25  # so long an entry waits for a moment without more urgent work
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)  # while the queue is away


class Outbox(Generic[K]):
    """`send` returns whether the entry has arrived, and never raises. `busy` says whether something more urgent is going on."""

    def __init__(
        self,
        send: Callable[[K], Awaitable[bool]],
        lost: Callable[[K], None] = lambda entry: None,
        *,
        most: int = MOST,
    ) -> None:
        self.busy: Callable[[], bool] = lambda: False
        self._send = send
        self._lost = lost
        self._most = most
        self._due: dict[K, float] = {}  # the oldest first; by the loop's clock
        self._order: list[tuple[float, int, K]] = []
        self._numbers = itertools.count()
        self._sent: OrderedDict[K, float] = OrderedDict()
        self._news = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None
        self._closing = False

    def add(self, entry: K, spacing_s: float = 0.0) -> bool:
        """Send it, not sooner than `spacing_s` after it was last sent; False: it waits here already."""
        if entry in self._due:
            return False
        now = asyncio.get_running_loop().time()
        self._wait(entry, max(now, self._sent.get(entry, now - spacing_s) + spacing_s))
        if len(self._due) > self._most:
            oldest = next(iter(self._due))
            del self._due[oldest]
            self._lost(oldest)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._run(), name="outbox")
        return True

    def __len__(self) -> int:
        """How many wait here."""
        return len(self._due)

    async def close(self, timeout_s: float) -> int:
        """Send what waits, now; returns how many could not be sent in time."""
        self._closing = True
        self._news.set()
        if self._sending is not None:
            await asyncio.wait({self._sending}, timeout=timeout_s)
            self._sending.cancel()
            with suppress(asyncio.CancelledError):
                await self._sending
        left, self._due = list(self._due), {}
        for entry in left:
            self._lost(entry)
        return len(left)

    def _wait(self, entry: K, due: float) -> None:
        self._due[entry] = due
        heapq.heappush(self._order, (due, next(self._numbers), entry))
        self._news.set()

    async def _run(self) -> None:
        away = 0
        while self._due:
            entry = await self._next()
            if entry is None:
                continue
            await self._politely()
            # taken out first: what is added from now on may not have been seen by what this one starts
            if self._due.pop(entry, None) is None:
                continue  # given up while others were let pass
            loop = asyncio.get_running_loop()
            if await self._send(entry):
                away = 0
                self._sent[entry] = loop.time()
                self._sent.move_to_end(entry)
                while len(self._sent) > self._most:
                    self._sent.popitem(last=False)
                continue
            if entry not in self._due:
                self._wait(entry, loop.time())
            if self._closing:
                return
            pause = _PAUSES_S[min(away, len(_PAUSES_S) - 1)]
            away += 1
            await asyncio.sleep(pause)

    async def _next(self) -> K | None:
        """The entry that is due first, when it is due; None: look again."""
        due, _, entry = self._order[0]
        if self._due.get(entry) != due:  # given up, or put off
            heapq.heappop(self._order)
            return None
        wait = due - asyncio.get_running_loop().time()
        if wait > 0 and not self._closing:
            self._news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), wait)
            return None
        heapq.heappop(self._order)
        return entry

    async def _politely(self) -> None:
        until = asyncio.get_running_loop().time() + _POLITE_S
        # whoever is busy does not tell when he is done
        while self.busy() and not self._closing and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
