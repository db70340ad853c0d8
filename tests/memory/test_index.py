"""The index against SQL: brought up, checked, built anew, and without a byte of what was erased."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory.cube import Cube, Cubes
from memory.index import Index, Indexed
from memory.memories import Memories
from memory.models import Embedder
from memory.pieces import pieces
from memory.sql import Database
from memory.store import Piece, Store
from memory.types import Memory, Status
from tests.memory.make import CUBE, OWNER, memory, put


class Library:
    """A cube with its memories and its index."""

    def __init__(self, database: Database, store: Store, embedder: Embedder) -> None:
        self.database, self.store, self.cubes = database, store, Cubes(database)
        self.memories = Memories(database)
        self.index = Index(database, store, embedder)

    async def add(self, *texts: str) -> list[Memory]:
        return [await self.memories.add(memory(text=text), OWNER) for text in texts]

    async def info(self) -> Cube:
        info = await self.cubes.get(CUBE)
        assert info is not None
        return info

    async def held(self) -> list[str]:
        rows = await self.store.pieces(CUBE, (await self.info()).generation)
        return sorted(piece.text.partition("): ")[2] for piece in rows)

    async def behind_its_back(self, gone: list[str], rows: list[Piece]) -> None:
        """Write to the table without telling SQL."""
        await self.store.put(CUBE, (await self.info()).generation, gone, rows)


@pytest.fixture
def library(database: Database, store: Store, embedder: Embedder) -> Library:
    return Library(database, store, embedder)


def scan(data: Path, word: str) -> list[Path]:
    return [file for file in (data / "lance").rglob("*") if file.is_file() and word.encode() in file.read_bytes()]


async def test_what_is_new_is_appended(library: Library) -> None:
    await library.add("one")
    assert await library.index.catch_up(CUBE) == Indexed("rebuilt", 1)
    await library.add("two")
    assert await library.index.catch_up(CUBE) == Indexed("appended", 2)
    assert await library.held() == ["one", "two"]
    assert await library.index.verify(CUBE) is None


async def test_a_second_time_does_nothing(library: Library) -> None:
    await library.add("one")
    await library.index.catch_up(CUBE)
    assert await library.index.catch_up(CUBE) == Indexed("nothing", 1)
    assert await library.index.catch_up("nobody's") == Indexed("nothing", 0)


async def test_what_changed_is_replaced_and_what_left_is_taken_out(library: Library) -> None:
    one, two, three = await library.add("one", "two", "three")
    await library.index.catch_up(CUBE)
    await library.memories.change(CUBE, one.id, {"text": "uno"})
    await put(library.database, two.evolve(status=Status.ARCHIVED))
    await put(library.database, three.evolve(status=Status.SUPERSEDED))
    await library.index.catch_up(CUBE)
    assert await library.held() == ["three", "uno"]
    assert await library.index.verify(CUBE) is None


async def test_a_crash_between_the_two_writes_doubles_nothing(library: Library) -> None:
    await library.add("one")
    await library.index.catch_up(CUBE)
    (two,) = await library.add("two")
    await library.behind_its_back([two.id], await library.index.embedded(CUBE, pieces(two)))
    await library.index.catch_up(CUBE)
    assert await library.held() == ["one", "two"]
    assert await library.index.verify(CUBE) is None


async def test_a_crash_in_the_middle_of_a_rebuild_is_cleaned_up(library: Library, data: Path) -> None:
    (one,) = await library.add("one")
    await library.index.catch_up(CUBE)
    await library.store.build(CUBE, 2, await library.index.embedded(CUBE, pieces(one)), 384)
    await library.index.rebuild(CUBE)
    assert [folder.name for folder in (data / "lance").glob("*/*.lance")] == ["c1_g2.lance"]
    assert await library.held() == ["one"]


async def test_a_missing_row_is_found(library: Library) -> None:
    one, _ = await library.add("one", "two")
    await library.index.catch_up(CUBE)
    await library.behind_its_back([one.id], [])
    assert await library.index.verify(CUBE) == "1 rows instead of 2"


async def test_a_changed_row_is_found(library: Library) -> None:
    one, _ = await library.add("one", "two")
    await library.index.catch_up(CUBE)
    wrong = await library.index.embedded(CUBE, pieces(one.evolve(text="wrong")))
    await library.behind_its_back([one.id], wrong)
    assert await library.index.verify(CUBE) == "1 rows differ"


async def test_an_extra_row_is_found(library: Library) -> None:
    await library.add("one")
    await library.index.catch_up(CUBE)
    await library.behind_its_back([], await library.index.embedded(CUBE, pieces(memory(text="ghost"))))
    assert await library.index.verify(CUBE) == "2 rows instead of 1"


async def test_a_doubled_row_is_found(library: Library) -> None:
    (one,) = await library.add("one")
    await library.index.catch_up(CUBE)
    await library.behind_its_back([], await library.index.embedded(CUBE, pieces(one)))
    assert await library.index.verify(CUBE) == "2 rows instead of 1"


async def test_a_table_that_waits_for_changes_is_not_called_wrong(library: Library) -> None:
    one, two = await library.add("one", "two")
    await library.index.catch_up(CUBE)
    await library.memories.change(CUBE, one.id, {"text": "uno"})
    await library.memories.forget(CUBE, two.id)
    await library.add("three")
    assert await library.index.verify(CUBE) is None


@pytest.mark.parametrize("part", ["data", "_indices", "_versions"])
async def test_a_damaged_table_is_found_and_healed(library: Library, data: Path, part: str) -> None:
    await library.add("one", "two")
    await library.index.catch_up(CUBE)
    for file in (data / "lance").glob(f"*/*.lance/{part}/**/*"):
        if file.is_file():
            file.write_bytes(b"\0" * file.stat().st_size)
    fresh = Library(library.database, Store(str(data / "lance")), library.index._embedder)
    assert await fresh.index.verify(CUBE) is not None
    await fresh.index.rebuild(CUBE)
    assert await fresh.index.verify(CUBE) is None
    assert await fresh.held() == ["one", "two"]


async def test_a_lost_folder_is_built_anew(library: Library, data: Path) -> None:
    import shutil

    await library.add("one")
    await library.index.catch_up(CUBE)
    await library.add("two")
    shutil.rmtree(data / "lance")
    fresh = Library(library.database, Store(str(data / "lance")), library.index._embedder)
    assert await fresh.index.catch_up(CUBE) == Indexed("rebuilt", 2)


async def test_erased_text_leaves_no_bytes_in_the_index(library: Library, data: Path) -> None:
    one, _ = await library.add("zanzibar zanzibar", "two")
    await library.index.catch_up(CUBE)
    assert scan(data, "zanzibar")
    await library.memories.forget(CUBE, one.id)
    assert await library.index.catch_up(CUBE) == Indexed("erased", 1)
    assert not scan(data, "zanzibar")
    assert scan(data, "two")


async def test_an_erased_cube_leaves_no_files(library: Library, data: Path) -> None:
    await library.add("one")
    await library.index.catch_up(CUBE)
    assert await library.store.drop(CUBE, keep=None) == 1
    assert not list((data / "lance").glob("*/*.lance"))


async def test_an_empty_cube_can_be_indexed(library: Library) -> None:
    (one,) = await library.add("one")
    await library.memories.forget(CUBE, one.id)
    assert await library.index.catch_up(CUBE) == Indexed("erased", 0)
    assert await library.index.verify(CUBE) is None
    await library.add("two")
    await library.index.catch_up(CUBE)
    assert await library.held() == ["two"]


async def test_many_small_writes_are_put_together(library: Library) -> None:
    for n in range(25):
        await library.add(f"number {n}")
        await library.index.catch_up(CUBE)
    assert await library.store.fragments(CUBE, 1) <= 21
    assert await library.index.verify(CUBE) is None
