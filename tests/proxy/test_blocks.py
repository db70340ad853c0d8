"""What was injected is put again with the same bytes, also by another process, and never after it was forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from memory.memories import Memories
from memory.sql import Database
from proxy.background import Background
from proxy.blocks import Begun, Blocks, Link, Recalled
from tests.memory.make import OWNER, memory


@pytest.fixture
async def background() -> AsyncIterator[Background]:
    running = Background()
    yield running
    await running.drain(10)


@pytest.fixture(autouse=True)
async def memories(database: Database) -> Memories:
    """What the blocks show."""
    memories = Memories(database)
    for cube, name in (("c", "m1"), ("c", "m2"), ("c", "m3"), ("d", "m1")):
        await memories.add(memory(cube=cube, id=name), OWNER)
    return memories


@pytest.fixture
def blocks(database: Database, background: Background) -> Blocks:
    return Blocks(database, background)


def recalled(anchor: str, *memories: str, text: str = "block 小花\r\n\x7f") -> Recalled:
    return Recalled(anchor, "s", 1.0, text, memories)


async def test_a_block_is_there_at_once_and_in_other_processes_soon(
    blocks: Blocks, database: Database, background: Background
) -> None:
    blocks.keep("c", recalled("a", "m1"))
    blocks.begin("c", Begun("s", "stable", ("m2",), 7), 1.0)
    other = Blocks(database, background)
    for reader in (blocks, other):
        assert await reader.at("c", ["a", "b"]) == {"a": recalled("a", "m1")}
        assert await reader.begun("c", "s") == Begun("s", "stable", ("m2",), 7)
        await background.drain(10)


async def test_another_cube_sees_nothing(blocks: Blocks, background: Background) -> None:
    blocks.keep("c", recalled("a"))
    blocks.begin("c", Begun("s", "stable", (), 7), 1.0)
    await background.drain(10)
    assert await blocks.at("d", ["a"]) == {}
    assert await blocks.begun("d", "s") is None


async def test_a_place_has_one_block(blocks: Blocks, database: Database, background: Background) -> None:
    for text in ("one", "two", "three"):
        blocks.keep("c", recalled("a", text=text))
        await background.drain(10)
    assert (await Blocks(database, background).at("c", ["a"]))["a"].recall == "three"


async def test_blocks_that_show_what_is_forgotten_are_forgotten(
    blocks: Blocks, database: Database, background: Background
) -> None:
    blocks.keep("c", recalled("a", "m1", "m2"))
    blocks.keep("c", recalled("b", "m3"))
    blocks.keep("d", recalled("a", "m1"))
    blocks.begin("c", Begun("s", "stable", ("m2",), 7), 1.0)
    await background.drain(10)
    await blocks.forget("c", ["m2"])
    for reader in (blocks, Blocks(database, background)):
        assert set(await reader.at("c", ["a", "b"])) == {"b"}
        assert set(await reader.at("d", ["a"])) == {"a"}
        assert await reader.begun("c", "s") is None


async def test_a_block_whose_memory_another_process_has_erased_is_never_written(
    blocks: Blocks, memories: Memories, database: Database, background: Background
) -> None:
    await memories.forget("c", "m2")
    blocks.keep("c", recalled("a", "m1", "m2"))
    blocks.keep("c", recalled("b", "m1"))
    blocks.begin("c", Begun("s", "stable", ("m2",), 7), 1.0)
    await background.drain(10)
    for reader in (blocks, Blocks(database, background)):
        assert set(await reader.at("c", ["a", "b"])) == {"b"}
        assert await reader.begun("c", "s") is None


async def test_what_is_held_of_an_erased_cube_is_let_go(blocks: Blocks, background: Background) -> None:
    blocks.keep("c", recalled("a", "m1"))
    blocks.begin("c", Begun("s", "stable", (), 7), 1.0)
    blocks.let_go("c")
    await background.drain(10)
    assert await blocks.at("c", ["a"]) == {}
    assert await blocks.begun("c", "s") is None


async def test_a_block_that_quotes_a_memory_it_does_not_name_goes_with_any(
    blocks: Blocks, database: Database, background: Background
) -> None:
    blocks.keep("c", recalled("a", "m1", text="- I live in Oslo. [no longer so; now: I live in Rome]"))
    blocks.keep("c", recalled("b", "m1", text="- I live in Oslo. [no longer so]"))
    await background.drain(10)
    await blocks.forget("c", ["m3"])
    assert set(await Blocks(database, background).at("c", ["a", "b"])) == {"b"}


@pytest.mark.parametrize("written", [True, False])
async def test_the_question_of_a_turn_that_is_not_over_goes_with_any_memory(
    blocks: Blocks, database: Database, background: Background, written: bool
) -> None:
    blocks.link("c", "round", Link("s", 1.0, "p", "h", "My code is 4711.", ("d",)))
    blocks.link("c", "over", Link("s", 1.0, "p", "h"))
    blocks.link("d", "round", Link("s", 1.0, "p", "h", "Another's."))
    if written:
        await background.drain(10)
    await blocks.forget("c", ["m3"])
    await background.drain(10)
    for reader in (blocks, Blocks(database, background)):
        assert await reader.before("c", "round") is None
        assert await reader.before("c", "over") is not None
        assert await reader.before("d", "round") is not None
