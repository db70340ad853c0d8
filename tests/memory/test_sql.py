"""The database: durable group commit, faults without values, nothing left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory import sql
from memory.cube import ensure
from memory.sql import Database, DatabaseError, Work, fault
from tests.memory.make import NOW

SECRET = "xyzzy-plugh-42"


def adds(cube: str) -> Work[None]:
    async def work(connection: AsyncConnection) -> None:
        await ensure(connection, cube, "owner", "", NOW)

    return work


def fails(error: Exception) -> Work[None]:
    async def work(connection: AsyncConnection) -> None:
        await adds("half-done")(connection)
        raise error

    return work


async def collides(connection: AsyncConnection) -> None:
    row = {"id": SECRET, "owner": SECRET, "name": "", "created_at": NOW}
    await connection.execute(sa.insert(sql.cubes).values(**row))
    await connection.execute(sa.insert(sql.cubes).values(**row))


async def cubes(database: Database) -> set[str]:
    async with database.read() as connection:
        return {row[0] for row in (await connection.execute(sa.select(sql.cubes.c.id))).all()}


async def test_a_failing_write_leaves_the_others_of_its_group(database: Database) -> None:
    writes = [adds("a"), fails(LookupError("mine")), collides, adds("b")]
    outcomes = await asyncio.gather(*map(database.write, writes), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), LookupError, DatabaseError, type(None)]
    assert await cubes(database) == {"a", "b"}


async def test_no_write_is_acknowledged_that_went_with_the_whole_transaction(database: Database) -> None:
    async def fills(connection: AsyncConnection) -> None:
        pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
        await connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 20}")
        await connection.exec_driver_sql("PRAGMA cache_size=5")
        await ensure(connection, "large", "owner", "x" * 10_000_000, NOW)

    writes = [adds("a"), fills, adds("b")]
    outcomes = await asyncio.gather(*map(database.write, writes), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["disk full"] * 3
    assert await cubes(database) == set()
    await database.write(adds("c"))
    assert await cubes(database) == {"c"}


async def test_a_failing_lone_write_leaves_nothing(database: Database) -> None:
    with pytest.raises(LookupError):
        await database.write(fails(LookupError("mine")))
    assert await cubes(database) == set()


async def test_faults_name_no_value(database: Database) -> None:
    with pytest.raises(DatabaseError) as caught:
        await database.write(collides)
    assert str(caught.value) == "IntegrityError"


async def test_many_writers_share_commits_and_all_arrive(database: Database) -> None:
    await asyncio.gather(*(database.write(adds(f"c{n}")) for n in range(600)))
    assert len(await cubes(database)) == 600


async def test_the_write_of_a_cancelled_caller_still_happens(database: Database) -> None:
    caller = asyncio.create_task(database.write(adds("a")))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    await database.flush()
    assert await cubes(database) == {"a"}


async def test_what_may_wait_goes_with_the_next_commit(database: Database) -> None:
    waits = asyncio.create_task(database.write(adds("patient"), later=True))
    await asyncio.sleep(0)
    await database.write(adds("urgent"))
    assert await cubes(database) == {"patient", "urgent"}
    await waits


async def test_what_may_wait_does_not_wait_for_ever(database: Database) -> None:
    await database.write(adds("patient"), later=True)
    assert await cubes(database) == {"patient"}


async def test_one_statement_sees_what_was_committed_before_it(database: Database) -> None:
    every = sa.select(sql.cubes.c.id)
    assert await database.rows(every) == []
    await database.write(adds("a"))
    assert [row.id for row in await database.rows(every)] == ["a"]
    with pytest.raises(DatabaseError, match="missing table"):
        await database.rows(sa.text("SELECT * FROM nowhere"))
    assert len(await database.rows(every)) == 1


async def test_long_reads_and_writes_are_like_short_ones(database: Database) -> None:
    await database.write(adds("a"), long=True)
    with pytest.raises(LookupError):
        await database.write(fails(LookupError("mine")), long=True)
    async with database.read(long=True) as connection:
        assert (await connection.execute(sa.select(sql.cubes.c.id))).scalar_one() == "a"


async def test_closing_commits_what_waits(database: Database) -> None:
    waiting = [asyncio.create_task(database.write(adds(f"c{n}"))) for n in range(20)]
    await asyncio.sleep(0)
    await database.close()
    await asyncio.gather(*waiting)
    again = Database(database.url)
    assert len(await cubes(again)) == 20
    await again.close()


async def test_a_reader_sees_one_moment(database: Database) -> None:
    async with database.read() as connection:
        before = (await connection.execute(sa.select(sa.func.count()).select_from(sql.cubes))).scalar_one()
        await database.write(adds("a"))
        after = (await connection.execute(sa.select(sa.func.count()).select_from(sql.cubes))).scalar_one()
    assert (before, after) == (0, 0)


@pytest.mark.parametrize("ask", ["read", "write", "vacuum"])
async def test_a_file_that_is_no_database_is_a_database_error(tmp_path: Path, ask: str) -> None:
    (tmp_path / "bad.db").write_bytes(b"no database at all" * 100)
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/bad.db")
    with pytest.raises(DatabaseError, match="damaged"):
        await {"read": lambda: cubes(database), "write": lambda: database.write(adds("a")), "vacuum": database.vacuum}[
            ask
        ]()
    await database.close()


async def test_a_missing_folder_is_a_database_error() -> None:
    database = Database("sqlite+aiosqlite:////nowhere/at/all.db")
    with pytest.raises(DatabaseError, match="cannot open"):
        await cubes(database)
    await database.close()


async def test_a_writer_elsewhere_is_waited_for_and_then_named(database: Database) -> None:
    hurried = Database(database.url, busy_timeout_s=0.05)

    async def holds(connection: AsyncConnection) -> None:
        await adds("a")(connection)
        with pytest.raises(DatabaseError, match="locked"):
            await hurried.write(adds("b"))

    await database.write(holds)
    await hurried.write(adds("b"))
    assert await cubes(database) == {"a", "b"}
    await hurried.close()


async def test_vacuum_leaves_no_bytes_of_what_was_deleted(database: Database, data: Path) -> None:
    def stands() -> bool:
        return any(SECRET.encode() in file.read_bytes() for file in data.iterdir() if file.is_file())

    await database.write(adds(SECRET))
    assert stands()
    await database.write(lambda c: c.execute(sa.delete(sql.cubes)))
    assert await database.vacuum()
    assert not stands()


async def test_vacuum_says_when_a_reader_held_the_log(database: Database) -> None:
    hurried = Database(database.url, busy_timeout_s=0.05)
    await database.write(adds("a"))
    async with database.read() as connection:
        await connection.execute(sa.select(sql.cubes))
        await database.write(adds("b"))
        assert not await hurried.vacuum()
    assert await hurried.vacuum()
    await hurried.close()


@pytest.mark.parametrize(
    ("message", "name"),
    [("database is locked", "locked"), ("database or disk is full", "disk full"), ("secret text", "OperationalError")],
)
def test_names_of_faults(message: str, name: str) -> None:
    assert fault(sa.exc.OperationalError("q", {}, type("OperationalError", (Exception,), {})(message))) == name
