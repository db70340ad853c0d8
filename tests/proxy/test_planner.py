"""What SQLite's planner is told: while chats wait to write, nothing reads through a whole cube."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from memory import planner
from memory.memories import Memories
from memory.sql import metadata
from proxy import db
from proxy.config import Config
from proxy.evaluation.run import opened
from tests.memory.make import CUBE, record, turn

SAID = (
    "My name is Ann and I live in Oslo.",
    "My sister Mia works at the harbour because she loves ships.",
    "Remind me to call the dentist on Friday.",
    "Call the dentist? Done.",
    "Actually I moved to Bergen.",
    "Where does my sister work?",
    "Where does my sister work?",
)
WHOLE = re.compile(r"^SCAN (?!CONSTANT|walk)|\((?:cube=\?)\)$")


@pytest.fixture
def traced() -> Iterator[list[list[str]]]:
    """What every connection that is made from now on is told, each for itself."""
    every: list[list[str]] = []

    def connected(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            told: list[str] = []
            every.append(told)
            connection.set_trace_callback(told.append)

    sa.event.listen(sa.Engine, "connect", connected)
    yield every
    sa.event.remove(sa.Engine, "connect", connected)


def in_transactions(told: list[str]) -> Iterator[str]:
    writing = False
    for statement in told:
        if statement == "BEGIN IMMEDIATE":
            writing = True
        elif statement in ("COMMIT", "ROLLBACK"):
            writing = False
        elif writing and re.match(r"SELECT|UPDATE|DELETE|WITH|INSERT", statement):
            yield statement


def plan(connection: sqlite3.Connection, statement: str) -> list[str]:
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]


async def test_no_write_of_learning_reads_through_a_cube(data: Path, traced: list[list[str]]) -> None:
    config = Config(data=str(data))
    db.upgrade(config)
    async with opened(config) as (parts, work):
        await asyncio.gather(
            *(record(parts.database, turn(user_text=text, session=f"s{n % 2}")) for n, text in enumerate(SAID))
        )
        await work.learn(CUBE, {})
        learned = await Memories(parts.database).since(CUBE, 0)
        await parts.memories.forget(CUBE, learned[-1].id)
    said = {statement for told in traced for statement in in_transactions(told)}
    assert len(said) > 100
    with sqlite3.connect(data / "memrelay.sqlite") as connection:
        through = {one for one in said if any(WHOLE.search(line) for line in plan(connection, one))}
    assert {re.sub(r"'[^']*'", "?", one) for one in through} == set()


def test_it_is_told_once_and_again_when_it_was_lost(data: Path) -> None:
    config = Config(data=str(data))
    db.upgrade(config)
    url = f"sqlite:///{data / 'memrelay.sqlite'}"
    with sa.create_engine(url).connect() as connection:
        assert not planner.tell(connection, planner.USUAL)
        connection.exec_driver_sql("ANALYZE")
        assert planner.tell(connection, planner.USUAL)
        connection.commit()
    with sa.create_engine(url).connect() as connection:
        assert not planner.tell(connection, planner.USUAL)


def test_every_index_of_the_large_tables_is_spoken_of(data: Path) -> None:
    config = Config(data=str(data))
    db.upgrade(config)
    for name, usual in planner.USUAL.items():
        table = metadata.tables[name]
        assert {index.name for index in table.indexes} | {""} == set(usual)
        columns = {str(index.name): len(index.columns) for index in table.indexes} | {"": len(table.primary_key)}
        for index, rows in usual.items():
            assert len(rows) == columns[index] + 1
            assert list(rows) == sorted(rows, reverse=True)
