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
        self._threads: Threads | None = None
        self._pipe: tuple[int, int] = (-1, -1)
        self._closed = False

    @property
    def is_there(self) -> bool:
        """Whether it can be asked: it was compiled, and is not closed."""
        return compiled.is_built() and not self._closed

    def embed(self, by: Pass, ids: NDArray[np.int32]) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
        """Begin to embed a question, given as numbers of word pieces: the number of this, and where its vector (384,) and those of
        its pieces (len(ids), axes) will be. Raises MemoryError."""
        number = next(self._numbers)
        vector, pieces = np.empty(384, np.float32), np.empty((len(ids), by.axes), np.float32)
        self._ready().embed(number, by, ids, vector, pieces)
        self._embedding.add(number)
        return number, vector, pieces

    async def embedded(self, number: int) -> None:
        """When the question of this number is embedded. Raises MemoryError."""
        if number in self._embedding:
            await self._ask(number, None)

    async def compare(self, comparison: Comparison, after: int) -> Compared:
        """What is found, once the question of number `after` is embedded, with whose vectors. Raises MemoryError."""
        return comparison.found(await self._ask(after, comparison))

    async def _ask(self, after: int, comparison: Comparison | None) -> int:
        number, waits = next(self._numbers), asyncio.get_running_loop().create_future()
        self._ready().compare(number, after, comparison)
        self._waits[number] = waits
        found: int = await waits
        if found < 0:
            raise MemoryError("no memory for a question")
        return found

    def _ready(self) -> Threads:
        if self._closed:
            raise RuntimeError("the crew is closed")
        if self._threads is None:
            self._pipe = os.pipe()
            for end in self._pipe:
                os.set_blocking(end, False)
            self._threads = Threads(self._count, self._pipe[1])
            asyncio.get_running_loop().add_reader(self._pipe[0], self._look)
        return self._threads

    def _look(self) -> None:
        """Somebody's job is through."""
        os.read(self._pipe[0], 64)
        assert self._threads is not None
        for number, found in self._threads.through():
            self._embedding.discard(number)
            waits = self._waits.pop(number, None)
            if waits is not None and not waits.done():
                waits.set_result(found)

    def close(self) -> None:
        """Wait for what is being done, milliseconds; who waits for anything else is told that it will not come."""
        self._closed = True
        if self._threads is None:
            return
        asyncio.get_running_loop().remove_reader(self._pipe[0])
        self._threads.close()
        self._threads = None
        for end in self._pipe:
            os.close(end)
        for waits in self._waits.values():
            if not waits.done():
                waits.set_exception(RuntimeError("the crew is closed"))
        self._waits.clear()
