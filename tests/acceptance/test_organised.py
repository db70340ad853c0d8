"""Through the front door: what changed is known as it is now, can be looked up as it was, undone, and browsed as a graph."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
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
    folder = tmp_path_factory.mktemp("organised")
    (folder / "models").symlink_to(models_dir)
    upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url, "api_key": "upstream-secret"}]
    with Installation(folder, upstreams=upstreams, executor={"sweep_s": 1}) as running:
        yield running


def say(live: Installation, key: str, *texts: str) -> None:
    """Each text in a chat of its own, learned before the next."""
    client = live.client(key)
    for text in texts:
        client.chat.completions.create(model="any", messages=[{"role": "user", "content": text}])
        wait_for(partial(learned, live, key, text), "what was said")


def learned(live: Installation, key: str, text: str) -> bool:
    return any(text.rstrip(".") in item["text"] for item in items(live, key, status="all") if item["kind"] != "episode")


def items(live: Installation, key: str, **query: str) -> list[dict[str, Any]]:
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    found: list[dict[str, Any]] = live.api(key, "GET", f"/v1/memory/items?limit=200&{asked}")[1]["data"]
    return found


def in_graph(live: Installation, key: str, name: str) -> bool:
    return live.api(key, "GET", f"/v1/memory/graph?entity={name}")[0] == 200


def holds(live: Installation, key: str) -> set[str]:
    return {item["text"] for item in items(live, key) if item["kind"] != "episode"}


def test_a_new_chat_knows_what_holds_now(live: Installation, upstream: RecordingUpstream) -> None:
    key = live.key()
    say(live, key, "I live in Oslo.", "I'm vegan.", "I live in Rome.", "I'm not vegan anymore.")
    assert holds(live, key) == {"I live in Rome", "I'm not vegan anymore"}
    old = {item["text"]: item for item in items(live, key, status="superseded")}
    assert old.keys() == {"I live in Oslo", "I'm vegan"}
    assert all(item["valid_to"] for item in old.values())
    live.client(key).chat.completions.create(model="any", messages=[{"role": "user", "content": "Hello!"}])
    assert "I live in Rome" in upstream.last.prompt
    assert "I live in Oslo" not in upstream.last.prompt


def test_what_was_understood_wrongly_can_be_undone(live: Installation) -> None:
    key = live.key()
    say(live, key, "I live in Oslo.", "I live in Rome.")
    wrong = next(item for item in items(live, key) if item["text"] == "I live in Rome")
    status, body = live.api(key, "POST", f"/v1/memory/items/{wrong['id']}/undo")
    assert (status, body["item"]["status"], len(body["changed"])) == (200, "archived", 1)
    assert holds(live, key) == {"I live in Oslo"}
    assert live.api(key, "POST", "/v1/memory/items/none/undo")[0] == 404
    assert live.api(live.key(), "POST", f"/v1/memory/items/{wrong['id']}/undo")[0] == 404


def test_the_graph_leads_from_a_name_to_what_was_said(live: Installation) -> None:
    key = live.key()
    say(live, key, "My sister's name is Clara.", "My boss is called Stefan.")
    for name in ("Clara", "Stefan"):
        wait_for(partial(in_graph, live, key, name), "the graph")
    part = live.api(key, "GET", "/v1/memory/graph?entity=clara&depth=2")[1]
    assert {node["type"] for node in part["nodes"]} == {"entity", "memory", "topic"}
    assert "My sister's name is Clara" in {node.get("text") for node in part["nodes"]}
    names = {node["name"] for node in live.api(key, "GET", "/v1/memory/graph")[1]["nodes"]}
    assert names == {"Clara", "Stefan"}
    assert live.api(key, "GET", "/v1/memory/graph?kind=topic")[1]["nodes"]


def test_an_erased_name_is_out_of_the_graph(live: Installation) -> None:
    key = live.key()
    say(live, key, "My sister's name is Clara.")
    wait_for(partial(in_graph, live, key, "Clara"), "the graph")
    episode = next(item for item in items(live, key) if item["kind"] == "episode")
    live.api(key, "DELETE", f"/v1/memory/items/{episode['id']}")
    assert live.api(key, "GET", "/v1/memory/graph?entity=Clara")[0] == 404
    assert live.api(key, "GET", "/v1/memory/graph")[1]["nodes"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("depth=9", "depth"),
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("kind=nonsense", "kind"),
        ("status=deleted", "status"),
        ("since=soon", "since"),
        ("entity=a&topic=b", "topic"),
    ],
)
def test_what_is_asked_wrongly_is_said(live: Installation, query: str, param: str) -> None:
    status, body = live.api(live.key(), "GET", f"/v1/memory/graph?{query}")
    assert (status, body["error"]["param"]) == (400, param)


def test_a_turn_that_was_overtaken_says_so_in_the_prompt(live: Installation, upstream: RecordingUpstream) -> None:
    key = live.key()
    say(live, key, "I live in Oslo.", "I live in Rome.")
    found = live.api(key, "POST", "/v1/memory/search", {"query": "I live in Oslo", "kinds": ["episode"]})[1]["data"]
    replaced = {hit["text"]: hit["replaced"] for hit in found if hit["side"] == "user"}
    assert replaced["I live in Oslo."] == ["I live in Rome"]
    assert replaced.get("I live in Rome.", []) == []
    live.client(key).chat.completions.create(
        model="any", messages=[{"role": "user", "content": "How far is it from where I live in Oslo to the sea?"}]
    )
    line = next(line for line in upstream.last.prompt.splitlines() if "): I live in Oslo." in line)
    assert "[no longer so; now: I live in Rome]" in line


def test_what_overtook_a_turn_leaves_later_prompts_when_it_is_erased(
    live: Installation, upstream: RecordingUpstream
) -> None:
    key = live.key()
    say(live, key, "I live in Oslo.", "I live in Rome.")
    asked: list[Any] = [{"role": "user", "content": "How far is it from where I live in Oslo to the sea?"}]
    live.client(key).chat.completions.create(model="any", messages=asked)
    assert "now: I live in Rome]" in upstream.last.prompt
    for item in items(live, key):
        if "Rome" in item["text"]:
            live.api(key, "DELETE", f"/v1/memory/items/{item['id']}")
    more = [{"role": "assistant", "content": "Noted."}, {"role": "user", "content": "Thanks."}]
    live.client(key).chat.completions.create(model="any", messages=[*asked, *more])
    assert "Rome" not in upstream.last.prompt
