"""Adapters of a cube as rows and files: which one may be used, and what is left when it may not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from memory import sql
from memory.adapters.files import Damaged, Folder, Manifest, sha256_of
from memory.adapters.table import DROPPED, READY, STALE, Adapters, Choice, Used
from memory.memories import Memories, put_away
from memory.sql import Database
from memory.types import Memory
from tests.memory.make import CUBE, NOW, OWNER, memory

MODEL = "f" * 64
BYTES = bytes(range(256)) * 40


async def remembered(database: Database, number: int = 3) -> list[Memory]:
    return [await Memories(database).add(memory(), OWNER) for _ in range(number)]


async def begun(database: Database, known: list[Memory]) -> int:
    rows = await Memories(database).since(CUBE, 0)
    digests = {one.id: await digest_of(database, one.id) for one in rows}
    used = [Used(one.id, digests[one.id], one.rev) for one in known]
    return await Adapters(database).begin(CUBE, model=MODEL, samples="s", settings={"rank": 4}, memories=used)


async def digest_of(database: Database, wanted: str) -> str:
    async with database.read() as connection:
        rows = await connection.execute(sql.memories.select().where(sql.memories.c.id == wanted))
        return str(rows.one().digest)


async def ready(database: Database, known: list[Memory]) -> int:
    version = await begun(database, known)
    assert await Adapters(database).finish(CUBE, version, sha256="a" * 64, size=10, results={"known": 1.0})
    return version


async def on(database: Database, **choice: object) -> Adapters:
    adapters = Adapters(database)
    await adapters.choose(CUBE, replace(Choice(on=True), **choice))  # type: ignore[arg-type]
    return adapters


async def test_nothing_is_used_before_the_owner_wants_it(database: Database) -> None:
    version = await ready(database, await remembered(database))
    assert await Adapters(database).current(CUBE) is None
    used = await (await on(database)).current(CUBE)
    assert used is not None
    assert (used.version, used.state, used.memories) == (version, READY, 3)


async def test_one_that_is_being_built_is_not_used_yet(database: Database) -> None:
    await begun(database, await remembered(database))
    assert await (await on(database)).current(CUBE) is None


async def test_another_models_is_not_used(database: Database) -> None:
    await ready(database, await remembered(database))
    adapters = await on(database)
    assert await adapters.current(CUBE, "0" * 64) is None
    assert await adapters.current(CUBE, MODEL) is not None


async def test_the_newest_is_used_unless_one_is_named(database: Database) -> None:
    known = await remembered(database)
    first, second = await ready(database, known), await ready(database, known)
    newest = await (await on(database)).current(CUBE)
    named = await (await on(database, version=first)).current(CUBE)
    assert [one.version for one in (newest, named) if one] == [second, first]


async def test_only_the_two_newest_stay(database: Database) -> None:
    known = await remembered(database)
    made = [await ready(database, known) for _ in range(3)]
    assert await Adapters(database).standing(CUBE) == [made[2], made[1]]


@pytest.mark.parametrize("text", ["I moved to Rome.", ""])
async def test_it_is_stale_from_the_moment_a_memory_under_it_changes(database: Database, text: str) -> None:
    known = await remembered(database)
    version = await ready(database, known)
    adapters = await on(database)
    if text:
        await Memories(database).change(CUBE, known[1].id, {"text": text})
    else:
        await database.write(lambda connection: put_away(connection, CUBE, [known[1].id], NOW))
    assert await adapters.current(CUBE) is None
    assert [(one.version, one.state) for one in await adapters.every(CUBE)] == [(version, STALE)]


async def test_what_does_not_touch_the_words_leaves_it_in_use(database: Database) -> None:
    known = await remembered(database)
    await ready(database, known)
    await Memories(database).change(CUBE, known[1].id, {"pinned": True})
    await Memories(database).add(memory(), OWNER)
    assert await (await on(database)).current(CUBE) is not None


async def test_erasing_a_memory_drops_what_rests_on_it_in_the_same_moment(database: Database) -> None:
    known = await remembered(database)
    over_all, over_some = await ready(database, known), await ready(database, known[:2])
    adapters = await on(database)
    await Memories(database).forget(CUBE, known[2].id)
    states = {one.version: (one.state, one.why) for one in await adapters.every(CUBE)}
    assert states == {over_all: (DROPPED, "a memory was erased"), over_some: (READY, "")}
    assert await adapters.rests_on(CUBE, over_all) == {}


async def test_a_training_whose_memory_goes_meanwhile_comes_to_nothing(database: Database) -> None:
    known = await remembered(database)
    adapters = await on(database)
    version = await begun(database, known)
    assert await adapters.building(CUBE, version)
    await Memories(database).forget(CUBE, known[0].id)
    assert not await adapters.building(CUBE, version)
    assert not await adapters.finish(CUBE, version, sha256="a" * 64, size=1, results={})


async def test_a_training_that_was_left_is_dropped_by_the_next(database: Database) -> None:
    known = await remembered(database)
    left, fresh = await begun(database, known), await begun(database, known)
    states = {one.version: one.state for one in await Adapters(database).every(CUBE)}
    assert states == {left: DROPPED, fresh: "building"}


def kept(folder: Folder, **overrides: object) -> Manifest:
    """A file with its manifest."""
    part = folder.unfinished(CUBE, 1)
    part.write_bytes(BYTES)
    plain = {"cube": CUBE, "version": 1, "model": MODEL, "architecture": "llama", "memories": {"m": 3}, "samples": "s"}
    plain |= {"settings": {"rank": 4}, "results": {}, "sha256": sha256_of(part), "bytes": len(BYTES), "created": NOW}
    manifest = Manifest(**(plain | overrides))  # type: ignore[arg-type]
    folder.keep(manifest)
    return manifest


def test_a_file_is_read_back_with_its_manifest(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    manifest = kept(folder)
    assert folder.checked(CUBE, 1, MODEL) == manifest
    assert {path.stat().st_mode & 0o777 for path in folder.of(CUBE).iterdir()} == {0o600}
    assert folder.versions(CUBE) == [1]


def cut(folder: Folder) -> None:
    folder.path(CUBE, 1).write_bytes(BYTES[:-1])


def flip(folder: Folder) -> None:
    folder.path(CUBE, 1).write_bytes(BYTES[:-1] + b"x")


def edit(folder: Folder) -> None:
    path = folder.path(CUBE, 1).with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": "0" * 64}))


def tear(folder: Folder) -> None:
    path = folder.path(CUBE, 1).with_suffix(".json")
    path.write_text(path.read_text()[:-20])


def move(folder: Folder) -> None:
    for path in list(folder.of("other").parent.glob(f"{CUBE}/*")):
        target = folder.of("other") / path.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())


@pytest.mark.parametrize("harm", [cut, flip, edit, tear])
def test_every_kind_of_damage_is_seen(tmp_path: Path, harm: Callable[[Folder], None]) -> None:
    folder = Folder(tmp_path)
    kept(folder)
    harm(folder)
    with pytest.raises(Damaged):
        folder.checked(CUBE, 1, MODEL)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    kept(folder)
    move(folder)
    with pytest.raises(Damaged, match="another adapter"):
        folder.checked("other", 1, MODEL)
    with pytest.raises(Damaged, match="another model"):
        folder.checked(CUBE, 1, "0" * 64)
    with pytest.raises(FileNotFoundError):
        folder.checked(CUBE, 2, MODEL)


def test_nothing_is_left_of_what_is_not_wanted(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    kept(folder)
    folder.unfinished(CUBE, 2).write_bytes(b"half")
    assert folder.keep_only(CUBE, [1]) == [2]
    assert sorted(path.name for path in folder.of(CUBE).iterdir()) == ["1.gguf", "1.json"]
    assert folder.keep_only(CUBE, []) == [1]
    assert folder.cubes() == []


def test_a_strange_name_stays_inside_the_folder(tmp_path: Path) -> None:
    assert Folder(tmp_path).of("../../etc").parent == tmp_path
