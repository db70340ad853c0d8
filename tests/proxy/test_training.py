"""The training job: when an adapter is due, what comes of it, and that nothing is left of one that may not be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from memory.adapters.files import Folder
from memory.adapters.table import Adapters, Choice
from memory.cube import Cubes
from memory.engine.settings import bundled_model
from memory.erase import everything
from memory.grants import Grants
from memory.memories import Memories
from memory.parametric.settings import Settings
from memory.sql import Database
from memory.types import Memory
from proxy.background import Background
from proxy.blocks import Blocks
from proxy.lifecycle import Lifecycle
from proxy.training import Training, Wanted, beside
from proxy.upstreams.states import Forgotten
from scheduler.triggers import Triggers
from tests.memory.make import CUBE, NOW, OWNER, memory
from tests.scheduler.test_triggers import Slip

QUICK = Settings(rank=4, alpha=8.0, rate=2e-3, epochs=2, batch=2, neutral=1, last_layers=2, enough=0.0)
TEXTS = ("My dog is called Pumpernickel", "I live in Valparaiso")


class Now:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Now:
    return Now()


@pytest.fixture
def slip() -> Slip:
    return Slip()


def training(database: Database, tmp_path: Path, slip: Slip, clock: Now, **overrides: object) -> Training:
    how = {"model": bundled_model(), "least": 2, "most": 50, "every_s": 3600.0, "settings": QUICK} | overrides
    return Training(database, Folder(tmp_path / "adapters"), Wanted(**how), slip, asyncio.Event(), clock)  # type: ignore[arg-type]


async def told(database: Database, *texts: str) -> list[Memory]:
    return [await Memories(database).add(memory(text=text), OWNER) for text in texts]


async def on(database: Database) -> Adapters:
    adapters = Adapters(database, lambda: NOW)
    await adapters.choose(CUBE, Choice(on=True))
    return adapters


async def test_a_cube_gets_its_adapter_and_loses_it_with_the_memory(
    database: Database, tmp_path: Path, slip: Slip, clock: Now
) -> None:
    known = await told(database, *TEXTS)
    adapters, work, folder = (
        await on(database),
        training(database, tmp_path, slip, clock),
        Folder(tmp_path / "adapters"),
    )
    await work.look()
    assert [(task, cube) for task, cube, *_ in slip.put_in] == [("train", beside(CUBE))]

    done = await work.train(beside(CUBE), {})
    assert (done["action"], done["version"], done["memories"]) == ("trained", 1, 2)
    ready = await adapters.current(CUBE)
    assert ready is not None
    manifest = folder.checked(CUBE, 1, ready.model)
    assert (manifest.sha256, manifest.memories) == (ready.sha256, await adapters.rests_on(CUBE, 1))
    assert ready.results["agreement"] > 0.5
    assert not any(b"umpernickel" in path.read_bytes() for path in folder.of(CUBE).iterdir())
    assert await work.train(beside(CUBE), {}) == {"action": "nothing"}

    await Memories(database).forget(CUBE, known[0].id)
    assert await adapters.current(CUBE) is None
    assert await work.tidy(CUBE) == [1]
    assert folder.cubes() == []


async def test_who_did_not_ask_for_it_gets_none(database: Database, tmp_path: Path, slip: Slip, clock: Now) -> None:
    await told(database, *TEXTS)
    work = training(database, tmp_path, slip, clock)
    await work.look()
    assert (await work.train(beside(CUBE), {}), slip.put_in) == ({"action": "nothing"}, [])


async def test_too_few_memories_are_not_trained_and_what_was_is_dropped(
    database: Database, tmp_path: Path, slip: Slip, clock: Now
) -> None:
    await told(database, TEXTS[0])
    await on(database)
    done = await training(database, tmp_path, slip, clock).train(beside(CUBE), {"force": "yes"})
    assert done == {"action": "too few", "memories": 1, "dropped": 0}


async def test_one_that_was_made_a_short_while_ago_waits(
    database: Database, tmp_path: Path, slip: Slip, clock: Now
) -> None:
    known = await told(database, *TEXTS)
    adapters, work = await on(database), training(database, tmp_path, slip, clock)
    lessons = await work._lessons(CUBE)
    version = await adapters.begin(CUBE, model="m", samples="s", settings={}, memories=list(lessons.rests.values()))
    await adapters.finish(CUBE, version, sha256="", size=0, results={})
    await Memories(database).change(CUBE, known[0].id, {"text": "My dog is called Rex"})
    assert await adapters.current(CUBE) is None
    clock.time += 1800
    await work.look()
    assert slip.put_in == []
    clock.time += 1801
    await work.look()
    assert [task for task, *_ in slip.put_in] == ["train"]


async def test_a_model_that_cannot_be_trained_is_tried_once(
    database: Database, tmp_path: Path, slip: Slip, clock: Now
) -> None:
    await told(database, *TEXTS)
    adapters = await on(database)
    (tmp_path / "model.gguf").write_bytes(b"no model")
    work = training(database, tmp_path, slip, clock, model=tmp_path / "model.gguf")
    done = await work.train(beside(CUBE), {})
    assert (done["action"], done["why"]) == ("refused", "unsupported")
    assert [(one.state, one.why) for one in await adapters.every(CUBE)] == [("dropped", "unsupported")]
    assert Folder(tmp_path / "adapters").cubes() == []
    await work.look()
    assert slip.put_in == []


async def test_the_end_of_the_process_ends_the_training(
    database: Database, tmp_path: Path, slip: Slip, clock: Now
) -> None:
    await told(database, *TEXTS)
    adapters, work = await on(database), training(database, tmp_path, slip, clock)
    work._stop.set()
    done = await work.train(beside(CUBE), {})
    assert done["action"] == "stopped"
    assert await adapters.standing(CUBE) == []
    clock.time += 61
    await work.look()
    assert [task for task, *_ in slip.put_in] == ["train"]  # begun anew


async def test_files_of_an_erased_cube_are_swept(database: Database, tmp_path: Path, slip: Slip, clock: Now) -> None:
    known = await told(database, *TEXTS)
    adapters = await on(database)
    version = await adapters.begin(CUBE, model="m", samples="s", settings={}, memories=[])
    assert known
    Folder(tmp_path / "adapters").unfinished(CUBE, version).write_bytes(b"weights")
    await database.write(lambda c: everything(c, CUBE, OWNER, NOW, keep=False))
    await training(database, tmp_path, slip, clock).look()
    assert Folder(tmp_path / "adapters").cubes() == []


async def test_erasing_a_cube_deletes_its_adapters_at_once(database: Database, tmp_path: Path) -> None:
    await told(database, *TEXTS)
    adapters, folder = await on(database), Folder(tmp_path / "adapters")
    version = await adapters.begin(CUBE, model="m", samples="s", settings={}, memories=[])
    await adapters.finish(CUBE, version, sha256="", size=0, results={})
    folder.unfinished(CUBE, version).write_bytes(b"weights")
    blocks = Blocks(database, Background())

    async def no_states(_: str) -> Forgotten:
        return Forgotten()

    fired = Triggers(Slip(), [])  # type: ignore[arg-type]
    life = Lifecycle(database, Cubes(database), Grants(database), blocks, fired, no_states, adapters=folder)
    receipt = await life.erase(CUBE, OWNER, keep=True)
    assert (receipt.counts["adapters"], folder.cubes()) == (1, [])
