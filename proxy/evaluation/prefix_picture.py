"""The picture of `memrelay bench prefix` as SVG, written by hand: for each kind of client, how much of each request is an
unchanged prefix of the one before, by each way of giving memory to a model. Pure: figures in, text out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

WAYS = (  # (name in the figures, name for people, colour, width)
    ("none", "no memory", "#868e96", 5.0),
    ("ours", "memrelay", "#1971c2", 2.2),
    ("system_prompt", "memory in the system prompt", "#d9480f", 2.2),
)
_WIDTH, _LEFT, _TOP, _WIDE, _HIGH, _ACROSS, _DOWN = 1080, 62, 96, 460, 150, 506, 212
_INK, _FAINT = "#22262b", "#68707a"
_FONT = "system-ui, -apple-system, Segoe UI, DejaVu Sans, Helvetica, Arial, sans-serif"


def draw(figures: Mapping[str, Any]) -> str:
    """The picture. The same figures give the same bytes."""
    kinds = list(figures["per_request"])
    height = _TOP + (len(kinds) + 1) // 2 * _DOWN + 14
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{_FONT}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        _text(_LEFT, 30, "How much of each prompt a provider's cache can keep", size=19, weight=600),
        _text(
            _LEFT, 50, "share of a request's tokens that are an unchanged prefix of the request before it", fill=_FAINT
        ),
    ]
    x = float(_LEFT)
    for way, name, colour, _ in WAYS:
        label = f"{name}: {100 * figures[way]:.1f} % of all tokens"
        parts.append(f'<rect x="{x:.0f}" y="62" width="22" height="9" rx="2" fill="{colour}"/>')
        parts.append(_text(x + 28, 71, label))
        x += 60 + 6.3 * len(label)
    for place, kind in enumerate(kinds):
        parts += _panel(kind, figures["per_request"][kind], _LEFT + place % 2 * _ACROSS, _TOP + 24 + place // 2 * _DOWN)
    return "\n".join([*parts, "</svg>", ""])


def _panel(kind: str, shares: Mapping[str, Sequence[float]], left: float, top: float) -> list[str]:
    parts = [_text(left, top - 8, kind, size=13, weight=600)]
    for level in (0, 50, 100):
        y = top + _HIGH * (1 - level / 100)
        parts.append(
            f'<line x1="{left:.1f}" y1="{y:.1f}" x2="{left + _WIDE:.1f}" y2="{y:.1f}" stroke="#e3e7eb" stroke-width="1"/>'
        )
        parts.append(_text(left - 8, y + 4, f"{level} %", size=11, fill=_FAINT, anchor="end"))
    for way, _, colour, width in WAYS:
        line = shares[way]
        step = _WIDE / max(len(line) - 1, 1)
        points = " ".join(f"{left + step * n:.1f},{top + _HIGH * (1 - share):.1f}" for n, share in enumerate(line))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}" class="{way}" '
            f'stroke-linejoin="round"/>'
        )
    parts.append(_text(left + _WIDE, top + _HIGH + 16, "request of the session", size=11, fill=_FAINT, anchor="end"))
    return parts


def _text(
    x: float, y: float, said: str, *, size: int = 12, weight: int = 400, fill: str = _INK, anchor: str = "start"
) -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{fill}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(said)}</text>'
