"""What `memrelay serve` does around the processes: prepare, supervise, say where it is. Imports nothing heavy."""

from __future__ import annotations

import asyncio

from rich.console import Console

from memory import embed
from proxy import db, supervise
from proxy.config import Config
from proxy.keys import Keys, NewKey
from proxy.supervise import Supervisor

_UP_S = 120.0


async def serve(config: Config, config_path: str | None, engine_port: int, console: Console) -> int:
    """Prepare, start and supervise the processes; returns the exit code."""
    supervise.check_port(config.server.host, config.server.port)
    if config.memory.embedder == embed.DEFAULT and not _prepared(config):
        console.print("Preparing the embedding model (once, about a second) …")
        await asyncio.to_thread(embed.export_default, config.folder / "models")
    made = await first_key(config)
    port = engine_port or config.engine.port or supervise.free_port()
    supervisor = Supervisor(config.folder, supervise.commands(config, config_path, port))
    running = asyncio.create_task(supervisor.run())
    said = asyncio.create_task(_say(config, port, made, console))
    await running
    said.cancel()
    return 0


def _prepared(config: Config) -> bool:
    return (embed.default_folder(config.folder / "models") / "model.onnx").exists()


async def first_key(config: Config) -> NewKey | None:
    """Make the installation's first key; None when there is one."""
    database = db.open_database(config)
    try:
        keys = Keys(database)
        return None if await keys.every() else await keys.create("first")
    finally:
        await database.close()


async def _say(config: Config, engine_port: int, made: NewKey | None, console: Console) -> None:
    host = "127.0.0.1" if config.server.host in ("0.0.0.0", "::") else config.server.host
    base = f"http://{host}:{config.server.port}"
    up = await supervise.wait_until_up(f"{base}/health", _UP_S)
    if up and config.local_model:
        up = await supervise.wait_until_up(f"http://127.0.0.1:{engine_port}/health", _UP_S)
    if not up:
        console.print("[b]Not everything is up yet[/b]; see the messages above and `memrelay doctor`.")
        return
    console.print(f"\nmemrelay serves [b]{base}/v1[/b]  (data in {config.folder})")
    if made is not None:
        console.print(f"key: [b]{made.secret}[/b]  (shown only now; `memrelay keys create` makes more)", soft_wrap=True)
    key = made.secret if made is not None else "sk-mem-…"
    console.print("\ntry:", soft_wrap=True)
    console.print(
        f"  from openai import OpenAI\n"
        f'  client = OpenAI(base_url="{base}/v1", api_key="{key}")\n'
        f'  client.chat.completions.create(model="any", messages=[{{"role": "user", "content": "My dog is called Rex."}}])\n',
        markup=False,
        soft_wrap=True,
    )
