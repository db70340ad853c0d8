"""Whose is what upstreams keep: found in every spelling, and not forgotten while the database is away."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from memory.sql import Database
from proxy.background import Background
from proxy.objects import Kept, Objects, in_fields, named
from tests.linear import assert_linear


async def test_whose_it_is_is_written_down_when_the_database_comes_back(database: Database, data: Path) -> None:
    background, impatient = Background(), Database(database.url, busy_timeout_s=0.05)
    with contextlib.closing(sqlite3.connect(data / "memrelay.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        Objects(impatient, background).claim("file-mine0001", "me", "first")
        await asyncio.sleep(0.3)
        other.execute("ROLLBACK")
    assert await background.drain(10) == 0
    assert await Objects(database, background).owners(["file-mine0001"]) == {"file-mine0001": Kept("me", "first")}
    await impatient.close()


@pytest.mark.parametrize(
    "body",
    [
        b'{"previous_response_id": "resp_0123456789"}',
        b'{"previous_response_id": "resp\\u005f0123456789", "previous_response_id": "x"}',
        b'{"previous_response_id": "\\u0072\\u0065\\u0073\\u0070_012345678\\u0039"}',
        '{"previous_response_id": "resp_0123456789"}'.encode("utf-16-le"),
        '{"previous_response_id": "resp_0123456789"}'.encode("utf-32"),
    ],
)
def test_an_id_is_found_however_it_is_spelled(body: bytes) -> None:
    assert named(body) == {"resp_0123456789"}


def test_other_escapes_stay_what_they_are() -> None:
    assert named(b'{"a": "resp_01234\\u002256789", "b": "\\u00e9", "c": "caf\\u00e9_resp_0123456789"}') == set()


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"file_id": "497f6eca-6276-4993", "x": 1}', {"497f6eca-6276-4993"}),
        (b'{"training_files" : [{"file\\u005fid"\n: "497f6eca-6276-4993"}]}', {"497f6eca-6276-4993"}),
        (b'{"vector_store_ids": ["store-number-1", "store-number-2"]}', {"store-number-1", "store-number-2"}),
        (b'{"id": "497f6eca-6276-4993", "id": "short"}', {"497f6eca-6276-4993"}),
        ('{"training_file": "497f6eca-6276-4993"}'.encode("utf-16-le"), {"497f6eca-6276-4993"}),
        (b'{"input": "497f6eca-6276-4993", "file_id": "of another sort", "ids": [], "n_ids": 12345678}', set()),
    ],
)
def test_ids_of_any_shape_are_found_in_fields_that_hold_ids(body: bytes, names: set[str]) -> None:
    assert in_fields(body) == names


def test_the_cost_of_looking_for_ids_grows_with_the_length_only() -> None:
    for text in ('"' + "id" * 500_000, '"file_ids":[' * 80_000, '"id": ' * 160_000, '"id"' + " " * 1_000_000):
        assert_linear(lambda text: in_fields(text.encode()), text)
