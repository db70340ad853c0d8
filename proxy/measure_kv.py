"""`memrelay bench kv`: what saved states of a local model are worth, and whether they change an answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from proxy.console import Session, command, fail
from proxy.measure import bench, shown_progress


@command(bench, "kv")
@click.option("--memory", "memory", multiple=True, type=click.IntRange(min=50), metavar="N", help="Tokens of memory.")
@click.option("--new", "new", multiple=True, type=click.IntRange(min=25), metavar="N", help="Tokens of a question.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--identity", type=click.IntRange(min=0), default=0, metavar="N", help="Instead: answers to N prompts.")
@click.option("--users", is_flag=True, help="Instead: tokens per second of one user and of four.")
@click.option("--requests", type=click.IntRange(min=0), default=0, metavar="N", help="Instead: memory over N requests.")
@click.option("--threads", type=click.IntRange(min=1), help="Overrides engine.threads.")
@click.option("--kv-type", type=click.Choice(["f16", "q8_0"]), help="Overrides engine.kv_type.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Draw it into this file (SVG).")
def kv(session: Session, memory: tuple[int, ...], new: tuple[int, ...], repeats: int, **given: Any) -> None:
    """Milliseconds to a local model's first word: no memory, memory read anew, saved state from RAM and from a file."""
    try:
        from memory.engine.errors import NoModel
        from proxy.evaluation import kv as times
        from proxy.evaluation import kv_drawing
        from proxy.roles import engine_settings
    except ImportError as error:
        fail(f"local models need the extra: pip install 'memrelay[local]' ({error})")
    try:
        settings = replace(engine_settings(session.config), context=8192)
        settings = replace(
            settings, threads=given["threads"] or settings.threads, kv_type=given["kv_type"] or settings.kv_type
        )
        with shown_progress() as told:
            body: dict[str, Any]
            if given["users"]:
                body = asyncio.run(times.throughput(settings, told))
            elif given["requests"]:
                body = asyncio.run(times.endurance(replace(settings, context=512), given["requests"], told))
            elif given["identity"]:
                body = asyncio.run(times.identity(replace(settings, context=2048), given["identity"], told))
            else:
                body = asyncio.run(times.measure(settings, memory or times.MEMORY, new or times.NEW, repeats, told))
        body = {
            "benchmark": "kv",
            "model": settings.model_name,
            "threads": settings.threads,
            "kv_type": settings.kv_type,
            **body,
        }
        if given["out"] is not None and "rows" in body:
            machine = f"{settings.model_name}, {settings.threads} threads, {settings.kv_type}"
            given["out"].write_text(kv_drawing.draw(body["rows"], machine, cpu=settings.threads == 1), encoding="utf-8")
    except (NoModel, OSError) as error:
        fail(str(error))
    session.answer(body, lambda console: _show(console, body))


def _show(console: Console, body: dict[str, Any]) -> None:
    if "rows" not in body:
        for name, value in body.items():
            console.print(f"{name:18} {value}")
        return
    table = Table(box=None)
    for title in (
        "memory",
        "new",
        "none ms",
        "cold",
        "slot",
        "RAM",
        "disk",
        "slot ×",
        "RAM ×",
        "disk ×",
        "gain",
        "same",
    ):
        table.add_column(title, justify="right")
    for row in body["rows"]:
        times = (f"{row[f'{kind}_ms']:,.0f}" for kind in ("none", "cold", "slot", "ram", "disk"))
        ratios = (f"{row[f'{kind}_{of}']:.2f}" for of in ("to_none", "cpu_to_none") for kind in ("slot", "ram", "disk"))
        same = "yes" if row["identical"] else "no"
        table.add_row(
            str(row["memory_tokens"]), str(row["new_tokens"]), *times, *ratios, f"{100 * row['gain']:.0f} %", same
        )
    console.print(table)
    console.print(f"identical answers {body['identical']}; × : times what it takes without memory")
