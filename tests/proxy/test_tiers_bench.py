"""`memrelay bench tiers`: conversations lived through again, and the picture of where each memory was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from proxy.cli import main
from proxy.evaluation import drawing
from proxy.evaluation.drawing import COLOURS
from proxy.evaluation.tiers import Film, Move, Row, Totals
from scheduler.policy import Tier

DAY = 86_400.0
FIRST = 1_760_000_000.0


def rounds(*said: str) -> list[dict[str, str]]:
    return [{"user": text, "assistant": "I see."} for text in said]


ZORA = {
    "name": "Zora",
    "sessions": [
        {"date": "2025-09-01", "rounds": rounds("My name is Zora Hurst.", "The parking ticket is on level three.")},
        {"date": "2025-09-12", "rounds": rounds("Good morning!")},
        {"date": "2025-12-20", "rounds": rounds("Good evening!")},
    ],
    "questions": [],
}
BO = {
    "name": "Bo",
    "sessions": [{"date": "2025-10-01", "rounds": rounds("I keep forty hens behind the barn.")}],
    "questions": [],
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> tuple[dict[str, Any], str]:
    """(what the command says, its picture)"""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "models").symlink_to(models_dir)
    (folder / "talks.json").write_text(json.dumps({"chats": [ZORA, BO]}))
    out = folder / "tiers.svg"
    words = ["bench", "tiers", str(folder / "talks.json"), "--out", str(out), "--data", str(folder), "--json"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), out.read_text()


def classes(picture: str) -> set[str]:
    return {element.get("class", "") for element in ElementTree.fromstring(picture).iter()}


def test_every_session_is_lived_through_and_no_budget_is_broken(shown: tuple[dict[str, Any], str]) -> None:
    body, _ = shown
    assert (body["benchmark"], body["sessions"], body["over_budget"]) == ("tiers", 4, 0)
    assert body["memories"] >= 6
    assert body["days"] == pytest.approx(110, abs=0.2)
    assert 0 < body["most_bytes"]["ram"] <= body["budget_bytes"]["ram"] == 1 << 20
    assert 0 < body["most_bytes"]["kv"] <= body["budget_bytes"]["kv"]


def test_memories_come_to_the_block_and_to_the_archive(shown: tuple[dict[str, Any], str]) -> None:
    body, _ = shown
    assert body["moves"]["memories ram → kv"] == 1  # her name, at the second session
    assert body["moves"]["memories ram → archive"] >= 1  # the ticket, that nobody asked for
    assert body["end_bytes"]["archive"] > 0


def test_the_picture_shows_the_tiers_the_budgets_and_two_explained_moves(shown: tuple[dict[str, Any], str]) -> None:
    _, picture = shown
    assert {"kv", "ram", "archive", "budget"} <= classes(picture)
    assert picture.count('class="budget"') == 2
    assert all(word in picture for word in ("Zora", "Bo", "budget 1.0 MiB", "Oct 2025", "in 4 sessions"))
    assert "One identity of Zora, ram → kv. From RAM to the stable block on 12 Sep 2025: " in picture
    assert "ram → archive. From RAM to the archive on 20 Dec 2025: not used yet" in picture


def test_nothing_that_was_said_is_in_the_picture_or_the_figures(shown: tuple[dict[str, Any], str]) -> None:
    body, picture = shown
    for word in ("Hurst", "parking", "hens", "barn", "morning"):
        assert word not in picture
        assert word not in json.dumps(body)


def film() -> Film:
    """Two days of one memory, whose cube left RAM for half a day."""
    row = Row("Ada", "m1", "fact", [(FIRST, Tier.RAM), (FIRST + DAY, Tier.INDEX), (FIRST + 1.5 * DAY, Tier.KV)])
    moves = [
        Move(FIRST + DAY, "Ada", "", "", Tier.RAM, Tier.INDEX, "Others were worth more."),
        Move(FIRST + 1.5 * DAY, "Ada", "m1", "fact", Tier.INDEX, Tier.KV, "It was asked for <again>."),
    ]
    totals = [Totals(FIRST, 0, 500, 100, 0), Totals(FIRST + DAY, 0, 0, 100, 0)]
    return Film({"kv": 1000, "ram": 1000}, [row], totals, moves, {"Ada": [FIRST]}, 1, FIRST + 2 * DAY)


def test_a_row_is_as_long_as_the_memory_was_there() -> None:
    found = {
        element.get("class"): (float(element.get("x", 0)), float(element.get("width", 0)), element.get("fill"))
        for element in ElementTree.fromstring(drawing.draw(film())).iter()
        if element.get("class") in ("kv", "ram", "index")
    }
    left, whole = 112.0, 1200.0 - 112 - 24
    assert found["ram"] == (left, pytest.approx(whole / 2, abs=0.2), COLOURS[Tier.RAM])
    assert found["index"] == (pytest.approx(left + whole / 2, abs=0.2), pytest.approx(whole / 4, abs=0.2), "#d3dbe3")
    assert found["kv"][0] == pytest.approx(left + 0.75 * whole, abs=0.2)


def test_words_are_escaped_and_the_same_film_gives_the_same_bytes() -> None:
    picture = drawing.draw(film())
    assert "It was asked for &lt;again&gt;." in picture
    assert picture == drawing.draw(film())


def test_memories_that_were_always_together_are_one_rectangle() -> None:
    one = film()
    one.rows += [replace(one.rows[0], id=f"m{n}", places=[(FIRST, Tier.RAM)]) for n in range(2, 50)]
    assert drawing.draw(one).count('class="ram"') == 2


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_a_film_with_few_moves_is_drawn_too(moves: int) -> None:
    one = film()
    del one.moves[moves:]
    assert drawing.draw(one).count("<circle") == 2 * moves


def test_a_file_that_is_none_of_talks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    result = CliRunner().invoke(main, ["bench", "tiers", str(tmp_path / "x.json"), "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "is not in this format" in result.output
