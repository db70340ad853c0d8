"""Archives for tests: a cube with everything in it, its archive, and archives that were tampered with."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.sql import Database
from memory.transfer import Archive, Imported, Importer, Limits, Target
from memory.types import Kind, Status, Trust
from tests.memory.make import CUBE, NOW, OWNER, learned_from, memory, put, record, turn

DAY = 86_400.0
Members = dict[str, bytes]


async def furnish(database: Database) -> None:
    """A cube with turns, memories of several kinds and statuses, history and a graph."""
    first = await record(database, turn(user_text="My dog is called Rex.", assistant_text="A fine name.", said_at=NOW))
    second = await record(database, turn(user_text="I moved to Turin.", said_at=NOW + DAY, session="s2"))
    old = memory(id="old", text="Lives in Milan.", status=Status.SUPERSEDED, valid_to=NOW + DAY, entities=("Milan",))
    for made in (
        old,
        memory(id="new", text="Lives in Turin.", supersedes="old", sources=learned_from(second), entities=("Turin",)),
        memory(id="dog", text="The dog is called Rex.", sources=learned_from(first), tags=("pets",), pinned=True),
        memory(id="tea", kind=Kind.PREFERENCE, text="Prefers tea.", trust=Trust.ASSISTANT, confidence=0.7),
        memory(id="trip", kind=Kind.EVENT, text="Trip to Oslo.", event_time=NOW + 30 * DAY, uses=3, last_used_at=NOW),
        memory(id="call", kind=Kind.TASK, text="Call Ann.", attributes={"state": "open", "due": NOW + DAY}),
        memory(id="tip", kind=Kind.SKILL, text="Answers briefly.", attributes={"when": "asked", "then": "be brief"}),
    ):
        await put(database, made)
    await put(
        database, memory(id="dog", text="The dog is Rex.", sources=learned_from(first), tags=("pets",), pinned=True)
    )

    async def graph(connection: AsyncConnection) -> None:
        nodes = [
            {"id": "n-pets", "kind": "topic", "name": "Pets", "parent": None},
            {"id": "n-dogs", "kind": "topic", "name": "Dogs", "parent": "n-pets"},
        ]
        await connection.execute(sa.insert(sql.nodes), [{"cube": CUBE, "attributes": None} | node for node in nodes])
        edge = {"cube": CUBE, "source": "dog", "kind": "part_of", "target": "n-dogs", "weight": 0.5}
        await connection.execute(sa.insert(sql.edges), [edge])

    await database.write(graph)


async def rows(database: Database, cube: str = CUBE) -> dict[str, list[Any]]:
    """All that SQL holds of a cube, without the cube's id and without revisions."""
    found: dict[str, list[Any]] = {}
    async with database.read() as connection:
        for table in (sql.turns, sql.memories, sql.history, sql.lineage, sql.nodes, sql.edges, sql.vectors):
            every = (await connection.execute(sa.select(table).where(table.c.cube == cube))).all()
            plain = [
                {name: value for name, value in row._mapping.items() if name not in ("cube", "rev")} for row in every
            ]
            found[table.name] = sorted(plain, key=str)
    return found


def no_blobs(_: str) -> Path:
    return Path("/nowhere")


async def exported(database: Database, folder: Path, **options: Any) -> bytes:
    """The cube's archive."""
    out = io.BytesIO()
    await Archive(database, folder, "memrelay test", options.pop("blobs", no_blobs)).write(
        CUBE, out, **{"at": NOW + 100 * DAY} | options
    )
    return out.getvalue()


async def imported(database: Database, archive: bytes, cube: str = CUBE, **options: Any) -> Imported:
    """Import into a cube, by the clock of a moment after the export."""
    limits, embedder = options.pop("limits", Limits()), options.pop("embedder", None)
    importer = Importer(database, embedder, options.pop("blobs", no_blobs), limits)
    target = Target(**{"cube": cube, "owner": OWNER, "at": NOW + 101 * DAY} | options)
    return await importer.run(io.BytesIO(archive), target)


def members(archive: bytes) -> Members:
    """The files in an archive."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {name: file.read(name) for name in file.namelist()}


def packed(files: Mapping[str, bytes], *, honest: bool = True, counted: bool = True) -> bytes:
    """An archive of these files; `honest`: the manifest's sizes and hashes are made to fit."""
    files = dict(files)
    manifest = json.loads(files["manifest.json"])
    if honest:
        manifest["members"] = [
            {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
            if name != "manifest.json"
        ]
    if counted:
        for name in ("turns", "memories", "nodes", "edges"):
            if f"{name}.jsonl" in files:
                manifest["counts"][name] = files[f"{name}.jsonl"].count(b"\n")
    files["manifest.json"] = json.dumps(manifest).encode()
    return zipped(files)


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A ZIP file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def changed(archive: bytes, member: str, change: Callable[[list[dict[str, Any]]], Any]) -> bytes:
    """The archive with other rows in a member, honest about it. `change` works on the list of rows."""
    files = members(archive)
    found = [json.loads(row) for row in files[member].splitlines()]
    change(found)
    files[member] = b"".join(json.dumps(row).encode() + b"\n" for row in found)
    return packed(files)


def with_manifest(archive: bytes, **changes: Any) -> bytes:
    """The archive with other values in its manifest."""
    files = members(archive)
    files["manifest.json"] = json.dumps(json.loads(files["manifest.json"]) | changes).encode()
    return zipped(files)
