"""Memory trained into weights, everything as users run it: switched on, answered with, told in a header, gone with a memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memory.adapters.files import Folder, sha256_of
from memory.adapters.table import Adapters
from memory.engine.settings import bundled_model
from memory.parametric.reading import told
from proxy import db
from tests.live import Installation
from tests.memory.test_engine_adapters import made

PATH = "/v1/memory/adapters"
QUICK = {"engine": {"slots": 2, "context": 1024, "threads": 1}, "parametric": {"enabled": True, "every_h": 1000}}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Installation]:
    data = tmp_path_factory.mktemp("adapters")
    (data / "models").symlink_to(models_dir)
    with Installation(data, **QUICK) as running:
        yield running


def has_been_trained(live: Installation, cube: str) -> None:
    """The cube has an adapter that rests on all its memories, as the executor leaves it."""

    async def make() -> None:
        database = db.open_database(live.config)
        try:
            adapters, model = Adapters(database), sha256_of(bundled_model())
            _, rests = await told(database, cube, 10)
            version = await adapters.begin(cube, model=model, samples="", settings={}, memories=list(rests.values()))
            manifest = made(Folder(live.config.adapters), cube, version, model)
            await adapters.finish(cube, version, sha256=manifest.sha256, size=manifest.bytes, results={})
        finally:
            await database.close()

    asyncio.run(make())


def ask(live: Installation, key: str, **headers: str) -> tuple[str, str | None]:
    """(the answer, the adapter that it was given with; None: nothing was said of one)"""
    said: Any = [{"role": "user", "content": "Hello!"}]
    create = live.client(key, **headers).chat.completions.with_raw_response.create
    answer = create(model="m", messages=said, max_tokens=8, temperature=0)
    return str(answer.parse().choices[0].message.content), answer.headers.get("x-memory-adapter")


def test_a_chat_is_answered_with_the_adapter_until_a_memory_under_it_is_erased(live: Installation) -> None:
    key, other = live.key(), live.key()
    item = live.api(key, "POST", "/v1/memory/items", {"text": "My dog is called Pumpernickel."})[1]
    cube = item["item"]["cube"] if "cube" in item["item"] else live.items(key)[0]["cube"]
    has_been_trained(live, cube)
    before = ask(live, key)
    live.api(key, "PATCH", PATH, {"use": True})
    with_it = ask(live, key)
    assert (before[1], with_it[1], ask(live, other)[1]) == (None, "1", None)
    assert with_it[0] != before[0]
    assert ask(live, key, X_Memory="off")[1] is None
    assert ask(live, other, X_Memory_Adapter="1")[1] is None, "a client cannot ask the engine for one"

    Folder(live.config.adapters).path(cube, 1).write_bytes(b"damaged")
    assert ask(live, key) == (before[0], "none")

    status, gone = live.api(key, "DELETE", f"/v1/memory/items/{item['id']}")
    assert (status, gone["adapters"]) == (200, [1])
    assert not (live.data / "adapters" / cube).exists()
    assert ask(live, key)[1] is None
