"""One answer on its way from the worker's thread to the asyncio side: deltas out, a cancel in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's text and bytes with its natural log-probability; `top` holds the likeliest ones at this place."""

    token: str
    raw: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of text. `finish` ("stop" or "length") stands on the last one only."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: str | None = None


class Generation:
    """Iterate over it once, in the event loop that asked for it. The counts are final when the last delta was read."""

    def __init__(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.adapter = ""  # the version that it is answered with; empty: none
        self.cached_tokens = 0  # of the prompt, whose state was there already; known from the first delta on
        self.cached_from = ""  # where that was: slot, ram or disk
        self.completion_tokens = 0
        self.cancelled = False
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Delta | Exception] = asyncio.Queue()

    async def deltas(self) -> AsyncIterator[Delta]:
        """The answer as it is made. Raises EngineError when the model fails or the engine is closed."""
        while True:
            item = await self._queue.get()
            if isinstance(item, Exception):
                raise item
            yield item
            if item.finish:
                return

    def cancel(self) -> None:
        """Stop the work; the worker sees it before its next batch. Does nothing to a finished answer."""
        self.cancelled = True

    def put(self, item: Delta | Exception) -> None:
        """Called by the worker."""
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:  # the loop is closed: nobody will ever read this
            self.cancelled = True
