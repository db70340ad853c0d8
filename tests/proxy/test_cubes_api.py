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
    assert live.api(key, "PATCH", path, {})[1]["name"] == "Play"
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
        ("POST", "", {"name": "\x00"}, "name"),
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
        ("POST", "/{id}/fuse", {}, "from"),
        ("POST", "/{id}/fuse", {"from": "x", "archive_source": "yes"}, "archive_source"),
        ("POST", "/{id}/fuse", {"from": "x"}, "from"),
        ("GET", "?limit=0", None, "limit"),
        ("GET", "?limit=many", None, "limit"),
    ],
)
def test_what_is_wrong_is_said(live: LiveProxy, key: str, method: str, path: str, body: Any, param: str) -> None:
    made = create(live, key)
    if body and body.get("principal") == "{me}":
        body = body | {"principal": made["owner"]}
    status, answer = live.api(key, method, f"/v1/cubes{path.format(id=made['id'])}", body)
    assert status == (404 if body == {"from": "x"} else 400), answer
    assert answer["error"]["param"] == param


@pytest.mark.parametrize("odd", ["\ud83d", "a\x00b", "%_' OR 1=1 --"])
def test_odd_texts_are_stored_or_unknown(live: LiveProxy, key: str, odd: str) -> None:
    path = f"/v1/cubes/{create(live, key, name=f'x{odd}')['id']}"
    assert live.api(key, "GET", path)[1]["name"].startswith("x")
    assert live.api(key, "POST", f"{path}/grants", {"principal": odd, "level": "read"})[0] == 404
    assert live.api(key, "POST", f"{path}/fuse", {"from": odd})[0] == 404


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


def test_cubes_are_fused_and_the_source_put_away(live: LiveProxy, key: str) -> None:
    target, source = create(live, key)["id"], create(live, key)["id"]
    for cube, text in ((target, "I like tea."), (source, "I LIKE tea"), (source, "I have a cat.")):
        live.api(key, "POST", "/v1/memory/items", {"text": text}, cube=cube)
    status, done = live.api(key, "POST", f"/v1/cubes/{target}/fuse", {"from": source, "archive_source": True})
    assert (status, done["state"], done["counts"]["memories"], done["counts"]["merged"]) == (200, "done", 2, 1)
    assert live.api(key, "GET", f"/v1/cubes/{source}")[1]["status"] == "archived"
    found = live.api(key, "POST", "/v1/memory/search", {"query": "cat"}, cube=target)[1]["data"]
    assert found[0]["text"] == "I have a cat."
    assert live.api(key, "POST", f"/v1/cubes/{target}/fuse", {"from": source})[1]["counts"]["memories"] == 0


@pytest.mark.parametrize(
    ("on_target", "on_source", "archive", "expected"),
    [
        ("read", "read", False, (403, "cube_read_only")),
        ("write", "", False, (404, "cube_not_found")),
        ("", "write", False, (404, "cube_not_found")),
        ("write", "write", True, (403, "not_the_owner")),
    ],
)
def test_who_may_not_fuse_is_refused(
    live: LiveProxy, key: str, on_target: str, on_source: str, archive: bool, expected: tuple[int, str]
) -> None:
    other, me = live.key(), create(live, key)["owner"]
    target, source = create(live, other)["id"], create(live, other)["id"]
    for cube, level in ((target, on_target), (source, on_source)):
        if level:
            live.api(other, "POST", f"/v1/cubes/{cube}/grants", {"principal": me, "level": level})
    body = {"from": source, "archive_source": archive}
    status, answer = live.api(key, "POST", f"/v1/cubes/{target}/fuse", body)
    assert (status, answer["error"]["code"]) == expected


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
        ("POST", "/x/fuse", "memory:write"),
        ("DELETE", "/x", "memory:write"),
    ],
)
def test_every_route_asks_for_its_scope(live: LiveProxy, method: str, path: str, scope: str) -> None:
    without = live.key(*{"chat", "memory:read", "memory:write", "act_as_user"} - {scope})
    status, answer = live.api(without, method, f"/v1/cubes{path}", {} if method != "GET" else None)
    assert (status, answer["error"]["code"]) == (403, "insufficient_scope")
    assert live.api("", method, f"/v1/cubes{path}")[0] == 401
