"""A running llama-server through the front door: what it had computed is found again, by its own figures."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live import LiveProxy, wait_for
from tests.llama_server import LlamaServer

pytest.importorskip("xllamacpp", reason="the llama-server of these tests is xllamacpp's")

SYSTEM = "You are a brief assistant who answers in one short sentence and never asks back."
FACT = "Is called Ada Kvalheim and lives in Bergen."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    with LlamaServer(tmp_path_factory.mktemp("slots")) as running:
        yield running


def proxy(data: Path, server: LlamaServer, **given: Any) -> LiveProxy:
    entry = {"name": "mine", "kind": "llama_server", "base_url": f"{server.url}/v1", **given}
    return LiveProxy(data, upstreams=[entry])


def ask(live: LiveProxy, key: str, session: str, *texts: str, **more: Any) -> Any:
    said: list[Any] = [{"role": "system", "content": SYSTEM}]
    said += [{"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(texts)]
    client = live.client(key, X_Memory_Session=session)
    return client.chat.completions.with_raw_response.create(
        model="m", messages=said, max_tokens=4, temperature=0, **more
    )


def restored(answer: Any) -> int:
    """How many tokens the response header says were there; checked against the server's own figures."""
    said = str(answer.headers["x-memory-kv"])
    tokens = int(said.partition(":")[2]) if said.startswith("restored:") else 0
    assert tokens or said == "cold"
    body = json.loads(answer.text)
    assert body["timings"]["cache_n"] == tokens
    assert body["timings"]["prompt_n"] == body["usage"]["prompt_tokens"] - tokens
    return tokens


def knows(live: LiveProxy, fact: str = FACT) -> str:
    """A key of somebody of whom this is known, and who has begun a session."""
    key = live.key()
    assert live.api(key, "POST", "/v1/memory/items", {"text": fact, "kind": "identity"})[0] == 201
    before = heads(live)
    ask(live, key, "first", "Hello!")
    wait_for(lambda: heads(live) > before, "it to be written down how the session began")
    return key


def heads(live: LiveProxy) -> int:
    """Beginnings that are known; they are written behind the answers."""
    with contextlib.closing(sqlite3.connect(live.config.folder / "memrelay.sqlite", timeout=30)) as database:
        return int(database.execute("select count(*) from heads").fetchone()[0])


def reads_ahead(live: LiveProxy, key: str) -> None:
    """Look in, and wait until the server has read what the next session begins with."""
    before = done(live)
    assert live.api(key, "GET", "/v1/models")[0] == 200
    wait_for(lambda: done(live) > before, "the next session's beginning to be read ahead", 240)


def done(live: LiveProxy) -> float:
    return live.parts.metrics.prefills.labels("done")._value.get()


def test_a_new_session_begins_with_what_was_read_ahead_also_after_a_restart(data: Path, server: LlamaServer) -> None:
    with proxy(data, server) as live:
        key = knows(live)
        reads_ahead(live, key)
        other = live.key()
        assert restored(ask(live, other, "theirs", "What is two plus two?")) < 60, "the system message at most"
        answer = ask(live, key, "second", "Where do I live?")
        mine = restored(answer)
        assert mine > 60
        assert answer.headers["x-memory-kv-source"] == "disk"
    with proxy(data, server) as live:
        assert restored(ask(live, key, "third", "And what is my name?")) >= mine - 1


def test_a_session_goes_on_in_its_slot_and_comes_back_into_another(data: Path, server: LlamaServer) -> None:
    with proxy(data, server) as live:
        key, other = knows(live), live.key()
        first = ask(live, key, "long", "Tell me of the sea.")
        said = json.loads(first.text)["choices"][0]["message"]["content"]
        length = json.loads(first.text)["usage"]["prompt_tokens"]
        again = ask(live, key, "long", "Tell me of the sea.", said, "And of ships.")
        assert restored(again) >= length - 1
        assert again.headers["x-memory-kv-source"] == "slot"
        for name in ("a", "b", "c"):
            ask(live, other, name, f"What is {name}?")
        back = ask(live, key, "long", "Tell me of the sea.", said, "And of ports.")
        assert restored(back) >= length - 1
        assert back.headers["x-memory-kv-source"] == "disk"


def test_a_stream_says_it_too_and_is_the_servers_own(data: Path, server: LlamaServer) -> None:
    with proxy(data, server) as live:
        key = knows(live)
        ask(live, key, "s", "Name a bird.")
        events = []
        with live.client(key, X_Memory_Session="s").chat.completions.with_streaming_response.create(
            model="m",
            messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Name a bird."}],
            max_tokens=4,
            stream=True,
        ) as response:
            said = response.headers["x-memory-kv"]
            events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: {")]
        assert events[-1]["timings"]["cache_n"] == int(said.removeprefix("restored:")) > 0
        assert not any("prompt_progress" in event for event in events)
        assert sum("role" in event["choices"][0]["delta"] for event in events) == 1


@pytest.mark.parametrize("shared", [True, False])
def test_erasing_leaves_nothing_in_the_servers_folder(data: Path, tmp_path: Path, shared: bool) -> None:
    folder = tmp_path / "slots"
    folder.mkdir()
    with LlamaServer(folder) as server:
        given = {"slots_folder": str(folder)} if shared else {}
        with proxy(data, server, **given) as live:
            key = knows(live)
            reads_ahead(live, key)
            stem = next(iter(server.files())).rpartition("-prefix")[0]
            assert any(len(content) > 1_000_000 for content in server.files().values())
            other = knows(live, "Is called Bo.")
            reads_ahead(live, other)
            mine = {name for name in server.files() if name.startswith(stem)}
            status, receipt = live.api(key, "DELETE", "/v1/memory")
            assert status == 202
            assert receipt["counts"]["kv_states"] == len(mine)
            left = server.files()
            assert all(len(left.get(name, b"")) < 100 for name in mine), "empty states hold no tokens"
            assert shared is (not mine & left.keys())
            assert any(len(content) > 1_000_000 for content in left.values()), "others keep theirs"
            assert restored(ask(live, key, "anew", "Where do I live?")) < 60


def test_what_is_edited_is_not_restored_but_read_anew(data: Path, server: LlamaServer) -> None:
    with proxy(data, server) as live:
        key = knows(live)
        reads_ahead(live, key)
        (item,) = live.items(key, kind="identity")
        changed = {"text": "Is called Ada Kvalheim and lives in Oslo."}
        assert live.api(key, "PATCH", f"/v1/memory/items/{item['id']}", changed)[0] == 200
        told = live.api(key, "GET", "/v1/memory/tiers")[1]
        assert told["states"], "the keeper is named"
        assert all(not kept["data"] for kept in told["states"])
        assert restored(ask(live, key, "after", "Where do I live?")) < 80


def test_a_server_without_slot_files_is_given_the_layout_alone(data: Path) -> None:
    with LlamaServer(None) as server, proxy(data, server) as live:
        key = knows(live)
        first = ask(live, key, "s", "Name a fish.")
        said = json.loads(first.text)["choices"][0]["message"]["content"]
        assert restored(ask(live, key, "s", "Name a fish.", said, "Another.")) > 30
        assert live.api(key, "DELETE", "/v1/memory")[0] == 202


def test_what_a_client_asks_of_the_server_itself_is_left_alone(data: Path, server: LlamaServer) -> None:
    with proxy(data, server) as live:
        answer = ask(live, knows(live), "own", "Name a tree.", extra_body={"id_slot": 1, "cache_prompt": False})
        assert json.loads(answer.text)["timings"]["cache_n"] == 0
        assert "x-memory-kv" not in answer.headers
