"""Continuous batching: every step gives each answering chat its next token, and one chat a chunk of its prompt.

Answers must not depend on who else is being served, nor on where a prompt was cut. In llama.cpp a row that stands alone
in its sequence's part of a batch takes another kernel, with another rounding, than one among others (measured: now and then
half a logit). So prompts are never decoded in parts of one token, nor together with answers, whose rows stand alone; and an
answer that comes back as history is a prompt, so its state is computed again while nobody waits (`EngineSettings.exact`).

Single-threaded; the engine's worker thread calls `add` and `step`. Knows neither threads nor locks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from memory.engine.adapters import Adapters, Overlay
from memory.engine.building import Builder, part
from memory.engine.errors import EngineError
from memory.engine.generation import Delta, TokenLogprob
from memory.engine.keeping import Keeper
from memory.engine.llama import Context, Model
from memory.engine.sampler import Choice
from memory.engine.settings import EngineSettings
from memory.engine.slots import Owner, Slot, Work, choose
from memory.engine.waiting import Waiting

log = logging.getLogger(__name__)


class Batcher:
    """The slots of one context and the queue before them."""

    def __init__(
        self,
        model: Model,
        context: Context,
        settings: EngineSettings,
        keeper: Keeper,
        adapters: Adapters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._adapters = adapters
        self._turns: dict[str, int] = {}  # adapter → the last step that was its
        self._context = context
        self._settings = settings
        self._keeper = keeper
        self._clock = clock
        self._slots = [Slot(sequence) for sequence in range(settings.slots)]
        self._waiting = Waiting()
        self.builder = Builder(context, settings, keeper)
        self._steps = 0
        self.ended = 0  # requests that were answered, cancelled or failed
        self.cancelled = 0

    @property
    def busy(self) -> int:
        """Slots that are being worked on."""
        return sum(slot.work is not None for slot in self._slots)

    @property
    def has_work(self) -> bool:
        """Is there anything to do at once?"""
        free = self.busy < len(self._slots)
        working = any(slot.work is not None and not slot.work.loading for slot in self._slots)
        return working or (free and len(self._waiting) > 0) or self.stale > 0 or len(self.builder) > 0

    @property
    def wait_s(self) -> float | None:
        """Seconds until something is to be done though nobody asks: a conversation is to be saved. None: nothing is."""
        idle = [slot.idle_since for slot in self._slots if self._keeper.unsaved(slot)]
        return max(0.0, min(idle) + self._settings.save_after_s - self._clock()) if idle else None

    @property
    def stale(self) -> int:
        """Tokens of ended answers whose states are still to be computed again."""
        return sum(len(slot.stale) for slot in self._slots)

    def add(self, work: Work) -> None:
        """Queue a request."""
        self._waiting.add(work)

    def step(self) -> None:
        """Drop what was cancelled, fill free slots, decode. Raises EngineError: then call `fail`."""
        self._steps += 1
        self._drop_cancelled()
        self._fill_slots()
        every = [(slot, slot.work) for slot in self._slots if slot.work is not None and not slot.work.loading]
        active = self._whose_turn(every)
        if answering := [(slot, work, work.todo) for slot, work in active if work.answering]:
            self._decode(answering)
        if reading := [(slot, work) for slot, work in active if not work.answering]:
            slot, work = min(reading, key=lambda pair: pair[1].read_at)
            work.read_at = self._steps
            self._decode([(slot, work, part(work.todo, self._settings.chunk))])
        if not active:
            self._when_idle()

    def _whose_turn(self, every: list[tuple[Slot, Work]]) -> list[tuple[Slot, Work]]:
        """Those that are gone on with now: one adapter counts for a whole batch, so those of each have their turn."""
        adapters = {work.owner.adapter for _, work in every}
        if not adapters:
            return []
        adapter = min(adapters, key=lambda name: (self._turns.get(name, 0), name))
        self._turns = {name: at for name, at in self._turns.items() if name in adapters} | {adapter: self._steps}
        mine = [(slot, work) for slot, work in every if work.owner.adapter == adapter]
        try:
            self._use(adapter)
        except EngineError as error:  # its file went while the request was waiting; the others go on
            for slot, work in mine:
                work.generation.put(error)
                self._cut(slot, 0)
                self._free(slot)
            return []
        return mine

    def _use(self, adapter: str) -> None:
        """Decode with this adapter from now on; "" means with the model alone. Raises EngineError."""
        if self._adapters is not None:
            self._adapters.use(self._model, self._context, adapter, self._needed())
        elif adapter:
            raise EngineError("this engine has no adapters")

    def _needed(self) -> set[str]:
        """The adapters that somebody is being answered with."""
        return {slot.work.owner.adapter for slot in self._slots if slot.work is not None}

    def admit(self, work: Work, overlay: Overlay | None) -> None:
        """Queue a request that wants an adapter; if llama.cpp refuses that, without it."""
        if overlay is not None and self._adapters is not None:
            try:
                self._adapters.load(self._model, overlay, self._needed())
                work.generation.adapter = str(overlay.version)
            except EngineError as error:
                log.warning("an adapter of cube %s is not used: %s", overlay.cube, error)
                work.owner = replace(work.owner, adapter="")
        self.add(work)

    def _fill_slots(self) -> None:
        while True:
            work = self._waiting.first(slot.work.owner.cube for slot in self._slots if slot.work is not None)
            slot = choose(work, self._slots, self._settings.exact) if work else None
            if work is None or slot is None:
                return
            self._waiting.take(work)
            self._keeper.begin(slot, work, self._slots)

    def _when_idle(self) -> None:
        """No chat can be gone on with: one small thing of what nobody waits for."""
        if self.stale:
            self._refresh()
        elif len(self.builder):
            try:
                self._use(self.builder.adapter())
            except EngineError as error:  # it was deleted, or llama.cpp does not take it
                self.builder.give_up(str(error))
                return
            self.builder.step()
        elif self.wait_s == 0.0:
            self._keeper.save(min(filter(self._keeper.unsaved, self._slots), key=lambda slot: slot.idle_since))

    def save(self) -> None:
        """Save all conversations that nobody is answering, such as before an end."""
        for slot in self._slots:
            self._keeper.save(slot)

    def forget(self, cube: str) -> int:
        """Keep nothing of what was computed for a cube; who is being answered goes on. Returns how many slots were emptied."""
        self.builder.forget(cube)
        if self._adapters is not None:
            self._adapters.forget(self._context, cube, self._needed())
        for work in self._waiting:
            if work.owner.cube == cube:  # it may have held what is to be forgotten
                work.owner, work.generation.adapter = replace(work.owner, adapter=""), ""
        for work in (*self._waiting, *(slot.work for slot in self._slots if slot.work is not None)):
            work.forgotten = work.forgotten or work.owner.cube == cube
        mine = [slot for slot in self._slots if slot.owner.cube == cube and slot.tokens]
        for slot in mine:
            if slot.work is None:
                self._clear(slot)
        return len(mine)

    def _decode(self, batch: list[tuple[Slot, Work, list[int]]]) -> None:
        rows = self._context.decode([(slot.sequence, len(slot.tokens), tokens) for slot, _, tokens in batch])
        for (slot, work, tokens), row in zip(batch, rows, strict=True):
            slot.tokens += tokens
            if not work.answering:
                slot.prompted = len(slot.tokens)
            work.todo = work.todo[len(tokens) :]
            if not work.todo:
                work.answering = True
                self._advance(slot, work, work.sampler.choose(self._context.logits(row)))

    def _refresh(self) -> None:
        """Compute a part of the latest stale answer."""
        slot = max((s for s in self._slots if s.stale), key=lambda s: s.used)
        try:
            self._use(slot.owner.adapter)
        except EngineError:  # it was dropped meanwhile: nobody will go on from here
            self._clear(slot)
            return
        chunk = part(slot.stale, self._settings.idle_chunk)
        slot.stale = slot.stale[len(chunk) :]
        try:
            self._context.decode([(slot.sequence, len(slot.tokens), chunk)])
        except EngineError:
            slot.stale = []  # `Keeper.begin` drops whatever cells this has left
            raise
        slot.tokens += chunk
        slot.prompted = len(slot.tokens)

    def fail(self, message: str, *, waiting_too: bool = False) -> None:
        """Give up what is being worked on. Its KV states are dropped: after a failure nobody knows what they hold."""
        for slot in self._slots:
            if slot.work is not None:
                slot.work.generation.put(EngineError(message))
                self._cut(slot, 0)
                self._free(slot)
        self.builder.fail(message, waiting_too=waiting_too)
        for work in self._waiting.remove(lambda _: waiting_too):
            work.generation.put(EngineError(message))
            self.ended += 1

    def _drop_cancelled(self) -> None:
        for slot in self._slots:
            if slot.work is not None and slot.work.generation.cancelled:
                self.cancelled += 1
                self._free(slot)
        gone = self._waiting.remove(lambda work: work.generation.cancelled)
        self.cancelled += len(gone)
        self.ended += len(gone)

    def _free(self, slot: Slot) -> None:
        forgotten = slot.work is not None and slot.work.forgotten
        if self._settings.exact and slot.prompted < len(slot.tokens):
            alone = slot.prompted == len(slot.tokens) - 1  # one token more, so that it is not decoded by itself
            start = slot.prompted - alone
            slot.stale = slot.tokens[start:]
            self._cut(slot, start)
        slot.work = None
        slot.used = self._steps
        slot.idle_since = self._clock()
        self.ended += 1
        if forgotten:
            self._clear(slot)

    def _cut(self, slot: Slot, tokens: int) -> None:
        """Forget all but the first `tokens` of a slot's state."""
        if not self._context.keep(slot.sequence, tokens):
            tokens, slot.stale = 0, []
        del slot.tokens[tokens:]
        slot.prompted = min(slot.prompted, tokens)
        slot.saved = min(slot.saved, tokens)

    def _clear(self, slot: Slot) -> None:
        self._cut(slot, 0)
        slot.stale, slot.owner = [], Owner()

    def _advance(self, slot: Slot, work: Work, choice: Choice) -> None:
        """Add the chosen token to the answer, or end it."""
        out = work.generation
        out.completion_tokens += 1
        finish, text = None, ""
        if self._model.is_end(choice.token):
            finish = "stop"
        else:
            text = work.text.push(self._model.piece(choice.token))
            if work.text.stopped:
                finish = "stop"
            elif out.completion_tokens >= work.limit:
                finish = "length"
        if choice.logprob is not None and not self._model.is_end(choice.token):
            work.logprobs.append(self._logprob(choice))
        if finish and not work.text.stopped:
            text += work.text.finish()
        if finish:
            self._free(slot)  # before the reader knows, who may come again at once
        else:
            work.todo = [choice.token]
        if text or finish:
            out.put(Delta(text, tuple(work.logprobs), finish))
            work.logprobs.clear()

    def _logprob(self, choice: Choice) -> TokenLogprob:
        def named(token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
            raw = self._model.piece(token) or self._model.text_of(token).encode()
            return TokenLogprob(raw.decode("utf-8", "replace"), raw, logprob, top)

        return named(choice.token, choice.logprob or 0.0, tuple(named(t, p) for t, p in choice.top))
