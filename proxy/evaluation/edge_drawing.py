"""The picture of `memrelay bench proxy` as SVG, written by hand: for each figure a bar per side. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

SIDES = {
    "direct": "asked directly",
    "off": "memrelay, memory off",
    "on": "memrelay, memory on",
    "litellm": "LiteLLM proxy",
}
COLOURS = {"direct": "#b8c0c8", "off": "#4c8fd0", "on": "#d9480f", "litellm": "#6b7078"}
_PANELS: Sequence[tuple[str, str, str]] = (
    ("added_p50_ms", "added latency, p50", "ms"),
    ("added_p99_ms", "added latency, p99", "ms"),
    ("rps", "requests a second", ""),
    ("streamed_rps", "requests a second, answers streamed", ""),
    ("cpu_ms_per_request", "CPU per request", "ms"),
    ("added_first_token_ms", "added to the first token", "ms"),
    ("cpu_ms_per_chunk", "CPU per streamed chunk", "ms"),
    ("rss_mb", "memory", "MB"),
)
_WIDTH, _PANEL, _COLUMN, _BAR = 1060, 168, 530, 22
_LABEL, _ROOM = 170, 250  # for a side's name, for its longest bar
_FONT = "system-ui, -apple-system, Segoe UI, DejaVu Sans, Helvetica, Arial, sans-serif"
_INK, _FAINT = "#22262b", "#68707a"


def draw(body: Mapping[str, Any]) -> str:
    """The picture of what `memrelay bench proxy` says. The same figures give the same bytes."""
    height = 84 + _PANEL * ((len(_PANELS) + 1) // 2)
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    told = f"memory on: a cube of {body['memories']} memories, searched and written at every request"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{_FONT}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        _text(24, 34, "What stands between a client and its model costs", 19, _INK, 600),
        _text(24, 56, f"one run, in turns, the same model server; {told}", 13, _FAINT),
    ]
    for place, (key, title, unit) in enumerate(_PANELS):
        parts += _panel(body, key, title, unit, 24 + _COLUMN * (place % 2), 96 + _PANEL * (place // 2))
    return "\n".join([*parts, "</svg>", ""])


def _panel(body: Mapping[str, Any], key: str, title: str, unit: str, x: float, y: float) -> list[str]:
    shown = {name: body[name][key] for name in SIDES if body.get(name) and body[name][key] is not None}
    if key.startswith("added"):  # to itself nothing is added
        shown.pop("direct", None)
    most = max([*shown.values(), 1e-9])
    parts = [_text(x, y, title, 14, _INK, 600)]
    for row, (name, value) in enumerate(shown.items()):
        top = y + 12 + row * (_BAR + 6)
        wide = max(_ROOM * max(value, 0.0) / most, 1.0)
        at, number = x + _LABEL, f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
        bar = f'x="{at:.0f}" y="{top:.0f}" width="{wide:.1f}" height="{_BAR}"'
        parts += [
            _text(x, top + 16, SIDES[name], 13, _FAINT),
            f'<rect class="{name}" {bar} rx="2" fill="{COLOURS[name]}"/>',
            _text(at + wide + 6, top + 16, f"{number} {unit}".strip(), 13, _INK),
        ]
    return parts


def _text(x: float, y: float, words: str, size: int, fill: str, weight: int = 400) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" font-weight="{weight}" fill="{fill}">{escape(words)}</text>'
    )
