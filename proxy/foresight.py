"""Foresight: what the next question will need is loaded before it is asked, and never believed: every question searches the
whole cube, and what was loaded is used only as far as nothing has changed since.

The way of the data. A question is asked: what it found is compared with what was foreseen (hit rate, precision) and joins the
session's course. Its answer has ended: behind the scenes, the newest turn of a session only and never while chats wait for
their memory, the next turn's memories are foreseen and read ahead. A client looks in (`GET /v1/models`), a session is expected
at this hour, or the proxy has just started: the cube is loaded, and what its forecast (proxy/forecasts.py) names is read.
What was read ahead lies in memory/rows.py, the cubes in memory/warm.py; here are only ids and numbers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from memory.expect import HISTORY, TURNS, Heard, Known, Shown
from memory.retrieve import Retriever
from memory.rows import Rows
from memory.sql import DatabaseError
from memory.types import Hit
from proxy.forecasts import Forecast, Forecasts
from proxy.metrics import Metrics
from proxy.predicting import Urgent, nothing_urgent
from scheduler.scenes import NEXT, NEXT_CURVE, Foreseen, predict

log = logging.getLogger(__name__)
FOUND = 10  # hits of a question that count as needed
_SESSIONS = 256  # whose course is held
_CUBES = 256  # whose history of what was shown is held
_SHARE = 0.05  # of the time may go into predictions for the next turn
_AT_A_STRETCH_S = 1.0  # that much of it may be saved up
_PATIENCE_S = 2.0  # so long a prediction waits for a moment without waiting chats
_AGAIN_S = 60.0  # a client that looks in again so soon opens nothing
_AT_START = 8  # cubes made ready when the proxy starts
_AT_ONCE = 20  # cubes made ready in one round of the clock

ReadAhead = Callable[[str], Awaitable[bool]]  # cube → whether a model has read what its next session begins with


@dataclass(slots=True)
class _Session:
    """`course`: its turns, newest first. `newest`: the number of the last turn, so that a prediction for an older one is not
    made. `foreseen`: for its next turn."""

    course: list[Heard] = field(default_factory=list)
    newest: int = 0
    foreseen: tuple[Foreseen, ...] = ()


class Foresight:
    """One per proxy process. `busy` says whether chats are waiting for their memory; `expects` is told of a cube whose session is
    about to begin; `settles_s`: so long after an answer its session is left alone."""

    def __init__(
        self,
        *,
        retriever: Retriever,
        rows: Rows,
        forecasts: Forecasts,
        metrics: Metrics,
        busy: Callable[[], bool] = lambda: False,
        urgent: Urgent = nothing_urgent,
        expects: Callable[[str], None] = lambda cube: None,
        clock: Callable[[], float] = time.time,
        settles_s: float = 0.0,
    ) -> None:
        self._expects = expects
        self._settles_s = settles_s
        self._retriever = retriever
        self._rows = rows
        self._forecasts = forecasts
        self._metrics = metrics
        self.busy = busy
        self._read_ahead: ReadAhead | None = None
        self._urgent = urgent
        self._clock = clock
        self._sessions: OrderedDict[tuple[str, str], _Session] = OrderedDict()
        self._shown: OrderedDict[str, list[Shown]] = OrderedDict()
        self._opened: OrderedDict[str, float] = OrderedDict()  # cube → when it was made ready
        self._openings: dict[str, tuple[Foreseen, ...]] = {}
        self._loaded_s: dict[str, float] = {}  # cube → what loading it ahead took, until that was of use
        self._looked_at = 0.0  # when it was last asked for new forecasts
        self._credit_s = _AT_A_STRETCH_S  # of work that predictions may do now
        self._credited = time.monotonic()
        self._one = asyncio.Lock()

    def hand_over(self, read_ahead: ReadAhead) -> None:
        """Have the beginning of the next session's prompt computed by the local model, too."""
        self._read_ahead = read_ahead

    # --- the running session --------------------------------------------------------------------------------------------

    def asked(
        self,
        cube: str,
        session: str,
        hits: Sequence[Hit],
        scores: Mapping[str, float],
        shown: Sequence[str],
        *,
        begins: bool,
    ) -> int:
        """A question was asked, this is what it found, and of it these memories went into the prompt. Returns how many of
        those had been foreseen."""
        here = self._sessions.pop((cube, session), None) or _Session()
        foreseen = self._openings.pop(cube, ()) if begins else here.foreseen
        needed = _needed(hits, session)
        self._metrics.prefetch_saved.labels("cube").inc(self._loaded_s.pop(cube, 0.0))
        self._judge("opening" if begins else "turn", foreseen, needed)
        here.foreseen = ()
        here.newest += 1
        here.course = [Heard(scores, {}), *here.course][:TURNS]
        self._sessions[cube, session] = here
        while len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        history = self._shown.get(cube)
        if history is not None and shown:
            history.insert(0, Shown.of(self._clock(), session, tuple(shown)))
            del history[HISTORY:]
        return len({one.memory for one in foreseen} & set(shown))

    async def answered(self, cube: str, session: str, said: str) -> None:
        """The turn has ended and is recorded; `said` is its question with its answer. For the background."""
        here = self._sessions.get((cube, session))
        if here is None or not here.course:
            return
        turn = here.newest
        await asyncio.sleep(self._settles_s)  # people read before they ask on; who does not has no use for it
        until = time.monotonic() + _PATIENCE_S
        async with self._one:  # one at a time: predictions share what the machine has to spare
            if not await self._quiet(until) or here.newest != turn:
                outcome = "overtaken" if here.newest != turn else "skipped"
                self._metrics.predictions.labels(outcome).inc()
                return
            await self._foresee(cube, session, here, turn, said)

    async def _foresee(self, cube: str, session: str, here: _Session, turn: int, said: str) -> None:
        began, now = time.perf_counter(), self._clock()
        try:
            await self._predict(cube, session, here, turn, said, now)
        finally:
            took = time.perf_counter() - began
            self._credit_s -= took
            self._metrics.prefetch_work.labels("turn").inc(took)

    async def _predict(self, cube: str, session: str, here: _Session, turn: int, said: str, now: float) -> None:
        echo = await self._retriever.scores(cube, said, now)
        if here.newest != turn:
            self._metrics.predictions.labels("overtaken").inc()
            return
        here.course[0] = Heard(here.course[0].asked, echo.scores)
        known = Known(now, session, tuple(here.course), await self._history(cube), due=await self._urgent(cube, now))
        expected = await self._retriever.expect(cube, known, echo.vector)
        found = predict(expected.memories, expected.names, expected.values, NEXT, NEXT_CURVE)
        if here.newest == turn:
            here.foreseen = tuple(found)
        await self._rows.ahead(cube, [one.memory for one in found])
        self._metrics.predictions.labels("made").inc()

    async def _quiet(self, until: float) -> bool:
        """Wait for a moment in which no chat waits for its memory and predictions have a share left. False: none."""
        while time.monotonic() < until:
            now = time.monotonic()
            self._credit_s = min(self._credit_s + _SHARE * (now - self._credited), _AT_A_STRETCH_S)
            self._credited = now
            if not self.busy() and self._credit_s > 0:
                return True
            await asyncio.sleep(0.05)
        return False

    async def _history(self, cube: str) -> list[Shown]:
        known = self._shown.get(cube)
        if known is None:
            known = self._shown[cube] = await self._forecasts.shown(cube)
            while len(self._shown) > _CUBES:
                self._shown.popitem(last=False)
        self._shown.move_to_end(cube)
        return known

    def _judge(self, occasion: str, foreseen: Sequence[Foreseen], needed: frozenset[str]) -> None:
        if not foreseen or not needed:
            return
        ours = {one.memory for one in foreseen}
        hits = len(ours & needed)
        self._metrics.foreseen.labels(occasion, "needed").inc(hits)
        self._metrics.foreseen.labels(occasion, "not needed").inc(len(ours) - hits)
        self._metrics.needed.labels(occasion, "foreseen").inc(hits)
        self._metrics.needed.labels(occasion, "not foreseen").inc(len(needed) - hits)

    # --- the next session -----------------------------------------------------------------------------------------------

    async def opens(self, cube: str, why: str) -> bool:
        """A session of this cube is about to begin: have it in memory, with what its opening will need. `why` is looked_in,
        expected or started. False: it was made ready a moment ago. For the background."""
        now = self._clock()
        if now - self._opened.get(cube, -_AGAIN_S) < _AGAIN_S:
            return False
        self._opened[cube] = now
        while len(self._opened) > _CUBES:
            self._opened.popitem(last=False)
        if why != "started":
            self._expects(cube)
        began = time.perf_counter()
        await self._retriever.warm(cube)
        await self._retriever.loaded()
        self._loaded_s[cube] = time.perf_counter() - began
        if self._read_ahead is not None:
            self._metrics.prefills.labels("done" if await self._read_ahead(cube) else "nothing").inc()
        await self._read_forecast(cube)
        self._metrics.openings.labels(why).inc()
        self._metrics.prefetch_work.labels("opening").inc(time.perf_counter() - began)
        return True

    async def _read_forecast(self, cube: str) -> None:
        forecast = await self._forecasts.of(cube)
        if forecast is not None and forecast.foreseen:
            self._openings[cube] = forecast.foreseen
            await self._rows.ahead(cube, [one.memory for one in forecast.foreseen])

    async def tick(self, *, first: bool = False) -> int:
        """The clock: make ready the cubes whose session is expected about now; at the start also those used last. How many."""
        done = 0
        try:
            since, self._looked_at = self._looked_at, self._clock()
            for cube in await self._forecasts.made_since(since, [c for c in self._shown if c not in self._openings]):
                await self._read_forecast(cube)  # its session has gone quiet, and it is still in memory
                self._metrics.openings.labels("foreseen").inc()
            for why, cubes in (
                ("expected", await self._forecasts.expected(self._clock(), _AT_ONCE)),
                ("started", await self._forecasts.latest(_AT_START) if first else []),
            ):
                for cube in cubes:
                    if not await self._quiet(time.monotonic() + _PATIENCE_S):
                        return done
                    done += await self.opens(cube, why)
        except DatabaseError as error:
            log.warning("nothing was made ready: %s", error)
        return done

    async def run(self, every_s: float = 30.0) -> None:
        """Tick until cancelled."""
        first = True
        while True:
            await self.tick(first=first)
            first = False
            await asyncio.sleep(every_s)

    # --- to be looked at ------------------------------------------------------------------------------------------------

    def of_session(self, cube: str, session: str) -> tuple[Foreseen, ...]:
        """What is foreseen for the session's next turn."""
        here = self._sessions.get((cube, session))
        return here.foreseen if here else ()

    def sessions(self, cube: str) -> list[str]:
        """The sessions of a cube whose next turn is foreseen here, the latest first."""
        return [s for (c, s), here in reversed(self._sessions.items()) if c == cube and here.foreseen]

    async def of_opening(self, cube: str) -> Forecast | None:
        """What is foreseen for the cube's next session."""
        return await self._forecasts.of(cube)

    def let_go(self, cube: str) -> None:
        """Hold nothing of a cube."""
        for key in [key for key in self._sessions if key[0] == cube]:
            del self._sessions[key]
        self._shown.pop(cube, None)
        self._openings.pop(cube, None)
        self._opened.pop(cube, None)
        self._loaded_s.pop(cube, None)
        self._rows.let_go(cube)


def _needed(hits: Sequence[Hit], session: str) -> frozenset[str]:
    """The memories of earlier sessions among the best hits."""
    other = [hit.memory.id for hit in hits if all(source.session != session for source in hit.memory.sources)]
    return frozenset(list(dict.fromkeys(other))[:FOUND])
