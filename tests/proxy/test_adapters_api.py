"""The routes below /v1/memory/adapters and `memrelay adapters`: what an owner may see, choose, ask for and drop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from memory.adapters.files import Folder, Manifest, sha256_of
from memory.adapters.table import Adapters, Used
from memory.sql import Database
from proxy import cli, db
from scheduler.queue import DbosQueue
from tests.live import LiveProxy
from tests.scheduler.test_queue import Office

GONE = [{"name": "gone", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"}]
PATH = "/v1/memory/adapters"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Path:
    made = tmp_path_factory.mktemp("adapters")
    (made / "models").symlink_to(models_dir)
    return made


@pytest.fixture(scope="module")
def live(folder: Path) -> Iterator[LiveProxy]:
    with (
        Office(f"sqlite:///{folder}/queue.sqlite"),
        LiveProxy(folder, upstreams=GONE, parametric={"enabled": True}) as it,
    ):
        yield it


@pytest.fixture
def key(live: LiveProxy) -> str:
    return live.key()


@pytest.fixture
def item(live: LiveProxy, key: str) -> str:
    """A memory in the key's cube."""
    return str(live.api(key, "POST", "/v1/memory/items", {"text": "I like tea."})[1]["id"])


@pytest.fixture
def cube(live: LiveProxy, key: str, item: str) -> str:
    return str(live.api(key, "GET", "/v1/cubes")[1]["data"][0]["id"])


def trained(live: LiveProxy, cube: str, item: str) -> int:
    """A version that is ready and rests on the memory, as the executor leaves it."""

    async def make() -> int:
        database = db.open_database(live.config)
        try:
            return await _ready(database, Folder(live.config.adapters), cube, item)
        finally:
            await database.close()

    return asyncio.run(make())


async def _ready(database: Database, folder: Folder, cube: str, item: str) -> int:
    from memory.parametric.reading import told

    _, rests = await told(database, cube, 10)
    used: list[Used] = [rests[item]]
    version = await Adapters(database).begin(cube, model="m", samples="s", settings={}, memories=used)
    part = folder.unfinished(cube, version)
    part.write_bytes(b"weights")
    sha = sha256_of(part)
    folder.keep(Manifest(cube, version, "m", "llama", {item: 1}, "s", {}, {}, sha, 7, 1.0))
    await Adapters(database).finish(cube, version, sha256=sha, size=7, results={"known": 1.0})
    return version


def run(live: LiveProxy, *words: str) -> dict[str, Any]:
    done = CliRunner().invoke(cli.main, ["adapters", *words, "--config", str(live.config.folder / "config.yaml"),
                                         "--data", str(live.config.folder), "--json"])  # fmt: skip
    assert done.exit_code == 0, done.output
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_they_are_off_until_the_owner_switches_them_on(live: LiveProxy, key: str, cube: str, item: str) -> None:
    trained(live, cube, item)
    before = live.api(key, "GET", PATH)[1]
    after = live.api(key, "PATCH", PATH, {"use": True})[1]
    assert [(body["use"], body["current"]) for body in (before, after)] == [(False, None), (True, 1)]
    assert before["data"][0]["state"] == "ready"


def test_a_version_and_a_strength_can_be_chosen(live: LiveProxy, key: str, cube: str, item: str) -> None:
    first, second = trained(live, cube, item), trained(live, cube, item)
    body = live.api(key, "PATCH", PATH, {"use": True, "version": first, "scale": 0.5})[1]
    assert (body["current"], body["scale"]) == (first, 0.5)
    assert live.api(key, "PATCH", PATH, {"version": None})[1]["current"] == second


@pytest.mark.parametrize(
    "given",
    [{"use": "yes"}, {"scale": 0}, {"scale": 3}, {"scale": True}, {"version": 99}, {"version": "1"}, {"what": 1}],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    live: LiveProxy, key: str, cube: str, given: dict[str, Any]
) -> None:
    status, body = live.api(key, "PATCH", PATH, given)
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")
    assert live.api(key, "GET", PATH)[1]["use"] is False


def test_one_version_shows_what_it_rests_on(live: LiveProxy, key: str, cube: str, item: str) -> None:
    trained(live, cube, item)
    status, body = live.api(key, "GET", f"{PATH}/1")
    assert (status, list(body["rests_on"]), body["results"]) == (200, [item], {"known": 1.0})
    assert live.api(key, "GET", f"{PATH}/7")[0] == live.api(key, "GET", f"{PATH}/x")[0] == 404


def test_dropping_deletes_the_file(live: LiveProxy, key: str, cube: str, item: str) -> None:
    trained(live, cube, item)
    path = Folder(live.config.adapters).path(cube, 1)
    assert path.exists()
    assert live.api(key, "DELETE", f"{PATH}/1")[1]["deleted"] is True
    assert not path.exists()
    assert live.api(key, "DELETE", f"{PATH}/1")[1]["deleted"] is False


def test_erasing_a_memory_names_the_adapters_that_went_with_it(live: LiveProxy, key: str, cube: str, item: str) -> None:
    version = trained(live, cube, item)
    live.api(key, "PATCH", PATH, {"use": True})
    status, body = live.api(key, "DELETE", f"/v1/memory/items/{item}")
    assert (status, body["adapters"]) == (200, [version])
    assert not Folder(live.config.adapters).of(cube).exists()
    assert live.api(key, "GET", PATH)[1]["current"] is None


def test_training_is_a_job_beside_the_cubes_own(live: LiveProxy, key: str, cube: str) -> None:
    assert live.api(key, "POST", PATH)[0] == 409
    live.api(key, "PATCH", PATH, {"use": True})
    status, body = live.api(key, "POST", PATH)

    async def find() -> Any:
        queue = DbosQueue(live.config.queue_url)
        try:
            return await queue.get(body["id"])
        finally:
            await queue.close()

    job = asyncio.run(find())
    assert (status, job.task, job.cube, job.arguments) == (202, "train", f"{cube}.adapter", {"force": "yes"})


def test_another_key_sees_nothing_of_it(live: LiveProxy, key: str, cube: str, item: str) -> None:
    trained(live, cube, item)
    other = live.key()
    live.api(other, "POST", "/v1/memory/items", {"text": "I like milk."})
    assert live.api(other, "GET", PATH)[1]["data"] == []
    assert live.api(other, "GET", PATH, cube=cube)[0] == 404


def test_where_it_is_not_enabled_nothing_can_be_switched_on(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path
) -> None:
    made = tmp_path_factory.mktemp("off")
    (made / "models").symlink_to(models_dir)
    with LiveProxy(made, upstreams=GONE) as plain:
        key = plain.key()
        plain.api(key, "POST", "/v1/memory/items", {"text": "I like tea."})
        assert plain.api(key, "PATCH", PATH, {"use": True})[1]["error"]["code"] == "parametric_off"
        assert plain.api(key, "GET", PATH)[1]["enabled"] is False


def test_the_command_line_does_the_same(live: LiveProxy, key: str, cube: str, item: str) -> None:
    trained(live, cube, item)
    assert run(live, "use", cube, "--on", "--scale", "0.5") == {
        "cube": cube,
        "use": True,
        "version": None,
        "scale": 0.5,
    }
    listed = run(live, "list", cube)
    assert (listed["current"], listed["data"][0]["state"]) == (1, "ready")
    assert run(live, "show", cube, "1")["file"] == "whole"
    Folder(live.config.adapters).path(cube, 1).write_bytes(b"other")
    assert run(live, "show", cube, "1")["file"] == "the file is damaged"
    assert run(live, "train", cube)["job"].startswith(f"{cube}.adapter:train:")
    assert run(live, "drop", cube)["dropped"] == [1]
    assert not Folder(live.config.adapters).of(cube).exists()


def test_the_command_line_deletes_the_adapters_of_an_erased_memory(
    live: LiveProxy, key: str, cube: str, item: str
) -> None:
    trained(live, cube, item)
    folder = str(live.config.folder)
    words = ["memories", "forget", item, "--cube", cube, "--data", folder, "--config", f"{folder}/config.yaml"]
    done = CliRunner().invoke(cli.main, [*words, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["adapters"] == [1]
    assert Folder(live.config.adapters).versions(cube) == []
