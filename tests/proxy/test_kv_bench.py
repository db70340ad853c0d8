"""`memrelay bench kv`: the same answers from every place, and the picture of what it took."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("llama_cpp")

from memory.engine.settings import EngineSettings, bundled_model
from proxy.evaluation import kv, kv_drawing

SMALL = EngineSettings(bundled_model(), "small", context=512, threads=1)


def ignore(what: str, done: int, total: int) -> None:
    """Nobody watches."""


async def test_answers_are_the_same_cold_from_ram_and_after_a_restart() -> None:
    found = await kv.identity(SMALL, 6, ignore, sizes=(60, 120))
    assert (found["identical_ram"], found["identical_disk"]) == (6, 6)
    assert (found["restored_ram"], found["restored_disk"]) == (6, 6)
    assert found["different_answers"] > 1


async def test_every_kind_is_measured_for_every_size_the_context_allows() -> None:
    body = await kv.measure(SMALL, (60, 450), (25, 40), 1, ignore)
    assert [(row["memory_tokens"], row["new_tokens"]) for row in body["rows"]] == [(60, 25), (60, 40)]
    assert body["identical"] == "2/2"
    row = body["rows"][0]
    assert row["cold_ms"] > row["ram_ms"] > 0
    assert row["prompt_tokens"] - row["restored_tokens"] < 50


async def test_tokens_per_second_of_one_and_of_four() -> None:
    found = await kv.throughput(replace(SMALL, context=256), ignore, tokens=4)
    assert found["tokens_per_s_1"] > 0
    assert found["tokens_per_s_4"] > 0


async def test_many_requests_are_counted() -> None:
    found = await kv.endurance(replace(SMALL, context=256), 8, ignore)
    assert (found["requests"], len(found["resident_mb"])) == (8, 2)


def test_picture_has_a_bar_for_every_time() -> None:
    times = {f"{kind}_ms": 100.0 + at for at, kind in enumerate(kv.KINDS)}
    ratios = {f"{kind}_to_none": 1.04 for kind in ("slot", "ram", "disk")}
    rows = [{"memory_tokens": m, "new_tokens": n, **times, **ratios} for m in (600, 1200) for n in (25, 950)]
    picture = kv_drawing.draw(rows, "a machine")
    assert [picture.count(f'class="{kind}"') for kind in kv.KINDS] == [4] * 5
    assert "1,200 tokens of memory" in picture
    assert picture == kv_drawing.draw(rows, "a machine")
