"""Cubes through the front door: choosing one, sharing it, putting it away, erasing it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes import Received, RecordingUpstream
from tests.live import LiveProxy


@pytest.fixture
def live(data: Path, upstream: RecordingUpstream) -> Iterator[LiveProxy]:
    with LiveProxy(data, upstreams=[{"name": "recording", "kind": "openai", "base_url": upstream.url}]) as running:
        yield running


def say(live: LiveProxy, key: str, text: str, cube: str = "", **headers: str) -> Any:
    named = {"X_Memory_Cube": cube} if cube else {}
    client = live.client(key, **named, **headers)
    asked = [{"role": "user", "content": text}]
    return client.chat.completions.with_raw_response.create(model="m", messages=asked)  # type: ignore[arg-type]


def create(live: LiveProxy, key: str, name: str = "Work", **given: Any) -> str:
    status, body = live.api(key, "POST", "/v1/cubes", {"name": name, **given})
    assert status == 201, body
    return str(body["id"])


def owner(live: LiveProxy, key: str) -> str:
    """The principal of a key, as it reads it off a cube of its own."""
    return str(live.api(key, "GET", f"/v1/cubes/{create(live, key)}")[1]["owner"])


def search(live: LiveProxy, key: str, query: str, cube: str) -> tuple[int, Any]:
    return live.api(key, "POST", "/v1/memory/search", {"query": query}, cube=cube)


def test_each_cube_has_a_memory_of_its_own(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    work = create(live, key)
    say(live, key, "My desk is called Olga.", work)
    say(live, key, "What is my desk called?")
    assert "Olga" not in upstream.last.prompt
    say(live, key, "What is my desk called?", work)
    assert "Olga" in upstream.last.prompt
    listed = {cube["id"]: cube for cube in live.api(key, "GET", "/v1/cubes")[1]["data"]}
    assert listed[work]["memories"] == {"total": 2, "episode": 2}
    assert len(listed) == 2


def test_a_grant_lets_another_key_read_and_revoking_it_stops_that(live: LiveProxy, upstream: RecordingUpstream) -> None:
    mine, theirs = live.key(), live.key()
    cube, guest = create(live, mine), owner(live, theirs)
    say(live, mine, "The launch code is kumquat.", cube)
    assert search(live, theirs, "launch code", cube)[0] == 404
    with pytest.raises(openai.NotFoundError):
        say(live, theirs, "What is the launch code?", cube)
    assert live.api(mine, "POST", f"/v1/cubes/{cube}/grants", {"principal": guest, "level": "read"})[0] == 201

    assert "kumquat" in search(live, theirs, "launch code", cube)[1]["data"][0]["text"]
    say(live, theirs, "What is the launch code?", cube)
    assert "kumquat" in upstream.last.prompt
    say(live, theirs, "What is the launch code?")
    assert "kumquat" not in upstream.last.prompt

    assert live.api(mine, "DELETE", f"/v1/cubes/{cube}/grants/{guest}")[0] == 200
    asked = len(upstream.requests)
    with pytest.raises(openai.NotFoundError) as refused:
        say(live, theirs, "What is the launch code?", cube)
    assert refused.value.code == "cube_not_found"
    assert len(upstream.requests) == asked
    assert search(live, theirs, "launch code", cube)[0] == 404


def test_a_grant_to_read_records_nothing(live: LiveProxy) -> None:
    mine, theirs = live.key(), live.key()
    cube, guest = create(live, mine), owner(live, theirs)
    live.api(mine, "POST", f"/v1/cubes/{cube}/grants", {"principal": guest, "level": "read"})
    say(live, theirs, "My name is Mallory.", cube)
    with pytest.raises(openai.PermissionDeniedError):
        say(live, theirs, "My name is Mallory.", cube, X_Memory="write")
    for method, path, body in (
        ("POST", "items", {"text": "I was here."}),
        ("PATCH", "items/x", {"text": "a"}),
        ("DELETE", "items/x", None),
    ):
        status, answer = live.api(theirs, method, f"/v1/memory/{path}", body, cube=cube)
        assert (status, answer["error"]["code"]) == (403, "cube_read_only")
    assert live.api(mine, "GET", f"/v1/cubes/{cube}")[1]["memories"]["total"] == 0
    assert live.items(theirs) == []


def test_a_team_writes_into_one_cube(live: LiveProxy, upstream: RecordingUpstream) -> None:
    mine, theirs = live.key(), live.key()
    cube, guest = create(live, mine), owner(live, theirs)
    live.api(mine, "POST", f"/v1/cubes/{cube}/grants", {"principal": guest, "level": "write"})
    say(live, theirs, "The red valve is broken.", cube, X_Memory_Session="1")
    say(live, mine, "Which valve is broken?", cube, X_Memory_Session="1")
    assert "The red valve is broken" in upstream.last.prompt
    sessions = {source["session"] for item in live.api(mine, "GET", "/v1/memory/items", cube=cube)[1]["data"]
                for source in item["sources"]}  # fmt: skip
    assert len(sessions) == 2


def test_a_grant_that_ends_while_the_model_answers_ends_the_recording(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    mine, theirs = live.key(), live.key()
    cube, guest = create(live, mine), owner(live, theirs)
    live.api(mine, "POST", f"/v1/cubes/{cube}/grants", {"principal": guest, "level": "write"})

    def revoke(_: Received) -> str:
        assert live.api(mine, "DELETE", f"/v1/cubes/{cube}/grants/{guest}")[0] == 200
        return "Noted."

    upstream.answer = revoke
    say(live, theirs, "My name is Mallory.", cube)
    assert live.api(mine, "GET", f"/v1/cubes/{cube}")[1]["memories"]["total"] == 0


@pytest.mark.parametrize("cube", ["nobody's", "%", "_", "' OR 1=1 --", "../x"])
def test_a_cube_that_is_not_there_is_an_error_and_nothing_is_written(
    live: LiveProxy, upstream: RecordingUpstream, cube: str
) -> None:
    key = live.key()
    with pytest.raises(openai.NotFoundError):
        say(live, key, "My name is Ann.", cube)
    status, body = live.api(key, "POST", "/v1/memory/items", {"text": "I am Ann."}, cube=cube)
    assert (status, body["error"]["code"]) == (404, "cube_not_found")
    assert upstream.requests == []
    assert live.api(key, "GET", "/v1/cubes")[1]["data"] == []


def test_an_archived_cube_is_out_of_chats_until_it_is_restored(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    say(live, key, "My cat is called Ida.")
    home = live.api(key, "GET", "/v1/cubes")[1]["data"][0]["id"]
    before = live.search(key, "cat")
    assert live.api(key, "PATCH", f"/v1/cubes/{home}", {"status": "archived"})[1]["status"] == "archived"
    response = say(live, key, "What is my cat called?")
    assert response.headers["x-memory-state"] == "off"
    assert "Ida" not in upstream.last.prompt
    assert live.api(key, "POST", "/v1/memory/search", {"query": "cat"})[0] == 409
    assert len(live.items(key)) == 1
    assert live.api(key, "PATCH", f"/v1/cubes/{home}", {"status": "active"})[1]["archived_at"] is None
    assert live.search(key, "cat") == before
    say(live, key, "What is my cat called?")
    assert "Ida" in upstream.last.prompt


def test_an_end_user_stays_within_the_key(live: LiveProxy, upstream: RecordingUpstream) -> None:
    app, other = live.key("chat", "memory:read", "memory:write", "act_as_user"), live.key()
    theirs = create(live, other)
    for user, name in (("ann", "Rex"), ("bob", "Max")):
        say(live, app, f"My dog is called {name}.", X_Memory_User=user)
    cubes = live.api(app, "GET", "/v1/cubes")[1]["data"]
    assert len(cubes) == 2
    say(live, app, "What is my dog called?", cubes[0]["id"], X_Memory_User="ann")
    assert "Rex" in upstream.last.prompt
    assert "Max" not in upstream.last.prompt
    with pytest.raises(openai.NotFoundError):
        say(live, app, "What is my dog called?", theirs, X_Memory_User="ann")
