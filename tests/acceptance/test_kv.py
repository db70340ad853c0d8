"""What the local model has computed of a memory is found again, and is gone with the memory: everything as users run it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory.activation.container import read_head
from memory.engine.llama import Model
from memory.engine.settings import bundled_model
from tests.live import Installation, wait_for

SYSTEM = "You are a brief assistant who answers in one short sentence and never asks back."
PATIENCE_S = 300.0  # on a busy machine a prompt of a hundred tokens takes a while
QUICK: dict[str, Any] = {
    "executor": {"sweep_s": 1, "poll_s": 0.1},
    "engine": {"slots": 2, "context": 2048},
    "memory": {"deadline_ms": 10_000, "recall_tokens": 80, "remind": False},
}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Installation]:
    data = tmp_path_factory.mktemp("kv")
    (data / "models").symlink_to(models_dir)
    with Installation(data, **QUICK) as running:
        wait_for(lambda: loaded(running), "the model to be loaded", 60)
        yield running


def loaded(live: Installation) -> bool:
    asked = {"model": "m", "messages": [{"role": "user", "content": "."}], "max_tokens": 1}
    return bool(live.api(live.key(), "POST", "/v1/chat/completions", asked)[0] == 200)


def ask(live: Installation, key: str, session: str, text: str, cube: str = "") -> Any:
    said: Any = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    named = {"X_Memory_Session": session} | ({"X_Memory_Cube": cube} if cube else {})
    client = live.client(key, **named).with_options(timeout=PATIENCE_S)
    return client.chat.completions.with_raw_response.create(model="m", messages=said, max_tokens=2, temperature=0)


def restored(answer: Any) -> int:
    """How many tokens the header says were there; the usage says the same."""
    said = str(answer.headers["x-memory-kv"])
    usage = answer.parse().usage
    tokens = int(said.partition(":")[2]) if said.startswith("restored:") else 0
    assert usage.prompt_tokens_details.cached_tokens == tokens
    return tokens


def adds(live: Installation, key: str, text: str) -> str:
    status, body = live.api(key, "POST", "/v1/memory/items", {"text": text, "kind": "identity"})
    assert status == 201
    return str(body["id"])


def cube_of(live: Installation, key: str) -> str:
    return str(live.items(key)[0]["cube"])


def folder(live: Installation, cube: str) -> Path:
    return live.data / "kv" / cube


def states(live: Installation, cube: str, sort: str = "prefix") -> list[Path]:
    found = [path for path in folder(live, cube).glob("*.kv") if path.exists()]
    return [path for path in found if read_head(path)[0].sort == sort]


def somebody(live: Installation, fact: str) -> tuple[str, str, str]:
    """(key, memory, cube) of one of whom this is known, who has begun a session, and whose next one has been read ahead."""
    key = live.key()
    memory = adds(live, key, fact)
    ask(live, key, "first", "Hello!")
    cube = cube_of(live, key)
    wait_for(lambda: states(live, cube), "the next session's beginning to be read ahead", PATIENCE_S)
    return key, memory, cube


def test_a_new_session_is_restored_in_its_first_request_also_after_a_restart_of_everything(live: Installation) -> None:
    key, _, _ = somebody(live, "Is called Ada Kvalheim and lives in Bergen.")
    answer = ask(live, key, "second", "Where do I live?")
    mine = restored(answer)
    assert mine > 60, "more than the system message"
    assert restored(ask(live, live.key(), "theirs", "Where do I live?")) == 0, "another's is never used"
    live.stop()
    live.start()
    wait_for(lambda: loaded(live), "the model to be loaded", 60)
    again = ask(live, key, "third", "And what is my name?")
    assert restored(again) >= mine - 1
    assert again.headers["x-memory-kv-source"] == "disk"


@pytest.mark.parametrize("what", ["forgotten", "edited"])
def test_what_is_forgotten_or_edited_is_not_restored(live: Installation, what: str) -> None:
    key, memory, cube = somebody(live, "Is called Ingrid Solheim, born in Tromsø, a lighthouse keeper by trade.")
    full = restored(ask(live, key, "second", "What is my trade?"))
    before = {path.name for path in states(live, cube)}
    path, method = f"/v1/memory/items/{memory}", "DELETE" if what == "forgotten" else "PATCH"
    changed = {"text": "Is called Ingrid Solheim, born in Hamar."} if what == "edited" else None
    assert live.api(key, method, path, changed)[0] == 200
    assert not before & {path.name for path in states(live, cube)}, "before the call was answered"
    assert not holding(live, cube, "Troms"), "nor is it in any other state of the cube"
    assert restored(ask(live, key, "third", "What is my trade?")) < full


def test_erasing_everything_leaves_no_state_and_the_receipt_counts_them(live: Installation) -> None:
    key, _, cube = somebody(live, "Is called Canary Featherstone.")
    assert holding(live, cube, "Featherstone")
    status, receipt = live.api(key, "DELETE", "/v1/memory")
    assert status == 202
    assert receipt["counts"]["kv_states"] > 0
    assert not folder(live, cube).exists()
    wait_for(lambda: live.api(key, "GET", f"/v1/memory/receipts/{receipt['id']}")[1]["state"] == "done", "the receipt")
    tokens = Model(bundled_model()).tokenize(" Featherstone")
    everywhere = [path.read_bytes() for path in (live.data / "kv").rglob("*") if path.is_file()]
    assert not any(np.asarray(tokens, np.int32).tobytes() in content for content in everywhere)
    assert not any(b"Featherstone" in content for content in everywhere)


def test_an_archived_cube_and_one_whose_grant_ends_have_no_states(live: Installation) -> None:
    key, _, home = somebody(live, "Is called Sverre.")
    status, made = live.api(key, "POST", "/v1/cubes", {"name": "team"})
    assert status == 201
    cube = made["id"]
    guest = live.key()
    principal = whose(live, guest)
    assert live.api(key, "POST", f"/v1/cubes/{cube}/grants", {"principal": principal, "level": "write"})[0] == 201
    for _ in range(2):
        ask(live, guest, "ours", "We sail on Friday.", cube)
    wait_for(lambda: states(live, cube), "the team's next session to be read ahead", PATIENCE_S)
    assert live.api(key, "DELETE", f"/v1/cubes/{cube}/grants/{principal}")[0] == 200
    assert not folder(live, cube).exists()
    assert states(live, home), "the other cube keeps its own"
    assert live.api(key, "PATCH", f"/v1/cubes/{home}", {"status": "archived"})[0] == 200
    assert not folder(live, home).exists()


def whose(live: Installation, key: str) -> str:
    ask(live, key, "hello", "Hello!")
    return str(live.api(key, "GET", "/v1/cubes")[1]["data"][0]["owner"])


def test_twenty_mixed_requests_never_mix_what_people_are(live: Installation) -> None:
    people = {name: somebody(live, f"Is called {name}.") for name in ("Quillan", "Ottoline", "Bertrand")}
    seen: dict[str, list[str]] = {name: [] for name in people}

    def talks(name: str, count: int) -> None:
        key = people[name][0]
        for number in range(count):
            answer = ask(live, key, f"s{number % 3}", f"Question {number}: what is my name?")
            restored(answer)
            seen[name] += filter(None, str(answer.headers.get("x-memory-ids", "")).split(","))

    threads = [threading.Thread(target=talks, args=(name, 7)) for name in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, (key, _, cube) in people.items():
        assert set(seen[name]) <= {item["id"] for item in live.items(key, status="all")}
        assert holding(live, cube, name)
        for other in people.keys() - {name}:
            assert not holding(live, cube, other), "a state of one never holds another's words"


def holding(live: Installation, cube: str, word: str) -> list[Path]:
    """The states of a cube that were computed from this word."""
    model, found = Model(bundled_model()), []
    for path in folder(live, cube).glob("*.kv"):
        text = b"".join(model.piece(int(token)) for token in read_head(path)[1]).decode("utf-8", "replace")
        if word in text:
            found.append(path)
    model.close()
    return found
