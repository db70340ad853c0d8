"""Conversations lived through again: every turn goes through the product's own hooks as a chat of its owner, at the time at which
it was said, on a clock that is set. After each session its owner falls silent: what was said is learned, thought over, indexed.

No model is asked: the answers are those of the talk. Each talk is a principal with a home cube. Sessions follow one another in
time, whoever's they are.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from memory.agenda import Agenda
from memory.index import Index
from memory.organise import Organiser
from memory.reflect import Policy, Reflector
from memory.reflect.fading import DAY_S
from memory.retrieve import Retriever
from memory.types import stable_id
from proxy.auth import Principal, cube_of
from proxy.config import Config
from proxy.evaluation.talk import Said, Talk
from proxy.forecasts import Forecasts
from proxy.hooks import Exchange
from proxy.parts import Parts, assemble
from proxy.predicting import Due, Predictor
from proxy.stream import Answer
from proxy.tasks import Work

_ANSWERED_S = 20.0  # from a question to the end of its answer
_QUIET_S = 600.0  # from the last answer of a session to the jobs that follow it
_AHEAD_S = 300.0  # before a session, when the clock ticks last
_DRAIN_S = 60.0


class Clock:
    """A clock that is set and never goes back."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def reach(self, at: float) -> None:
        """Let time pass until then."""
        self.now = max(self.now, at)


@dataclass(frozen=True, slots=True)
class Session:
    """One session of a talk: whose, in which cube, and its turns."""

    owner: str
    cube: str
    name: str
    turns: tuple[Said, ...]


def sessions(talks: Sequence[Talk]) -> list[Session]:
    """All sessions of all talks, in the order in which they begin."""
    found = []
    for talk in talks:
        for name, turns in itertools.groupby(talk.turns, key=lambda said: said.session):
            found.append(Session(talk.name, cube_of(_principal(talk.name), {}, {}, ()), name, tuple(turns)))
    return sorted(found, key=lambda session: (session.turns[0].at, session.owner))


@dataclass(frozen=True, slots=True)
class Life:
    """The proxy's parts, and the executor's work beside them."""

    parts: Parts
    work: Work
    predictor: Predictor


@asynccontextmanager
async def living(config: Config, clock: Clock) -> AsyncIterator[Life]:
    """The product as `memrelay serve` makes it, on this clock, without a model for extraction; `evolution` of the configuration
    says what fades."""
    patient = msgspec.structs.replace(config.memory, deadline_ms=60_000, record_deadline_ms=60_000)
    parts = await assemble(msgspec.structs.replace(config, memory=patient), clock=clock, alone=True)
    wanted, database = config.evolution, parts.database
    fades = Policy(wanted.archive_after_days * DAY_S, wanted.archive_episodes_after_days * DAY_S)
    executors = Retriever(database, parts.store, parts.embedder, parts.threads)
    try:
        yield Life(
            parts,
            Work(
                database=database,
                cubes=parts.cubes,
                receipts=parts.receipts,
                turns=parts.turns,
                organiser=Organiser(database, parts.embedder),
                index=Index(database, parts.store, parts.embedder),
                store=parts.store,
                extractor=None,
                batch=100,
                clock=clock,
                reflector=Reflector(database, parts.embedder, policy=fades, clock=clock),
            ),
            Predictor(
                cubes=parts.cubes,
                turns=parts.turns,
                retriever=executors,
                forecasts=Forecasts(database),
                clock=clock,
                urgent=Due(Agenda(database)),
            ),
        )
    finally:
        await executors.close()
        await parts.close()


async def chat(parts: Parts, clock: Clock, session: Session) -> AsyncIterator[Mapping[str, str]]:
    """The turns of a session as chats; gives each one's response headers, once nothing is left to be done behind it."""
    messages: list[dict[str, str]] = []
    for said in session.turns:
        clock.reach(said.at)
        messages.append({"role": "user", "content": said.text or "…"})
        body: dict[str, Any] = {"model": "replay", "messages": messages}
        exchange = Exchange(
            id=stable_id(session.cube, said.key),
            principal=_principal(session.owner),
            headers={"x-memory-session": session.name},
            parsed=json.loads(json.dumps(body)),
            raw=json.dumps(body).encode(),
            received_at=clock(),
        )
        await parts.hooks.on_request(exchange)
        clock.now += _ANSWERED_S
        exchange.answer = Answer(said.answer, True, False, "stop", "replay", None)
        await parts.hooks.on_response(exchange)
        await parts.background.drain(_DRAIN_S)
        messages.append({"role": "assistant", "content": said.answer})
        yield exchange.response_headers


async def fall_silent(life: Life, clock: Clock, session: Session) -> None:
    """What the jobs do when a session is over."""
    clock.now += _QUIET_S
    await life.work.learn(session.cube, {})
    await life.work.reflect(session.cube, {})
    await life.predictor.task(session.cube, {})


async def look_ahead(life: Life, clock: Clock, session: Session) -> None:
    """What the proxy does of itself while time passes until a session: it makes ready which cubes it expects."""
    clock.reach(session.turns[0].at - _AHEAD_S)
    await life.parts.foresight.tick()
    await life.parts.background.drain(_DRAIN_S)
    await life.parts.retriever.loaded()


def _principal(name: str) -> Principal:
    return Principal(f"replay:{name}", "", frozenset({"chat", "memory:read", "memory:write"}))
