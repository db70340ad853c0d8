"""Questions on their way to their vectors, and those that were embedded lately. Who sends one message to several models at once,
regenerates or tries again asks the same once more; its vectors are known then. Texts are not kept, only their digests.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from memory.compiled import Compared, Comparison
from memory.crew import Crew
from memory.late import Asked, encode_query, spells
from memory.models import Embedder

T = TypeVar("T")
MOST = 256  # questions
KEPT_S = 600.0


@dataclass(frozen=True, slots=True)
class Encoding:
    """A question that is being embedded, or has been; nobody who gives up takes it from the others."""

    _vectors: Future[Asked]
    _threads: Executor

    @property
    def failed(self) -> bool:
        """Whether they will not come."""
        return self._vectors.done() and self._vectors.exception() is not None

    async def vectors(self) -> Asked:
        """When they are there. Raises what the embedder raised."""
        return await asyncio.shield(asyncio.wrap_future(self._vectors))

    async def then(self, work: Callable[[Asked], T]) -> T:
        """What `work` makes of them: by the thread that has embedded the question, as soon as it has."""
        found: Future[T] = Future()
        once = [
            (found, work)
        ]  # taken out when it is done: a future keeps what it has called, and with it all that this holds

        def go_on(done: Future[Asked]) -> None:
            found, work = once.pop()
            if not found.set_running_or_notify_cancel():
                return
            try:
                found.set_result(work(done.result()))
            except BaseException as error:  # for whoever waits
                found.set_exception(error)

        if self._vectors.done():
            self._threads.submit(go_on, self._vectors)
        else:
            self._vectors.add_done_callback(go_on)
        return await asyncio.wrap_future(found)


@dataclass(frozen=True, slots=True)
class Native:
    """A question that the crew embeds. `asked`: where its vectors will be."""

    asked: Asked
    _number: int
    _crew: Crew
    _threads: Executor

    @property
    def failed(self) -> bool:
        """Whether they will not come, or nobody can be asked for them."""
        return self._crew.failed(self._number) or not self._crew.is_there

    async def vectors(self) -> Asked:
        """As Encoding's."""
        await self._crew.embedded(self._number)
        return self.asked

    async def then(self, work: Callable[[Asked], T]) -> T:
        """As Encoding's."""
        asked = await self.vectors()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, asked)

    async def compared(self, comparison: Comparison) -> Compared:
        """What the comparison finds, once they are there. Raises MemoryError."""
        return await self._crew.compare(comparison, self._number)


class Questions:
    """For one event loop; `threads` runs the embedder, where the `crew` cannot."""

    def __init__(self, threads: Executor, crew: Crew | None = None, most: int = MOST, kept_s: float = KEPT_S) -> None:
        self._threads = threads
        self._crew = crew
        self._most = most
        self._kept_s = kept_s
        self._known: OrderedDict[tuple[str, bytes], tuple[float, Encoding | Native]] = OrderedDict()

    def begin(self, embedder: Embedder, text: str) -> Encoding | Native:
        """Begin to embed the question, unless that has been done lately or is being done."""
        key, now = (embedder.id, hashlib.sha256(text.encode()).digest()), time.monotonic()
        at, known = self._known.get(key, (0.0, None))
        if known is None or now - at >= self._kept_s or known.failed:
            known = self._begun(embedder, text)
            self._known.pop(key, None)
            self._known[key] = now, known
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return known

    def _begun(self, embedder: Embedder, text: str) -> Encoding | Native:
        if self._crew is not None and self._crew.is_there and spells(embedder):
            spelled = embedder.spelled(text)
            with suppress(MemoryError, OSError):  # no memory, no threads to be had
                if spelled is not None:
                    number, vector, pieces = self._crew.embed(embedder.ours, spelled.ids)
                    asked = Asked(vector, pieces[spelled.inside], spelled.spans)
                    return Native(asked, number, self._crew, self._threads)
        return Encoding(self._threads.submit(encode_query, embedder, text), self._threads)

    def __len__(self) -> int:
        return len(self._known)
