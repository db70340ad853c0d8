"""Chains of responses: what costs nothing, and what is made in the background beside other processes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from memory.sql import Database
from proxy import chains
from proxy.auth import Principal
from proxy.chains import Chains
from proxy.config import Sessions
from proxy.hooks import Exchange, Hooks
from proxy.kept import Names, Responses
from proxy.responses import RESPONSES
from proxy.upstreams.port import Reply
from proxy.upstreams.translate import Held
from tests.proxy.test_usage import Clock

NAMES = Names(b"secret")


class Untouched:
    """A table that nobody may ask."""

    keep_s = 1.0


def exchange(**body: Any) -> Exchange:
    asked = {"model": "m", "input": "Where is my otter?", **body}
    raw = json.dumps(asked).encode()
    return Exchange("req", Principal("p", "key", frozenset()), {}, asked, raw, 0.0, RESPONSES)


def over(kept: Any) -> Chains:
    return Chains(NAMES, kept, Hooks([]), Sessions(), Clock())


async def started(made: Chains, asking: Exchange, ask: Any) -> asyncio.Event:
    """A response is made; the event says that it is over."""
    await made.go_on(asking)
    ended = asyncio.Event()
    begun = {"id": asking.told_as.name, "status": "queued", "background": True, "output": []}
    await made.begin(asking, ask, begun, ended.set)
    return ended


@pytest.mark.parametrize("body", [{}, {"previous_response_id": "resp_of_an_upstream"}, {"store": False}])
async def test_what_names_nothing_of_ours_costs_no_sql_and_goes_out_as_it_came(body: dict[str, Any]) -> None:
    asked = exchange(**body)
    raw = asked.raw
    made = over(Untouched())
    await made.go_on(asked)
    assert (asked.raw, asked.told_as.follows) == (raw, "")
    assert NAMES.ours(asked.told_as.name) is (body.get("store") is not False)
    assert await made.keep(asked, b'{"store":true}') == b'{"store":true}'


async def test_one_that_another_process_has_cancelled_is_not_made_any_more(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "_RENEWED_S", 0.02)
    kept, asked, left = Responses(database, 1000.0, Clock()), exchange(), asyncio.Event()

    async def ask() -> Reply:
        try:
            return await asyncio.Future()
        finally:
            left.set()

    ended = await started(over(kept), asked, ask)
    await asyncio.sleep(0.1)
    assert not ended.is_set()
    assert await kept.finish(asked.told_as.name, {"id": asked.told_as.name, "status": "cancelled"})
    await asyncio.wait_for(ended.wait(), 5)
    assert left.is_set()
    found = await kept.get("p", asked.told_as.name)
    assert found is not None
    assert found.response["status"] == "cancelled"


async def test_a_fault_of_ours_ends_it_too(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    kept, asked = Responses(database, 1000.0, Clock()), exchange()

    async def ask() -> Reply:
        raise RuntimeError(asked.body["input"])

    await asyncio.wait_for((await started(over(kept), asked, ask)).wait(), 5)
    found = await kept.get("p", asked.told_as.name)
    assert found is not None
    assert (found.response["status"], found.response["error"]["message"]) == ("failed", "internal error")
    assert "RuntimeError" in caplog.text
    assert "otter" not in caplog.text


async def test_an_answer_that_is_no_response_is_a_failure(database: Database) -> None:
    kept, asked = Responses(database, 1000.0, Clock()), exchange()

    async def ask() -> Reply:
        return Held(200, [("content-type", "application/json")], b"[]")

    await asyncio.wait_for((await started(over(kept), asked, ask)).wait(), 5)
    found = await kept.get("p", asked.told_as.name)
    assert found is not None
    assert found.response["status"] == "failed"
