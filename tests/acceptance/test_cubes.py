"""Cubes through the front door: choosing one, sharing it, putting it away, erasing it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from proxy.parts import assemble
from tests.fakes import Received, RecordingUpstream
from tests.live import Installation, LiveProxy, wait_for


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


def test_no_chat_that_begins_after_a_grant_ended_is_answered(live: LiveProxy, upstream: RecordingUpstream) -> None:
    """Three clients ask all the time while the owner grants and revokes."""
    mine, theirs = live.key(), live.key()
    cube, guest = create(live, mine), owner(live, theirs)
    asked: list[tuple[float, float, bool]] = []  # begun, ended, answered
    revoked: list[tuple[float, float]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            begun, answered = time.monotonic(), True
            try:
                say(live, theirs, "What is the launch code?", cube)
            except openai.NotFoundError:
                answered = False
            asked.append((begun, time.monotonic(), answered))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for level in ("read", "write") * 3:
        live.api(mine, "POST", f"/v1/cubes/{cube}/grants", {"principal": guest, "level": level})
        seen = len(asked)
        wait_for(lambda seen=seen: any(answered for *_, answered in asked[seen:]), "an answer")
        live.api(mine, "DELETE", f"/v1/cubes/{cube}/grants/{guest}")
        since, seen = time.monotonic(), len(asked)
        wait_for(lambda since=since: any(begun > since for begun, *_ in list(asked)), "a refusal")
        revoked.append((since, time.monotonic()))
    done.set()
    for thread in threads:
        thread.join(60)
    within = [answered for begun, ended, answered in asked for a, b in revoked if begun > a and ended < b]
    assert within
    assert not any(within)


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


def test_erasing_everything_takes_it_from_a_proxy_that_knew_it(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key, other = live.key(), live.key()
    for who in (key, other):
        say(live, who, "My locker code is zq4711.")
        say(live, who, "What is my locker code?")
        assert "zq4711" in upstream.last.prompt
    status, receipt = live.api(key, "DELETE", "/v1/memory")
    assert (status, receipt["state"], receipt["counts"]["memories"]) == (202, "pending", 2)
    assert live.search(key, "locker code") == live.items(key, status="all") == []
    say(live, key, "What is my locker code?")
    assert "zq4711" not in upstream.last.prompt
    say(live, other, "What is my locker code?")
    assert "zq4711" in upstream.last.prompt
    assert live.api(key, "GET", f"/v1/memory/receipts/{receipt['id']}")[1] == receipt
    assert live.api(other, "GET", f"/v1/memory/receipts/{receipt['id']}")[0] == 404


@pytest.mark.parametrize("indexed", [False, True])
def test_another_process_erases_what_this_one_holds_in_memory(
    live: LiveProxy, upstream: RecordingUpstream, indexed: bool
) -> None:
    key = live.key()
    say(live, key, "My locker code is zq4711.")
    if indexed:
        live.index_everything()
    assert live.search(key, "locker code")
    home = live.api(key, "GET", "/v1/cubes")[1]["data"][0]["id"]
    asyncio.run(erase_elsewhere(live, home))
    assert live.search(key, "locker code") == []
    say(live, key, "What is my locker code?")
    assert "zq4711" not in upstream.last.prompt


async def erase_elsewhere(live: LiveProxy, cube: str) -> None:
    parts = await assemble(live.config)
    try:
        info = await parts.cubes.get(cube)
        assert info is not None
        await parts.lifecycle.erase(cube, info.owner, keep=True)
    finally:
        await parts.close()


def test_a_chat_that_was_running_brings_back_nothing_but_itself(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    say(live, key, "My locker code is zq4711.")

    def erase(received: Received) -> str:
        assert "zq4711" in received.prompt
        assert live.api(key, "DELETE", "/v1/memory")[0] == 202
        return "I shall tell you."

    upstream.answer = erase
    say(live, key, "What is my locker code?")
    assert [item["text"] for item in live.items(key, status="all")] == ["What is my locker code?"]
    upstream.answer = lambda received: "Noted."
    say(live, key, "Tell me my locker code.")
    assert "zq4711" not in upstream.last.prompt


def test_a_deleted_cube_is_gone_and_a_running_chat_does_not_make_it_again(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    key = live.key()
    cube = create(live, key, "Secret plan")

    def delete(_: Received) -> str:
        assert live.api(key, "DELETE", f"/v1/cubes/{cube}")[0] == 202
        return "Noted."

    upstream.answer = delete
    say(live, key, "My locker code is zq4711.", cube)
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/grants")):
        assert live.api(key, method, f"/v1/cubes/{cube}{path}", {} if method == "PATCH" else None)[0] == 404
    assert live.api(key, "GET", "/v1/cubes")[1]["data"] == []
    assert search(live, key, "locker code", cube)[0] == 404


def test_only_the_owner_erases(live: LiveProxy) -> None:
    mine, theirs = live.key(), live.key()
    cube, guest = create(live, mine), owner(live, theirs)
    live.api(mine, "POST", f"/v1/cubes/{cube}/grants", {"principal": guest, "level": "write"})
    for path, named in ((f"/v1/cubes/{cube}", ""), ("/v1/memory", cube)):
        status, body = live.api(theirs, "DELETE", path, cube=named)
        assert (status, body["error"]["code"]) == (403, "not_the_owner")


def test_an_erasure_leaves_no_byte_in_any_file(data: Path, upstream: RecordingUpstream) -> None:
    upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url}]
    with Installation(data, upstreams=upstreams, executor={"sweep_s": 1}, evolution={"quiet_s": 1}) as running:
        key, other = running.key(), running.key()
        erased, kept = b"zqbcdfghjkmnpqtvw", b"zqwvtqpnmkjhgfdcb"
        for who, canary in ((key, erased), (other, kept)):
            client = running.client(who)
            for said in (f"My name is {canary.decode()}.", "What is my name?"):
                client.chat.completions.create(model="m", messages=[{"role": "user", "content": said}])
            wait_for(lambda who=who: running.idle(who), "the executor")
        assert {"lance", "memrelay.sqlite-wal"} <= places(data, erased)
        home = running.api(key, "GET", "/v1/cubes")[1]["data"][0]["id"].replace("-", "")
        tables = [file for file in data.rglob(f"{home}_g*/**/*") if file.is_file()]
        receipt = running.api(key, "DELETE", "/v1/memory")[1]
        path = f"/v1/memory/receipts/{receipt['id']}"
        wait_for(lambda: running.api(key, "GET", path)[1]["state"] == "done", "the erasure to end", 60)
        assert places(data, erased) == set()
        assert tables
        assert not any(file.exists() for file in tables)
        assert places(data, kept)
        assert running.items(key) == []
        assert running.search(other, "name")


def places(data: Path, canary: bytes) -> set[str]:
    """The first part of every path below the data folder whose bytes hold the canary. (The words of a full-text index
    cannot be seen so: its files themselves must be gone.)"""
    found = set()
    for file in data.rglob("*"):
        if file.is_file() and "models" not in file.parts and canary in file.read_bytes():
            found.add(file.relative_to(data).parts[0])
    return found
