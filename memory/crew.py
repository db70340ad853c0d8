"""Questions are embedded and compared by threads that know no Python (crew.cpp), so that the event loop's thread need not wait for
them, nor they for it: of sixteen questions at a time each of its turns would be waited for. What is asked is laid out here, what
is found is read here; between the two nothing of Python happens.

For one event loop. What a job reads and writes is kept until it is through, also when whoever asked has given up.
"""

from __future__ import annotations

import asyncio
import itertools
import os

import numpy as np
from numpy.typing import NDArray

from memory import compiled
from memory.compiled import Compared, Comparison, Pass, Threads

AT_MOST = 4  # threads, and as many processors less one, which is the event loop's


class Crew:
    """The threads. They are there from the first question on."""

    def __init__(self, count: int = 0) -> None:
        """`count`: so many threads; 0: as the processors allow."""
        self._count = count or max(1, min(os.cpu_count() or 1, AT_MOST) - 1)
        self._numbers = itertools.count(1)
        self._waits: dict[int, asyncio.Future[int]] = {}
        self._embedding: set[int] = set()
        self._failed: set[int] = set()
        self._threads: Threads | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def is_there(self) -> bool:
        """Whether it can be asked: it was compiled, is not closed, and belongs to this event loop."""
        here = self._loop is None or self._loop is asyncio.get_running_loop()
        return here and not self._closed and compiled.is_built()

    def embed(self, by: Pass, ids: NDArray[np.int32]) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
        """Begin to embed a question, given as numbers of word pieces: the number of this, and where its vector (384,) and those of
        its pieces (len(ids), axes) will be. Raises MemoryError, OSError."""
        number = next(self._numbers)
        vector, pieces = np.empty(384, np.float32), np.empty((len(ids), by.axes), np.float32)
        self._ready().embed(number, by, ids, vector, pieces)
        self._embedding.add(number)
        return number, vector, pieces

    async def embedded(self, number: int) -> None:
        """When the question of this number is embedded. Raises MemoryError."""
        if number in self._embedding or self.failed(number):
            await self._ask(number, None)

    def failed(self, number: int) -> bool:
        """Whether the question of this number was not embedded, and will not be."""
        return number in self._failed

    async def compare(self, comparison: Comparison, after: int) -> Compared:
        """What is found, once the question of number `after` is embedded, with whose vectors. Raises MemoryError."""
        return comparison.found(await self._ask(after, comparison))

    async def _ask(self, after: int, comparison: Comparison | None) -> int:
        threads, number = self._ready(), next(self._numbers)
        threads.compare(number, after, comparison)
        waits = self._waits[number] = asyncio.get_running_loop().create_future()
        try:
            found: int = await waits
        except asyncio.CancelledError:
            if self._threads is not None and number in self._waits:
                threads.drop(number)
            raise
        if found < 0:
            raise MemoryError("no memory for a question")
        return found

    def _ready(self) -> Threads:
        if self._closed:
            raise RuntimeError("the crew is closed")
        if self._threads is None:
            loop = asyncio.get_running_loop()
            try:
                threads = Threads(self._count)
            except (MemoryError, OSError):
                self._closed = True
                raise
            loop.add_reader(threads.pipe, self._look)
            self._threads, self._loop = threads, loop
        return self._threads

    def _look(self) -> None:
        """Somebody's job is through, or many are."""
        assert self._threads is not None
        os.read(self._threads.pipe, 64)
        for number, found in self._threads.through():
            if number in self._embedding:
                self._embedding.discard(number)
                if found < 0:
                    self._failed.add(number)
            waits = self._waits.pop(number, None)
            if waits is not None and not waits.done():
                waits.set_result(found)

    def close(self) -> None:
        """Wait for what is being done, milliseconds; who waits for anything else is told that it will not come."""
        self._closed = True
        if self._threads is None:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._threads.pipe)
        self._threads.close()
        self._threads = None
        for waits in self._waits.values():
            if not waits.done():
                waits.set_exception(RuntimeError("the crew is closed"))
        self._waits.clear()
