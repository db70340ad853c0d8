"""Continuous batching: every step gives each answering chat its next token, and one chat a chunk of its prompt.

Answers must not depend on who else is being served, nor on where a prompt was cut. In llama.cpp a row that stands alone
in its sequence's part of a batch takes another kernel, with another rounding, than one among others (measured: now and then
half a logit). So prompts are never decoded in parts of one token, nor together with answers, whose rows stand alone; and an
answer that comes back as history is a prompt, so its state is computed again while nobody waits (`EngineSettings.exact`).

Single-threaded; the engine's worker thread calls `add` and `step`. Knows neither threads nor locks.
"""

from __future__ import annotations

from collections import deque

from memory.engine.errors import EngineError
from memory.engine.generation import Delta, TokenLogprob
from memory.engine.llama import Context, Model
from memory.engine.sampler import Choice
from memory.engine.settings import EngineSettings
from memory.engine.slots import Slot, Work, place


class Batcher:
    """The slots of one context and the queue before them (first come, first served)."""

    def __init__(self, model: Model, context: Context, settings: EngineSettings) -> None:
        self._model = model
        self._context = context
        self._settings = settings
        self._slots = [Slot(sequence) for sequence in range(settings.slots)]
        self._waiting: deque[Work] = deque()
        self._steps = 0
        self.ended = 0  # requests that were answered, cancelled or failed
        self.cancelled = 0

    @property
    def busy(self) -> int:
        """Slots that are being worked on."""
        return sum(slot.work is not None for slot in self._slots)

    @property
    def has_work(self) -> bool:
        """Is there anything to do?"""
        return bool(self._waiting) or self.busy > 0 or self.stale > 0

    @property
    def stale(self) -> int:
        """Tokens of ended answers whose states are still to be computed again."""
        return sum(len(slot.stale) for slot in self._slots)

    def add(self, work: Work) -> None:
        """Queue a request."""
        self._waiting.append(work)

    def step(self) -> None:
        """Drop what was cancelled, fill free slots, decode. Raises EngineError: then call `fail`."""
        self._steps += 1
        self._drop_cancelled()
        while self._waiting and place(self._waiting[0], self._slots, self._context, self._settings):
            self._waiting.popleft()
        active = [(slot, slot.work) for slot in self._slots if slot.work is not None]
        if answering := [(slot, work, work.todo) for slot, work in active if work.answering]:
            self._decode(answering)
        if reading := [(slot, work) for slot, work in active if not work.answering]:
            slot, work = min(reading, key=lambda pair: pair[1].read_at)
            work.read_at = self._steps
            self._decode([(slot, work, _part(work.todo, self._settings.chunk))])
        if not active:
            self._refresh()

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
        slot = max((s for s in self._slots if s.stale), key=lambda s: s.used, default=None)
        if slot is None:
            return
        part = _part(slot.stale, self._settings.idle_chunk)
        slot.stale = slot.stale[len(part) :]
        try:
            self._context.decode([(slot.sequence, len(slot.tokens), part)])
        except EngineError:
            slot.stale = []  # `place` drops whatever cells this has left
            raise
        slot.tokens += part
        slot.prompted = len(slot.tokens)

    def fail(self, message: str, *, waiting_too: bool = False) -> None:
        """Give up what is being worked on. Its KV states are dropped: after a failure nobody knows what they hold."""
        for slot in self._slots:
            if slot.work is not None:
                slot.work.generation.put(EngineError(message))
                self._cut(slot, 0)
                self._free(slot)
        while waiting_too and self._waiting:
            self._waiting.popleft().generation.put(EngineError(message))
            self.ended += 1

    def _drop_cancelled(self) -> None:
        for slot in self._slots:
            if slot.work is not None and slot.work.generation.cancelled:
                self.cancelled += 1
                self._free(slot)
        for work in [w for w in self._waiting if w.generation.cancelled]:
            self._waiting.remove(work)
            self.cancelled += 1
            self.ended += 1

    def _free(self, slot: Slot) -> None:
        if self._settings.exact and slot.prompted < len(slot.tokens):
            alone = slot.prompted == len(slot.tokens) - 1  # one token more, so that it is not decoded by itself
            start = slot.prompted - alone
            slot.stale = slot.tokens[start:]
            self._cut(slot, start)
        slot.work = None
        slot.used = self._steps
        self.ended += 1

    def _cut(self, slot: Slot, tokens: int) -> None:
        """Forget all but the first `tokens` of a slot's state."""
        if not self._context.keep(slot.sequence, tokens):
            tokens, slot.stale = 0, []
        del slot.tokens[tokens:]
        slot.prompted = min(slot.prompted, tokens)

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


def _part(todo: list[int], size: int) -> list[int]:
    """The tokens to decode next: at most `size`, but never such that a single one is left."""
    return todo[: size - 1] if len(todo) == size + 1 else todo[:size]
