"""How well the next turn is foreseen: talks are walked turn by turn through the product (retrieve, record, learn at the end of
each session), and after every turn the memories foreseen are compared with those that retrieval then finds for the next one.

Beside ours, sets of the same size: what the last turn found, what was found most recently (LRU) and most often. Only memories
of earlier sessions count: a client sends the running one along. Openings (the first turn of a session) are counted apart.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memory.expect import TURNS, Expected, Heard, Known, Shown
from memory.memories import digest
from memory.retrieve import Question
from memory.turns import Place
from memory.types import Hit, stable_id
from proxy import db, inject
from proxy.config import Config
from proxy.evaluation.figures import spread
from proxy.evaluation.run import Progress, opened
from proxy.evaluation.talk import Said, Talk
from proxy.parts import Parts
from proxy.tasks import Work
from scheduler.scenes import LIMIT, NEXT, NEXT_CURVE, OPENING, OPENING_CURVE, predict

FOUND = 10  # hits of a question that count as needed
BASELINES = ("last_turn", "lru", "frequency")
_OWNER = "evaluation"


@dataclass(frozen=True, slots=True)
class Case:
    """One prediction: what spoke for each memory, what was then needed, what the baselines would have held."""

    talk: str
    opening: bool
    expected: Expected
    wanted: frozenset[str]
    others: Mapping[str, tuple[str, ...]]
    ms: float  # from the end of the turn to the prediction


async def walk(parts: Parts, work: Work, talk: Talk, progress: Progress) -> list[Case]:
    """The cases of one talk, in a cube of its own."""
    walker = _Walker(parts, work, stable_id(_OWNER, "scenes", talk.name), talk.name)
    cases: list[Case] = []
    for number, said in enumerate(talk.turns):
        progress(f"walking {talk.name}", number, len(talk.turns))
        cases += await walker.turn(said)
    return cases


class _Walker:
    def __init__(self, parts: Parts, work: Work, cube: str, name: str) -> None:
        self._parts, self._work, self._cube, self._name = parts, work, cube, name
        self._session = ""
        self._talk: list[Said] = []  # of the running session
        self._course: list[Heard] = []  # newest first
        self._shown: list[Shown] = []  # newest first
        self._lru: list[str] = []
        self._times: Counter[str] = Counter()
        self._expected: Expected | None = None
        self._last: tuple[str, ...] = ()
        self._ms = 0.0

    async def turn(self, said: Said) -> list[Case]:
        opens = said.session != self._session
        if opens:
            await self._open(said)
        question = Question(said.text, said.at, seen={digest(turn.text) for turn in self._talk})
        found = await self._parts.retriever.retrieve(self._cube, question)
        hits = [hit for hit in found.hits if all(s.session != said.session for s in hit.memory.sources)]
        wanted = tuple(dict.fromkeys(hit.memory.id for hit in hits))[:FOUND]
        case = []
        if self._expected is not None and self._expected.memories and wanted:
            others = {
                "last_turn": self._last[:LIMIT],
                "lru": tuple(self._lru[:LIMIT]),
                "frequency": tuple(memory for memory, _ in self._times.most_common(LIMIT)),
            }
            case = [Case(self._name, opens, self._expected, frozenset(wanted), others, self._ms)]
        await self._heard(said, found.scores, hits, wanted)
        return case

    async def _heard(
        self, said: Said, scores: Mapping[str, float], hits: Sequence[Hit], wanted: tuple[str, ...]
    ) -> None:
        for memory in reversed(wanted):
            if memory in self._lru:
                self._lru.remove(memory)
            self._lru.insert(0, memory)
        self._times.update(wanted)
        block = inject.recall_block(hits, (), "", self._parts.config.memory.recall_tokens)
        if block.memories:
            self._shown.insert(0, Shown.of(said.at, said.session, block.memories))
        await self._parts.turns.record(said.turn(self._cube), Place(named=True), _OWNER)
        await self._parts.retriever.warm(self._cube)
        began = time.perf_counter()
        echo = await self._parts.retriever.scores(self._cube, self._spoken(said), said.at)
        self._course.insert(0, Heard(scores, echo.scores))
        known = Known(said.at, said.session, self._course[:TURNS], self._shown)
        self._expected = await self._parts.retriever.expect(self._cube, known, echo.vector)
        self._ms = (time.perf_counter() - began) * 1000
        self._last = tuple(memory for memory in scores if memory in set(self._expected.memories))
        self._talk.append(said)

    def _spoken(self, said: Said) -> str:
        """The last two things said."""
        before = "" if said.answer or not self._talk else self._talk[-1].text
        return "\n".join(part for part in (before, said.text, said.answer) if part)

    async def _open(self, said: Said) -> None:
        if self._session:
            await self._work.learn(self._cube, {})
            began = time.perf_counter()
            course = [await self._looked_back(turn, said.at) for turn in reversed(self._talk[-3:])]
            known = Known(said.at, "", course, self._shown)
            self._expected = await self._parts.retriever.expect(self._cube, known)
            self._ms = (time.perf_counter() - began) * 1000
            self._last = tuple(course[0].asked) if course else ()
        self._session, self._talk, self._course = said.session, [], []

    async def _looked_back(self, said: Said, now: float) -> Heard:
        asked = await self._parts.retriever.scores(self._cube, said.text, now)
        whole = await self._parts.retriever.scores(self._cube, f"{said.text}\n{said.answer}".strip(), now)
        return Heard(asked.scores, whole.scores)


async def measure(
    config: Config, talks: Sequence[Talk], progress: Progress, *, ablation: bool = False
) -> dict[str, Any]:
    """Hit rates as fractions, ours beside the baselines: of next turns, and of openings. `config.data` is for this alone."""
    await asyncio.to_thread(db.upgrade, config)
    async with opened(config) as (parts, work):
        cases = [case for talk in talks for case in await walk(parts, work, talk, progress)]
    told: dict[str, Any] = {"set": LIMIT, "needed": FOUND}
    for name, opening in (("next", False), ("openings", True)):
        chosen = [case for case in cases if case.opening == opening]
        part: dict[str, Any] = {
            "n": len(chosen),
            "hit_rate": {"ours": hit_rate(chosen)} | {other: other_rate(chosen, other) for other in BASELINES},
            "per_talk": {talk.name: hit_rate([case for case in chosen if case.talk == talk.name]) for talk in talks},
            "ms": spread([case.ms for case in chosen]),
        }
        if ablation:
            signals = OPENING if opening else NEXT
            part["without"] = {signal: hit_rate(chosen, leave_out=signal) for signal in signals}
        told[name] = part
    return told | {"hit_rate": told["next"]["hit_rate"]}


def hit_rate(
    cases: Sequence[Case],
    *,
    weights: Mapping[str, float] | None = None,
    leave_out: str = "",
) -> float | None:
    """The mean share of the needed memories that were foreseen; by other weights, or without one signal."""
    rates = []
    for case in cases:
        table = dict(weights or (OPENING if case.opening else NEXT))
        table.pop(leave_out, None)
        curve = OPENING_CURVE if case.opening else NEXT_CURVE
        ours = predict(case.expected.memories, case.expected.names, case.expected.values, table, curve)
        rates.append(len(case.wanted & {one.memory for one in ours}) / len(case.wanted))
    return round(float(np.mean(rates)), 4) if rates else None


def other_rate(cases: Sequence[Case], name: str) -> float | None:
    """The same of a baseline."""
    rates = [len(case.wanted & set(case.others[name])) / len(case.wanted) for case in cases]
    return round(float(np.mean(rates)), 4) if rates else None
