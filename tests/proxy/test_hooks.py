"""Hooks: their order, their faults, what they may change, and how they are loaded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.auth import Principal
from proxy.config import ConfigError
from proxy.errors import Forbidden
from proxy.hooks import Exchange, Hook, Hooks, load
from proxy.splice import Append, CannotSplice, Lead
from tests.hooks import Bouncer, Faulty, recorder


def exchange(*said: Any) -> Exchange:
    body = {"model": "m", "messages": [{"role": "user", "content": text} for text in said]}
    return Exchange("req", Principal("pr", "key", frozenset()), {}, body, json.dumps(body).encode(), 0.0)


class Noting(Hook):
    def __init__(self, name: str, seen: list[str]) -> None:
        self.name = name
        self.seen = seen

    async def on_request(self, exchange: Exchange) -> None:
        self.seen.append(f"request {self.name}")

    async def on_response(self, exchange: Exchange) -> None:
        self.seen.append(f"response {self.name}")

    async def on_error(self, exchange: Exchange, error: BaseException) -> None:
        self.seen.append(f"error {self.name}")


async def test_requests_go_in_by_order_and_answers_come_out_in_reverse() -> None:
    seen: list[str] = []
    hooks = Hooks([Noting("a", seen), Noting("b", seen)])
    await hooks.on_request(exchange("x"))
    await hooks.on_response(exchange("x"))
    await hooks.on_error(exchange("x"), ValueError())
    assert seen == ["request a", "request b", "response b", "response a", "error b", "error a"]


async def test_a_fault_is_counted_and_the_others_run() -> None:
    seen: list[str] = []
    failed: list[str] = []
    hooks = Hooks([Noting("a", seen), Faulty(), Noting("b", seen)], failed.append)
    await hooks.on_request(exchange("x"))
    await hooks.on_response(exchange("x"))
    assert seen == ["request a", "request b", "response b", "response a"]
    assert failed == ["Faulty", "Faulty"]


async def test_a_refusal_ends_the_request_there() -> None:
    seen: list[str] = []
    with pytest.raises(Forbidden, match="not here"):
        await Hooks([Bouncer(), Noting("b", seen)]).on_request(exchange("a forbidden thing"))
    assert seen == []


def test_edits_follow_one_another_and_can_be_read_at_once() -> None:
    one = exchange("a", "b")
    one.edit([Append(1, "c")])
    assert one.messages[1]["content"] == "b\n\nc"
    one.edit([Lead("s"), Append(0, "d")])
    one.edit([])
    assert [message["content"] for message in one.messages] == ["s", "a\n\nd", "b\n\nc"]
    one.replace({"model": "n", "messages": []})
    one.edit([Lead("s")])
    assert json.loads(one.raw) == {"model": "n", "messages": [{"role": "system", "content": "s"}]}
    assert one.model == "n"


def test_an_edit_that_fails_changes_nothing() -> None:
    one = exchange("a", None)
    before = one.raw
    with pytest.raises(CannotSplice):
        one.edit([Append(0, "b"), Append(1, "b")])
    assert (one.raw, one.messages[0]["content"]) == (before, "a")


def test_hooks_are_loaded_by_their_paths() -> None:
    first, second = load(["tests.hooks:recorder", "tests.hooks.Faulty"])
    assert first is recorder
    assert isinstance(second, Faulty)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "nothing",
        "tests.hooks",
        "tests.hooks:Nothing",
        "no.such.module:Hook",
        "tests.hooks:Forbidden",
        "json:dumps",
        ":x",
    ],
)
def test_what_is_no_hook_is_a_clear_error(path: str) -> None:
    with pytest.raises(ConfigError, match="hooks: "):
        load([path])
