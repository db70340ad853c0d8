"""The measurement of prefixes: its arithmetic, its clients, its picture; and a whole run with one kind of client."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from proxy.config import Config
from proxy.evaluation import clients, prefix, prefix_picture


def body(*texts: str) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}


def test_a_prompt_that_grows_keeps_all_of_the_one_before() -> None:
    tally = prefix.Tally()
    tally.add(body("one two"))
    tally.add(body("one two", "three"))
    [(whole, same, before)] = tally.requests
    assert same == before < whole


def test_what_changes_at_the_beginning_costs_everything_behind_it() -> None:
    tally = prefix.Tally()
    tally.add(body("one two three", "four"))
    tally.add(body("two two three", "four"))
    [(whole, same, _)] = tally.requests
    assert same < whole / 2


@pytest.mark.parametrize("kind", clients.CLIENTS)
def test_every_client_asks_all_its_questions(kind: str) -> None:
    talk, pauses, asked = clients.Talking(), 0, ""
    for step in clients.CLIENTS[kind](talk):
        if step is None:
            pauses += 1
            continue
        asked += str(step["messages"][-1]["content"])
        called = bool(talk.tools) and step["messages"][-1]["role"] == "user"
        talk.hear({"role": "assistant", "content": "x", **({"tool_calls": [{"id": "c"}]} if called else {})})
    assert pauses == len(clients.QUESTIONS)
    assert all(question in asked for question in clients.QUESTIONS)


async def test_ours_keeps_nearly_what_no_memory_keeps(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix, "CLIENTS", {"plain": clients.plain})
    monkeypatch.setattr(prefix, "FORGOTTEN", "plain")
    found = await prefix.measure(Config(data=str(data)), lambda *_: None)
    assert found["ours"] > found["none"] - 0.06  # what the session was shown is forgotten in its middle
    assert found["system_prompt"] < 0.5 < found["none"]
    assert ElementTree.fromstring(prefix_picture.draw(found)).tag.endswith("svg")
