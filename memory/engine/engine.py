"""The engine: a worker thread that owns the model, and the asyncio side that asks it.

Chats go in, Generations come out; many at a time, at most `slots` of them in one batch. `start` returns at once, the
model is loaded by the worker. Raises NotReady, Busy, InvalidChat (ContextTooLong) before an answer begins, EngineError later.
Given States, it begins prompts with what was saved of their cube, and saves there what conversations have read.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

from memory.activation.store import States
from memory.engine import prefix
from memory.engine.adapters import Adapters, Overlay
from memory.engine.batching import Batcher
from memory.engine.building import Build, Built, settle_with
from memory.engine.chat import Chat
from memory.engine.embedding import Embedder
from memory.engine.errors import Busy, ContextTooLong, InvalidChat, NoModel, NotReady
from memory.engine.fingerprint import fingerprint
from memory.engine.generation import Generation
from memory.engine.keeping import Keeper
from memory.engine.llama import Context, Grammar, Model
from memory.engine.sampler import Sampler
from memory.engine.settings import EngineSettings
from memory.engine.slots import Owner, Work
from memory.engine.template import ChatTemplate
from memory.engine.text import TextStream

log = logging.getLogger(__name__)
NOBODY = Owner()


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
    building: int  # prefix states that wait to be computed


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What exists once the model is there."""

    model: Model
    context: Context
    template: ChatTemplate
    batcher: Batcher
    keeper: Keeper
    embedder: Embedder


class Engine:
    """One model, served to many. Made once per process; every public method may be called from any thread."""

    def __init__(
        self, settings: EngineSettings, states: States | None = None, adapters: Adapters | None = None
    ) -> None:
        self.settings = settings
        self.adapters = adapters
        self.states = states
        self.failure: str | None = None  # why the model could not be loaded
        self._status = "loading"
        self._loaded: _Loaded | None = None
        self._settled = threading.Event()  # loaded, failed or closed
        self._inbox: SimpleQueue[Callable[[], object] | None] = SimpleQueue()  # done by the worker between batches
        self._submitted = 0
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def state(self) -> EngineState:
        """A snapshot for health checks and tests."""
        batcher = self._loaded.batcher if self._loaded else None
        busy, ended, cancelled = (batcher.busy, batcher.ended, batcher.cancelled) if batcher else (0, 0, 0)
        waiting = max(0, self._submitted - ended - busy)
        stale, building = (batcher.stale, len(batcher.builder)) if batcher else (0, 0)
        return EngineState(self._status, self.settings.slots, busy, waiting, ended, cancelled, stale, building)

    def start(self) -> None:
        """Begin to load the model."""
        self._thread.start()

    async def ready(self) -> None:
        """Wait until the model is loaded. Raises NoModel when that failed, NotReady after a close."""
        await asyncio.to_thread(self._settled.wait)
        self._ready()

    async def generate(self, chat: Chat, owner: Owner = NOBODY) -> Generation:
        """Queue `chat`. Whoever stops reading the Generation must cancel it. `owner.adapter` is the one that is wanted (see
        Adapters.find); whether it is used, the Generation says."""
        loaded = self._open()
        prompt, sampler = await asyncio.to_thread(_prepare, loaded, chat)  # a long prompt takes a while to tokenize
        room = loaded.context.per_sequence - len(prompt)
        limit = min(chat.max_tokens or room, room)
        overlay, owner = await self._with_adapter(owner)
        owner = await asyncio.to_thread(self._now, owner) if owner.cube else owner
        work = Work(Generation(len(prompt)), prompt, sampler, TextStream(chat.stops), limit, owner)
        with self._change:  # again: a close that came meanwhile would leave the work unanswered
            self._open()
            self._submitted += 1
            self._inbox.put(lambda: loaded.batcher.admit(work, overlay))
        return work.generation

    async def build(self, owner: Owner, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] = ()) -> Built:
        """Have the state of the prompts' beginning that these messages make computed and kept, behind all chats. Raises Busy
        when there was no time for it, InvalidChat when no two prompts would begin with it."""
        loaded = self._open()
        if self.states is None:
            raise InvalidChat("this engine keeps no states")
        tokens = await asyncio.to_thread(prefix.tokens, loaded.model, loaded.template, messages, tools)
        if not 2 <= len(tokens) < loaded.context.per_sequence:
            raise ContextTooLong(f"{len(tokens)} tokens cannot be a prefix here", param="messages")
        _, owner = await self._with_adapter(owner)
        build = Build(await asyncio.to_thread(self._now, owner), tokens)
        with self._change:
            self._open()
            if self.state.building >= self.settings.max_waiting:
                raise Busy(f"{self.settings.max_waiting} prefixes wait to be computed")
            self._inbox.put(lambda: loaded.batcher.builder.add(build))
        done = asyncio.wrap_future(build.done)
        await asyncio.wait({done}, timeout=self.settings.build_wait_s)
        if not done.done():  # whoever asks again finds it there
            done.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise Busy("it is not computed yet; it will be when chats leave time for it")
        built = done.result()
        if built is None:
            raise Busy("it was not kept: what the cube had was forgotten meanwhile, or there is no room for it")
        return built

    async def embed(self, texts: Sequence[str | list[int]]) -> tuple[list[Any], int]:
        """A unit vector for each text or list of tokens, and how many tokens were read. Raises InvalidChat when the model offers
        none."""
        return await asyncio.to_thread(self._ready().embedder.embed, texts)

    async def forget(self, cube: str) -> dict[str, int]:
        """Forget all that was computed for a cube: files, RAM, slots. Who is being answered goes on. Raises OSError, ValueError."""
        states, size = await asyncio.to_thread(self.states.drop, cube) if self.states else (0, 0)
        emptied: Future[int] = Future()
        with self._change:
            if (loaded := self._loaded) is None or self._status != "ready":
                return {"states": states, "bytes": size, "slots": 0}
            self._inbox.put(lambda: settle_with(emptied, lambda: loaded.batcher.forget(cube)))
        return {"states": states, "bytes": size, "slots": await asyncio.wrap_future(emptied)}

    async def _with_adapter(self, owner: Owner) -> tuple[Overlay | None, Owner]:
        """The adapter that the owner may use, and the owner under its id."""
        if not owner.adapter:
            return None, owner
        found = await asyncio.to_thread(self.adapters.find, owner.cube, owner.adapter) if self.adapters else None
        return found, replace(owner, adapter=found.id if found else "")

    def _now(self, owner: Owner) -> Owner:
        """The owner with the cube's epoch; without one nothing is kept, and nothing of another epoch is used."""
        if self.states is None:
            return owner
        try:
            return replace(owner, epoch=self.states.epoch(owner.cube))
        except OSError as error:
            log.warning("states are not used: %s", error.strerror)
            return owner

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
            loaded = self._load()
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
        going = True
        while going:
            ended = loaded.batcher.ended
            try:
                if going := self._take(loaded.batcher):
                    loaded.batcher.step()
            except Exception:
                log.exception("a batch failed")
                loaded.batcher.fail("the model failed")
            if loaded.batcher.ended != ended:
                with self._change:
                    self._change.notify_all()
        loaded.batcher.save()
        loaded.batcher.fail("the engine is closed", waiting_too=True)
        with self._change:
            self._change.notify_all()
        loaded.keeper.close()
        loaded.embedder.close()
        loaded.context.close()
        if self.adapters is not None:
            self.adapters.close()
        loaded.model.close()

    def _take(self, batcher: Batcher) -> bool:
        """Do what was asked meanwhile, sleeping while there is nothing to do; False: the engine was closed."""
        try:
            while True:
                wait = not batcher.has_work
                ask = self._inbox.get(block=wait, timeout=batcher.wait_s if wait else None)
                if ask is None:
                    return False
                ask()
        except Empty:
            return True

    def _load(self) -> _Loaded:
        settings = self.settings
        model = Model(settings.model_path)
        context = Context(
            model,
            sequences=settings.slots + 1,  # the last one is for building prefix states, where no chat may disturb it
            per_sequence=min(settings.context, model.trained_context),
            batch=max(settings.slots, settings.chunk, settings.idle_chunk),
            threads=settings.threads,
            kv_type=settings.kv_type,
        )
        template = ChatTemplate(
            model.template(), bos=model.text_of(model.bos), eos=model.text_of(model.eos), controls=model.control_texts()
        )
        if self.states is not None:
            try:
                self.states.open(fingerprint(settings, template.source, context.compat, self.states.root))
            except OSError as error:
                log.warning("nothing is saved or restored, its folder cannot be used: %s", error.strerror)
                self.states = None
        keeper = Keeper(context, settings, self.states, self._inbox.put)
        batcher = Batcher(model, context, settings, keeper, self.adapters)
        return _Loaded(model, context, template, batcher, keeper, Embedder(model, settings.threads))


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
