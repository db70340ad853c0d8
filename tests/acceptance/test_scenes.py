"""Through the front door: what comes next is foreseen, told with its reasons, loaded, and never believed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import RecordingUpstream
from tests.live import Installation, wait_for


@pytest.fixture(scope="module")
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, upstream: RecordingUpstream
) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "models").symlink_to(models_dir)
    upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url}]
    with Installation(
        folder, upstreams=upstreams, executor={"sweep_s": 1}, evolution={"quiet_s": 1}, prediction={"guesses": False}
    ) as running:
        yield running


def chat(live: Installation, key: str, session: str, *texts: str, after: tuple[str, ...] = ()) -> Any:
    """These are said in a session one after the other, `after` what was said in it before; the last answer with its headers."""
    client, answer = live.client(key, X_Memory_Session=session), None
    history = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 9, after, strict=False)]
    for text in texts:
        history.append({"role": "user", "content": text})
        answer = client.chat.completions.with_raw_response.create(model="m", messages=history)  # type: ignore[arg-type]
        told = answer.parse().choices[0].message.content
        history.append({"role": "assistant", "content": told})
    return answer


def scenes(live: Installation, key: str, query: str = "") -> dict[str, Any]:
    status, body = live.api(key, "GET", f"/v1/memory/scenes{query}")
    assert status == 200, body
    found: dict[str, Any] = body
    return found


def counted(live: Installation, line: str) -> float:
    from urllib.request import urlopen

    with urlopen(f"{live.url}/metrics", timeout=30) as response:
        text = response.read().decode()
    return sum(float(row.rpartition(" ")[2]) for row in text.splitlines() if row.startswith(line))


def predicted(live: Installation, key: str) -> bool:
    status, body = live.api(key, "GET", "/v1/memory/jobs?limit=200")
    if status == 503:  # the executor has not made the queue yet
        return False
    assert status == 200, body
    return any(job["task"] == "predict" and job["state"] == "done" for job in body["data"])


def test_the_next_turn_of_a_session_is_foreseen(live: Installation, upstream: RecordingUpstream) -> None:
    key = live.key()
    chat(live, key, "one", "My dog Rex has hurt his paw.", "The vet gave Rex a bandage.")
    chat(live, key, "two", "I planted cherry tomatoes on the balcony.")
    chat(live, key, "three", "How is my dog's paw?")
    foreseen = "/v1/memory/scenes?session=three"
    wait_for(lambda: live.api(key, "GET", foreseen)[0] == 200, "the next turn to be foreseen")
    found = scenes(live, key, "?session=three")
    assert found["occasion"] == "turn"
    first = found["data"][0]
    assert "Rex" in first["memories"][0]["text"]
    assert 0 < first["chance"] < 1
    assert first["reasons"]
    answer = chat(live, key, "three", "What did the vet give Rex?", after=("How is my dog's paw?", "Noted."))
    assert int(answer.headers["x-memory-foreseen"]) > 0
    assert counted(live, 'memrelay_needed_total{occasion="turn",outcome="foreseen"}') > 0


def test_the_next_session_is_foreseen_when_this_one_is_quiet(live: Installation) -> None:
    key = live.key()
    chat(live, key, "one", "I am learning the cello.", "My cello teacher is called Irma.")
    wait_for(lambda: predicted(live, key), "the prediction", 60)
    found = scenes(live, key)
    assert found["occasion"] == "opening"
    assert found["arrival"] is None, "one session is no habit"
    assert "cello" in found["data"][0]["memories"][0]["text"]
    before = counted(live, 'memrelay_openings_total{why="looked_in"}')
    assert live.api(key, "GET", "/v1/models")[0] == 200
    wait_for(lambda: counted(live, 'memrelay_openings_total{why="looked_in"}') > before, "the cube to be made ready")
    answer = chat(live, key, "two", "How do I tune my cello?")
    assert int(answer.headers["x-memory-foreseen"]) > 0


def test_what_was_forgotten_after_it_was_foreseen_is_not_shown(live: Installation, upstream: RecordingUpstream) -> None:
    key = live.key()
    chat(live, key, "one", "The code of my bicycle lock is 7315.")
    chat(live, key, "two", "Where did I leave my bicycle lock?")
    wait_for(lambda: scenes(live, key)["sessions"], "the next turn to be foreseen")
    (foreseen,) = [
        memory
        for scene in scenes(live, key, "?session=two")["data"]
        for memory in scene["memories"]
        if "7315" in memory["text"] and memory["kind"] == "episode"
    ]
    assert live.api(key, "DELETE", f"/v1/memory/items/{foreseen['id']}")[0] == 200
    chat(live, key, "three", "What is the code of my bicycle lock?")
    assert "7315" not in upstream.last.prompt
    assert "7315" not in str(scenes(live, key))


def test_nobody_sees_anothers_scenes(live: Installation) -> None:
    mine, theirs = live.key(), live.key()
    chat(live, mine, "one", "My safe opens with 1-2-3.")
    chat(live, mine, "two", "How do I open my safe?")
    wait_for(lambda: scenes(live, mine)["sessions"], "the next turn to be foreseen")
    assert scenes(live, theirs)["data"] == []
    status, body = live.api(theirs, "GET", f"/v1/memory/scenes?session={scenes(live, mine)['sessions'][0]}")
    assert status == 404
    assert body["error"]["param"] == "session"


def test_a_local_model_has_read_how_a_session_begins_before_it_begins(data: Path) -> None:
    def ask(live: Installation, key: str, session: str, text: str) -> Any:
        said = [{"role": "system", "content": "You are a brief assistant."}, {"role": "user", "content": text}]
        client = live.client(key, X_Memory_Session=session)
        return client.chat.completions.create(model="local", messages=said, max_tokens=4)  # type: ignore[arg-type]

    with Installation(data, executor={"sweep_s": 1}, evolution={"quiet_s": 1}) as live:
        key = live.key()
        ask(live, key, "one", "My name is Ada and I live in Bergen.")
        wait_for(lambda: live.items(key, kind="identity"), "the name to be learned", 60)
        assert live.api(key, "GET", "/v1/models")[0] == 200
        wait_for(lambda: counted(live, 'memrelay_prefills_total{outcome="done"}') > 0, "the prefill", 60)
        used = ask(live, key, "two", "Hello!").usage
        assert used.prompt_tokens_details.cached_tokens > 60, "the system message alone has fewer"
