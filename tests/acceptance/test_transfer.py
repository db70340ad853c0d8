"""Memory moves, through the front door: what was said to one installation, or to another product, is known to the next."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes import RecordingUpstream
from tests.live import Installation, LiveProxy, wait_for

DATA = Path(__file__).parents[1] / "memory" / "data"


@pytest.fixture(scope="module")
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream() as running:
        yield running


def folder(parent: Path, name: str, models_dir: Path) -> Path:
    made = parent / name
    made.mkdir()
    (made / "models").symlink_to(models_dir)
    return made


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, upstream: RecordingUpstream
) -> Iterator[Installation]:
    """Everything, under its supervisor."""
    data = folder(tmp_path_factory.mktemp("whole"), "data", models_dir)
    with Installation(data, upstreams=[{"name": "r", "kind": "openai", "base_url": upstream.url}]) as running:
        yield running


def say(live: Installation | LiveProxy, key: str, text: str) -> None:
    live.client(key).chat.completions.create(model="m", messages=[{"role": "user", "content": text}])


def take_in(live: Installation | LiveProxy, key: str, file: bytes) -> dict[str, object]:
    named = {"authorization": f"Bearer {key}"}
    answer = httpx.post(f"{live.url}/v1/memory/import", content=file, headers=named, timeout=120)
    assert answer.status_code == 200, answer.text
    done: dict[str, object] = answer.json()
    return done


def export(live: Installation | LiveProxy, key: str) -> bytes:
    answer = httpx.get(f"{live.url}/v1/memory/export", headers={"authorization": f"Bearer {key}"}, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.content


def test_a_chat_elsewhere_knows_what_was_said_here(
    tmp_path: Path, models_dir: Path, whole: Installation, upstream: RecordingUpstream
) -> None:
    said = ["My dog is called Rex and he loves swimming.", "I live in Turin.", "I prefer tea to coffee."]
    asked = ["What is my dog called?", "Where do I live?", "tea or coffee?"]
    key = whole.key()
    for text in said:
        say(whole, key, text)
    wait_for(lambda: whole.idle(key), "the executor to learn", 120)
    archive = export(whole, key)
    upstreams = [{"name": "r", "kind": "openai", "base_url": upstream.url}]
    with LiveProxy(folder(tmp_path, "elsewhere", models_dir), upstreams=upstreams) as there:
        other = there.key()
        assert take_in(there, other, archive)["turns"] == 3
        there.index_everything()
        for question in asked:
            here = [(hit["id"], hit["passage"]) for hit in whole.search(key, question)]
            assert [(hit["id"], hit["passage"]) for hit in there.search(other, question)] == here
            assert here
        say(there, other, "What is my dog called?")
        assert "Rex" in upstream.last.prompt


def test_what_was_said_to_another_product_is_learned_and_known(
    whole: Installation, upstream: RecordingUpstream
) -> None:
    key = whole.key()
    done = take_in(whole, key, (DATA / "chatgpt_conversations.json").read_bytes())
    assert (done["format"], done["turns"]) == ("chatgpt", 3)
    say(whole, key, "What is the name of my beagle?")  # before any job has run, or after
    assert "Rex" in upstream.last.prompt
    wait_for(lambda: whole.idle(key), "the executor to learn and to index", 120)
    jobs = {job["task"]: job["result"] for job in whole.api(key, "GET", "/v1/memory/jobs")[1]["data"]}
    assert {"learn", "index"} <= set(jobs)
    assert "chocolate" not in json.dumps(whole.items(key))
    again = take_in(whole, key, (DATA / "chatgpt_conversations.json").read_bytes())
    assert (again["turns"], again["memories"]) == (0, 0)


def test_a_restored_archive_brings_back_what_was_erased(whole: Installation) -> None:
    key = whole.key()
    say(whole, key, "My locker code is 4711.")
    archive = export(whole, key)
    assert whole.api(key, "DELETE", "/v1/memory")[0] in (200, 202)
    assert whole.search(key, "locker code") == []
    take_in(whole, key, archive)
    assert "4711" in whole.search(key, "locker code")[0]["text"]


def test_an_archive_made_while_chats_go_on_is_whole(whole: Installation) -> None:
    key, other = whole.key(), whole.key()
    for number in range(5):
        say(whole, key, f"Number {number} of my list is {number * 7}.")
        with zipfile.ZipFile(io.BytesIO(export(whole, key))) as archive:
            assert archive.testzip() is None
            assert len(archive.read("turns.jsonl").splitlines()) == number + 1
    assert take_in(whole, other, export(whole, key))["turns"] == 5


def test_an_upload_that_breaks_off_leaves_nothing(whole: Installation) -> None:
    import socket

    key = whole.key()
    with socket.create_connection(("127.0.0.1", whole.port)) as connection:
        head = f"POST /v1/memory/import HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: 100000\r\n\r\n"
        connection.sendall(head.encode() + b"PK\x03\x04" + b"x" * 50_000)
    wait_for(lambda: not list((whole.data / "transfer").glob("*")), "the upload to be given up")
    assert whole.items(key) == []
