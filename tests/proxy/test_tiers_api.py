"""`GET /v1/memory/tiers`: the truth about where each memory is, what it is worth, and why."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memory.types import Status
from proxy import db
from proxy.forecasts import Forecast, Forecasts
from proxy.worth import in_ram
from scheduler.scenes import Foreseen
from tests.live import LiveProxy, wait_for
from tests.memory.make import memory


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[LiveProxy]:
    folder = tmp_path_factory.mktemp("tiers")
    (folder / "models").symlink_to(models_dir)
    gone = [{"name": "gone", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"}]
    with LiveProxy(folder, upstreams=gone) as running:
        yield running


@pytest.fixture
def key(live: LiveProxy) -> str:
    return live.key()


def add(live: LiveProxy, key: str, text: str, **more: Any) -> str:
    status, body = live.api(key, "POST", "/v1/memory/items", {"text": text, **more})
    assert status == 201, body
    return str(body["id"])


def look(live: LiveProxy, key: str, query: str = "", **given: str) -> dict[str, Any]:
    status, body = live.api(key, "GET", f"/v1/memory/tiers?{query}", **given)
    assert status == 200, body
    return dict(body)


def where(live: LiveProxy, key: str) -> dict[str, str]:
    return {one["id"]: one["tier"] for one in look(live, key)["data"]}


def counts(live: LiveProxy, key: str) -> dict[str, int]:
    return {tier["tier"]: tier["items"] for tier in look(live, key)["tiers"]}


def chat(live: LiveProxy, key: str, text: str) -> None:
    """A chat that memory goes into; nobody answers it."""
    live.api(key, "POST", "/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": text}]})


def test_a_cube_that_is_not_there_has_nothing_anywhere(live: LiveProxy, key: str) -> None:
    assert look(live, key) == {
        "object": "list", "cube": None, "tiers": [], "data": [], "has_more": False, "next": None,
    }  # fmt: skip


def test_a_memory_is_in_the_index_until_its_cube_is_asked_and_then_in_memory(live: LiveProxy, key: str) -> None:
    fact = add(live, key, "My dog is called Rex.")
    live.index_everything()
    before = look(live, key)
    assert (before["cube"]["in_memory"], before["cube"]["bytes"]) == ("no", 0)
    assert [(one["tier"], one["indexed"]) for one in before["data"]] == [("index", True)]
    assert before["data"][0]["why"].endswith("value 0.034; its cube is not in memory.")
    live.search(key, "How is my dog called?")
    after = look(live, key)
    assert (after["cube"]["in_memory"], where(live, key)) == ("whole", {fact: "ram"})
    assert 0 < after["cube"]["bytes"] <= after["tiers"][1]["all_cubes_bytes"] <= after["tiers"][1]["budget_bytes"]
    assert after["data"][0]["why"].endswith("its cube is in memory.")


def test_what_stands_in_the_newest_sessions_block_is_in_the_kv_tier(live: LiveProxy, key: str) -> None:
    name = add(live, key, "I am called Zora.", kind="identity")
    fact = add(live, key, "My dog is called Rex.")
    assert where(live, key) == {name: "index", fact: "index"}
    chat(live, key, "How is my dog called?")
    wait_for(lambda: where(live, key) == {name: "kv", fact: "ram"}, "the session to be kept")
    kv, ram, *_ = look(live, key)["tiers"]
    assert (kv["items"], ram["items"], kv["budget_tokens"]) == (1, 1, 400)
    assert 0 < kv["tokens"] <= 400
    late = add(live, key, "I like tea.", kind="preference")
    assert where(live, key)[late] == "ram"  # the session keeps the block it began with
    said = {one["id"]: one["why"] for one in look(live, key)["data"]}
    assert "it stands in the block with which the session of" in said[name]


def test_the_figures_multiply_to_the_value(live: LiveProxy, key: str) -> None:
    add(live, key, "My dog is called Rex.", importance=0.9)
    (one,) = look(live, key)["data"]
    assert one["value"] == pytest.approx(one["frequency"] * one["recency"] * one["relevance"], abs=2e-4)
    assert one["frequency"] == pytest.approx(0.9 / 3.9, abs=1e-3)
    assert one["recency"] == pytest.approx(1.0, abs=1e-3)


def test_what_is_foreseen_for_a_memory_counts(live: LiveProxy, key: str) -> None:
    likely, listed, other = (add(live, key, f"Fact number {number}.") for number in range(3))
    cube = look(live, key)["cube"]["id"]

    async def foresee() -> None:
        database = db.open_database(live.config)
        foreseen = (Foreseen(likely, 0.7, {}), Foreseen(listed, 0.3, {}))
        await Forecasts(database).keep(Forecast(cube, 0.0, 1, foreseen))
        await database.close()

    asyncio.run(foresee())
    found = {one["id"]: one for one in look(live, key)["data"]}
    assert [found[one]["expected"] for one in (likely, listed, other)] == [0.7, 0.3, 0.3]
    assert found[likely]["value"] > found[listed]["value"]
    assert "expected next with 0.70, " in found[likely]["why"]


def test_an_archived_memory_says_for_how_long_it_had_been_idle(live: LiveProxy, key: str) -> None:
    kept, gone = add(live, key, "My dog is called Rex."), add(live, key, "The parking ticket is on level 3.")
    status, body = live.api(key, "POST", f"/v1/memory/items/{gone}/undo")
    assert status == 200, body
    assert where(live, key) == {kept: "index", gone: "archive"}
    (one,) = look(live, key, "tier=archive")["data"]
    assert one["why"].endswith("; archived (undo) when it had not been said or used for 0 days.")
    assert counts(live, key) == {"kv": 0, "ram": 0, "index": 1, "archive": 1}


def test_of_an_archived_cube_nothing_is_anywhere_else(live: LiveProxy, key: str) -> None:
    cube = live.api(key, "POST", "/v1/cubes", {"name": "old"})[1]["id"]
    live.api(key, "POST", "/v1/memory/items", {"text": "A fact."}, cube=cube)
    live.api(key, "POST", "/v1/memory/search", {"query": "fact"}, cube=cube)
    live.api(key, "PATCH", f"/v1/cubes/{cube}", {"status": "archived"})
    found = look(live, key, cube=cube)
    assert [one["tier"] for one in found["data"]] == ["archive"]
    assert [tier["items"] for tier in found["tiers"]] == [0, 0, 0, 1]
    assert [len(look(live, key, f"tier={tier}", cube=cube)["data"]) for tier in ("kv", "ram", "index", "archive")] == [
        0, 0, 0, 1,
    ]  # fmt: skip


def test_pages_and_tiers_hold_every_memory_once(live: LiveProxy, key: str) -> None:
    for number in range(5):
        add(live, key, f"Fact number {number}.")
    name = add(live, key, "I am called Zora.", kind="identity")
    chat(live, key, "What is fact number 3?")
    wait_for(lambda: where(live, key)[name] == "kv", "the session to be kept")
    every, after = [], ""
    while True:
        page = look(live, key, f"limit=2{after}")
        every += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['next']}"
    by_tier = {
        tier: [one["id"] for one in look(live, key, f"tier={tier}")["data"]]
        for tier in ("kv", "ram", "index", "archive")
    }
    assert sorted(every) == sorted(one for ids in by_tier.values() for one in ids)
    assert (len(every), by_tier["kv"]) == (len(set(every)), [name])
    assert counts(live, key) == {tier: len(ids) for tier, ids in by_tier.items()}


@pytest.mark.parametrize("query", ["tier=disk", "limit=0", "limit=501", "limit=²", "after=%00", "after=e30="])
def test_what_makes_no_sense_is_refused(live: LiveProxy, key: str, query: str) -> None:
    add(live, key, "My dog is called Rex.")
    status, body = live.api(key, "GET", f"/v1/memory/tiers?{query.replace('²', '%C2%B2')}")
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")


def test_nobody_sees_anothers_tiers(live: LiveProxy, key: str) -> None:
    add(live, key, "My dog is called Rex.")
    other = live.key()
    assert look(live, other)["data"] == []
    cube = look(live, key)["cube"]["id"]
    assert live.api(other, "GET", "/v1/memory/tiers", cube=cube)[0] == 404
    assert live.api(live.key("chat"), "GET", "/v1/memory/tiers")[0] == 403


def test_a_memory_takes_about_what_a_view_says(live: LiveProxy, key: str) -> None:
    for number in range(20):
        add(live, key, f"My cousin number {number} lives in a house with {number} green doors and a garden.")
    live.search(key, "cousin")
    found = look(live, key)
    held, reckoned = found["cube"]["bytes"], sum(one["bytes"] for one in found["data"])
    assert reckoned == pytest.approx(held, rel=0.5)
    assert in_ram(memory(text="", status=Status.ACTIVE)) == 0
