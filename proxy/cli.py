"""The command line. Each command reads the configuration, does one thing, and can answer with one JSON object (`--json`)."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table

from proxy import __version__, measure_edge
from proxy.adapters_cli import adapters
from proxy.agenda_cli import tasks
from proxy.config import Config, ConfigError, Quota
from proxy.console import Session, command
from proxy.console import fail as _fail
from proxy.cubes_cli import cubes
from proxy.jobs_cli import jobs
from proxy.measure import bench, evaluation
from proxy.measure_kv import kv as _bench_kv  # noqa: F401 - it joins `bench`
from proxy.moving import moving
from proxy.usage_cli import usage

T = TypeVar("T")
ROLES = ("all", "proxy", "executor", "engine")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="memrelay")
def main() -> None:
    """Memory for any chat model: an OpenAI-compatible proxy that remembers."""
    # numpy's small products are slower in several threads, which spin while they wait for each other (docs/LOG.md)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@click.group()
def keys() -> None:
    """API keys: each has a memory of its own."""


@click.group()
def memories() -> None:
    """What is remembered."""


main.add_command(keys)
main.add_command(memories)
main.add_command(tasks)
main.add_command(cubes)
main.add_command(adapters)
main.add_command(jobs)
main.add_command(evaluation)
bench.add_command(measure_edge.edge)
main.add_command(bench)
main.add_command(usage)
for _moving in moving.commands.values():
    main.add_command(_moving)


# --- serving --------------------------------------------------------------------------------------------------------------


@command(main, "serve")
@click.option(
    "--role", type=click.Choice(ROLES), default="all", help="Which process; `all` starts and supervises them."
)
@click.option("--host", metavar="ADDRESS", help="Overrides server.host.")
@click.option("--port", type=int, metavar="PORT", help="Overrides server.port.")
@click.option("--engine-port", type=int, default=0, metavar="PORT", help="Where the local model listens (loopback).")
@click.option("--supervised", is_flag=True, hidden=True, help="End when the parent process ends.")
def serve(session: Session, role: str, host: str | None, port: int | None, engine_port: int, supervised: bool) -> None:
    """Serve; prints the base URL and, the first time, a key."""
    server = session.config.server
    server = msgspec.structs.replace(server, host=host or server.host, port=port or server.port)
    config = msgspec.structs.replace(session.config, server=server)
    from proxy import db

    db.upgrade(config)
    if role == "all":
        from proxy import start

        _check_rules(config)

        sys.exit(asyncio.run(start.serve(config, _config_path(), engine_port, session.console)))
    import uvloop

    from proxy import roles

    if supervised:
        roles.die_with_parent()
    runs = {"proxy": roles.proxy, "executor": roles.executor, "engine": roles.engine}
    uvloop.run(runs[role](config, engine_port or config.engine.port))


def _check_rules(config: Config) -> None:
    """Raises ConfigError now, instead of each process at its start."""
    if config.hooks or config.triggers or config.executor.limits:
        from proxy import hooks, rules

        rules.table(config, hooks.load(config.hooks))


def _config_path() -> str | None:
    context = click.get_current_context()
    value = context.params.get("config_path")
    return str(value) if value else None


@command(main, "check")
def check(session: Session) -> None:
    """Check the configuration and say what it means."""
    from proxy import hooks, rules

    config = session.config
    loaded = hooks.load(config.hooks)
    rules.table(config, loaded)
    body = {
        "ok": True,
        "data": str(config.folder),
        "url": f"http://{config.server.host}:{config.server.port}/v1",
        "upstreams": [{"name": u.name, "kind": u.kind, "models": list(u.models)} for u in config.upstreams],
        "hooks": [type(hook).__name__ for hook in loaded],
        "extraction": config.extraction.model or "rules",
        "embedder": config.memory.embedder,
    }

    def show(console: Console) -> None:
        console.print(f"The configuration is good. It serves [b]{body['url']}[/b] from {body['data']}.")
        for upstream in config.upstreams:
            console.print(f"  {upstream.name} ({upstream.kind}): {', '.join(upstream.models)}")
        console.print(f"  extraction: {body['extraction']} · embedder: {body['embedder']}")

    session.answer(body, show)


# --- keys -----------------------------------------------------------------------------------------------------------------


_QUOTA = (
    click.option("--requests-per-minute", type=click.IntRange(min=0), default=0),
    click.option("--tokens-per-minute", type=click.IntRange(min=0), default=0),
    click.option("--concurrent", type=click.IntRange(min=0), default=0, help="Requests at a time."),
    click.option("--tokens-per-day", type=click.IntRange(min=0), default=0),
    click.option("--tokens-per-month", type=click.IntRange(min=0), default=0),
    click.option("--cost-per-day", type=click.FloatRange(min=0), default=0.0),
    click.option("--cost-per-month", type=click.FloatRange(min=0), default=0.0),
)


def _quota(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_QUOTA):
        function = option(function)
    return function


def _given(quota: dict[str, Any]) -> Quota | None:
    return Quota(**quota) if any(quota.values()) else None


@command(keys, "create")
@click.option("--name", default="", help="What the key is for.")
@click.option(
    "--scope", "scopes", multiple=True, help="May be given several times; default: chat, memory:read, memory:write."
)
@click.option("--principal", help="Give a known principal one more key (the same memory).")
@click.option("--model", "models", multiple=True, help="Allow only these model names or patterns.")
@click.option("--days", type=float, help="Expires after so many days.")
@_quota
def keys_create(
    session: Session,
    name: str,
    scopes: tuple[str, ...],
    principal: str | None,
    models: tuple[str, ...],
    days: float | None,
    **quota: Any,
) -> None:
    """Make a key; it is shown this once."""
    import time

    from proxy.keys import DEFAULT_SCOPES, Keys

    async def run(found: Keys) -> Any:
        return await found.create(
            name,
            principal=principal,
            scopes=scopes or DEFAULT_SCOPES,
            models=models or None,
            expires_at=time.time() + days * 86400 if days is not None else None,
            limits=_given(quota),
        )

    made = _with_keys(session, run)
    body = {"key": made.secret, **_key(made.key)}
    session.answer(body, lambda console: console.print(f"[b]{made.secret}[/b]\n{made.key.id} (shown only now)"))


@command(keys, "list")
def keys_list(session: Session) -> None:
    """All keys, without their secret part."""
    found = _with_keys(session, lambda keys: keys.every())

    def show(console: Console) -> None:
        table = Table(box=None)
        for title in ("id", "key", "name", "principal", "state", "scopes"):
            table.add_column(title, no_wrap=title != "scopes", overflow="fold")
        for key in found:
            table.add_row(key.id, key.display, key.name, key.principal, str(_key(key)["state"]), " ".join(key.scopes))
        console.print(table)

    session.answer({"keys": [_key(key) for key in found]}, show)


@command(keys, "limit")
@click.argument("key_id")
@_quota
def keys_limit(session: Session, key_id: str, **quota: Any) -> None:
    """Set what a key may use; what is not named is as the configuration says."""
    key = _with_keys(session, lambda keys: keys.limit(key_id, _given(quota)))
    session.answer(_key(key), lambda console: console.print(f"{key.id}: {_key(key)['limits'] or 'as configured'}"))


@command(keys, "rotate")
@click.argument("key_id")
@click.option("--grace", type=float, default=0.0, metavar="SECONDS", help="How long the old key still works.")
def keys_rotate(session: Session, key_id: str, grace: float) -> None:
    """A new key in place of an old one."""
    made = _with_keys(session, lambda keys: keys.rotate(key_id, grace_s=grace))
    body = {"key": made.secret, **_key(made.key)}
    session.answer(body, lambda console: console.print(f"[b]{made.secret}[/b]\n{made.key.id} (shown only now)"))


@command(keys, "revoke")
@click.argument("key_id")
def keys_revoke(session: Session, key_id: str) -> None:
    """Stop accepting a key from the next request on."""
    key = _with_keys(session, lambda keys: keys.revoke(key_id))
    session.answer({"id": key.id, "state": "revoked"}, lambda console: console.print(f"{key.id} is revoked."))


def _key(key: Any) -> dict[str, Any]:
    import time

    now = time.time()
    state = "active" if key.usable(now) else "expired" if key.revoked_at is None or key.revoked_at > now else "revoked"
    limits = (
        {name: value for name, value in msgspec.structs.asdict(key.limits).items() if value} if key.limits else None
    )
    return {**asdict(key), "limits": limits, "state": state}


def _with_keys(session: Session, work: Callable[[Any], Awaitable[T]]) -> T:
    from proxy import db
    from proxy.keys import Keys

    async def run() -> T:
        database = db.open_database(session.config)
        try:
            return await work(Keys(database))
        finally:
            await database.close()

    db.upgrade(session.config)
    try:
        return asyncio.run(run())
    except (LookupError, ValueError) as error:
        _fail(str(error.args[0]))


# --- memories -------------------------------------------------------------------------------------------------------------


@command(memories, "list")
@click.option("--cube", help="Which cube; needed when there are several.")
@click.option("--kind", default="", help="Only this kind.")
@click.option("--limit", default=50, show_default=True)
def memories_list(session: Session, cube: str | None, kind: str, limit: int) -> None:
    """The newest memories."""
    from memory.types import Kind

    async def run(parts: Any) -> Any:
        kinds = [Kind(kind)] if kind else []
        return await parts.memories.page(await _cube(parts, cube), kinds=kinds, limit=limit)

    _show_memories(session, _with_parts(session, run))


@command(memories, "search")
@click.argument("query")
@click.option("--cube", help="Which cube; needed when there are several.")
@click.option("--limit", default=10, show_default=True)
def memories_search(session: Session, query: str, cube: str | None, limit: int) -> None:
    """What retrieval finds for a question, and why."""
    import time

    from memory.retrieve import Question
    from proxy.memory_api import hit

    async def run(parts: Any) -> Any:
        asked = Question(text=query, now=time.time(), limit=limit)
        return await parts.retriever.retrieve(await _cube(parts, cube), asked)

    result = _with_parts(session, run)

    def show(console: Console) -> None:
        for found in result.hits:
            why = ", ".join(f"{name} {share:.2f}" for name, share in (found.why or {}).items())
            console.print(f"{found.score:.2f}  {found.memory.kind.value:10} {found.passage[:100]}  [dim]({why})[/dim]")

    session.answer({"hits": [hit(found) for found in result.hits], "degraded": result.degraded}, show)


@command(memories, "show")
@click.argument("memory_id")
@click.option("--cube", help="Which cube; needed when there are several.")
def memories_show(session: Session, memory_id: str, cube: str | None) -> None:
    """One memory with its history."""
    from proxy.memory_api import item

    async def run(parts: Any) -> Any:
        where = await _cube(parts, cube)
        return await parts.memories.get(where, memory_id), await parts.memories.history(where, memory_id)

    memory, history = _with_parts(session, run)
    if memory is None:
        _fail(f"there is no memory {memory_id}")
    body = {**item(memory), "history": [asdict(change) for change in history]}
    session.answer(body, lambda console: console.print_json(data=body))


@command(memories, "forget")
@click.argument("memory_id")
@click.option("--cube", help="Which cube; needed when there are several.")
def memories_forget(session: Session, memory_id: str, cube: str | None) -> None:
    """Erase a memory and the turns it came from."""
    from proxy.kept import erase
    from scheduler.triggers import MEMORY_ERASED

    async def run(parts: Any) -> Any:
        where = await _cube(parts, cube)
        erased = await parts.memories.forget(where, memory_id, beside=partial(erase, cube=where))
        if erased is None:
            return None
        await parts.states.forget(where)
        adapters = await parts.lifecycle.withdraw(where)
        await parts.triggers.fire(MEMORY_ERASED, where)
        return {"erased": erased, "adapters": adapters}

    done = _with_parts(session, run)
    if done is None:
        _fail(f"there is no memory {memory_id}")

    def show(console: Console) -> None:
        console.print(f"{len(done['erased'])} erased.")
        if done["adapters"]:
            console.print(f"Adapters deleted: {', '.join(map(str, done['adapters']))}.")

    session.answer(done, show)


def _show_memories(session: Session, found: list[Any]) -> None:
    from proxy.memory_api import item

    def show(console: Console) -> None:
        for memory in found:
            console.print(f"{memory.id}  {memory.kind.value:10} {memory.text[:100]}")

    session.answer({"memories": [item(memory) for memory in found]}, show)


async def _cube(parts: Any, named: str | None) -> str:
    every = await parts.cubes.every()
    if named:
        if named not in [cube.id for cube in every]:
            raise ConfigError(f"there is no cube {named}")
        return named
    if len(every) != 1:
        known = ", ".join(cube.id for cube in every) or "none yet"
        raise ConfigError(f"say which cube with --cube; there are: {known}")
    return str(every[0].id)


def _with_parts(session: Session, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    from proxy import db
    from proxy.parts import assemble

    async def run() -> T:
        parts = await assemble(session.config)
        try:
            return await work(parts)
        finally:
            await parts.close()

    db.upgrade(session.config)
    try:
        return asyncio.run(run())
    except ValueError as error:
        _fail(str(error))


# --- care -----------------------------------------------------------------------------------------------------------------


@command(main, "doctor")
@click.option("--rebuild", is_flag=True, help="Build every index anew from SQL.")
def doctor(session: Session, rebuild: bool) -> None:
    """Look for damage; an index that is damaged is built anew."""
    from proxy import db
    from proxy.doctor import examine

    db.upgrade(session.config)
    body = asyncio.run(examine(session.config, rebuild=rebuild))

    def show(console: Console) -> None:
        console.print(f"database: {body['database']}")
        for cube in body["cubes"]:
            console.print(f"  cube {cube['id']}: {cube['index']}")

    session.answer(body, show)
    if body["database"] != "ok":
        sys.exit(1)


if __name__ == "__main__":
    main()
