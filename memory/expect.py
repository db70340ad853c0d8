"""What will be needed next: what speaks for each memory of a cube, before anything is asked. Numbers only; weighing them is
the scheduler's business.

Two occasions. Within a session: what its questions found, and its answers; what stood beside that when it was said; what was
shown lately, often, or after the like of what is shown now. At the opening of the next one only habits can know: how sessions
begin, what the last one ended with, what comes back, when.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from memory.blocks import Bools, Floats, Ints
from memory.store import Filter
from memory.view import View

NEXT = (
    "asked", "course", "said", "said_course", "beside", "meaning", "again", "often", "follows", "recency", "opens",
    "rhythm", "due", "guess",
)  # fmt: skip
OPENING = (
    "ended", "ended_said", "first", "second", "opened", "like_openings", "often", "again", "follows", "recency", "latest",
    "ending", "rhythm", "due", "guess",
)  # fmt: skip
TURNS = 6  # of a session that are looked back on
BEST = 10  # memories of a block that are looked at
HISTORY = 300  # blocks shown that are looked back on
_FADE = 0.6  # from turn to turn
_AGAIN = 0.9  # from block to block
_MONTHS_S = 45 * 86400.0
_HOURS = 2.0  # what happens about this much earlier or later is the same habit


@dataclass(frozen=True, slots=True)
class Heard:
    """A turn as retrieval sees it: how well each memory fits its question, and its question and answer together."""

    asked: Mapping[str, float]
    said: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Shown:
    """The memories that were found for a prompt and went into it, the best first."""

    at: float
    session: str
    memories: tuple[str, ...]

    @staticmethod
    def of(at: float, session: str, block: Sequence[str]) -> Shown:
        """What a recall block shows; there the best stands last."""
        return Shown(at, session, tuple(reversed(block))[:BEST])


@dataclass(frozen=True, slots=True)
class Known:
    """What is known besides the view. `course`: the session's turns, newest first; for an opening those of the session
    before. `shown`: newest first. `due`: how urgent open tasks are, `guess`: how likely a model holds them; both in [0, 1]."""

    now: float
    session: str = ""
    course: Sequence[Heard] = ()
    shown: Sequence[Shown] = ()
    due: Mapping[str, float] | None = None
    guess: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """n memories and what speaks for each: values of shape (n, len(names))."""

    memories: tuple[str, ...]
    names: tuple[str, ...]
    values: NDArray[np.float32]


def next_turn(view: View, known: Known, answer: NDArray[np.float32] | None = None) -> Expected:
    """For the next turn of a running session. Its own memories are left out: the client sends them along. `answer`: the
    vector of what was said last."""
    cube = _Cube.of(view, leave_out=known.session)
    asked, said = [cube.row(t.asked) for t in known.course[:TURNS]], [cube.row(t.said) for t in known.course[:TURNS]]
    talk = _faded(said, cube)
    columns = {
        "asked": asked[0] if asked else cube.zeros,
        "course": _faded(asked, cube),
        "said": said[0] if said else cube.zeros,
        "said_course": talk,
        "beside": np.maximum(cube.along(talk, cube.before), cube.along(talk, cube.after)),
        "meaning": cube.zeros if answer is None else cube.nearness(answer),
        "opens": cube.like_openings(),
        "follows": cube.row(_follows(known.shown, known.session)),
        **_usual(cube, known),
    }
    return cube.expected(NEXT, columns)


def opening(view: View, known: Known) -> Expected:
    """For the first turn of the session that comes next."""
    cube = _Cube.of(view)
    opened = Counter(memory for one in _openings(known.shown) for memory in one.memories)
    columns = {
        "ended": _faded([cube.row(turn.asked) for turn in known.course[:3]], cube),
        "ended_said": _faded([cube.row(turn.said) for turn in known.course[:3]], cube),
        "first": (cube.place == 0).astype(float),
        "second": (cube.place == 1).astype(float),
        "opened": cube.row({memory: np.log1p(times) for memory, times in opened.items()}),
        "like_openings": cube.like_openings(),
        "latest": (cube.session == cube.session[np.argmax(cube.time)]).astype(float) if cube.ids else cube.zeros,
        "ending": np.maximum(0.0, 1.0 - cube.left / 2.0) * (cube.place >= 0),
        "follows": cube.row(_follows_session(known.shown)),
        **_usual(cube, known),
    }
    return cube.expected(OPENING, columns)


def _usual(cube: _Cube, known: Known) -> dict[str, Floats]:
    again: dict[str, float] = {}
    often: Counter[str] = Counter()
    for age, block in enumerate(known.shown[:HISTORY]):
        often.update(block.memories)
        for place, memory in enumerate(block.memories):
            again.setdefault(memory, _AGAIN**age * (1.0 - 0.001 * place))
    return {
        "again": cube.values_of(again),
        "often": cube.row({memory: np.log1p(times) for memory, times in often.items()}),
        "recency": np.exp(-np.maximum(known.now - cube.time, 0.0) / _MONTHS_S),
        "rhythm": _rhythm(cube.time, known.now),
        "due": cube.values_of(known.due or {}),
        "guess": cube.values_of(known.guess or {}),
    }


def _faded(rows: Sequence[Floats], cube: _Cube) -> Floats:
    total = cube.zeros
    for age, row in enumerate(rows):
        total = total + _FADE**age * row
    return _to_one(total)


def _follows(shown: Sequence[Shown], session: str) -> dict[str, float]:
    """What was shown after the like of what is shown now: each earlier block by how much of the present one it held."""
    now = next((set(block.memories) for block in shown if block.session == session), set())
    found: Counter[str] = Counter()
    last: dict[str, Shown] = {}  # session → the block that came after the one we look at
    for block in shown[:HISTORY]:
        after = last.get(block.session)
        share = len(now & set(block.memories)) / max(len(now), 1)
        if after is not None and share:
            found.update(dict.fromkeys(after.memories, share))
        last[block.session] = block
    return dict(found)


def _follows_session(shown: Sequence[Shown]) -> dict[str, float]:
    """The same from the end of a session to the opening of the next."""
    order = list(dict.fromkeys(block.session for block in shown[:HISTORY]))  # newest first
    first, last = {b.session: b for b in shown[:HISTORY]}, {b.session: b for b in reversed(shown[:HISTORY])}
    found: Counter[str] = Counter()
    if order:
        now = set(last[order[0]].memories)
        for later, earlier in pairwise(order):
            share = len(now & set(last[earlier].memories)) / max(len(now), 1)
            found.update(dict.fromkeys(first[later].memories, share))
    return {memory: share for memory, share in found.items() if share}


def _openings(shown: Sequence[Shown]) -> list[Shown]:
    """The first block of each session."""
    return list({block.session: block for block in shown[:HISTORY]}.values())


def _rhythm(times: Floats, now: float) -> Floats:
    """How near each moment is to now within the week and within the day (UTC), half and half."""
    days = (np.floor((now - times) / 86400.0 + 0.5) % 7 == 0).astype(float)
    moment = datetime.fromtimestamp(now, UTC)
    hour = moment.hour + moment.minute / 60
    apart = np.abs((times % 86400.0) / 3600.0 - hour)
    apart = np.minimum(apart, 24.0 - apart)
    return np.asarray(0.5 * days + 0.5 * np.exp(-0.5 * (apart / _HOURS) ** 2), float)


@dataclass(frozen=True, slots=True)
class _Cube:
    """The memories of a view, one row each: `place` counts from the beginning of its session (-1: not a turn), `left` to its
    end; `before` and `after` are the rows of the neighbouring turns, -1 for none."""

    view: View
    ids: tuple[str, ...]
    rows: dict[str, int]
    here: Ints  # numbers of their pieces
    of_piece: Ints  # their rows
    time: Floats
    session: Ints
    place: Ints
    left: Ints
    before: Ints
    after: Ints

    @staticmethod
    def of(view: View, leave_out: str = "") -> _Cube:
        mask = view.wanted(Filter())
        code = view.codes.sessions.get(leave_out, -1) if leave_out else -1
        here = np.flatnonzero(mask & (view.sessions != code))
        codes, first, of_piece = np.unique(view.memories[here], return_index=True, return_inverse=True)
        pieces = here[first]
        row_of = np.full(len(view.before), -1, np.int64)
        row_of[codes] = np.arange(len(codes))
        before, after = (np.where(chain >= 0, row_of[chain], -1) for chain in (view.before[codes], view.after[codes]))
        time, session, turn = view.times[pieces].astype(float), view.sessions[pieces], view.episodes[pieces]
        place, left = _places(time, session, turn)
        ids = tuple(view.pieces[number].memory for number in pieces)
        rows = {memory: row for row, memory in enumerate(ids)}
        return _Cube(view, ids, rows, here, of_piece, time, session, place, left, before, after)

    @property
    def zeros(self) -> Floats:
        return np.zeros(len(self.ids))

    def values_of(self, scores: Mapping[str, float]) -> Floats:
        found = self.zeros
        for memory, score in scores.items():
            row = self.rows.get(memory)
            if row is not None:
                found[row] = score
        return found

    def row(self, scores: Mapping[str, float]) -> Floats:
        """The scores, the best of them 1."""
        return _to_one(self.values_of(scores))

    def along(self, values: Floats, chain: Ints) -> Floats:
        """Each memory's neighbour's value."""
        return np.where(chain >= 0, values[chain], 0.0) if len(values) else values

    def nearness(self, vector: NDArray[np.float32]) -> Floats:
        """Of each memory's nearest side, at least 0."""
        found = self.zeros
        np.maximum.at(found, self.of_piece, np.nan_to_num(self.view.cosines(vector)[self.here], nan=0.0))
        return found

    def like_openings(self) -> Floats:
        """Nearness to what sessions begin with, on average."""
        first: Bools = self.place == 0
        chosen = self.here[first[self.of_piece]]
        if not len(chosen):
            return self.zeros
        mean = self.view.vector_sum(chosen)
        length = float(np.linalg.norm(mean))
        return self.nearness((mean / length).astype(np.float32)) if length else self.zeros

    def expected(self, names: tuple[str, ...], columns: Mapping[str, Floats]) -> Expected:
        return Expected(self.ids, names, np.stack([columns[name] for name in names], axis=1).astype(np.float32))


def _places(time: Floats, session: Ints, turn: Bools) -> tuple[Ints, Ints]:
    place = np.full(len(time), -1, np.int64)
    left = place.copy()
    turns = np.flatnonzero(turn & (session > 0))
    if len(turns):
        order = turns[np.lexsort((time[turns], session[turns]))]
        starts = np.flatnonzero(np.concatenate(([True], session[order][1:] != session[order][:-1])))
        sizes = np.diff(np.concatenate((starts, [len(order)])))
        place[order] = np.arange(len(order)) - np.repeat(starts, sizes)
        left[order] = np.repeat(sizes, sizes) - 1 - place[order]
    return place, left


def _to_one(values: Floats) -> Floats:
    top = float(values.max()) if len(values) else 0.0
    return values / top if top > 1e-9 else values
