"""`memrelay adapters …`: what the routes below /v1/memory/adapters do, for whoever runs the installation. Works beside a running
server and without one; what is to be trained waits until there is an executor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from proxy.config import Config
from proxy.console import Session, command, fail

T = TypeVar("T")


@click.group()
def adapters() -> None:
    """Adapters: weights for the local model, trained on a cube's memories."""


@command(adapters, "list")
@click.argument("cube")
def adapters_list(session: Session, cube: str) -> None:
    """A cube's versions, and whether they are used."""
    from proxy.adapters_api import shown

    async def run(parts: Any) -> Any:
        return await parts.adapters.choice(cube), await parts.adapters.current(cube), await parts.adapters.every(cube)

    choice, current, every = _with_adapters(session, cube, run)
    body = {"cube": cube, **_told(choice), "current": current.version if current else None}

    def show(console: Console) -> None:
        table = Table(box=None)
        for title in ("version", "state", "memories", "known", "KB", "made (UTC)", "why"):
            table.add_column(title, overflow="fold")
        for one in every:
            made = datetime.fromtimestamp(one.created_at, UTC).strftime("%Y-%m-%d %H:%M")
            cells = (one.version, one.state, one.memories, one.results.get("known", ""), one.bytes >> 10, made, one.why)
            table.add_row(*map(str, cells))
        console.print(table)
        console.print(f"adapters are {'on' if choice.on else 'off'}; used now: {body['current'] or 'none'}")

    session.answer(body | {"data": [shown(one) for one in every]}, show)


@command(adapters, "show")
@click.argument("cube")
@click.argument("version", type=int)
def adapters_show(session: Session, cube: str, version: int) -> None:
    """One version: how it was trained, what came of it, which memories it rests on, whether its file is whole."""
    from proxy.adapters_api import shown

    async def run(parts: Any) -> Any:
        found = await parts.adapters.get(cube, version)
        if found is None:
            raise LookupError(f"there is no adapter {version} of {cube}")
        return found, await parts.adapters.rests_on(cube, version), _file(parts.folder, found)

    found, memories, file = _with_adapters(session, cube, run)
    body = shown(found) | {"rests_on": memories, "file": file}
    session.answer(body, lambda console: console.print_json(data=body))


@command(adapters, "train")
@click.argument("cube")
def adapters_train(session: Session, cube: str) -> None:
    """Have a version trained now, by the executor."""
    from proxy.adapters_api import PRIORITY, TRAIN

    if not session.config.parametric.enabled:
        fail("parametric.enabled is off in the configuration")

    async def run(parts: Any) -> Any:
        if not (await parts.adapters.choice(cube)).on:
            raise LookupError(f"adapters are off for {cube}: memrelay adapters use {cube} --on")
        return await parts.queue.put(TRAIN, f"{cube}.adapter", {"force": "yes"}, priority=PRIORITY)

    job = _with_adapters(session, cube, run)
    session.answer({"cube": cube, "job": job}, lambda console: console.print(f"job {job} trains it."))


@command(adapters, "use")
@click.argument("cube")
@click.option("--on/--off", default=None, help="Whether the local model answers this cube's chats with its adapter.")
@click.option("--version", type=int, help="This version; 0: the newest that is ready.")
@click.option("--scale", type=click.FloatRange(0, 2, min_open=True), help="How strongly; 1 as it was trained.")
def adapters_use(session: Session, cube: str, on: bool | None, version: int | None, scale: float | None) -> None:
    """Switch adapters on or off for a cube, choose a version, weaken it."""

    async def run(parts: Any) -> Any:
        choice = await parts.adapters.choice(cube)
        choice = choice if on is None else replace(choice, on=on)
        if version is not None:
            found = await parts.adapters.get(cube, version) if version else None
            if version and (found is None or found.state != "ready"):
                raise LookupError(f"adapter {version} of {cube} is not ready")
            choice = replace(choice, version=version or None)
        choice = choice if scale is None else replace(choice, scale=scale)
        await parts.adapters.choose(cube, choice)
        return choice

    choice = _with_adapters(session, cube, run)
    told = f"adapters are {'on' if choice.on else 'off'} for {cube}, at {choice.scale}"
    session.answer({"cube": cube, **_told(choice)}, lambda console: console.print(told))


@command(adapters, "drop")
@click.argument("cube")
@click.argument("version", type=int, required=False)
def adapters_drop(session: Session, cube: str, version: int | None) -> None:
    """Drop one version, or all, with their files."""
    from proxy.adapters_api import drop

    gone = _with_adapters(session, cube, lambda parts: drop(parts.adapters, parts.folder, cube, version))
    session.answer({"cube": cube, "dropped": gone}, lambda console: console.print(f"{len(gone)} dropped."))


def _told(choice: Any) -> dict[str, Any]:
    plain = asdict(choice)
    return {"use": plain.pop("on"), **plain}


def _file(folder: Any, found: Any) -> str:
    """whole, missing, or what is wrong with it."""
    from memory.adapters.files import Damaged

    try:
        folder.checked(found.cube, found.version, found.model)
    except FileNotFoundError:
        return "missing"
    except Damaged as damaged:
        return str(damaged)
    return "whole"


class _Parts:
    """What these commands work with."""

    def __init__(self, config: Config) -> None:
        from memory.adapters.files import Folder
        from memory.adapters.table import Adapters
        from memory.cube import Cubes
        from proxy import db
        from scheduler.queue import DbosQueue

        self.database = db.open_database(config)
        self.queue = DbosQueue(config.queue_url)
        self.cubes, self.adapters = Cubes(self.database), Adapters(self.database)
        self.folder = Folder(config.adapters)


def _with_adapters(session: Session, cube: str, work: Callable[[Any], Awaitable[T]]) -> T:
    from proxy import db

    async def run() -> T:
        parts = _Parts(session.config)
        try:
            info = await parts.cubes.get(cube)
            if info is None or info.status == "erased":
                raise LookupError(f"there is no cube {cube}")
            return await work(parts)
        finally:
            await parts.queue.close()
            await parts.database.close()

    db.upgrade(session.config)
    try:
        return asyncio.run(run())
    except LookupError as error:
        fail(str(error.args[0]))
