"""Statements made once: what they give and do is what SQLAlchemy's own execution gives and does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from memory.prepared import Prepared, made_once

META = sa.MetaData()
THINGS = sa.Table(
    "things",
    META,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("number", sa.Float),
    sa.Column("said", sa.JSON, nullable=False),
    sa.Column("raw", sa.LargeBinary),
    sa.Column("uses", sa.Integer, nullable=False, default=7),
)
IDS = sa.bindparam("ids", expanding=True)
SELECT = made_once(sa.select(THINGS).where(THINGS.c.id.in_(IDS), THINGS.c.uses >= 0).order_by(THINGS.c.id))
COUNT = made_once(sa.select(sa.func.count()).select_from(THINGS).where(THINGS.c.uses == sa.bindparam("uses")))
FIRST = made_once(sa.select(THINGS.c.id, THINGS.c.said).where(THINGS.c.number > sa.bindparam("above")).limit(1))
INSERT = made_once(sa.insert(THINGS))
MORE = made_once(
    sa.update(THINGS)
    .where(THINGS.c.id.in_(IDS))
    .values(uses=THINGS.c.uses + sa.bindparam("more"))
    .returning(THINGS.c.uses)
)
DELETE = made_once(sa.delete(THINGS).where(THINGS.c.id == sa.bindparam("this")))


def thing(number: int) -> dict[str, Any]:
    raw = bytes([number % 256]) if number % 2 else None
    return {"id": f"t{number:04d}", "number": number / 3, "said": ["é", {"n": number}], "raw": raw, "uses": number}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sa.Connection]:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/a.sqlite")
    META.create_all(engine)
    with engine.connect() as opened:
        opened.execute(sa.insert(THINGS), [thing(n) for n in range(40)])
        yield opened
    engine.dispose()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 33, 1024, 1025, 3000])
def test_lists_of_any_length_find_the_same_rows(connection: sa.Connection, count: int) -> None:
    ids = [f"t{n:04d}" for n in range(count)]
    found = Prepared().run(connection, SELECT, {"ids": ids}).all()
    told = connection.execute(SELECT, {"ids": ids}).all()
    assert [row._asdict() for row in found] == [row._asdict() for row in told]
    assert [row._mapping["said"] for row in found] == [row.said for row in told]
    assert len(found) == min(count, 40)


def test_one_spelling_serves_lists_of_many_lengths(connection: sa.Connection) -> None:
    prepared = Prepared()
    for count in (5, 6, 7, 8):
        assert len(prepared.run(connection, SELECT, {"ids": [f"t{n:04d}" for n in range(count)]}).all()) == count
    assert len(prepared._known[SELECT]) == 1


def test_scalars_limits_and_what_finds_nothing(connection: sa.Connection) -> None:
    prepared = Prepared()
    assert prepared.run(connection, COUNT, {"uses": 3}).scalar_one() == 1
    row = prepared.run(connection, FIRST, {"above": 12.9}).one()
    assert (row.id, row.said) == ("t0039", ["é", {"n": 39}])
    assert prepared.run(connection, FIRST, {"above": 1e9}).first() is None


def test_changes_are_counted_and_returned(connection: sa.Connection) -> None:
    prepared = Prepared()
    assert prepared.run(connection, INSERT, thing(100)).rowcount == 1
    returned = prepared.run(connection, MORE, {"ids": ["t0001", "t0002"], "more": 10}).all()
    assert sorted(row.uses for row in returned) == [11, 12]
    assert prepared.run(connection, DELETE, {"this": "t0100"}).rowcount == 1
    assert prepared.run(connection, DELETE, {"this": "t0100"}).rowcount == 0
    assert connection.execute(sa.select(THINGS.c.uses).where(THINGS.c.id == "t0001")).scalar_one() == 11


def test_a_default_of_a_column_is_put_in(connection: sa.Connection) -> None:
    values = thing(200)
    del values["uses"]
    Prepared().run(connection, INSERT, values)
    assert connection.execute(sa.select(THINGS.c.uses).where(THINGS.c.id == "t0200")).scalar_one() == 7


def test_faults_are_sqlalchemys_and_tell_no_value(connection: sa.Connection) -> None:
    with pytest.raises(sa.exc.IntegrityError) as caught:
        Prepared().run(connection, INSERT, thing(1) | {"said": ["xyzzy"]})
    assert "xyzzy" not in str(caught.value)
    with pytest.raises(sa.exc.StatementError):
        Prepared().run(connection, COUNT, {})
    connection.exec_driver_sql("ALTER TABLE things RENAME TO gone")
    with pytest.raises(sa.exc.OperationalError, match="no such table"):
        Prepared().run(connection, COUNT, {"uses": 1})
