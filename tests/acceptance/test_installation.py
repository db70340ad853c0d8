"""`memrelay serve` whole: its processes, their deaths, and what survives."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import RecordingUpstream
from tests.live import Installation, wait_for

ROUNDS = int(os.environ.get("MEMRELAY_KILL_ROUNDS", "10"))


def ask(text: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


@pytest.fixture
def installation(data: Path, upstream: RecordingUpstream) -> Iterator[Installation]:
    upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url}]
    with Installation(data, upstreams=upstreams, executor={"sweep_s": 1}) as running:
        yield running


def test_what_was_said_is_extracted_and_indexed(installation: Installation, upstream: RecordingUpstream) -> None:
    key = installation.key()
    client = installation.client(key)
    client.chat.completions.create(**ask("My name is Ottoline and I live in Bergen. I am allergic to peanuts."))
    wait_for(lambda: installation.idle(key), "the executor")
    kinds = {item["kind"] for item in installation.items(key)}
    assert {"episode", "identity"} <= kinds
    assert list((installation.data / "lance").rglob("*.lance"))
    client.chat.completions.create(
        model="m", messages=[{"role": "system", "content": "Be kind."}, *ask("Hi there!")["messages"]]
    )
    assert "Ottoline" in upstream.last.messages[0]["content"]  # the stable block, behind the client's own system text
    assert upstream.last.messages[0]["content"].startswith("Be kind.")
    _, jobs = installation.api(key, "GET", "/v1/memory/jobs")
    assert next(job["result"]["turns"] for job in reversed(jobs["data"]) if job["task"] == "learn") == 1
    other = installation.key()
    assert installation.api(other, "GET", f"/v1/memory/jobs/{jobs['data'][0]['id']}")[0] == 404


NOTE = {
    "text": "My violin teacher is called Agneta.", "kind": "fact", "turns": [1], "role": "user", "slot": "", "when": "",
    "state": "", "condition": "", "entities": ["Agneta"], "tags": ["music"], "importance": 0.6,
}  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "extraction", "learned"),
    [
        (json.dumps({"memories": [NOTE]}), "schema", "My violin teacher is called Agneta."),
        ("I would rather not.", "rules after a failed model", "My name is Sigrid"),
    ],
)
def test_a_named_model_extracts_and_the_rules_stand_in_for_it(
    data: Path, upstream: RecordingUpstream, answer: str, extraction: str, learned: str
) -> None:
    upstream.answer = lambda received: answer if received.body["model"] == "extractor" else "Noted."
    upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url}]
    with Installation(data, upstreams=upstreams, extraction={"model": "extractor", "debounce_s": 0}) as running:
        key = running.key()
        running.client(key).chat.completions.create(**ask("My violin teacher is called Agneta. My name is Sigrid."))
        wait_for(lambda: running.idle(key), "the executor")
        (job,) = [
            job
            for job in running.api(key, "GET", "/v1/memory/jobs")[1]["data"]
            if job["task"] == "learn" and job["result"]["turns"]
        ]
        found = {item["text"] for item in running.items(key) if item["kind"] != "episode"}
    assert job["result"]["extraction"] == extraction
    assert learned in found


@pytest.mark.parametrize("damage", ["deleted", "truncated", "flipped"])
def test_a_damaged_index_is_rebuilt_at_the_next_start(
    installation: Installation, upstream: RecordingUpstream, damage: str
) -> None:
    key = installation.key()
    client = installation.client(key)
    facts = {thing: f"zq{thing}{len(thing)}" for thing in ("kettle", "ladder", "guitar", "bucket", "mirror")}
    for thing, name in facts.items():
        client.chat.completions.create(**ask(f"My {thing} is called {name}."))
    wait_for(lambda: installation.idle(key), "the executor")
    installation.stop()
    spoil(installation.data / "lance", damage)
    installation.start()
    for thing, name in facts.items():
        assert name in json.dumps(installation.search(key, f"What is my {thing} called?"))
    wait_for(lambda: any(job["task"] == "rebuild" and (job["result"] or {}).get("action") == "rebuilt"
                         for job in installation.api(key, "GET", "/v1/memory/jobs")[1]["data"]), "the rebuild")  # fmt: skip
    for thing, name in facts.items():
        client.chat.completions.create(**ask(f"What is my {thing} called?"))
        assert name in upstream.last.prompt


def spoil(folder: Path, damage: str) -> None:
    if damage == "deleted":
        shutil.rmtree(folder)
        return
    tables = list(folder.rglob("*.lance/data/*.lance"))
    assert tables
    for path in tables:
        raw = bytearray(path.read_bytes())
        if damage == "truncated":
            path.write_bytes(raw[: len(raw) // 2])
        else:
            for at in range(16, 400, 7):  # among the vectors and texts at the beginning of the file
                raw[at] ^= 0x55
            path.write_bytes(raw)


def test_kill_9_of_everything_right_after_an_answer_loses_and_doubles_nothing(installation: Installation) -> None:
    key = installation.key()
    for number in range(ROUNDS):
        client = installation.client(key)
        stream = number % 2 == 0
        answer = client.chat.completions.create(**ask(f"My locker zqround{number} holds a book."), stream=stream)
        if stream:
            for _ in answer:
                pass
        installation.kill_everything()
        installation.start()
    wait_for(lambda: installation.idle(key), "the executor", 60)
    for number in range(ROUNDS):
        episodes = installation.items(key, kind="episode", status="all")
        assert len([item for item in episodes if f"zqround{number} " in item["text"]]) == 1
        hits = installation.search(key, f"locker zqround{number}", kinds=["episode"])
        assert len([hit for hit in hits if f"zqround{number} " in hit["text"]]) == 1


def test_a_crashed_child_is_started_again_and_ready_says_so(installation: Installation) -> None:
    key = installation.key()
    before = installation.processes()
    os.kill(before["executor"]["pid"], signal.SIGKILL)
    wait_for(lambda: installation.processes()["executor"]["restarts"] == 1, "the restart to be told")
    installation.client(key).chat.completions.create(**ask("My spade is blunt."))
    wait_for(lambda: installation.processes()["executor"]["state"] == "running", "the executor")
    wait_for(lambda: installation.idle(key), "the executor to work", 60)
    assert installation.processes()["proxy"]["pid"] == before["proxy"]["pid"]


def test_a_clean_stop_leaves_no_process_and_no_unfinished_work(installation: Installation) -> None:
    key = installation.key()
    installation.client(key).chat.completions.create(**ask("My wheelbarrow squeaks."))
    pids = [entry["pid"] for entry in installation.processes().values()]
    installation.stop()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    installation.start()
    assert [item["text"] for item in installation.items(key, kind="episode")] == ["My wheelbarrow squeaks."]
