"""`memrelay tasks list`: what is open, done or cancelled in a memory. Works beside a running server and without one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import click
from rich.console import Console

from proxy.config import ConfigError
from proxy.console import Session, command


@click.group()
def tasks() -> None:
    """Tasks and goals: what is to be done, by when."""


@command(tasks, "list")
@click.option("--cube", help="Which cube; needed when there are several.")
@click.option("--state", type=click.Choice(["open", "done", "cancelled", "all"]), default="open", show_default=True)
@click.option("--kind", type=click.Choice(["task", "goal"]), help="Only tasks, or only goals.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
def tasks_list(session: Session, cube: str | None, state: str, kind: str | None, limit: int) -> None:
    """Tasks and goals by due date."""
    from memory.agenda import KINDS, STATES, Agenda
    from memory.cube import Cubes
    from memory.types import Kind
    from proxy import db
    from proxy.agenda_api import shown

    async def run() -> list[Any]:
        database = db.open_database(session.config)
        try:
            known = [one.id for one in await Cubes(database).every()]
            return await Agenda(database).page(
                _one(known, cube),
                time.time(),
                states=STATES if state == "all" else (state,),
                kinds=(Kind(kind),) if kind else KINDS,
                limit=limit,
            )
        finally:
            await database.close()

    db.upgrade(session.config)
    found = asyncio.run(run())

    def show(console: Console) -> None:
        from memory.pieces import day

        for one in found:
            due = day(one.due - 1) if one.due is not None else ""
            words = one.memory.text[:100]
            console.print(f"{one.memory.id}  {one.state:9} {due:16} {one.when:7} {words}", soft_wrap=True, markup=False)

    session.answer({"tasks": [shown(one) for one in found]}, show)


def _one(known: list[str], named: str | None) -> str:
    if named:
        if named not in known:
            raise ConfigError(f"there is no cube {named}")
        return named
    if len(known) != 1:
        raise ConfigError(f"say which cube with --cube; there are: {', '.join(known) or 'none yet'}")
    return known[0]
