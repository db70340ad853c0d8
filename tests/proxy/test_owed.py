"""Usage that is told later: counted once, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from memory.sql import Database
from proxy import db
from proxy.config import Config, Price, UpstreamConfig
from proxy.owed import Had, Owed
from proxy.usage import Prices, Tokens, Usage, Used
from tests import postgres
from tests.proxy.test_usage import Clock


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, data: Path) -> AsyncIterator[Database]:
    config = Config(data=str(data))
    if request.param == "postgresql":
        server: postgres.Postgres = request.getfixturevalue("postgresql")
        config = Config(data=str(data), database=server.new_database(f"o{abs(hash(str(data))):x}"))
    db.upgrade(config)
    database = db.open_database(config)
    yield database
    await database.close()


async def test_tokens_that_are_told_later_count_on_their_day_and_once_over_processes(database: Database) -> None:
    clock, price = Clock(), Price(input=2.0)
    prices = Prices([UpstreamConfig(name="first", kind="openai", base_url="http://x", prices={"m": price})])
    usage, one, two = Usage(database, clock), Owed(database, prices, clock), Owed(database, prices, clock)
    usage.add("key_1", "first", "m", Used(requests=1, unknown=1))
    await one.note("resp_1", "key_1", "first", "m")
    clock.now += 86_400
    had = [await owed.had("resp_1", Tokens(1_000_000, completion=5)) for owed in (one, two, one)]
    assert had == [Had("key_1", "first", Used(prompt=1_000_000, completion=5, cost=2.0)), None, None]
    assert [(row["day"], row["requests"], row["unknown"], row["prompt"]) for row in await usage.rows()] == [
        ("2026-11-23", 1, 0, 0),
        ("2026-11-24", 0, 0, 1_000_000),
    ]


async def test_an_answer_that_nobody_comes_for_is_not_waited_for_for_ever(database: Database) -> None:
    clock = Clock()
    owed = Owed(database, Prices([]), clock)
    await owed.note("resp_1", "key_1", "first", "m")
    clock.now += 61 * 86_400
    await owed.note("resp_\ud800", "key_1", "first", "m\x00")
    assert await owed.had("resp_1", Tokens(1)) is None
    assert await owed.had("resp_\ud800", Tokens(1)) is not None
