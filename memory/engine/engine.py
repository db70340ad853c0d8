"""The engine: a worker thread that owns the model, and the asyncio side that asks it.

Chats go in, Generations come out; many at a time, at most `slots` of them in one batch. `start` returns at once, the
model is loaded by the worker. Raises NotReady, Busy, InvalidChat (ContextTooLong) before an answer begins, EngineError later.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from memory.engine.batching import Batcher
from memory.engine.chat import Chat
from memory.engine.errors import Busy, ContextTooLong, InvalidChat, NoModel, NotReady
from memory.engine.generation import Generation
from memory.engine.llama import Context, Grammar, Model
from memory.engine.sampler import Sampler
from memory.engine.settings import EngineSettings
from memory.engine.slots import Work
from memory.engine.template import ChatTemplate
from memory.engine.text import TextStream

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineState:
    """What the engine is doing at this moment. `status`: loading, ready, failed, closed."""

    status: str
    slots: int
    busy: int
    waiting: int
    ended: int  # requests since the start, however they ended
    cancelled: int
    stale: int  # answer tokens whose states wait for an idle moment to be computed again


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What exists once the model is there."""

    model: Model
    context: Context
    template: ChatTemplate
    batcher: Batcher


class Engine:
    """One model, served to many. Made once per process; every public method may be called from any thread."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.failure: str | None = None  # why the model could not be loaded
        self._status = "loading"
        self._loaded: _Loaded | None = None
        self._settled = threading.Event()  # loaded, failed or closed
        self._inbox: SimpleQueue[Work | None] = SimpleQueue()
        self._submitted = 0
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def state(self) -> EngineState:
        """A snapshot for health checks and tests."""
        batcher = self._loaded.batcher if self._loaded else None
        busy, ended, cancelled = (batcher.busy, batcher.ended, batcher.cancelled) if batcher else (0, 0, 0)
        waiting = max(0, self._submitted - ended - busy)
        stale = batcher.stale if batcher else 0
        return EngineState(self._status, self.settings.slots, busy, waiting, ended, cancelled, stale)

    def start(self) -> None:
        """Begin to load the model."""
        self._thread.start()

    async def ready(self) -> None:
        """Wait until the model is loaded. Raises NoModel when that failed, NotReady after a close."""
        await asyncio.to_thread(self._settled.wait)
        self._ready()

    async def generate(self, chat: Chat) -> Generation:
        """Queue `chat`. Whoever stops reading the Generation must cancel it."""
        loaded = self._open()
        prompt, sampler = await asyncio.to_thread(_prepare, loaded, chat)  # a long prompt takes a while to tokenize
        room = loaded.context.per_sequence - len(prompt)
        limit = min(chat.max_tokens or room, room)
        work = Work(Generation(len(prompt)), prompt, sampler, TextStream(chat.stops), limit)
        with self._change:  # again: a close that came meanwhile would leave the work unanswered
            self._open()
            self._submitted += 1
            self._inbox.put(work)
        return work.generation

    def drain(self, timeout: float | None = None) -> bool:
        """Block until nothing is worked on or waiting; False if `timeout` seconds were not enough."""
        with self._change:
            return self._change.wait_for(lambda: self._submitted == self.state.ended, timeout)

    def close(self) -> None:
        """End all work with an error, free the model. Blocks for at most one batch, or until loading ends."""
        with self._change:
            self._status = "closed"
            self._inbox.put(None)
        if self._thread.ident is not None:  # it was started
            self._thread.join()
        self._settled.set()

    def _ready(self) -> _Loaded:
        if self.failure:
            raise NoModel(self.failure)
        if self._loaded is None or self._status != "ready":
            raise NotReady("the engine is closed" if self._status == "closed" else "the model is still loading")
        return self._loaded

    def _open(self) -> _Loaded:
        """What is loaded, if one more request may come in now."""
        state, most = self.state, self.settings.max_waiting
        if state.busy + state.waiting >= state.slots + most:
            raise Busy(f"{most} requests are waiting already")
        return self._ready()

    def _run(self) -> None:
        """The worker thread, from load to close."""
        try:
            loaded = _load(self.settings)
        except Exception as error:
            log.exception("the model could not be loaded")
            self.failure = str(error)
            self._status = "failed"
            self._settled.set()
            return
        with self._change:
            self._loaded = loaded
            self._status = "ready" if self._status == "loading" else self._status
        self._settled.set()
        while self._take(loaded.batcher):
            ended = loaded.batcher.ended
            try:
                loaded.batcher.step()
            except Exception:
                log.exception("a batch failed")
                loaded.batcher.fail("the model failed")
            if loaded.batcher.ended != ended:
                with self._change:
                    self._change.notify_all()
        loaded.batcher.fail("the engine is closed", waiting_too=True)
        with self._change:
            self._change.notify_all()
        loaded.context.close()
        loaded.model.close()

    def _take(self, batcher: Batcher) -> bool:
        """Move new requests to the batcher, sleeping while there is nothing to do; False: the engine was closed."""
        try:
            while True:
                work = self._inbox.get(block=not batcher.has_work)
                if work is None:
                    return False
                batcher.add(work)
        except Empty:
            return True


def _load(settings: EngineSettings) -> _Loaded:
    model = Model(settings.model_path)
    context = Context(
        model,
        sequences=settings.slots + 1,  # the last one is for building prefix states, where no chat may disturb it
        per_sequence=min(settings.context, model.trained_context),
        batch=max(settings.slots, settings.chunk, settings.idle_chunk),
        threads=settings.threads,
    )
    template = ChatTemplate(
        model.template(), bos=model.text_of(model.bos), eos=model.text_of(model.eos), controls=model.control_texts()
    )
    return _Loaded(model, context, template, Batcher(model, context, settings))


def _prepare(loaded: _Loaded, chat: Chat) -> tuple[list[int], Sampler]:
    """The parts of a request that need no context, so that they can be done in any thread."""
    if any(not 0 <= token < loaded.model.size for token in chat.sampling.logit_bias):
        raise InvalidChat("logit_bias names a token that this model does not have", param="logit_bias")
    prompt = loaded.model.tokenize(loaded.template.render(chat.messages, chat.tools))
    most = loaded.context.per_sequence - 1
    if len(prompt) > most:
        raise ContextTooLong(
            f"the prompt has {len(prompt)} tokens; this model reads at most {most} of them", param="messages"
        )
    if not prompt:
        raise InvalidChat("the messages make an empty prompt", param="messages")
    grammar = Grammar(loaded.model, chat.schema) if chat.schema is not None else None
    return prompt, Sampler(chat.sampling, grammar)
