"""The Memory API: what is asked is answered, what is wrong is said, and nobody reaches another's memories."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live import LiveProxy

GONE = [{"name": "gone", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"}]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[LiveProxy]:
    folder = tmp_path_factory.mktemp("api")
    (folder / "models").symlink_to(models_dir)
    with LiveProxy(folder, upstreams=GONE) as running:
        yield running


@pytest.fixture(scope="module")
def shared_key(live: LiveProxy) -> str:
    return live.key()


@pytest.fixture
def key(live: LiveProxy) -> str:
    return live.key()


def add(live: LiveProxy, key: str, text: str, **more: Any) -> str:
    status, body = live.api(key, "POST", "/v1/memory/items", {"text": text, **more})
    assert (status, body["state"]) == (201, "stored")
    return str(body["id"])


def test_nul_in_a_name_or_a_parameter_is_refused_before_the_database_sees_it(live: LiveProxy, key: str) -> None:
    add(live, key, "My dog is Rex.")
    for path in ("memory/items/a%00b", "memory/items/%00/history", "cubes/%00", "memory/receipts/%00"):
        assert live.api(key, "GET", f"/v1/{path}")[0] == 404
    for path in ("memory/items?after=%00", "memory/items?tag=a%00b", "cubes?after=%00", "usage?since=%00"):
        status, answer = live.api(key, "GET", f"/v1/{path}")
        assert (status, answer["error"]["param"]) == (400, path.partition("?")[2].partition("=")[0])


def test_an_items_life(live: LiveProxy, key: str) -> None:
    made = add(
        live, key, "My dog is Rex.", kind="preference", tags=["pets"], entities=["Rex"], importance=1, pinned=True
    )
    path = f"/v1/memory/items/{made}"
    item = live.api(key, "GET", path)[1]
    assert (item["text"], item["kind"], item["tags"], item["trust"], item["status"]) == (
        "My dog is Rex.", "preference", ["pets"], "user", "active"
    )  # fmt: skip
    assert live.api(key, "PATCH", path, {"text": "My dog is Max."})[1]["item"]["text"] == "My dog is Max."
    assert live.search(key, "dog")[0]["text"] == "My dog is Max."
    assert [
        change["before"]["text"] for change in live.api(key, "GET", f"{path}/history")[1]["data"] if change["before"]
    ] == ["My dog is Rex."]
    assert live.api(key, "DELETE", path)[1]["deleted"] is True
    assert live.api(key, "GET", path)[0] == live.api(key, "DELETE", path)[0] == 404
    assert live.search(key, "dog") == live.items(key) == []


def test_attributes_are_kept_as_they_can_be_shown(live: LiveProxy, key: str) -> None:
    given = {"cut \ud83d": ["in \ud83d two", {"x": "key sk-abcdefghijklmnopqrstuvwxyz0123456789abcdef"}]}
    made = add(live, key, "My dog is Rex.", attributes=given)
    (item,) = live.items(key)
    assert (item["id"], list(item["attributes"])) == (made, ["cut ?"])
    assert item["attributes"]["cut ?"][0] == "in ? two"
    assert "abcdefgh" not in json.dumps(item["attributes"])
    assert live.search(key, "dog")[0]["id"] == made
    broken = base64.urlsafe_b64encode(b'[1, "\\ud83d"]').decode()
    assert live.api(key, "GET", f"/v1/memory/items?after={broken}")[0] == 200


def test_pages_show_every_item_once(live: LiveProxy, key: str) -> None:
    made = {add(live, key, f"fact number {n}") for n in range(7)}
    seen: list[str] = []
    after = ""
    while True:
        page = live.api(key, "GET", f"/v1/memory/items?limit=3{after}")[1]
        seen += [item["id"] for item in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['next']}"
    assert len(seen) == 7
    assert set(seen) == made


def test_lists_can_be_narrowed(live: LiveProxy, key: str) -> None:
    add(live, key, "a", tags=["x"])
    add(live, key, "b", kind="goal", entities=["Rex"])
    for query, texts in (
        ({"kind": "goal"}, ["b"]),
        ({"tag": "x"}, ["a"]),
        ({"entity": "Rex"}, ["b"]),
        ({"status": "archived"}, []),
    ):
        assert [item["text"] for item in live.items(key, **query)] == texts
    assert len(live.items(key, status="all")) == 2


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "items", {}, "text"),
        ("POST", "items", {"text": " "}, "text"),
        ("POST", "items", {"text": 7}, "text"),
        ("POST", "items", {"text": "x" * 100_001}, "text"),
        ("POST", "items", {"text": "a", "kind": "episode"}, "kind"),
        ("POST", "items", {"text": "a", "kind": "rumour"}, "kind"),
        ("POST", "items", {"text": "a", "cube": "another"}, "cube"),
        ("POST", "items", {"text": "a", "trust": "user"}, "trust"),
        ("POST", "items", {"text": "a", "pinned": "yes"}, "pinned"),
        ("POST", "items", {"text": "a", "importance": True}, "importance"),
        ("POST", "items", {"text": "a", "tags": [7]}, "tags"),
        ("POST", "items", {"text": "a", "attributes": {"a": [float("nan")]}}, "attributes"),
        ("POST", "items", {"text": "a", "attributes": json.loads('{"a":' * 40 + "1" + "}" * 40)}, "attributes"),
        ("POST", "search", {"query": "a", "limit": float("inf")}, "limit"),
        ("PATCH", "items/x", {"text": ""}, "text"),
        ("POST", "search", {}, "query"),
        ("POST", "search", {"query": ["a"]}, "query"),
        ("POST", "search", {"query": "a", "limit": 0}, "limit"),
        ("POST", "search", {"query": "a", "limit": "many"}, "limit"),
        ("POST", "search", {"query": "a", "kinds": "fact"}, "kinds"),
        ("POST", "search", {"query": "a", "kinds": ["rumour"]}, "kind"),
        ("POST", "search", {"query": "a", "since": "yesterday"}, "since"),
        ("GET", "items?limit=1000", None, "limit"),
        ("GET", "items?kind=rumour", None, "kind"),
        ("GET", "items?status=rumour", None, "status"),
        ("GET", "items?after=%00", None, "after"),
        ("GET", f"items?after={base64.b64encode(b'[1').decode()}", None, "after"),
    ],
)
def test_what_is_wrong_is_said(live: LiveProxy, shared_key: str, method: str, path: str, body: Any, param: str) -> None:
    status, answer = live.api(shared_key, method, f"/v1/memory/{path}", body)
    assert status == 400, answer
    assert answer["error"]["param"] == param
    assert answer["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b"\xff"])
def test_a_body_that_is_no_object_is_refused(live: LiveProxy, shared_key: str, body: bytes) -> None:
    assert (
        live.api(shared_key, "POST", "/v1/memory/items", json.loads("[]") if body == b"[]" else body.decode("latin-1"))[
            0
        ]
        == 400
    )


@pytest.mark.parametrize(("method", "suffix"), [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/history")])
def test_another_keys_memory_does_not_exist(live: LiveProxy, key: str, method: str, suffix: str) -> None:
    theirs = add(live, live.key(), "My secret is zq.")
    body = {"text": "mine now"} if method == "PATCH" else None
    assert live.api(key, method, f"/v1/memory/items/{theirs}{suffix}", body)[0] == 404
    assert live.search(key, "secret zq") == []


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "items", "memory:read"),
        ("POST", "items", "memory:write"),
        ("GET", "items/x", "memory:read"),
        ("PATCH", "items/x", "memory:write"),
        ("DELETE", "items/x", "memory:write"),
        ("GET", "items/x/history", "memory:read"),
        ("POST", "search", "memory:read"),
        ("GET", "jobs", "memory:read"),
    ],
)
def test_every_route_asks_for_its_scope(live: LiveProxy, method: str, path: str, scope: str) -> None:
    without = live.key(*{"chat", "memory:read", "memory:write", "act_as_user"} - {scope})
    body = {"text": "a", "query": "a"} if method in ("POST", "PATCH") else None
    status, answer = live.api(without, method, f"/v1/memory/{path}", body)
    assert (status, answer["error"]["code"]) == (403, "insufficient_scope")
    assert live.api("", method, f"/v1/memory/{path}", body)[0] == 401
