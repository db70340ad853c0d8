"""The picture of `memrelay bench kv` as SVG, written by hand: for every size of memory a panel, for every length of the question
the times to the first word beside each other. Pure: rows in, text out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

SERIES = (
    ("cold", "memory in the prompt, read anew", "#c3ccd4"),
    ("none", "no memory", "#3b3f46"),
    ("slot", "memory still in its slot (the floor)", "#f2b48f"),
    ("ram", "state from RAM", "#d9480f"),
    ("disk", "state from a file after a restart", "#4c8fd0"),
)
_WIDTH, _LEFT, _TOP, _PANEL, _GAP, _BAR = 1200, 60, 92, 210.0, 46.0, 15.0
_INK, _FAINT = "#22262b", "#68707a"
_LEAST = 30.0  # milliseconds at the foot of a panel
_FONT = "system-ui, -apple-system, Segoe UI, DejaVu Sans, Helvetica, Arial, sans-serif"


def draw(rows: Sequence[Mapping[str, Any]], machine: str, *, cpu: bool = False) -> str:
    """The picture, on a logarithmic scale; of CPU time if `cpu`: with one thread that is the time on a core of one's own. The same
    rows give the same bytes."""
    unit = "cpu_" if cpu else ""
    sizes = list(dict.fromkeys(row["memory_tokens"] for row in rows))
    panels = [[row for row in rows if row["memory_tokens"] == size] for size in sizes]
    wide = (_WIDTH - _LEFT - 20) / 2
    height = _TOP + -(-len(panels) // 2) * (_PANEL + _GAP + 34) + 4
    size = f'viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" height="{height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{_FONT}">',
        f'<rect width="{_WIDTH}" height="{height:.0f}" fill="#fff"/>',
        _text(_LEFT, 30, "Time to the first word of a local model with memory", size=19, weight=600),
        _text(
            _LEFT,
            50,
            f"{'CPU ' if cpu else ''}milliseconds, median, logarithmic; on the bars: times no memory. {machine}",
            fill=_FAINT,
        ),
    ]
    x = float(_LEFT)
    for _, name, colour in SERIES:
        parts.append(f'<rect x="{x:.0f}" y="62" width="22" height="11" rx="2" fill="{colour}"/>')
        parts.append(_text(x + 28, 72, name))
        x += 60 + 6.3 * len(name)
    for at, panel in enumerate(panels):
        left, top = _LEFT + at % 2 * wide, _TOP + at // 2 * (_PANEL + _GAP + 34) + 34
        parts += _panel(panel, left, top, wide - 46, unit)
    return "\n".join([*parts, "</svg>", ""])


def _panel(rows: Sequence[Mapping[str, Any]], left: float, top: float, width: float, unit: str) -> list[str]:
    most = max(row[f"cold_{unit}ms"] for row in rows)
    parts = [_text(left, top - 12, f"{rows[0]['memory_tokens']:,} tokens of memory", size=14, weight=600)]
    for step in _steps(most):
        y = top + _PANEL * (1 - _share(step, most))
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + width:.1f}" y2="{y:.1f}" stroke="#eceff2"/>')
        parts.append(_text(left - 6, y + 4, f"{step:,}", anchor="end", fill=_FAINT, size=11))
    each = width / len(rows)
    for number, row in enumerate(rows):
        x = left + number * each + (each - len(SERIES) * (_BAR + 6)) / 2
        for kind, _, colour in SERIES:
            tall = _PANEL * _share(row[f"{kind}_{unit}ms"], most)
            y = top + _PANEL - tall
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{_BAR}" height="{tall:.1f}" fill="{colour}" class="{kind}">'
                f"<title>{escape(kind)}: {row[f'{kind}_{unit}ms']:,.0f} ms</title></rect>"
            )
            if kind in ("ram", "disk"):
                ratio = row[f"{kind}_{unit}to_none"]
                parts.append(_text(x + _BAR / 2, y - 4, f"{ratio:.2f}", anchor="middle", size=10, fill=colour))
            x += _BAR + 6
        middle = left + (number + 0.5) * each
        parts.append(_text(middle, top + _PANEL + 17, f"{row['new_tokens']} new tokens", anchor="middle", size=11))
    parts.append(
        f'<line x1="{left}" y1="{top + _PANEL}" x2="{left + width:.1f}" y2="{top + _PANEL}" stroke="#aab2bb"/>'
    )
    return parts


def _share(ms: float, most: float) -> float:
    return max(0.0, math.log(max(ms, _LEAST) / _LEAST) / math.log(max(most, 2 * _LEAST) / _LEAST))


def _steps(most: float) -> list[int]:
    return [step for power in range(1, 7) for step in (10**power, 3 * 10**power) if _LEAST <= step <= most]


def _text(
    x: float, y: float, text: str, *, size: int = 12, weight: int = 400, fill: str = _INK, anchor: str = "start"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{fill}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
