"""Shared fixtures: real stores in temporary folders, the bundled embedder, a live proxy."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from memory import embed
from memory.models import Embedder
from memory.sql import Database
from memory.store import Store
from proxy import db
from proxy.config import Config
from tests import postgres
from tests.fakes import RecordingUpstream

MODELS = Path(__file__).parent.parent / ".cache" / "models"


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The exported embedding model, made once per checkout."""
    embed.export_default(MODELS)
    return MODELS


@pytest.fixture(scope="session")
def embedder(models_dir: Path) -> Embedder:
    return embed.make(embed.DEFAULT, models_dir)


@pytest.fixture(scope="session")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgres.Postgres]:
    """A server; where its package is missing and cannot be installed, these tests are skipped and say so."""
    found = postgres.programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with postgres.Postgres(found) as server:
        yield server


@pytest.fixture
def data(tmp_path: Path, models_dir: Path) -> Path:
    """A data folder that has the embedding model already."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "models").symlink_to(models_dir)
    return folder


@pytest.fixture
async def database(data: Path) -> AsyncIterator[Database]:
    config = Config(data=str(data))
    db.upgrade(config)
    database = db.open_database(config)
    yield database
    await database.close()


@pytest.fixture
def store(data: Path) -> Store:
    return Store(str(data / "lance"))


@pytest.fixture
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream() as running:
        yield running
