"""Kept responses: chains, leases, erasing, on SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from memory import erase as everything
from memory.memories import Memories
from memory.sql import Database
from memory.turns import Place, TurnLog
from memory.types import Turn
from proxy import db, kept
from proxy.config import Config
from proxy.errors import BadRequest
from proxy.kept import Kept, Names, Responses
from proxy.responses_api import listed
from tests import postgres
from tests.proxy.test_usage import Clock

DAY_S = 86_400.0


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, data: Path) -> AsyncIterator[Database]:
    config = Config(data=str(data))
    if request.param == "postgresql":
        server: postgres.Postgres = request.getfixturevalue("postgresql")
        config = Config(data=str(data), database=server.new_database(f"k{abs(hash(str(data))):x}"))
    db.upgrade(config)
    database = db.open_database(config)
    yield database
    await database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def responses(database: Database, clock: Clock) -> Responses:
    return Responses(database, 30 * DAY_S, clock)


def one(name: str, clock: Clock, previous: str = "", **more: Any) -> Kept:
    said = {"id": name, "status": "completed", "output": [{"type": "message", "text": f"zq{name}\x00\ud800"}]}
    usual = {"principal": "p", "cube": "c", "session": "s", "turn": "", "request": f"req_{name}"}
    asked = [{"role": "user", "content": name}]
    return Kept(**{**usual, "id": name, "previous": previous, "at": clock(), "input": asked, "response": said, **more})


async def left(database: Database) -> list[str]:
    async with database.read() as connection:
        return sorted(row[0] for row in (await connection.execute(sa.select(db.responses.c.id))).all())


def test_an_id_says_whose_it_is() -> None:
    ours, theirs = Names(b"one"), Names(b"other")
    name = ours.new()
    assert (ours.ours(name), theirs.ours(name), len(name)) == (True, False, 53)
    for other in ("", "resp_", name[:-1], name + "0", name.replace("resp_", "chat_"), "resp_" + "é" * 48):
        assert not ours.ours(other)


async def test_a_chain_comes_oldest_first_and_only_to_its_principal(responses: Responses, clock: Clock) -> None:
    for name, previous in (("a", ""), ("b", "a"), ("c", "b"), ("apart", "a")):
        assert await responses.keep(one(name, clock, previous), clock())
    found = await responses.chain("p", "c")
    assert [row.id for row in found] == ["a", "b", "c"]
    assert found[1].input == [{"role": "user", "content": "b"}]
    assert found[1].response["output"] == [{"type": "message", "text": "zqb\x00\ud800"}]
    for principal, name in (("other", "c"), ("p", "nobody's")):
        with pytest.raises(BadRequest) as raised:
            await responses.chain(principal, name)
        assert (raised.value.code, await responses.get(principal, name)) == ("previous_response_not_found", None)
    assert (await responses.delete("other", "b"), await responses.delete("p", "b")) == (False, True)
    with pytest.raises(BadRequest, match="'b' not found"):
        await responses.chain("p", "c")


async def test_a_long_chain_is_refused(responses: Responses, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        await responses.keep(one(str(number), clock, str(number - 1) if number else ""), clock())
    monkeypatch.setattr(kept, "LONGEST_CHAIN", 7)
    assert len(await responses.chain("p", "6")) == 7
    for longest, most in ((7, kept.MOST_OF_A_CHAIN), (9, 300)):
        monkeypatch.setattr(kept, "LONGEST_CHAIN", longest)
        monkeypatch.setattr(kept, "MOST_OF_A_CHAIN", most)
        with pytest.raises(BadRequest) as raised:
            await responses.chain("p", "7")
        assert raised.value.code == "previous_response_too_long"


async def test_what_is_old_is_not_there_and_is_swept(database: Database, responses: Responses, clock: Clock) -> None:
    await responses.keep(one("old", clock), clock())
    clock.now += 20 * DAY_S
    await responses.keep(one("young", clock, "old"), clock())
    assert await responses.get("p", "old") is not None
    clock.now += 11 * DAY_S
    assert await responses.get("p", "old") is None
    with pytest.raises(BadRequest):
        await responses.chain("p", "young")
    assert await kept.purge(database, clock() - 30 * DAY_S) == 1
    assert await left(database) == ["young"]


async def test_one_that_is_made_is_held_until_it_ends(responses: Responses, clock: Clock) -> None:
    begun = one("a", clock, response={"id": "a", "status": "in_progress", "output": []}, held_until=clock() + 60)
    await responses.keep(begun, clock())
    with pytest.raises(BadRequest) as raised:
        await responses.chain("p", "a")
    assert raised.value.code == "previous_response_not_completed"
    clock.now += 50
    assert await responses.renew("a", clock() + 60)
    clock.now += 50
    assert (found := await responses.get("p", "a")) is not None
    assert found.response["status"] == "in_progress"
    clock.now += 11
    assert (found := await responses.get("p", "a")) is not None
    assert (found.response["status"], found.response["error"]["code"]) == ("failed", "server_error")
    assert await responses.finish("a", {"id": "a", "status": "completed", "output": []})
    assert not await responses.finish("a", {"id": "a", "status": "failed", "output": []})
    assert not await responses.renew("a", clock() + 60)
    assert [row.response["status"] for row in await responses.chain("p", "a")] == ["completed"]


async def test_what_is_asked_before_an_erasure_is_not_kept_behind_it(
    database: Database, responses: Responses, clock: Clock
) -> None:
    await responses.keep(one("a", clock), clock())
    asked_at = clock()
    clock.now += 1

    async def erase(connection: Any) -> Any:
        return await everything.everything(connection, "c", "p", clock(), beside=[db.responses], keep=True)

    receipt = await database.write(erase)
    assert receipt.counts["responses"] == 1
    assert not await responses.keep(one("b", clock), asked_at)
    clock.now += 1
    assert await responses.keep(one("c", clock), clock())
    assert await left(database) == ["c"]


async def test_a_response_goes_with_its_turn_and_with_nothing_else(
    database: Database, responses: Responses, clock: Clock
) -> None:
    turns, memories = TurnLog(database), Memories(database, clock)
    base = Turn("", "c", "s", "", "", "Noted.", 0.0, 0.0, "m", "", True, "")
    for number, key in enumerate(("k1", "k2", "k3")):
        at = clock() + number
        turn = replace(base, key=key, user_text=f"Said {key}.", said_at=at, answered_at=at, request_id=f"req_{key}")
        await turns.record(turn, Place(position=f"p{number}", tail=f"p{number + 1}"), owner="p")
    rows = [
        one("of-1", clock, turn="k1"),
        one("round-of-1", clock, turn="k1", request="another"),
        one("of-2", clock, turn="k2"),
        one("by-request", clock, turn="changed", request="req_k3", session="other"),
        one("elsewhere", clock, turn="k1", cube="d"),
        one("not-over", clock, turn="k9"),
        one("memory-off", clock),
    ]
    for row in rows:
        await responses.keep(row, clock())
    gone = [memory.id for memory in await memories.since("c", 0) if memory.text == "Said k1."]

    async def beside(connection: Any, erased: Any) -> None:
        await kept.erase(connection, erased, cube="c")

    assert await memories.forget("c", gone[0], beside=beside)
    assert await left(database) == ["by-request", "elsewhere", "memory-off", "of-2"]


def test_items_are_listed_in_openais_shape() -> None:
    given = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}, "no item"]
    given += [{"type": "function_call_output", "call_id": "c", "output": "pond"}, {"type": "reasoning", "id": "rs_1"}]
    asked, answered, output, reasoning = listed(given, "resp_1")
    assert (asked["type"], asked["content"]) == ("message", [{"type": "input_text", "text": "Hi"}])
    assert answered["content"] == [{"type": "output_text", "text": "Ho", "annotations": []}]
    assert (output["id"].partition("_")[0], reasoning["id"]) == ("fco", "rs_1")
    assert listed(given, "resp_1") == [asked, answered, output, reasoning]
    assert listed(given, "resp_2")[0]["id"] != asked["id"]
