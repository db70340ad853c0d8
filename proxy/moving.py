"""The commands that move memory: `memrelay export` and `memrelay import`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from proxy.console import Session, command, fail

T = TypeVar("T")
moving = click.Group("moving")
_FORMATS = ("memrelay", "chatgpt", "claude", "mem0")


@command(moving, "export")
@click.argument("file", required=False, type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--cube", help="Which cube; needed when there are several.")
@click.option("--markdown", is_flag=True, help="A document to read instead of an archive.")
@click.option("--turns", is_flag=True, help="With --markdown: also what was said in every session.")
@click.option("--without-vectors", is_flag=True, help="A smaller archive; whoever imports it embeds anew.")
def export(
    session: Session, file: Path | None, cube: str | None, markdown: bool, turns: bool, without_vectors: bool
) -> None:
    """Write a cube to FILE (`-`: standard output)."""
    if turns and not markdown:
        fail("--turns goes with --markdown; an archive always holds the turns")
    if str(file) == "-" and session.as_json:
        fail("--json needs standard output for itself; name a file")

    async def run(parts: _Parts) -> dict[str, Any]:
        chosen, _ = await parts.cube(cube, None)
        target = file or Path(f"memrelay-{chosen[:8]}.{'md' if markdown else 'zip'}")
        with parts.mover.spool() as spool, _bar(session) as progress:
            if markdown:
                await parts.mover.document(chosen, spool, turns=turns)
            counts = (
                {}
                if markdown
                else await parts.mover.export(chosen, spool, vectors=not without_vectors, progress=progress)
            )
            size = spool.tell()
            await asyncio.to_thread(_hand_over, spool, target)
        return {"file": str(target), "cube": chosen, "bytes": size, "counts": counts}

    body = _with_parts(session, run)
    if body["file"] != "-":
        session.answer(
            body, lambda console: console.print(f"{body['file']}: {body['bytes']} bytes {_said(body['counts'])}")
        )


@command(moving, "import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--cube", help="Into which cube; needed when there are several.")
@click.option("--principal", help="Into the memory of this principal's keys, also when it is still empty.")
@click.option("--format", "form", type=click.Choice(_FORMATS), help="Recognised when it is not said.")
@click.option("--user", default="", help="Whose memories, when a mem0 dump holds those of several users.")
@click.option("--keep-erased", is_flag=True, help="Leave out what was erased here.")
def import_(
    session: Session,
    file: Path,
    cube: str | None,
    principal: str | None,
    form: str | None,
    user: str,
    keep_erased: bool,
) -> None:
    """Take in FILE: an archive of memrelay, or a dump of ChatGPT, Claude or mem0."""

    async def run(parts: _Parts) -> dict[str, Any]:
        chosen, owner = await parts.cube(cube, principal)
        target = parts.mover.target(chosen, owner, make=cube is None, keep_erased=keep_erased)
        with file.open("rb") as given, _bar(session) as progress:
            known, done = await parts.mover.take_in(given, target, form=form or "", user=user, progress=progress)
        return {"format": known, "cube": chosen, **asdict(done)}

    body = _with_parts(session, run)
    shown = {name: body[name] for name in body if name not in ("format", "cube", "waiting")}
    session.answer(body, lambda console: console.print(f"{body['format']} into cube {body['cube']}: {_said(shown)}"))


class _Parts:
    """What the two commands work with."""

    def __init__(self, session: Session, database: Any, queue: Any, embedder: Any) -> None:
        from proxy import hooks, rules
        from proxy.mover import Mover
        from scheduler.triggers import Triggers

        config = session.config
        self.database = database
        fired = Triggers(queue, rules.table(config, hooks.load(config.hooks)))
        self.mover = Mover(config, database, fired, embedder)

    async def cube(self, named: str | None, principal: str | None) -> tuple[str, str]:
        """(cube, owner): the one that was named, a principal's own, or the only one there is."""
        from memory.cube import Cubes
        from proxy.auth import home_cube
        from proxy.keys import Keys

        every = [info for info in await Cubes(self.database).every() if info.status != "erased"]
        if named is not None:
            found = next((info for info in every if info.id == named), None)
            return (found.id, found.owner) if found else fail(f"there is no cube {named}")
        principals = sorted({key.principal for key in await Keys(self.database).every()})
        if principal is not None:
            return (home_cube(principal), principal) if principal in principals else fail(f"no principal {principal}")
        if len(every) == 1:
            return every[0].id, every[0].owner
        if not every and len(principals) == 1:
            return home_cube(principals[0]), principals[0]
        if not every and not principals:
            fail("there is no key yet, so nobody whose memory this could be: memrelay keys create")
        known = ", ".join(info.id for info in every) or "none yet"
        raise click.ClickException(f"say which cube with --cube (there are: {known}), or whose with --principal")


def _with_parts(session: Session, work: Callable[[_Parts], Coroutine[Any, Any, T]]) -> T:
    from memory.embedders import Embedders
    from memory.grants import CubeRefused
    from memory.sql import DatabaseError
    from memory.transfer import Refused
    from proxy import db
    from scheduler.queue import DbosQueue

    config = session.config

    async def run() -> T:
        database = db.open_database(config)
        queue = DbosQueue(config.queue_url)
        try:
            embedder = await Embedders(database, config.folder / "models").current(config.memory.embedder)
            return await work(_Parts(session, database, queue, embedder))
        finally:
            await queue.close()
            await database.close()

    db.upgrade(config)
    try:
        return asyncio.run(run())
    except (Refused, CubeRefused, DatabaseError, OSError) as error:
        fail(str(error))


@contextmanager
def _bar(session: Session) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, when somebody is looking."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=session.as_json or not console.is_terminal) as bar:
        task = bar.add_task("moving", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield progress


def _hand_over(spool: BinaryIO, target: Path) -> None:
    """The finished file to where it was asked for: whole, or not at all."""
    spool.seek(0)
    if str(target) == "-":
        while part := spool.read(1 << 20):
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        return
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            while part := spool.read(1 << 20):
                out.write(part)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _said(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number) or "nothing new"
