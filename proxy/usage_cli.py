"""`memrelay usage`: what keys have used."""

from __future__ import annotations

import asyncio
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from proxy.console import Session, command


@click.group()
def using() -> None:
    """What keys have used."""


@command(using, "usage")
@click.option("--key", default="", metavar="ID", help="Only this key.")
@click.option("--since", default="", metavar="DAY", help="From this day on, as 2026-11-23 (UTC).")
@click.option("--until", default="", metavar="DAY", help="Up to this day.")
def usage(session: Session, key: str, since: str, until: str) -> None:
    """Tokens and cost by key, day, upstream and model."""
    from proxy import db
    from proxy.usage import COUNTS, Usage

    async def run() -> list[dict[str, Any]]:
        database = db.open_database(session.config)
        try:
            return await Usage(database).rows(keys=[key] if key else None, first=since, last=until or "~")
        finally:
            await database.close()

    db.upgrade(session.config)
    rows = asyncio.run(run())

    def show(console: Console) -> None:
        table = Table(box=None)
        for title in ("day", "key", "upstream", "model", *COUNTS):
            table.add_column(title, justify="right" if title in COUNTS else "left")
        for row in rows:
            table.add_row(
                *(str(row[name]) for name in ("day", "key", "upstream", "model", *COUNTS[:-1])), f"{row['cost']:.4f}"
            )
        console.print(table)

    session.answer({"usage": rows, "total": {name: sum(row[name] for row in rows) for name in COUNTS}}, show)
