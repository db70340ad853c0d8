"""Between the slots and the saved states: with what a prompt begins, and what is kept of a conversation.

Runs on the worker's thread, but for the reading of files, which has a thread of its own: meanwhile the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from memory.activation.container import Payload
from memory.activation.states import Held, Origin, State
from memory.activation.store import Found, States
from memory.engine.errors import EngineError
from memory.engine.llama import Context
from memory.engine.settings import EngineSettings
from memory.engine.slots import Slot, Work, reusable

log = logging.getLogger(__name__)

Post = Callable[[Callable[[], None]], None]  # have something done on the worker's thread


class Keeper:
    """Fills slots from states and saves states of slots. `states` None: slots are all there is."""

    def __init__(self, context: Context, settings: EngineSettings, states: States | None, post: Post) -> None:
        self._context = context
        self._settings = settings
        self._states = states
        self._post = post
        self._files = ThreadPoolExecutor(1, "kv-load")

    def close(self) -> None:
        """End the thread."""
        self._files.shutdown()

    def begin(self, slot: Slot, work: Work, slots: Sequence[Slot]) -> None:
        """Make the slot the work's, with as much of the prompt computed as there is: what it has, what another slot has, a
        saved state. `work.loading` until a state has come from its file."""
        exact, least = self._settings.exact, self._settings.copy_from
        kept = reusable(slot, work, exact)
        if work.owner.session != slot.owner.session or not slot.owner.shares(work.owner):
            self.save(slot)
        slot.work, slot.stale = work, []
        source = max(slots, key=lambda other: reusable(other, work, exact))
        copied = reusable(source, work, exact)
        found = self._best(work)
        restored = found.tokens if found else 0
        if found and restored >= max(kept, copied) + least:
            self._restore(slot, work, found, slots)
            return
        if copied >= kept + least:
            self._context.copy(source.sequence, slot.sequence)
            slot.tokens, slot.prompted = list(source.tokens), source.prompted
            kept = copied
        self._ready(slot, work, kept, restored, "slot")

    def _restore(self, slot: Slot, work: Work, found: Found, slots: Sequence[Slot]) -> None:
        states = self._states
        if states is None:
            return
        if found.state.payload is not None:
            self._fill(slot, work, found, states.load(found.state), slots)
            return
        work.loading = True

        def fetch() -> None:
            payload = None
            try:
                payload = states.load(found.state)
            finally:
                self._post(lambda: self._fill(slot, work, found, payload, slots))

        self._files.submit(fetch)

    def _fill(self, slot: Slot, work: Work, found: Found, payload: Payload | None, slots: Sequence[Slot]) -> None:
        """The payload is there, or was no good. The slot may be another's by now, if the work was cancelled."""
        if slot.work is not work:
            return
        source = "disk" if work.loading else "ram"
        work.loading = False
        slot.tokens, slot.prompted, slot.saved, slot.owner = [], 0, 0, work.owner
        count = len(found.state.tokens)
        if payload is not None and self._context.restore(slot.sequence, payload, count):
            slot.tokens, slot.prompted = found.state.tokens.tolist(), count
            self._ready(slot, work, found.tokens, found.tokens, source)
            return
        if payload is not None and self._states is not None:
            self._states.reject(found.state)
        self._context.keep(slot.sequence, 0)
        self.begin(slot, work, slots)  # with what else there is: this state is gone

    def _ready(self, slot: Slot, work: Work, kept: int, saved: int, source: str) -> None:
        """The slot has `kept` of the prompt's tokens: what else it has goes, the rest is to be read."""
        if not self._context.keep(slot.sequence, kept):
            kept = 0
        del slot.tokens[kept:]
        slot.prompted = min(slot.prompted, kept)
        slot.saved = min(saved, kept)
        slot.owner = work.owner
        work.todo = work.prompt[kept:]
        work.generation.cached_tokens = kept
        work.generation.cached_from = source if kept else ""

    def _best(self, work: Work) -> Found | None:
        owner = work.owner
        if self._states is None or not owner.epoch:
            return None
        whole = not self._context.can_cut
        return self._states.best(owner.cube, owner.adapter, owner.epoch, work.prompt[:-2], whole=whole)

    def unsaved(self, slot: Slot) -> bool:
        """Is there something of a conversation in it that no state has?"""
        worth = len(slot.tokens) - slot.saved >= self._settings.save_from
        return bool(
            self._states is not None and slot.work is None and slot.owner.session and slot.owner.epoch and worth
        )

    def save(self, slot: Slot) -> None:
        """Keep what the slot's conversation has read so far."""
        if not self.unsaved(slot):
            return
        slot.saved = len(slot.tokens)
        self.put(slot, "session")

    def put(self, slot: Slot, sort: str) -> Held | None:
        """Make a state of all that the slot holds; None when none was kept."""
        if self._states is None:
            return None
        owner = slot.owner
        origin = Origin(owner.cube, owner.epoch, sort, owner.session if sort == "session" else "", owner.adapter)
        try:
            payload = self._context.state(slot.sequence)
            return self._states.put(origin, slot.tokens, payload, at_once=sort == "prefix")
        except EngineError as error:
            log.warning("a state was not saved: %s", error)
            return None

    def known(self, slot: Slot, tokens: Sequence[int]) -> State | None:
        """The prefix state of just these tokens that the slot's owner has."""
        owner = slot.owner
        if self._states is None:
            return None
        found = self._states.best(owner.cube, owner.adapter, owner.epoch, tokens, whole=True)
        return found.state if found and found.tokens == len(tokens) else None

    def borrow(self, slot: Slot, tokens: Sequence[int]) -> None:
        """Put into an empty slot what a state of its owner has of these tokens, if at least two are left to compute."""
        owner, states = slot.owner, self._states
        if states is None:
            return
        found = states.best(owner.cube, owner.adapter, owner.epoch, tokens[:-2], whole=not self._context.can_cut)
        kept = found.tokens if found else 0
        if found is None or kept < self._settings.copy_from:
            return
        payload = states.load(found.state)
        restored = payload is not None and self._context.restore(slot.sequence, payload, len(found.state.tokens))
        if restored and self._context.keep(slot.sequence, kept):
            slot.tokens = list(tokens[:kept])
