"""`memrelay doctor`: is the database whole, and does every index hold what the database says? Repairs what is not."""

from __future__ import annotations

from typing import Any

from memory.cube import Cubes
from memory.embedders import Embedders
from memory.grants import ACTIVE
from memory.index import Index
from memory.sql import DatabaseError
from memory.store import Store
from proxy import db
from proxy.config import Config
from proxy.status import read_processes
from scheduler.jobs import QueueError
from scheduler.queue import DbosQueue


async def examine(config: Config, *, rebuild: bool) -> dict[str, Any]:
    """The state of the database and of every index; repairs indexes, through the executor when one is running."""
    database = db.open_database(config)
    running = bool(read_processes(config.folder))
    cubes: list[dict[str, Any]] = []
    fault = "ok"
    try:
        embedder = await Embedders(database, config.folder / "models").current(config.memory.embedder)
        index = Index(database, Store(config.store_root), embedder)
        for info in await Cubes(database).every():
            if info.status != ACTIVE:
                cubes.append({"id": info.id, "index": info.status})
                continue
            found = await index.verify(info.id)
            action = found or "ok"
            if running and (found or rebuild):
                action += ": " + await _ask_executor(config, info.id)
            elif found or rebuild:
                done = await index.rebuild(info.id)
                action += f": rebuilt, {done.pieces} pieces"
            cubes.append({"id": info.id, "index": action})
    except DatabaseError as error:
        fault = str(error)
    finally:
        await database.close()
    return {"database": fault, "running": running, "cubes": cubes}


async def _ask_executor(config: Config, cube: str) -> str:
    queue = DbosQueue(config.queue_url)
    try:
        return f"job {await queue.put('rebuild', cube, {'force': 'yes'}, priority=1)}"
    except QueueError:
        return "the executor cannot be asked; stop the server and run this again"
    finally:
        await queue.close()
