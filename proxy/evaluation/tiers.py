"""Which memory was where, session by session: conversations are lived through again (replay.py), and before and after each session
it is written down what is in which tier in that process. Nothing of what anybody said leaves this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from memory.census import Census
from memory.index import INDEXED
from memory.types import Memory, Status
from memory.words import tokens
from proxy import db, worth
from proxy.blocks import Begun
from proxy.config import Config
from proxy.evaluation.replay import Clock, Life, Session, chat, fall_silent, living, look_ahead, sessions
from proxy.evaluation.talk import Talk
from proxy.whereabouts import Whereabouts
from scheduler.policy import Placement, Tier, explain, value

KV_TOKEN = (
    23_040  # bytes of a token's KV state in the bundled model: 30 layers, 3 heads of 64, keys and values, 16 bits
)
_NO_BLOCK = (Begun("", "", (), 0), 0.0)

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Row:
    """A memory over time: `places` are (seconds since the epoch, tier), one for each time it came somewhere else."""

    owner: str
    id: str
    kind: str
    places: list[tuple[float, Tier]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Totals:
    """Bytes at a moment. `kv`: of the stable block of the session that was then the newest."""

    at: float
    kv: int
    ram: int
    index: int
    archive: int


@dataclass(frozen=True, slots=True)
class Move:
    """A memory (or, with `memory` empty, a whole cube) came from one tier to another; `why` is the policy's own sentence."""

    at: float
    owner: str
    memory: str
    kind: str
    before: Tier
    after: Tier
    why: str


@dataclass(slots=True)
class Film:
    """All of it. `begun`: when each session began, by owner; `ready`: how many found their cube in RAM."""

    budgets: dict[str, int]
    rows: list[Row] = field(default_factory=list)
    totals: list[Totals] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    begun: dict[str, list[float]] = field(default_factory=dict)
    ready: int = 0
    end: float = 0.0


async def measure(config: Config, talks: Sequence[Talk], progress: Progress) -> Film:
    """Live through the talks. `config.data` is a folder for this alone; see run.temporary."""
    db.upgrade(config)
    every = sessions(talks)
    clock = Clock(every[0].turns[0].at - 3600.0)
    budgets = {"kv": config.memory.stable_tokens * KV_TOKEN, "ram": config.memory.warm_mb << 20}
    async with living(config, clock) as life:
        camera = _Camera(life, clock, Film(budgets))
        for number, session in enumerate(every):
            progress("living", number, len(every))
            await look_ahead(life, clock, session)
            await camera.look(session)
            held = life.parts.retriever.held(session.cube)
            camera.film.ready += held is not None and held.whole
            camera.film.begun.setdefault(session.owner, []).append(session.turns[0].at)
            async for _ in chat(life.parts, clock, session):
                pass
            await fall_silent(life, clock, session)
            await camera.look(session)
        camera.film.end = clock.now
        return camera.film


def counted(film: Film) -> dict[str, Any]:
    """The figures of a film."""
    moved: dict[str, int] = {}
    for move in film.moves:
        what = "cubes" if not move.memory else "memories"
        name = f"{what} {move.before.value} → {move.after.value}"
        moved[name] = moved.get(name, 0) + 1
    most = {
        name: max((getattr(one, name) for one in film.totals), default=0) for name in ("kv", "ram", "index", "archive")
    }
    return {
        "sessions": sum(map(len, film.begun.values())),
        "days": round((film.end - min(map(min, film.begun.values()))) / 86_400.0, 1),
        "memories": len(film.rows),
        "found_in_ram": film.ready,
        "budget_bytes": film.budgets,
        "most_bytes": most,
        "end_bytes": {name: getattr(film.totals[-1], name) for name in most},
        "moves": dict(sorted(moved.items())),
        "over_budget": sum(one.ram > film.budgets["ram"] or one.kv > film.budgets["kv"] for one in film.totals),
    }


class _Camera:
    """Looks at every cube that there is, and writes down what has changed since it last looked."""

    def __init__(self, life: Life, clock: Clock, film: Film) -> None:
        self._parts = life.parts
        self._census = Census(life.parts.database)
        self._clock = clock
        self._owners: dict[str, str] = {}
        self._rows: dict[str, Row] = {}
        self._whole: dict[str, bool] = {}
        self.film = film

    async def look(self, session: Session) -> None:
        """Now; `session` is the one that begins or has ended."""
        self._owners[session.cube] = session.owner
        index = archive = kv = 0
        for cube, owner in self._owners.items():
            info = await self._parts.cubes.get(cube)
            if info is None:
                continue
            begun = await self._parts.blocks.newest(cube) or _NO_BLOCK
            here = Whereabouts(self._clock(), info, self._parts.retriever.held(cube), *begun)
            every = await self._parts.memories.page(cube, statuses=(*INDEXED, Status.ARCHIVED), limit=1_000_000)
            self._cube(owner, here)
            for memory in sorted(every, key=lambda one: (one.message_time, one.kind, one.text)):
                await self._memory(owner, here, memory)
            index += (await self._census.indexed(cube)).bytes
            archive += (await self._census.archived(cube)).bytes
            if cube == session.cube:
                kv = tokens(here.begun.stable) * KV_TOKEN
        self.film.totals.append(Totals(self._clock(), kv, self._parts.retriever.held_bytes, index, archive))

    def _cube(self, owner: str, here: Whereabouts) -> None:
        cube, held = here.info.id, here.held
        whole = held is not None and held.whole
        before = self._whole.get(cube)
        self._whole[cube] = whole
        if before is None or before is whole:
            return
        size = held.size if held is not None and whole else here.info.indexed_rows * worth.PIECE
        _, why = self._parts.kept.where(cube, size, 0.0 if whole else None)
        places = (Tier.INDEX, Tier.RAM) if whole else (Tier.RAM, Tier.INDEX)
        self.film.moves.append(Move(here.at, owner, "", "", *places, why))

    async def _memory(self, owner: str, here: Whereabouts, memory: Memory) -> None:
        row = self._rows.get(memory.id)
        tier = here.tier(memory)
        if row is None:
            row = self._rows[memory.id] = Row(owner, memory.id, memory.kind.value)
            self.film.rows.append(row)
        elif row.places[-1][1] is tier:
            return
        else:
            before = row.places[-1][1]
            away = await self._census.put_away(here.info.id, [memory.id]) if tier is Tier.ARCHIVE else {}
            since, because = here.reason(memory, away.get(memory.id))
            figures = worth.item(memory)
            placed = Placement(memory.id, tier, since, value(figures, here.at), came_from=before)
            why = explain(placed, figures, because)
            self.film.moves.append(Move(here.at, owner, memory.id, memory.kind.value, before, tier, why))
        row.places.append((here.at, tier))
