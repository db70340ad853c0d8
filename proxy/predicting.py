"""The task `predict`: when a cube has gone quiet, what the opening of its next session will need, and when that will be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from memory.agenda import Agenda
from memory.cube import Cubes
from memory.expect import Heard, Known
from memory.grants import ACTIVE
from memory.retrieve import Retriever
from memory.turns import TurnLog
from memory.types import Turn
from proxy.forecasts import Forecast, Forecasts
from scheduler.jobs import Arguments
from scheduler.scenes import OPENING, OPENING_CURVE, arrival, predict

_LOOKED_BACK = 3  # turns of the last session


class Urgent(Protocol):
    """How urgent the open tasks of a cube are: memory → a number in [0, 1]."""

    async def __call__(self, cube: str, now: float) -> Mapping[str, float]: ...


class Guesser(Protocol):
    """What a model holds likely to come up next: short texts."""

    async def __call__(self, turns: list[Turn]) -> list[str]: ...


async def nothing_urgent(cube: str, now: float) -> Mapping[str, float]:
    """No tasks."""
    return {}


class Due:
    """How urgent tasks and goals with a date are, by the agenda."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda

    async def __call__(self, cube: str, now: float) -> Mapping[str, float]:
        """Memory → urgency in [0, 1]. Raises DatabaseError."""
        return {one.memory.id: one.urgency for one in await self._agenda.open(cube, now) if one.due is not None}


class Predictor:
    """Makes forecasts. Without `guesser` no model is asked."""

    def __init__(
        self,
        *,
        cubes: Cubes,
        turns: TurnLog,
        retriever: Retriever,
        forecasts: Forecasts,
        clock: Callable[[], float],
        urgent: Urgent = nothing_urgent,
        guesser: Guesser | None = None,
    ) -> None:
        self._cubes = cubes
        self._turns = turns
        self._retriever = retriever
        self._forecasts = forecasts
        self._clock = clock
        self._urgent = urgent
        self._guesser = guesser

    async def task(self, cube: str, _: Arguments) -> dict[str, Any]:
        """Run as a job: the forecast is kept, and its size returned."""
        forecast = await self.predict(cube)
        if forecast is None:
            return {"action": "nothing"}
        await self._forecasts.keep(forecast)
        arrives = forecast.arrival.at if forecast.arrival else None
        return {"action": "predicted", "memories": len(forecast.foreseen), "arrives_at": arrives}

    async def predict(self, cube: str) -> Forecast | None:
        """What is foreseen now. None: there is no such cube, or it is asleep. Raises DatabaseError."""
        info = await self._cubes.get(cube)
        if info is None or info.status != ACTIVE:
            return None
        now = self._clock()
        turns = await self._turns.latest(cube, _LOOKED_BACK)
        course = [await self._heard(cube, turn, now) for turn in turns]
        known = Known(
            now,
            course=course,
            shown=await self._forecasts.shown(cube),
            due=await self._urgent(cube, now),
            guess=await self._guessed(cube, turns, now),
        )
        expected = await self._retriever.expect(cube, known)
        foreseen = predict(expected.memories, expected.names, expected.values, OPENING, OPENING_CURVE)
        begun = await self._forecasts.begun(cube)
        return Forecast(cube, now, info.rev, tuple(foreseen), arrival(begun, now))

    async def _heard(self, cube: str, turn: Turn, now: float) -> Heard:
        asked = await self._retriever.scores(cube, turn.user_text, now)
        said = await self._retriever.scores(cube, f"{turn.user_text}\n{turn.assistant_text}", now)
        return Heard(asked.scores, said.scores)

    async def _guessed(self, cube: str, turns: list[Turn], now: float) -> dict[str, float]:
        if self._guesser is None or not turns:
            return {}
        found: dict[str, float] = {}
        for place, text in enumerate(await self._guesser(turns)):
            echo = await self._retriever.scores(cube, text, now)
            top = max(echo.scores.values(), default=0.0)
            for memory, score in list(echo.scores.items())[:10]:
                found[memory] = max(found.get(memory, 0.0), (score / top) * 0.9**place if top else 0.0)
        return found
