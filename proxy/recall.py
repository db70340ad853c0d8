"""The recall block of a chat: what is found for its question, what has changed since its session began, what presses."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from memory.agenda import Agenda
from memory.agenda_questions import Asked, asked
from memory.cube import Cube
from memory.memories import Memories, digest
from memory.redact import redact
from memory.retrieve import Question, Retriever
from memory.turns import SAME_TURN_S
from memory.types import Hit, Kind, Memory
from memory.words import tokens
from proxy import agenda_lines, inject
from proxy.blocks import Begun, Recalled
from proxy.config import MemorySettings
from proxy.hooks import Exchange
from proxy.scene import Scene
from proxy.sessions import Conversation

_LONGEST_QUESTION = 4000  # characters; of a longer message its end is asked, where questions stand
_BEST = 3  # hits that count as found when none was shown


class Recall:
    """Makes recall blocks."""

    def __init__(self, settings: MemorySettings, retriever: Retriever, memories: Memories, agenda: Agenda) -> None:
        self._settings = settings
        self._retriever = retriever
        self._memories = memories
        self._agenda = agenda

    def expect(self, conversation: Conversation) -> None:
        """Begin to embed the question of a conversation for which a block will be made, most likely."""
        if conversation.asks >= 0 and not conversation.later_round:
            self._retriever.expect_question(conversation.text[-_LONGEST_QUESTION:])

    async def block(
        self,
        exchange: Exchange,
        scene: Scene,
        cube: Cube | None,
        begun: Begun,
        mark: str,
        *,
        first: bool,
        near: Mapping[str, int],
        before: Recalled | None,
    ) -> tuple[inject.Block, str | None]:
        """The block for the question, and why something is missing in it; `first`: it is the first one of its session. `near`:
        memories that blocks shortly before it show, with the revision at which they were made. `before`: the block of the same
        question when it was asked before; it is made anew only when something of it, or in the new one, has changed."""
        if cube is None:
            return inject.EMPTY, None
        text = scene.conversation.text[-_LONGEST_QUESTION:]
        question = Question(
            text=text, now=exchange.received_at, seen=scene.conversation.seen, reasons=False, spoken=scene.writes
        )
        wanted = asked(text, exchange.received_at)
        retrieving = asyncio.create_task(self._retriever.retrieve(scene.cube, question, info=cube))
        try:
            await asyncio.sleep(0)  # while the question is embedded
            agenda = await self._due(scene, wanted, exchange.received_at, first=first)
            result = await retrieving
            changed = await self._changed(scene, cube, begun)
        finally:
            retrieving.cancel()
        exchange.notes["found"] = result
        itself = digest(redact(scene.conversation.text))
        hits = [
            hit
            for hit in result.hits
            if hit.memory.id not in begun.memories
            and not self._is_itself(hit.memory, scene, itself, exchange.received_at)
        ]
        budget = self._settings.recall_tokens
        if wanted is not None:  # the list is complete: what else is known of tasks is over, or was put otherwise
            hits = [hit for hit in hits if hit.memory.kind not in wanted.kinds and not hit.replaced]
            changed = [memory for memory in changed if memory.kind not in wanted.kinds]
        same = {hit.memory.id for hit in hits if hit.memory.rev <= near.get(hit.memory.id, -1)}
        block = inject.recall_block(hits, changed, mark, budget, agenda, same)
        if before is not None and await self._holds(scene, before, hits, block):
            block = inject.Block(before.recall, before.memories, tokens(before.recall))
        exchange.notes["stood"] = _stood(result.hits, {*begun.memories, *same}, block.memories)
        return block, result.degraded

    def _is_itself(self, memory: Memory, scene: Scene, itself: str, now: float) -> bool:
        """Whether a hit is the question's own earlier try (regenerate, retry). `itself`: the question's digest."""
        if memory.kind is not Kind.EPISODE or self._retriever.digest_of(memory) != itself:
            return False
        here = any(source.session == scene.session for source in memory.sources)
        return here or now - memory.message_time < SAME_TURN_S

    async def _holds(self, scene: Scene, before: Recalled, hits: Sequence[Hit], now: inject.Block) -> bool:
        """Whether a block may stand as it is: nothing that it shows, and nothing that a new one would show, is newer."""
        own = {hit.memory.id for hit in hits if any(one.session == scene.session for one in hit.memory.sources)}
        shown = [memory for memory in dict.fromkeys((*before.memories, *now.memories)) if memory not in own]
        found = await self._memories.by_ids(scene.cube, shown)
        return all(one in found and found[one].rev <= before.rev for one in shown)

    async def _due(self, scene: Scene, wanted: Asked | None, now: float, *, first: bool) -> list[agenda_lines.Line]:
        """The open tasks that a question asks for; of a session's first question else, what presses."""
        budget = self._settings.recall_tokens
        if wanted is not None:
            found = await self._agenda.open(scene.cube, now, kinds=wanted.kinds)
            return agenda_lines.answer(wanted, found, now, budget)
        if not first or not self._settings.remind:
            return []
        standing = await self._memories.standing(scene.cube, (Kind.TASK,))
        return agenda_lines.reminder(standing, now, min(budget, agenda_lines.REMINDER_TOKENS))

    async def _changed(self, scene: Scene, cube: Cube, begun: Begun) -> list[Memory]:
        """Standing memories that other sessions have learned since this one began."""
        if cube.rev == begun.rev or self._retriever.unchanged(cube, inject.STANDING, begun.rev):
            return []
        newer = await self._memories.standing(scene.cube, inject.STANDING, since=begun.rev)
        return [
            memory
            for memory in newer
            if memory.id not in begun.memories and all(source.session != scene.session for source in memory.sources)
        ]


def _stood(hits: Sequence[Hit], begun: Collection[str], shown: Collection[str]) -> tuple[str, ...]:
    """The memories of the stable block that this question found, so that they would have been shown if they had not stood
    there: no worse than the last one shown, or among the best few when none was."""
    found = list(dict.fromkeys(hit.memory.id for hit in hits))
    last = max((place for place, memory in enumerate(found) if memory in shown), default=_BEST - 1)
    return tuple(memory for memory in found[: last + 1] if memory in begun)
