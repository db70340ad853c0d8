"""How the processes are: written by the supervisor and the executor, read by `/ready` and `memrelay doctor`."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from memory.sql import Database, DatabaseError
from proxy import db

_FILE = "processes.json"


@dataclass(frozen=True, slots=True)
class Found:
    """`status` is ready or degraded; `database` is ok or a fault; `detail` goes into the answer."""

    status: str
    database: str
    detail: dict[str, Any]


class Status:
    """Reads the state of an installation."""

    def __init__(self, folder: Path, database: Database) -> None:
        self._folder = folder
        self._database = database

    async def look(self) -> Found:
        """Ask the database, and read what the supervisor says of the other processes."""
        fault = "ok"
        try:
            async with asyncio.timeout(2), self._database.read() as connection:
                await connection.execute(sa.select(sa.func.count()).select_from(db.settings))
        except DatabaseError as error:
            fault = str(error)
        except TimeoutError:
            fault = "slow"
        processes = await asyncio.to_thread(read_processes, self._folder)
        well = fault == "ok" and all(entry["state"] == "running" for entry in processes.values())
        return Found("ready" if well else "degraded", fault, {"database": fault, "processes": processes})


def write_processes(folder: Path, processes: dict[str, dict[str, Any]]) -> None:
    """Say how the supervised processes are; replaces what was said before in one step."""
    body = {"supervisor": os.getpid(), "at": time.time(), "processes": processes}
    work = folder / f".{_FILE}.{os.getpid()}"
    work.write_text(json.dumps(body), encoding="utf-8")
    work.replace(folder / _FILE)


def read_processes(folder: Path) -> dict[str, dict[str, Any]]:
    """What the supervisor last said; nothing when no supervisor lives."""
    try:
        body = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        os.kill(int(body["supervisor"]), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    processes = body.get("processes")
    return processes if isinstance(processes, dict) else {}
