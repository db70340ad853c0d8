"""The picture of a film (tiers.py) as SVG, written by hand: a row per memory over time, coloured by its tier; below, what the tiers
take beside their budgets; two moves in the policy's own words. Pure: a film in, text out; not a word of anybody's in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from proxy.evaluation.tiers import Film, Move, Row, Totals
from scheduler.policy import Tier

COLOURS = {Tier.KV: "#d9480f", Tier.RAM: "#4c8fd0", Tier.INDEX: "#d3dbe3", Tier.ARCHIVE: "#3b3f46"}
NAMES = {
    Tier.KV: "in the stable block (KV state)",
    Tier.RAM: "in RAM with its cube",
    Tier.INDEX: "in the LanceDB index only",
    Tier.ARCHIVE: "archived",
}
_WIDTH, _LEFT, _RIGHT, _TOP = 1200, 112, 24, 96
_THIN, _THICK, _GAP = 1.7, 4.5, 20.0  # heights of a row, of one that stood in a block, and between two owners
_STRIP, _STRIP_GAP = 66.0, 34.0
_INK, _FAINT, _LIMIT = "#22262b", "#68707a", "#c92a2a"
_FONT = "system-ui, -apple-system, Segoe UI, DejaVu Sans, Helvetica, Arial, sans-serif"
_WRAP = 155  # characters of a line of explanation


@dataclass(frozen=True, slots=True)
class _Time:
    """Seconds since the epoch to the horizontal place."""

    first: float
    last: float

    def x(self, at: float) -> float:
        inside = (at - self.first) / max(self.last - self.first, 1.0)
        return round(_LEFT + inside * (_WIDTH - _LEFT - _RIGHT), 1)

    def months(self) -> Iterator[tuple[float, str]]:
        """The first of every month within, with its name."""
        day = datetime.fromtimestamp(self.first, UTC).replace(hour=0, minute=0, second=0)
        while day.timestamp() < self.last:
            if day.timestamp() >= self.first and day.day == 1:
                yield day.timestamp(), f"{day:%b %Y}"
            day = day.replace(day=1, month=day.month % 12 + 1, year=day.year + day.month // 12)


def draw(film: Film) -> str:
    """The picture. The same film gives the same bytes."""
    begun = [at for times in film.begun.values() for at in times]
    time = _Time(min(begun), film.end)
    bands, places, bottom = _bands(film, time)
    told = _picked(film.moves)
    strips = bottom + 3 * (_STRIP + _STRIP_GAP)
    height = strips + 62 + 40 * len(told)
    size = f'viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" height="{height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{_FONT}">',
        f'<rect width="{_WIDTH}" height="{height:.0f}" fill="#fff"/>',
        *_head(film),
        *_grid(time, _TOP - 6, strips - 8),
        *bands,
        *_strips(film, time, bottom + _STRIP_GAP),
    ]
    for number, move in enumerate(told, 1):
        parts += _mark(number, time.x(move.at), places[move.memory or move.owner])
        parts += _said(number, move, strips + 46 + 40 * (number - 1))
    return "\n".join([*parts, "</svg>", ""])


def _head(film: Film) -> list[str]:
    sessions, owners = sum(map(len, film.begun.values())), len(film.begun)
    title = f"Where {len(film.rows)} memories of {owners} {'person' if owners == 1 else 'people'} were, in {sessions} sessions"
    lower = "a row is a memory; a tick above a name's rows is a session of that person; the policy decides which cubes stay in RAM"
    parts = [_text(_LEFT, 28, title, size=19, weight=600), _text(_LEFT, 48, lower, fill=_FAINT)]
    x = float(_LEFT)
    for tier in Tier:
        parts.append(f'<rect x="{x:.0f}" y="61" width="22" height="11" rx="2" fill="{COLOURS[tier]}"/>')
        parts.append(_text(x + 28, 71, NAMES[tier]))
        x += 56 + 6.4 * len(NAMES[tier])
    return parts


def _grid(time: _Time, top: float, bottom: float) -> list[str]:
    parts = []
    for at, name in time.months():
        x = time.x(at)
        parts.append(f'<line x1="{x}" y1="{top:.0f}" x2="{x}" y2="{bottom:.0f}" stroke="#eceff2"/>')
        parts.append(_text(x + 3, bottom + 17, name, fill=_FAINT, size=11))
    return parts


def _bands(film: Film, time: _Time) -> tuple[list[str], dict[str, float], float]:
    """(the rows, where each memory and each owner is, where they end)"""
    parts: list[str] = []
    places: dict[str, float] = {}
    y = float(_TOP)
    for owner, begun in film.begun.items():
        for at in begun:
            x = time.x(at)
            parts.append(f'<line x1="{x}" y1="{y:.1f}" x2="{x}" y2="{y + 6:.1f}" stroke="{_INK}" stroke-width="1.4"/>')
        y += 8
        top = y
        mine = sorted(
            (row for row in film.rows if row.owner == owner),
            key=lambda row: (not _stood(row), row.places[0][0]),
        )
        for row in mine:
            tall = _THICK if _stood(row) else _THIN
            places[row.id] = y + tall / 2
            y += tall
        parts += [
            f'<rect x="{x}" y="{low:.1f}" width="{max(end - x, 0.5):.1f}" height="{high - low:.1f}" '
            f'fill="{COLOURS[tier]}" class="{tier.value}"/>'
            for x, end, tier, low, high in _merged(mine, time, top)
        ]
        places[owner] = (top + y) / 2
        parts.append(_text(_LEFT - 10, (top + y) / 2 + 4, owner, anchor="end", size=13, weight=600))
        y += _GAP
    return parts, places, y - _GAP


def _merged(rows: Sequence[Row], time: _Time, y: float) -> list[tuple[float, float, Tier, float, float]]:
    """(left, right, tier, top, bottom): what rows one below the other did at the same time is one rectangle."""
    open_: dict[tuple[float, float, Tier], tuple[float, float]] = {}
    done: list[tuple[float, float, Tier, float, float]] = []
    for row in rows:
        low, y = y, y + (_THICK if _stood(row) else _THIN)
        ends = [at for at, _ in row.places[1:]] + [time.last]
        stays = [(time.x(at), time.x(end), tier) for (at, tier), end in zip(row.places, ends, strict=True)]
        done += [(*stay, *span) for stay, span in open_.items() if stay not in stays]
        open_ = {stay: (open_[stay][0] if stay in open_ else low, y) for stay in stays}
    return done + [(*stay, *span) for stay, span in open_.items()]


def _stood(row: Row) -> bool:
    return any(tier is Tier.KV for _, tier in row.places)


# --- totals ----------------------------------------------------------------------------------------------------------------


def _strips(film: Film, time: _Time, y: float) -> list[str]:
    shown: list[tuple[str, str, Tier, Callable[[Totals], int], int | None]] = [
        (
            "stable block",
            "of the latest session, as KV state of the bundled model",
            Tier.KV,
            lambda one: one.kv,
            film.budgets["kv"],
        ),
        ("RAM", "all cubes held", Tier.RAM, lambda one: one.ram, film.budgets["ram"]),
        ("index", "texts and vectors of all", Tier.INDEX, lambda one: one.index, None),
    ]
    parts: list[str] = []
    for name, what, tier, of, budget in shown:
        parts += _strip(film.totals, time, y, tier, of, budget)
        parts.append(_text(_LEFT - 10, y + 24, name, anchor="end", size=13, weight=600))
        parts.append(_text(_LEFT, y - 5, f"{what}; at the end {_bytes(of(film.totals[-1]))}", fill=_FAINT, size=11))
        y += _STRIP + _STRIP_GAP
    return parts


def _strip(
    totals: Sequence[Totals], time: _Time, y: float, tier: Tier, of: Callable[[Totals], int], budget: int | None
) -> list[str]:
    most = max([of(one) for one in totals] + [budget or 0, 1])
    scale = _STRIP / (most * 1.06)
    points = []
    level = 0
    for one in totals:
        x = time.x(max(one.at, time.first))
        points += [f"{x},{y + _STRIP - level * scale:.1f}", f"{x},{y + _STRIP - of(one) * scale:.1f}"]
        level = of(one)
    first, last, floor = time.x(time.first), time.x(time.last), y + _STRIP
    outline = " ".join([f"{first},{floor:.1f}", *points, f"{last},{floor - level * scale:.1f}", f"{last},{floor:.1f}"])
    parts = [f'<polygon points="{outline}" fill="{COLOURS[tier]}" fill-opacity="0.75"/>']
    parts.append(f'<line x1="{first}" y1="{floor:.1f}" x2="{last}" y2="{floor:.1f}" stroke="#aab2bb"/>')
    if budget is not None:
        at = floor - budget * scale
        parts.append(
            f'<line x1="{first}" y1="{at:.1f}" x2="{last}" y2="{at:.1f}" stroke="{_LIMIT}" stroke-dasharray="6 4" class="budget"/>'
        )
        parts.append(_text(last, at - 4, f"budget {_bytes(budget)}", anchor="end", fill=_LIMIT, size=11))
    return parts


# --- moves -----------------------------------------------------------------------------------------------------------------


def _picked(moves: Sequence[Move]) -> list[Move]:
    """Two moves of different kinds: a cube that left RAM because others were worth more, and a memory's, the rarest first."""
    cubes = [move for move in moves if not move.memory and move.after is Tier.INDEX]
    wanted = ((Tier.ARCHIVE, Tier.RAM), (Tier.ARCHIVE, Tier.INDEX), (Tier.ARCHIVE, Tier.KV))
    back = [move for move in moves if move.memory and (move.before, move.after) in wanted]
    away = [move for move in moves if move.memory and move.after is Tier.ARCHIVE]
    nearer = [move for move in moves if move.memory and move.after is Tier.KV]
    said = [move for move in nearer if move.kind != "identity"] or nearer
    picked = [cubes[len(cubes) // 2]] if cubes else []
    picked += (back or away or said)[:1]
    if len(picked) < 2 and said:
        picked += said[:1]
    if len(picked) < 2:
        picked += [move for move in moves if move not in picked][: 2 - len(picked)]
    return sorted(picked[:2], key=lambda move: move.at)


def _mark(number: int, x: float, y: float) -> list[str]:
    return [
        f'<circle cx="{x}" cy="{y:.1f}" r="10" fill="#fff" stroke="{_INK}" stroke-width="1.6"/>',
        _text(x, y + 4, str(number), anchor="middle", weight=700),
    ]


def _said(number: int, move: Move, y: float) -> list[str]:
    whose = f"{move.owner}'s cube" if not move.memory else f"One {move.kind} of {move.owner}"
    lines = _wrapped(f"{whose}, {move.before.value} → {move.after.value}. {move.why}")
    return [*_mark(number, _LEFT - 20, y - 4), *(_text(_LEFT, y + 15 * at, line) for at, line in enumerate(lines))]


def _wrapped(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= _WRAP:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _bytes(count: float) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 1024:.0f} KiB"


def _text(
    x: float, y: float, text: str, *, size: int = 12, weight: int = 400, fill: str = _INK, anchor: str = "start"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{fill}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
