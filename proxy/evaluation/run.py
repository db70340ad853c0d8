"""The measurement: talks go through the product's own path (turn log, rules, organising, index) into cubes of their own,
then every question goes through the retriever that chats use. A turn is found when it, a passage of it or a memory learned
from it comes back; each turn counts once, at its first place.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from memory.index import Index
from memory.organise import Organiser
from memory.retrieve import Question
from memory.turns import Place
from memory.types import Hit, stable_id
from proxy import db, inject
from proxy.config import Config
from proxy.evaluation import baselines, figures, peer
from proxy.evaluation.figures import AT, BUDGETS, Answer
from proxy.evaluation.talk import UNANSWERABLE, Asked, Talk
from proxy.parts import Parts, assemble
from proxy.tasks import Work

DEPTH = 200  # hits asked for: enough for 50 distinct turns and for the largest budget
_TOGETHER = 64  # turns written in one commit
_OWNER = "evaluation"

Progress = Callable[[str, int, int], None]  # what is done, how much of it, out of how much


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure. `conversations` and `sample` narrow what is asked (0 and empty: everything)."""

    names: bool = True  # False: nobody's name is stored, every label says User
    conversations: tuple[int, ...] = ()
    sample: int = 0
    baselines: bool = False
    peer_python: str = ""  # an interpreter that has mem0, for one more baseline


@dataclass(frozen=True, slots=True)
class Cube:
    """A talk that was learned: its cube's id and, for each turn's id, the talk's own key."""

    id: str
    talk: Talk
    keys: dict[str, str]


async def measure(config: Config, talks: Sequence[Talk], options: Options, progress: Progress) -> dict[str, Any]:
    """Learn the talks, ask their questions, count. `config.data` is a folder for this alone; see `temporary`."""
    talks = narrowed(talks, options)
    await asyncio.to_thread(db.upgrade, config)
    async with opened(config) as (parts, work):
        began = time.perf_counter()
        cubes = []
        for number, talk in enumerate(talks):
            progress("learning", number, len(talks))
            cubes.append(await learn(parts, work, talk))
        built = time.perf_counter() - began
        answers = await _own(parts, cubes, progress)
        unheld = await _own(parts, cubes, progress, every=True)
        foreign = await _foreign(parts, cubes, progress)
        result = counted(answers, foreign) | {
            "conversations": len(talks),
            "turns": sum(len(talk.turns) for talk in talks),
            "embedder": config.memory.embedder,
            "build_s": round(built, 1),
            "lost_to_silence": _lost(answers, unheld),
        }
        if options.baselines:
            result["baselines"] = await baselines.measure(talks, parts.store, parts.embedder, progress)
            if python := peer.interpreter(options.peer_python):
                result["baselines"].append(await baselines.mem0(talks, python, progress))
    return result


def counted(answers: Sequence[Answer], foreign: Sequence[Answer]) -> dict[str, Any]:
    """The figures. Those of the whole leave adversarial questions out."""
    main = [answer for answer in answers if answer.asked.counts]
    never_said = [answer for answer in answers if answer.asked.category == UNANSWERABLE]
    return {
        **figures.of_ranking(main),
        "budget": figures.of_budget(main),
        "per_category": figures.per_category(answers),
        "abstention": figures.nothing(never_said or foreign),
        "abstention_by": {
            name: {"n": len(asked), "nothing": figures.nothing(asked)}
            for name, asked in ((UNANSWERABLE, never_said), ("another's", foreign))
        },
        "silent": figures.nothing(main),  # questions that have an answer and got nothing
        "latency_ms": figures.spread([answer.ms for answer in answers]),
        "cpu_ms": figures.spread([answer.cpu_ms for answer in answers]),
    }


def narrowed(talks: Sequence[Talk], options: Options) -> list[Talk]:
    """Those conversations and questions that are wanted, without names if so wished."""
    chosen = [talks[number] for number in options.conversations] if options.conversations else list(talks)
    if not options.names:
        chosen = [replace(talk, turns=tuple(replace(turn, speaker="") for turn in talk.turns)) for talk in chosen]
    every = [(number, question) for number, talk in enumerate(chosen) for question in talk.questions]
    if options.sample and options.sample < len(every):
        kept = random.Random(0).sample(every, options.sample)
        chosen = [
            replace(talk, questions=tuple(question for of, question in kept if of == number))
            for number, talk in enumerate(chosen)
        ]
    return chosen


# --- an installation for this alone -----------------------------------------------------------------------------------------


@contextmanager
def temporary(config: Config, keep: Path | None) -> Iterator[Config]:
    """The configuration with a fresh data folder below the configured one, deleted afterwards, or `keep` (which must be
    empty or not there). The embedding model of the configured folder is used. Raises FileExistsError."""
    models = config.folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise FileExistsError(f"{keep} is not empty")
    folder = keep or Path(tempfile.mkdtemp(prefix=".eval-", dir=config.folder))
    try:
        (folder / "models").symlink_to(models)
        yield msgspec.structs.replace(config, data=str(folder), database="", store="", queue="", hooks=())
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[tuple[Parts, Work]]:
    """The proxy's parts and the executor's work, as `memrelay serve` makes them, without a model for extraction."""
    parts = await assemble(config)
    try:
        yield (
            parts,
            Work(
                database=parts.database,
                cubes=parts.cubes,
                receipts=parts.receipts,
                turns=parts.turns,
                organiser=Organiser(parts.database, parts.embedder),
                index=Index(parts.database, parts.store, parts.embedder),
                store=parts.store,
                extractor=None,
                batch=100,
            ),
        )
    finally:
        await parts.close()


async def learn(parts: Parts, work: Work, talk: Talk, *, extract: bool = True) -> Cube:
    """Record the turns in a cube of their own, extract and organise (or not), index."""
    cube = stable_id(_OWNER, talk.name)
    keys: dict[str, str] = {}
    for start in range(0, len(talk.turns), _TOGETHER):
        batch = talk.turns[start : start + _TOGETHER]
        written = await asyncio.gather(
            *(parts.turns.record(said.turn(cube), Place(named=True), _OWNER) for said in batch)
        )
        keys |= {episode.sources[0].turn: said.key for episode, said in zip(written, batch, strict=True)}
    await (work.learn(cube, {}) if extract else work.index.catch_up(cube))
    return Cube(cube, talk, keys)


# --- asking -----------------------------------------------------------------------------------------------------------------


def _lost(answers: Sequence[Answer], unheld: Sequence[Answer]) -> dict[str, float | None]:
    """How much recall it costs to leave out what hardly fits."""
    held, free = (figures.of_ranking([a for a in given if a.asked.counts])["recall"] for given in (answers, unheld))
    return {k: None if free[k] is None or held[k] is None else round(free[k] - held[k], 6) for k in free}


async def _own(parts: Parts, cubes: Sequence[Cube], progress: Progress, *, every: bool = False) -> list[Answer]:
    answers: list[Answer] = []
    total = sum(len(cube.talk.questions) for cube in cubes)
    for cube in cubes:
        for asked in cube.talk.questions:
            progress("asking again" if every else "asking", len(answers), total)
            answers.append(await ask(parts, cube, asked, every=every))
    return answers


async def _foreign(parts: Parts, cubes: Sequence[Cube], progress: Progress) -> list[Answer]:
    """Every question asked of the next talk's cube, where nobody can know the answer."""
    answers: list[Answer] = []
    total = sum(len(cube.talk.questions) for cube in cubes)
    for cube, other in zip(cubes, [*cubes[1:], *cubes[:1]], strict=True):
        if other.id == cube.id:
            break
        for asked in cube.talk.questions:
            progress("asking another", len(answers), total)
            answers.append(await ask(parts, other, asked))
    return answers


async def ask(parts: Parts, cube: Cube, asked: Asked, *, every: bool = False) -> Answer:
    """One question, timed with its embedding; then what of it fits into each budget as a chat's recall block packs it."""
    question = Question(text=asked.text, now=cube.talk.now, limit=DEPTH, every=every)
    cpu, wall = time.process_time(), time.perf_counter()
    result = await parts.retriever.retrieve(cube.id, question)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Answer(
        asked=asked,
        turns=distinct(key for hit in result.hits for key in keys_of(cube, hit))[: AT[-1]],
        within=_within(cube, result.hits),
        ms=wall * 1000,
        cpu_ms=cpu * 1000,
    )


def keys_of(cube: Cube, hit: Hit) -> list[str]:
    """The turns that a hit shows or was learned from."""
    return [cube.keys[source.turn] for source in hit.memory.sources if source.turn in cube.keys]


def distinct(keys: Iterable[str]) -> tuple[str, ...]:
    """Each key once, at its first place."""
    return tuple(dict.fromkeys(keys))


def _within(cube: Cube, hits: Sequence[Hit]) -> dict[int, frozenset[str]]:
    keys: dict[str, list[str]] = {}
    for hit in hits:
        keys.setdefault(hit.memory.id, []).extend(keys_of(cube, hit))
    return {
        budget: frozenset(key for shown in inject.recall_block(hits, (), "", budget).memories for key in keys[shown])
        for budget in BUDGETS
    }
