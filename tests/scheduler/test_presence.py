"""Who lives, and who has which cube; on both databases."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from scheduler import presence
from scheduler.presence import TTL_S, Presence, StruckOut
from scheduler.queue import engine


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database(any_url: str) -> Iterator[sa.Engine]:
    made = engine(any_url)
    yield made
    made.dispose()


def there(database: sa.Engine, name: str, clock: Clock | None = None) -> Presence:
    made = Presence(database, name, clock or Clock())
    made.arrive()
    return made


def test_a_cube_belongs_to_one_at_a_time(database: sa.Engine) -> None:
    one, two = there(database, "one"), there(database, "two")
    assert one.take("c")
    assert one.take("c")
    assert not two.take("c")
    one.give_back("c")
    assert two.take("c")


def test_who_stands_still_is_struck_out_and_loses_his_cubes(database: sa.Engine) -> None:
    clock = Clock()
    one, two = there(database, "one"), there(database, "two", clock)
    one.take("c")
    assert two.beat() == []
    clock.now += TTL_S / 2
    one.beat()
    assert two.beat() == []
    clock.now += TTL_S + 1
    assert two.beat() == ["one"]
    assert two.living() == {"two"}
    assert two.take("c")
    with pytest.raises(StruckOut):
        one.beat()


def test_a_process_of_this_machine_that_has_ended_is_struck_out_at_once(database: sa.Engine) -> None:
    code = "import sys; sys.path.insert(0, '.'); from scheduler.presence import _place; import os; print(_place(os.getpid()))"
    place = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.rstrip("\n")
    two = there(database, "two")
    with database.begin() as connection:
        connection.execute(sa.insert(presence.executors).values(id="ended", beat=3, place=place))
    assert two.beat() == ["ended"]


def test_a_process_of_another_machine_is_given_its_time(database: sa.Engine) -> None:
    two = there(database, "two")
    with database.begin() as connection:
        elsewhere = f"elsewhere boot {os.getpid()} 1"
        connection.execute(sa.insert(presence.executors).values(id="other", beat=3, place=elsewhere))
    assert two.beat() == []


def test_who_leaves_gives_everything_back(database: sa.Engine) -> None:
    one, two = there(database, "one"), there(database, "two")
    one.take("c")
    one.leave()
    assert two.living() == {"two"}
    assert two.take("c")
