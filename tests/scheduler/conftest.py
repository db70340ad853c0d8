"""The databases that a queue can live in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import postgres


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgres.Postgres]:
    """A server; where its package is missing and cannot be installed, these tests are skipped and say so."""
    found = postgres.programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with postgres.Postgres(found) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def any_url(request: pytest.FixtureRequest, tmp_path: object) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/queue.db"
    server: postgres.Postgres = request.getfixturevalue("postgresql")
    return server.new_database(f"q{abs(hash(str(tmp_path))):x}")
