"""`GET /v1/memory/tasks`, and setting state and due date of a task over HTTP; `memrelay tasks list`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from proxy import cli
from tests.live import LiveProxy

GONE = [{"name": "gone", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"}]
DAY = 86_400.0


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[LiveProxy]:
    folder = tmp_path_factory.mktemp("agenda")
    (folder / "models").symlink_to(models_dir)
    with LiveProxy(folder, upstreams=GONE) as running:
        yield running


@pytest.fixture
def key(live: LiveProxy) -> str:
    return live.key()


def add(live: LiveProxy, key: str, text: str, **more: Any) -> str:
    status, body = live.api(key, "POST", "/v1/memory/items", {"text": text, "kind": "task", **more})
    assert status == 201, body
    return str(body["id"])


def tasks(live: LiveProxy, key: str, **query: Any) -> list[dict[str, Any]]:
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    status, body = live.api(key, "GET", f"/v1/memory/tasks?{asked}")
    assert status == 200, body
    return list(body["data"])


def texts(live: LiveProxy, key: str, **query: Any) -> list[str]:
    return [one["text"] for one in tasks(live, key, **query)]


def test_what_is_open_comes_by_due_date_with_how_it_stands(live: LiveProxy, key: str) -> None:
    now = time.time()
    add(live, key, "Water the plants.")
    add(live, key, "Send the tax form.", due=now - 5)
    add(live, key, "Book the flight.", due=now + 3 * DAY, state="open")
    assert texts(live, key) == ["Send the tax form.", "Book the flight.", "Water the plants."]
    late, soon, never = tasks(live, key)
    assert (late["state"], late["overdue"], late["when"], late["feedback"]) == ("open", True, "overdue", [])
    assert (soon["overdue"], soon["when"], never["due"], never["when"]) == (False, "soon", None, "")
    assert texts(live, key, due_before=now) == ["Send the tax form."]
    assert texts(live, key, due_after=now) == ["Book the flight."]
    assert tasks(live, live.key()) == []


def test_a_state_and_a_due_date_can_be_set_and_taken_back(live: LiveProxy, key: str) -> None:
    made = add(live, key, "Send the tax form.", due=1_800_000_000)
    path = f"/v1/memory/items/{made}"
    assert live.api(key, "PATCH", path, {"due": 1_900_000_000})[1]["item"]["attributes"]["due"] == 1_900_000_000
    assert live.api(key, "PATCH", path, {"state": "done"})[0] == 200
    assert (texts(live, key), texts(live, key, state="done")) == ([], ["Send the tax form."])
    changes = live.api(key, "GET", f"{path}/history")[1]["data"]
    assert [change["before"]["attributes"]["due"] for change in changes] == [1_800_000_000, 1_900_000_000]
    assert live.api(key, "POST", f"{path}/undo")[0] == 200
    assert texts(live, key) == ["Send the tax form."]
    assert live.api(key, "PATCH", path, {"state": "cancelled"})[0] == 200
    assert texts(live, key, state="cancelled") == texts(live, key, state="all") == ["Send the tax form."]
    assert live.api(key, "PATCH", path, {"state": "open", "due": None})[1]["item"]["status"] == "active"


def test_goals_can_be_asked_for_alone_and_pages_show_each_once(live: LiveProxy, key: str) -> None:
    add(live, key, "Learn Spanish.", kind="goal")
    for number in range(5):
        add(live, key, f"Task {number}.", due=1_800_000_000 + number % 2)
    assert texts(live, key, kind="goal") == ["Learn Spanish."]
    assert len(texts(live, key, kind="task")) == 5
    seen: list[str] = []
    after = ""
    while True:
        page = live.api(key, "GET", f"/v1/memory/tasks?limit=2{after}")[1]
        seen += [one["text"] for one in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['next']}"
    assert (len(seen), len(set(seen)), seen[-1]) == (6, 6, "Learn Spanish.")


@pytest.mark.parametrize(
    ("query", "param"),
    [("state=maybe", "state"), ("kind=fact", "kind"), ("due_before=soon", "due_before"), ("due_after=nan", "due_after"),
     ("limit=0", "limit"), ("limit=x", "limit"), ("after=x", "after")],
)  # fmt: skip
def test_what_is_asked_wrongly_is_said(live: LiveProxy, key: str, query: str, param: str) -> None:
    status, body = live.api(key, "GET", f"/v1/memory/tasks?{query}")
    assert (status, body["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"state": "maybe"}, "state"),
        ({"due": "soon"}, "due"),
        ({"due": -5}, "due"),
        ({"due": 1e15}, "due"),
        ({"state": 1}, "state"),
    ],
)
def test_a_state_or_due_date_that_means_nothing_changes_nothing(
    live: LiveProxy, key: str, body: Any, param: str
) -> None:
    made = add(live, key, "Send the tax form.")
    status, answer = live.api(key, "PATCH", f"/v1/memory/items/{made}", body)
    assert (status, answer["error"]["param"]) == (400, param)
    assert texts(live, key) == ["Send the tax form."]


def test_only_tasks_and_goals_have_a_state(live: LiveProxy, key: str) -> None:
    fact = add(live, key, "The sky is blue.", kind="fact")
    status, body = live.api(key, "PATCH", f"/v1/memory/items/{fact}", {"state": "done"})
    assert (status, body["error"]["param"]) == (400, "state")
    assert live.api(key, "POST", "/v1/memory/items", {"text": "x", "kind": "fact", "due": 5})[0] == 400


def test_the_command_line_lists_them(tmp_path: Path, models_dir: Path) -> None:
    (tmp_path / "models").symlink_to(models_dir)
    with LiveProxy(tmp_path, upstreams=GONE) as running:
        add(running, running.key(), "Send the tax form.", due=1_800_000_000)
        shown = CliRunner().invoke(cli.main, ["tasks", "list", "--data", str(tmp_path), "--json"])
        assert [one["text"] for one in json.loads(shown.output)["tasks"]] == ["Send the tax form."]
        table = CliRunner().invoke(cli.main, ["tasks", "list", "--data", str(tmp_path), "--state", "all"])
        assert "Send the tax form." in table.output
        none = CliRunner().invoke(cli.main, ["tasks", "list", "--data", str(tmp_path), "--cube", "x"])
        assert (none.exit_code, "no cube x" in none.output) == (1, True)
