"""The databases that a queue can live in."""

from __future__ import annotations

import pytest

from tests import postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def any_url(request: pytest.FixtureRequest, tmp_path: object) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/queue.db"
    server: postgres.Postgres = request.getfixturevalue("postgresql")
    return server.new_database(f"q{abs(hash(str(tmp_path))):x}")
