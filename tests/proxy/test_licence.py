"""An executor whose jobs others have taken over changes nothing any more, neither in SQL nor in the index."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from memory.cube import Cubes
from memory.index import Index
from memory.models import Embedder
from memory.sql import Database
from memory.store import Store
from proxy import db
from proxy.config import Config
from proxy.licence import Licence, Revoked
from tests import postgres
from tests.memory.make import CUBE, record, turn


@pytest.fixture(params=["sqlite", "postgresql"])
def config(request: pytest.FixtureRequest, data: Path) -> Config:
    if request.param == "sqlite":
        made = Config(data=str(data))
    else:
        server: postgres.Postgres = request.getfixturevalue("postgresql")
        made = Config(data=str(data), database=server.new_database(f"l{abs(hash(str(data))):x}"))
    db.upgrade(made)
    return made


@pytest.fixture
async def one(config: Config) -> AsyncIterator[tuple[Licence, Database]]:
    async for found in executor(config, "one"):
        yield found


@pytest.fixture
async def two(config: Config) -> AsyncIterator[tuple[Licence, Database]]:
    async for found in executor(config, "two"):
        yield found


async def executor(config: Config, name: str) -> AsyncIterator[tuple[Licence, Database]]:
    licence = Licence()
    database = db.open_database(config, licence.holds)
    licence.of(database)
    await licence.grant(name)
    yield licence, database
    await database.close()


async def test_who_lost_his_licence_cannot_commit(one: tuple[Licence, Database], two: tuple[Licence, Database]) -> None:
    stalled, at_work = one[1], two[1]
    await record(stalled, turn(user_text="I like tea."))
    await two[0].revoke("one")
    with pytest.raises(Revoked):
        await record(stalled, turn(user_text="I like coffee."))
    await record(at_work, turn(user_text="I like water."))
    info = await Cubes(at_work).get(CUBE)
    assert info is not None
    assert info.rev == 2


async def test_who_lost_his_licence_cannot_touch_the_index(
    one: tuple[Licence, Database], two: tuple[Licence, Database], data: Path, embedder: Embedder
) -> None:
    store = Store(str(data / "lance"), permit=one[0].check)
    await record(one[1], turn(user_text="I like tea."))
    await Index(one[1], store, embedder).catch_up(CUBE)
    await two[0].revoke("one")
    for write in (store.put(CUBE, 1, [], []), store.drop(CUBE, None), store.build(CUBE, 2, [], 3), store.tidy(CUBE, 1)):
        with pytest.raises(Revoked):
            await write
    assert await Index(two[1], Store(str(data / "lance")), embedder).verify(CUBE) is None


async def test_a_revocation_waits_for_a_transaction_under_way(
    one: tuple[Licence, Database], two: tuple[Licence, Database]
) -> None:
    inside, finish = asyncio.Event(), asyncio.Event()

    async def slow(_: object) -> None:
        inside.set()
        await finish.wait()

    writing = asyncio.create_task(one[1].write(slow))
    await inside.wait()
    revoking = asyncio.create_task(two[0].revoke("one"))
    await asyncio.wait({revoking}, timeout=0.3)
    assert not revoking.done()
    finish.set()
    await writing
    await revoking


async def test_without_executors_nobody_needs_a_licence(config: Config) -> None:
    database = db.open_database(config)
    await record(database, turn())
    await database.close()
