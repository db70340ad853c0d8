"""When memory is missing, locked, slow or broken, the chat goes on and says so; what was said is not lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import RecordingUpstream
from tests.live import LiveProxy, wait_for


def ask(text: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


@pytest.fixture
def upstreams(upstream: RecordingUpstream) -> list[dict[str, Any]]:
    return [{"name": "recording", "kind": "openai", "base_url": upstream.url}]


@pytest.fixture
def live(data: Path, upstreams: list[dict[str, Any]]) -> Iterator[LiveProxy]:
    with LiveProxy(data, upstreams=upstreams, memory={"deadline_ms": 2000, "record_deadline_ms": 500}) as running:
        yield running


def test_a_locked_database_costs_the_turn_a_delay_and_the_chat_nothing(live: LiveProxy, data: Path) -> None:
    key = live.key()
    client = live.client(key)
    client.chat.completions.create(**ask("My ladder is three metres long."))
    with sqlite3.connect(data / "memrelay.sqlite", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        client.chat.completions.create(**ask("My rake is red."))
        other.execute("ROLLBACK")
    other.close()
    wait_for(lambda: len(live.items(key)) == 2, "the turn that had to wait")


def test_a_turn_that_had_to_wait_is_not_written_after_an_erasure(live: LiveProxy, data: Path) -> None:
    key = live.key()
    client = live.client(key)
    client.chat.completions.create(**ask("My ladder is three metres long."))
    erased: list[int] = []
    erasing = threading.Thread(target=lambda: erased.append(live.api(key, "DELETE", "/v1/memory")[0]))
    other = sqlite3.connect(data / "memrelay.sqlite", isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        client.chat.completions.create(**ask("My rake is red."))
        erasing.start()
        time.sleep(5)  # the turn's first attempt has been given up by now, and the erasure is next
    finally:
        other.execute("ROLLBACK")
        other.close()
    erasing.join()
    wait_for(lambda: not live.parts.background.tasks, "the turn that had to wait")
    assert (erased, live.items(key)) == ([202], [])
    client.chat.completions.create(**ask("My spade is blue."))
    assert [item["text"] for item in live.items(key)] == ["My spade is blue."]


def test_a_memory_is_erased_with_the_blocks_that_show_it_or_not_at_all(live: LiveProxy, data: Path) -> None:
    key = live.key()
    client = live.client(key)
    client.chat.completions.create(**ask("My ladder is three metres long."))
    client.chat.completions.create(**ask("How long is my ladder?"))
    wait_for(lambda: not live.parts.background.tasks, "the blocks to be kept")
    (told,) = (item["id"] for item in live.items(key) if "three" in item["text"])
    with contextlib.closing(sqlite3.connect(data / "memrelay.sqlite", isolation_level=None)) as other:
        other.execute("ALTER TABLE links RENAME TO gone_links")
        assert live.api(key, "DELETE", f"/v1/memory/items/{told}")[0] == 503
        assert live.api(key, "GET", f"/v1/memory/items/{told}")[0] == 200
        other.execute("ALTER TABLE gone_links RENAME TO links")
        assert live.api(key, "DELETE", f"/v1/memory/items/{told}")[0] == 200
        assert other.execute("SELECT count(*) FROM blocks WHERE recall LIKE '%three metres%'").fetchone() == (0,)


def test_a_missing_database_degrades_and_a_known_key_still_works(
    live: LiveProxy, upstream: RecordingUpstream, data: Path
) -> None:
    key = live.key()
    client = live.client(key)
    client.chat.completions.create(**ask("My rope is made of hemp."))
    with sqlite3.connect(data / "memrelay.sqlite", isolation_level=None) as other:
        for table in ("memories", "turns", "cubes", "keys"):
            other.execute(f"ALTER TABLE {table} RENAME TO gone_{table}")
    other.close()
    raw = client.chat.completions.with_raw_response.create(**ask("What is my rope made of?"))
    assert raw.headers["x-memory-state"] == "degraded:database_missing_table"
    assert upstream.last.body == ask("What is my rope made of?")
    with sqlite3.connect(data / "memrelay.sqlite", isolation_level=None) as other:
        for table in ("memories", "turns", "cubes", "keys"):
            other.execute(f"ALTER TABLE gone_{table} RENAME TO {table}")
    other.close()
    wait_for(lambda: len(live.items(key)) == 2, "the turn of the degraded chat")


def test_a_slow_embedder_is_left_behind_at_the_deadline(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    client = live.client(key)
    client.chat.completions.create(**ask("My hat is made of felt."))
    release = threading.Event()
    for _ in range(os.cpu_count() or 1):  # no fewer than the threads that embed
        live.parts.threads.submit(release.wait)
    try:
        raw = client.chat.completions.with_raw_response.create(**ask("What is my hat made of?"))
    finally:
        release.set()
    assert raw.headers["x-memory-state"] == "degraded:deadline"
    assert upstream.last.body == ask("What is my hat made of?")
    assert 'memrelay_memory_total{state="degraded"} 1.0' in httpx.get(f"{live.url}/metrics").text


def test_a_broken_index_is_replaced_by_a_search_of_the_database(
    data: Path, upstreams: list[dict[str, Any]], upstream: RecordingUpstream
) -> None:
    with LiveProxy(data, upstreams=upstreams) as live:
        key = live.key()
        client = live.client(key)
        client.chat.completions.create(**ask("My lamp is called Aladdin."))
        live.index_everything()
        assert list((data / "lance").rglob("*.lance"))
        client.chat.completions.create(**ask("What is my lamp called?"))
        assert "Aladdin" in upstream.last.prompt
        shutil.rmtree(data / "lance")
    with LiveProxy(data, upstreams=upstreams) as live:  # one that has nothing in memory yet
        client = live.client(key)
        raw = client.chat.completions.with_raw_response.create(**ask("So what is my lamp called?"))
        assert raw.headers["x-memory-state"] == "degraded:index"
        assert "Aladdin" in upstream.last.prompt


def test_a_hook_that_raises_does_not_break_the_chat(data: Path, upstreams: list[dict[str, Any]]) -> None:
    with LiveProxy(data, upstreams=upstreams, hooks=["tests.hooks:Faulty"]) as live:
        key = live.key()
        answer = live.client(key).chat.completions.create(**ask("My kite is a delta."))
        assert answer.choices[0].message.content == "Noted."
        assert len(live.items(key)) == 1
        assert 'memrelay_hook_failures_total{hook="Faulty"} 2.0' in httpx.get(f"{live.url}/metrics").text
