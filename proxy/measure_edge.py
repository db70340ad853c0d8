"""`memrelay bench proxy`: what the proxy itself costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.table import Table

from proxy.console import Session, command, fail
from proxy.measure import bench, shown_progress

_COLUMNS = (
    "", "p50 ms", "p99 ms", "added p50", "added p99", "a second", "streamed", "CPU ms", "CPU behind", "first token",
    "CPU/chunk", "MB",
)  # fmt: skip


@command(bench, "proxy")
@click.option("--litellm-python", default="", metavar="PATH", help="A Python that has litellm[proxy], to compare with.")
@click.option(
    "--litellm-workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes of that one."
)
@click.option("--memories", type=click.IntRange(min=1), default=1000, show_default=True, help="In each cube.")
@click.option(
    "--turns", type=click.IntRange(min=1), default=5, show_default=True, help="How often each side has its turn."
)
@click.option("--streams", type=click.IntRange(min=0), default=0, help="Also hold so many paced streams at once.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Draw it into this file (SVG).")
def edge(
    session: Session,
    litellm_python: str,
    litellm_workers: int,
    memories: int,
    turns: int,
    streams: int,
    out: Path | None,
) -> None:
    """Latency, throughput, CPU: direct, memory off, memory on, LiteLLM's proxy, in turns."""
    from proxy.evaluation import edge as sides
    from proxy.evaluation import edge_drawing, run
    from proxy.evaluation.load import LoadFailed
    from proxy.evaluation.talk import BadData

    options = sides.Options(
        memories=memories,
        turns=turns,
        streams=streams,
        litellm_python=litellm_python,
        litellm_workers=litellm_workers,
    )
    try:
        with run.temporary(session.config, None) as alone, shown_progress() as progress:
            body = uvloop.run(sides.measure(alone, options, progress))
        if out is not None:
            out.write_text(edge_drawing.draw(body), encoding="utf-8")
    except (BadData, LoadFailed, OSError) as error:
        fail(str(error))
    session.answer({"benchmark": "proxy", **body}, lambda console: _show(console, body))


def _show(console: Console, body: dict[str, Any]) -> None:
    table = Table(box=None)
    for title in _COLUMNS:
        table.add_column(title, justify="right" if title else "left")
    for name in ("direct", "off", "on", "litellm"):
        if name in body:
            table.add_row(name, *("–" if value is None else f"{value:g}" for value in body[name].values()))
    console.print(table)
    for name, held in (body["streams"] or {}).items():
        console.print(f"{name}: {held}")
