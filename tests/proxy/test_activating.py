"""What a cube's next session begins with is read ahead, and forgotten with the memories."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from memory.cube import Cubes
from memory.memories import Memories
from memory.sql import Database
from memory.types import Kind
from proxy.activating import Activation
from proxy.background import Background
from proxy.heads import Heads, head_of
from proxy.standing import Standing
from proxy.upstreams.routing import Routes
from proxy.upstreams.states import EngineStates
from proxy.upstreams.wire import LocalUpstream
from tests.fakes import Received, RecordingUpstream, Reply
from tests.memory.make import memory, put, record, turn

CUBE = "c"
NOW = 1_700_000_000.0


class Engine:
    """Answers as the engine does; counts what it was asked to build."""

    def __init__(self) -> None:
        self.built: list[dict[str, Any]] = []
        self.forgotten: list[str] = []
        self.room: dict[str, int] = {"ram_budget": 1 << 29, "disk_budget": 1 << 32, "disk_bytes": 0}
        self.status = 200
        self.slow_s = 0.0

    def __call__(self, received: Received) -> Reply:
        if received.method == "DELETE":
            self.forgotten.append(received.path.rpartition("/")[2])
            return Reply(chunks=[b'{"states": 1, "bytes": 9}'])
        if received.path == "/v1/chat/completions":
            self.built.append(received.body)
            return Reply(chunks=[b"{}"])
        if received.path == "/v1/kv":
            return Reply(chunks=[json.dumps(self.room).encode()])
        if received.method == "GET":
            return Reply(chunks=[b'{"object": "list", "data": []}'])
        self.built.append(received.body)
        answer = {"key": "k", "tokens": 57, "bytes": 1_300_000, "state": "built", "more": 1}
        return Reply(self.status, chunks=[json.dumps(answer).encode()], wait_s=self.slow_s)


@pytest.fixture
def engine(upstream: RecordingUpstream) -> Engine:
    upstream.answer = engine = Engine()
    return engine


class House:
    def __init__(self, database: Database, port: int, folder: Path) -> None:
        self.background = Background()
        self.heads = Heads(database, self.background, lambda: NOW)
        self.standing = Standing(database, b"secret", 400, lambda: NOW)
        local = LocalUpstream("local", f"http://127.0.0.1:{port}/v1")
        self.routes = Routes([(local, ("*",))], [EngineStates(local, folder)])
        self.states = Activation(
            routes=self.routes, cubes=Cubes(database), heads=self.heads, standing=self.standing, clock=lambda: NOW
        )

    async def hears(self, *texts: str) -> None:
        for text in texts:
            said = [{"role": "system", "content": text}] if text else []
            self.states.heard(CUBE, head_of("local", said, None))
            await self.background.drain(10)


@pytest.fixture
async def house(database: Database, upstream: RecordingUpstream, tmp_path: Path) -> AsyncIterator[House]:
    await record(database, turn(cube=CUBE))
    known = memory(id="m", cube=CUBE, kind=Kind.PREFERENCE, text="Likes tea.")
    await put(database, known)
    made = House(database, upstream.port, tmp_path / "kv")
    yield made
    await made.routes.close()


async def test_the_model_reads_the_block_where_the_chat_will_have_it(house: House, engine: Engine) -> None:
    await house.hears("You are brief.")
    done = await house.states.activate(CUBE)
    block = (await house.standing.block(CUBE)).text
    assert "Likes tea." in block
    assert engine.built == [
        {
            "cube": CUBE,
            "model": "local",
            "messages": [{"role": "system", "content": f"You are brief.\n\n{block}"}],
        }
    ]
    assert (done.ready, done.states, done.tokens, done.bytes) == (True, {"built": 1}, 57, 1_300_000)
    assert (await house.heads.of(CUBE))[0].size == 1_300_000


async def test_without_a_system_message_the_block_is_one(house: House, engine: Engine) -> None:
    await house.hears("")
    await house.states.activate(CUBE)
    (message,) = engine.built[0]["messages"]
    assert message == {"role": "system", "content": (await house.standing.block(CUBE)).text}


async def test_no_more_is_built_than_is_worth_its_room(house: House, engine: Engine) -> None:
    await house.hears(*("often" for _ in range(5)), *(f"once {n}" for n in range(4)))
    await house.states.activate(CUBE)
    assert len(engine.built) == 3
    assert engine.built[0]["messages"][0]["content"].startswith("often")
    engine.built.clear()
    engine.room |= {"disk_budget": 2_000_000, "disk_bytes": 700_000}
    await house.states.activate(CUBE)
    assert [body["messages"][0]["content"][:5] for body in engine.built] == ["often"], "there is room for one"


async def test_nothing_is_built_for_a_cube_of_which_no_chat_is_known(house: House, engine: Engine) -> None:
    assert (await house.states.activate(CUBE)).action == "nothing"
    assert (await house.states.activate("nowhere")).action == "nothing"
    assert engine.built == []


@pytest.mark.parametrize(("status", "state"), [(503, "busy"), (400, "refused"), (500, "away")])
async def test_an_engine_that_cannot_is_no_fault_of_the_job(
    house: House, engine: Engine, status: int, state: str
) -> None:
    await house.hears("You are brief.")
    engine.status = status
    done = await house.states.activate(CUBE)
    assert (done.states, done.ready) == ({state: 1}, False)


async def test_an_engine_without_states_reads_it_into_a_slot(house: House, engine: Engine) -> None:
    await house.hears("You are brief.")
    engine.status = 404
    done = await house.states.activate(CUBE)
    assert (done.states, done.ready) == ({"slot": 1}, True)
    assert engine.built[-1]["max_tokens"] == 1


async def test_forgetting_reaches_the_engine(house: House, engine: Engine) -> None:
    assert (await house.states.forget(CUBE)).sure
    assert engine.forgotten == [CUBE]


async def test_forgetting_removes_the_files_of_an_engine_that_does_not_run(database: Database, tmp_path: Path) -> None:
    mine, others = tmp_path / "kv" / CUBE, tmp_path / "kv" / "other"
    for folder in (mine, others):
        folder.mkdir(parents=True)
        (folder / "a.kv").write_bytes(b"canary")
    house = House(database, 1, tmp_path / "kv")
    found = await house.states.forget(CUBE)
    await house.routes.close()
    assert (found.states, found.sure) == (1, True)
    assert not mine.exists()
    assert (others / "a.kv").exists()


async def test_what_is_erased_while_beginnings_are_read_is_read_no_further_and_not_kept(
    house: House, engine: Engine, database: Database
) -> None:
    await house.hears("one", "two", "three")
    engine.slow_s = 0.3
    reading = asyncio.create_task(house.states.activate(CUBE))
    while not engine.built:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await Memories(database, lambda: NOW).forget(CUBE, "m")
    assert ((await reading).action, len(engine.built), engine.forgotten) == ("overtaken", 1, [CUBE])
