"""What the next question needs is loaded before it is asked, and used only as far as nothing has changed since."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from memory.cube import Cubes
from memory.memories import Memories
from memory.models import Embedder
from memory.retrieve import Question, Retriever
from memory.rows import Rows
from memory.sql import Database
from memory.store import Store
from memory.turns import TurnLog
from memory.types import Hit
from proxy.forecasts import Forecast, Forecasts
from proxy.foresight import Foresight
from proxy.metrics import Metrics
from proxy.predicting import Predictor
from scheduler.scenes import Arrival, Foreseen
from tests.memory.make import CUBE, NOW, OWNER, memory, put, record, turn

DAY = 86400.0
TALK = [
    ("garden", "I planted tomatoes on the balcony.", "Which kind?"),
    ("garden", "Cherry tomatoes, six of them, beside the basil.", "Lovely, water them daily."),
    ("dog", "My dog Rex has hurt his paw.", "Poor Rex, see a vet."),
    ("dog", "The vet gave Rex a bandage.", "Keep it dry."),
    ("trip", "We fly to Lisbon in May.", "Book early."),
]


@dataclass
class Clock:
    now: float = NOW + 30 * DAY

    def __call__(self) -> float:
        return self.now


@dataclass
class Seer:
    """A proxy's foresight without its HTTP, over a cube in which TALK was said, a day per session."""

    database: Database
    retriever: Retriever
    rows: Rows
    foresight: Foresight
    forecasts: Forecasts
    metrics: Metrics
    clock: Clock

    async def ask(self, session: str, text: str, *, begins: bool = False) -> tuple[Hit, ...]:
        found = await self.retriever.retrieve(CUBE, Question(text, self.clock()))
        shown = [hit.memory.id for hit in found.hits[:3]]
        self.foresight.asked(CUBE, session, found.hits, found.scores, shown, begins=begins)
        return found.hits

    async def says(self, session: str, text: str, answer: str) -> None:
        await record(self.database, turn(session=session, user_text=text, assistant_text=answer, said_at=self.clock()))
        await self.foresight.answered(CUBE, session, f"{text}\n{answer}")

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"memrelay_{name}_total", labels) or 0.0

    def predictor(self, **given: Any) -> Predictor:
        parts: dict[str, Any] = {
            "cubes": Cubes(self.database),
            "turns": TurnLog(self.database),
            "retriever": self.retriever,
            "forecasts": self.forecasts,
            "clock": self.clock,
        }
        return Predictor(**(parts | given))


@pytest.fixture
async def seer(database: Database, store: Store, embedder: Embedder, threads: ThreadPoolExecutor) -> Seer:
    for number, (session, text, answer) in enumerate(TALK):
        at = NOW + 7 * DAY * ["garden", "dog", "trip"].index(session) + 60 * number
        await record(database, turn(session=session, user_text=text, assistant_text=answer, said_at=at))
    metrics, clock = Metrics(), Clock()
    rows = Rows(database, counted=metrics.rows_read_ahead)
    retriever = Retriever(database, store, embedder, threads, rows=rows)
    forecasts = Forecasts(database)
    foresight = Foresight(retriever=retriever, rows=rows, forecasts=forecasts, metrics=metrics, clock=clock)
    return Seer(database, retriever, rows, foresight, forecasts, metrics, clock)


async def test_the_next_turn_is_foreseen_and_read_ahead(seer: Seer) -> None:
    await seer.ask("now", "How is my dog's paw?", begins=True)
    await seer.says("now", "How is my dog's paw?", "Rex wears a bandage from the vet.")
    foreseen = seer.foresight.of_session(CUBE, "now")
    assert {one.memory for one in foreseen} <= seer.rows.held(CUBE)
    assert seer.counted("predictions", outcome="made") == 1
    hits = await seer.ask("now", "When did we see the vet?")
    assert hits[0].memory.id in {one.memory for one in foreseen[:2]}
    assert seer.counted("needed", occasion="turn", outcome="foreseen") > 0
    assert seer.counted("read_ahead", outcome="used") > 0
    assert seer.counted("prefetch_saved_seconds", part="rows") > 0


async def test_the_session_itself_is_not_foreseen(seer: Seer) -> None:
    await seer.ask("now", "How is my dog's paw?", begins=True)
    await seer.says("now", "How is my dog's paw?", "Rex wears a bandage.")
    own = await Memories(seer.database).since(CUBE, 0)
    mine = {one.id for one in own if one.sources and one.sources[0].session == "now"}
    assert mine
    assert not mine & {one.memory for one in seer.foresight.of_session(CUBE, "now")}


async def test_a_prediction_overtaken_by_the_next_turn_is_not_made(seer: Seer) -> None:
    await seer.ask("now", "How is my dog's paw?", begins=True)
    late = asyncio.create_task(seer.foresight.answered(CUBE, "now", "Rex wears a bandage."))
    await asyncio.sleep(0)
    seer.foresight.asked(CUBE, "now", (), {}, (), begins=False)
    await late
    assert seer.counted("predictions", outcome="overtaken") == 1
    assert seer.foresight.of_session(CUBE, "now") == ()


async def test_predictions_give_way_to_chats(seer: Seer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.foresight._PATIENCE_S", 0.1)
    await seer.ask("now", "How is my dog's paw?", begins=True)
    seer.foresight.busy = lambda: True
    await seer.foresight.answered(CUBE, "now", "Rex wears a bandage.")
    assert seer.counted("predictions", outcome="skipped") == 1
    assert await seer.foresight.tick(first=True) == 0


async def test_what_changes_after_it_was_foreseen_is_shown_as_it_is(seer: Seer) -> None:
    await seer.ask("now", "How is my dog's paw?", begins=True)
    await seer.says("now", "How is my dog's paw?", "Rex wears a bandage from the vet.")
    memories = Memories(seer.database)
    vet, paw = (await _about(memories, "bandage."), await _about(memories, "hurt his paw"))
    await put(seer.database, vet.evolve(text="The vet gave Rex a cone."))
    await memories.forget(CUBE, paw.id)
    hits = await seer.ask("now", "What did the vet give Rex for his paw?")
    told = " ".join(f"{hit.memory.text} {hit.memory.answer}" for hit in hits)
    assert "a cone" in told
    assert "hurt his paw" not in told


async def _about(memories: Memories, words: str) -> Any:
    return next(one for one in await memories.since(CUBE, 0) if words in one.text)


async def test_an_opening_is_foreseen_when_the_cube_is_quiet(seer: Seer) -> None:
    done = await seer.predictor().task(CUBE, {})
    assert done["action"] == "predicted"
    forecast = await seer.forecasts.of(CUBE)
    assert forecast is not None
    assert len(forecast.foreseen) == len(TALK)
    assert all(0 < one.chance < 1 for one in forecast.foreseen)
    assert await seer.foresight.opens(CUBE, "looked_in")
    assert {one.memory for one in forecast.foreseen} <= seer.rows.held(CUBE)
    assert not await seer.foresight.opens(CUBE, "looked_in"), "a moment ago"
    await seer.ask("new", "Good morning, how are my tomatoes?", begins=True)
    assert seer.counted("needed", occasion="opening", outcome="foreseen") > 0
    assert seer.counted("prefetch_saved_seconds", part="cube") > 0


async def test_a_due_task_raises_its_scene(seer: Seer) -> None:
    trip = await _about(Memories(seer.database), "Lisbon")

    async def urgent(cube: str, now: float) -> dict[str, float]:
        return {trip.id: 1.0}

    plain = await seer.predictor().predict(CUBE)
    due = await seer.predictor(urgent=urgent).predict(CUBE)
    assert plain is not None
    assert due is not None
    assert due.foreseen[0].memory == trip.id
    assert due.foreseen[0].why["due"] > 1
    assert due.foreseen[0].chance > {one.memory: one.chance for one in plain.foreseen}[trip.id]


async def test_a_models_guess_counts(seer: Seer) -> None:
    async def guesser(turns: list[Any]) -> list[str]:
        assert [one.user_text for one in turns] == ["We fly to Lisbon in May."]
        return ["Are the cherry tomatoes red?"]

    forecast = await seer.predictor(guesser=guesser).predict(CUBE)
    assert forecast is not None
    tomatoes = await _about(Memories(seer.database), "Cherry tomatoes")
    assert {one.memory: one for one in forecast.foreseen}[tomatoes.id].why["guess"] > 1


async def test_an_erased_cube_has_no_forecast(seer: Seer) -> None:
    await seer.forecasts.keep(Forecast("gone", NOW, 1, (Foreseen("m", 0.5, {}),)))
    assert await seer.forecasts.of("gone") is None
    assert await seer.predictor().task("gone", {}) == {"action": "nothing"}


async def test_expected_sessions_are_made_ready_in_their_hour(seer: Seer) -> None:
    await seer.forecasts.keep(Forecast(CUBE, NOW, 1, (), Arrival(seer.clock() + 600, 0.9)))
    assert await seer.foresight.tick() == 1
    assert seer.counted("openings", why="expected") == 1
    seer.clock.now += 7200
    assert await seer.foresight.tick() == 0


async def test_cubes_in_use_are_made_ready_at_the_start(seer: Seer) -> None:
    await Memories(seer.database).add(memory(id="x", cube="c2"), OWNER)
    await seer.forecasts.keep(Forecast(CUBE, NOW, 1, ()))
    await seer.forecasts.keep(Forecast("c2", NOW, 1, ()))
    assert await seer.foresight.tick(first=True) == 2
