"""`memrelay cubes …`: what the routes below /v1/cubes do, for whoever runs the installation. Works beside a running server and
without one; jobs wait until there is an executor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from proxy.config import Config
from proxy.console import Session, command, fail

T = TypeVar("T")


@click.group()
def cubes() -> None:
    """Cubes: the containers of memory."""


@command(cubes, "list")
@click.option("--principal", help="Only those that this principal owns or was granted.")
def cubes_list(session: Session, principal: str | None) -> None:
    """All cubes."""
    from proxy.cubes_api import manifest

    async def run(parts: Any) -> Any:
        if principal is None:
            return await parts.lifecycle.every()
        return await parts.lifecycle.of(principal, limit=1_000_000)

    found = [manifest(owned.info, owned.level, owned.memories) for owned in _with_cubes(session, run)]

    def show(console: Console) -> None:
        table = Table(box=None)
        for title in ("id", "name", "owner", "level", "status", "memories", "quota"):
            table.add_column(title, no_wrap=title != "name", overflow="fold")
        for cube in found:
            shown = (cube["id"], cube["name"], cube["owner"], cube["level"], cube["status"], cube["memories"]["total"])
            table.add_row(*map(str, shown), str(cube["quota"] or ""))
        console.print(table)

    session.answer({"cubes": found}, show)


@command(cubes, "create")
@click.option("--principal", required=True, help="Who shall own it (see `memrelay keys list`).")
@click.option("--name", required=True, help="What it is for.")
@click.option("--quota", type=click.IntRange(min=1), help="At most so many active memories.")
@click.option(
    "--ttl", "ttl_s", type=click.FloatRange(min=1), metavar="SECONDS", help="Archive what is unused for longer."
)
def cubes_create(session: Session, principal: str, name: str, quota: int | None, ttl_s: float | None) -> None:
    """A further cube for a principal."""
    from memory.grants import Level
    from proxy.cubes_api import manifest

    async def run(parts: Any) -> Any:
        if not await parts.lifecycle.is_principal(principal):
            raise LookupError(f"no principal {principal}")
        return await parts.lifecycle.create(principal, name, quota=quota, ttl_s=ttl_s)

    made = _with_cubes(session, run)
    session.answer(manifest(made, Level.OWNER, {}), lambda console: console.print(made.id))


def _set_status(session: Session, cube: str, status: str) -> None:
    async def run(parts: Any) -> Any:
        return await parts.lifecycle.change((await parts.known(cube)).id, {"status": status})

    _with_cubes(session, run)
    session.answer({"id": cube, "status": status}, lambda console: console.print(f"{cube} is {status}."))


@command(cubes, "archive")
@click.argument("cube")
def cubes_archive(session: Session, cube: str) -> None:
    """Take a cube out of retrieval and recording; everything is kept."""
    _set_status(session, cube, "archived")


@command(cubes, "restore")
@click.argument("cube")
def cubes_restore(session: Session, cube: str) -> None:
    """Bring an archived cube back."""
    _set_status(session, cube, "active")


@command(cubes, "grant")
@click.argument("cube")
@click.argument("principal")
@click.option("--level", type=click.Choice(["read", "write"]), default="read", show_default=True)
def cubes_grant(session: Session, cube: str, principal: str, level: str) -> None:
    """Let another principal use a cube."""
    from memory.grants import Level
    from proxy.cubes_api import shown

    async def run(parts: Any) -> Any:
        info = await parts.known(cube)
        if info.owner == principal:
            raise LookupError(f"{principal} owns this cube")
        given = await parts.lifecycle.grant(cube, principal, Level(level))
        if given is None:
            raise LookupError(f"no principal {principal}")
        return given

    given = _with_cubes(session, run)
    session.answer(shown(given), lambda console: console.print(f"{principal} may {level} {cube}."))


@command(cubes, "revoke")
@click.argument("cube")
@click.argument("principal")
def cubes_revoke(session: Session, cube: str, principal: str) -> None:
    """End a grant, from the next request on."""

    async def run(parts: Any) -> None:
        await parts.known(cube)
        if not await parts.lifecycle.revoke(cube, principal):
            raise LookupError(f"{principal} was not granted {cube}")

    _with_cubes(session, run)
    body = {"cube": cube, "principal": principal, "deleted": True}
    session.answer(body, lambda console: console.print(f"{principal} may not use {cube} any more."))


@command(cubes, "fuse")
@click.argument("cube")
@click.argument("source")
@click.option("--archive-source", is_flag=True, help="Archive SOURCE afterwards (its owner must be CUBE's).")
def cubes_fuse(session: Session, cube: str, source: str, archive_source: bool) -> None:
    """Copy everything in SOURCE into CUBE; CUBE's owner must own SOURCE or have been granted it."""

    async def run(parts: Any) -> Any:
        info, other = await parts.known(cube), await parts.known(source)
        if cube == source:
            raise LookupError("a cube cannot be copied into itself")
        if archive_source and other.owner != info.owner:
            raise LookupError(f"{source} belongs to another principal")
        return await parts.lifecycle.fuse(cube, source, info.owner, archive_source=archive_source)

    done = _with_cubes(session, run)
    if done.done is None and not done.job:
        fail("the job queue cannot be reached")
    body = {"cube": cube, "from": source, "state": "done" if done.done else "pending", "job": done.job or None}
    body["counts"] = asdict(done.done) if done.done else None
    told = f"{done.done.memories} memories copied." if done.done else f"job {done.job} copies them."
    session.answer(body, lambda console: console.print(told))


@command(cubes, "erase")
@click.argument("cube")
@click.option("--keep", is_flag=True, help="Leave an empty cube.")
def cubes_erase(session: Session, cube: str, keep: bool) -> None:
    """Erase everything in a cube, and the cube. The executor then removes the last bytes and signs the receipt."""
    from proxy.cubes_api import signed

    async def run(parts: Any) -> Any:
        info = await parts.known(cube)
        return await parts.lifecycle.erase(cube, info.owner, keep=keep)

    receipt = _with_cubes(session, run)
    erased = receipt.counts.get("memories", 0)
    session.answer(signed(receipt), lambda console: console.print(f"{erased} memories erased; receipt {receipt.id}"))


class _Parts:
    """What these commands work with."""

    def __init__(self, config: Config) -> None:
        from memory.adapters.files import Folder
        from memory.cube import Cubes
        from memory.grants import Grants
        from proxy import db, hooks, rules
        from proxy.background import Background
        from proxy.blocks import Blocks
        from proxy.lifecycle import Lifecycle
        from proxy.upstreams import routing
        from scheduler.queue import DbosQueue
        from scheduler.triggers import Triggers

        self.database = db.open_database(config)
        self.queue = DbosQueue(config.queue_url)
        self.cubes, self.grants = Cubes(self.database), Grants(self.database)
        blocks = Blocks(self.database, Background())
        fired = Triggers(self.queue, rules.table(config, hooks.load(config.hooks)))
        self.routes = routing.make(config, config.engine.port, self.database)
        folder = Folder(config.adapters)
        self.lifecycle = Lifecycle(
            self.database,
            self.cubes,
            self.grants,
            blocks,
            fired,
            self.routes.forget,
            adapters=folder,
            files=config.cubes,
        )

    async def known(self, cube: str) -> Any:
        """The cube. Raises LookupError."""
        info = await self.cubes.get(cube)
        if info is None or info.status == "erased":
            raise LookupError(f"there is no cube {cube}")
        return info


def _with_cubes(session: Session, work: Callable[[Any], Awaitable[T]]) -> T:
    from memory.grants import CubeRefused
    from proxy import db

    async def run() -> T:
        parts = _Parts(session.config)
        try:
            return await work(parts)
        finally:
            await parts.routes.close()
            await parts.queue.close()
            await parts.database.close()

    db.upgrade(session.config)
    try:
        return asyncio.run(run())
    except LookupError as error:
        fail(str(error.args[0]))
    except CubeRefused as error:
        fail(str(error))
