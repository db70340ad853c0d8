"""/v1/cubes: what is asked is answered, what is wrong is said, and only owners change, share and erase."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live import LiveProxy

GONE = [{"name": "gone", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"}]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[LiveProxy]:
    folder = tmp_path_factory.mktemp("cubes")
    (folder / "models").symlink_to(models_dir)
    with LiveProxy(folder, upstreams=GONE) as running:
        yield running


@pytest.fixture
def key(live: LiveProxy) -> str:
    return live.key()


def create(live: LiveProxy, key: str, **given: Any) -> dict[str, Any]:
    status, body = live.api(key, "POST", "/v1/cubes", {"name": "Work", **given})
    assert status == 201, body
    made: dict[str, Any] = body
    return made


def test_a_cubes_manifest(live: LiveProxy, key: str) -> None:
    made = create(live, key, quota=10, ttl_s=3600)
    path = f"/v1/cubes/{made['id']}"
    assert (made["name"], made["level"], made["status"], made["quota"], made["ttl_s"], made["revision"]) == (
        "Work", "owner", "active", 10, 3600, 0)  # fmt: skip
    live.api(key, "POST", "/v1/memory/items", {"text": "I like tea.", "kind": "preference"}, cube=made["id"])
    found = live.api(key, "GET", path)[1]
    assert found["memories"] == {"total": 1, "preference": 1}
    assert (found["revision"], found["embedder"]) == (1, None)
    assert found["bytes"] > 0
    changed = live.api(key, "PATCH", path, {"name": "Play", "quota": None})[1]
    assert (changed["name"], changed["quota"], changed["ttl_s"]) == ("Play", None, 3600)


def test_cubes_come_in_pages(live: LiveProxy, key: str) -> None:
    made = [create(live, key)["id"] for _ in range(5)]
    seen: list[str] = []
    after = ""
    while True:
        page = live.api(key, "GET", f"/v1/cubes?limit=2{after}")[1]
        seen += [cube["id"] for cube in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['next']}"
    assert seen == made


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "", {}, "name"),
        ("POST", "", {"name": " "}, "name"),
        ("POST", "", {"name": "x" * 201}, "name"),
        ("POST", "", {"name": "a", "owner": "me"}, "owner"),
        ("POST", "", {"name": "a", "quota": 0}, "quota"),
        ("POST", "", {"name": "a", "quota": True}, "quota"),
        ("POST", "", {"name": "a", "quota": 2.5}, "quota"),
        ("POST", "", {"name": "a", "ttl_s": -1}, "ttl_s"),
        ("POST", "", {"name": "a", "ttl_s": "day"}, "ttl_s"),
        ("PATCH", "/{id}", {"status": "erased"}, "status"),
        ("PATCH", "/{id}", {"id": "x"}, "id"),
        ("POST", "/{id}/grants", {"level": "read"}, "principal"),
        ("POST", "/{id}/grants", {"principal": "{me}", "level": "read"}, "principal"),
        ("POST", "/{id}/grants", {"principal": "x", "level": "owner"}, "level"),
        ("GET", "?limit=0", None, "limit"),
        ("GET", "?limit=many", None, "limit"),
    ],
)
def test_what_is_wrong_is_said(live: LiveProxy, key: str, method: str, path: str, body: Any, param: str) -> None:
    made = create(live, key)
    if body and body.get("principal") == "{me}":
        body = body | {"principal": made["owner"]}
    status, answer = live.api(key, method, f"/v1/cubes{path.format(id=made['id'])}", body)
    assert (status, answer["error"]["param"]) == (400, param)


def test_a_grant_needs_somebody(live: LiveProxy, key: str) -> None:
    path = f"/v1/cubes/{create(live, key)['id']}/grants"
    assert live.api(key, "POST", path, {"principal": "pr_nobody", "level": "read"})[0] == 404
    assert live.api(key, "DELETE", f"{path}/pr_nobody")[0] == 404
    assert live.api(key, "GET", path)[1]["data"] == []


def test_grants_are_listed_and_replaced(live: LiveProxy, key: str) -> None:
    cube, other = create(live, key), live.key()
    guest = create(live, other)["owner"]
    path = f"/v1/cubes/{cube['id']}/grants"
    for level in ("read", "write"):
        assert live.api(key, "POST", path, {"principal": guest, "level": level})[1]["level"] == level
    assert [(g["principal"], g["level"]) for g in live.api(key, "GET", path)[1]["data"]] == [(guest, "write")]
    assert {c["level"] for c in live.api(other, "GET", "/v1/cubes")[1]["data"]} == {"owner", "write"}


WAYS = [
    ("PATCH", "", {"name": "mine"}),
    ("GET", "/grants", None),
    ("POST", "/grants", {"principal": "x", "level": "read"}),
    ("DELETE", "/grants/x", None),
]


@pytest.mark.parametrize(("method", "path", "body"), [("GET", "", None), *WAYS])
def test_anothers_cube_does_not_exist(live: LiveProxy, key: str, method: str, path: str, body: Any) -> None:
    theirs = create(live, live.key())["id"]
    status, answer = live.api(key, method, f"/v1/cubes/{theirs}{path}", body)
    assert (status, answer["error"]["code"]) == (404, "cube_not_found")


@pytest.mark.parametrize(("method", "path", "body"), WAYS)
def test_a_guest_with_every_grant_is_not_the_owner(
    live: LiveProxy, key: str, method: str, path: str, body: Any
) -> None:
    other = live.key()
    theirs, me = create(live, other)["id"], create(live, key)["owner"]
    live.api(other, "POST", f"/v1/cubes/{theirs}/grants", {"principal": me, "level": "write"})
    status, answer = live.api(key, method, f"/v1/cubes/{theirs}{path}", body)
    assert (status, answer["error"]["code"]) == (403, "not_the_owner")
    assert live.api(key, "GET", f"/v1/cubes/{theirs}")[1]["level"] == "write"


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "", "memory:read"),
        ("POST", "", "memory:write"),
        ("PATCH", "/x", "memory:write"),
        ("POST", "/x/grants", "memory:write"),
        ("DELETE", "/x/grants/y", "memory:write"),
    ],
)
def test_every_route_asks_for_its_scope(live: LiveProxy, method: str, path: str, scope: str) -> None:
    without = live.key(*{"chat", "memory:read", "memory:write", "act_as_user"} - {scope})
    status, answer = live.api(without, method, f"/v1/cubes{path}", {} if method != "GET" else None)
    assert (status, answer["error"]["code"]) == (403, "insufficient_scope")
    assert live.api("", method, f"/v1/cubes{path}")[0] == 401
