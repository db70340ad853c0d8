"""What is said to a llama-server and believed of it, against one that answers as a test tells it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from memory.sql import Database
from proxy.upstreams.llama_server import LlamaServer
from proxy.upstreams.port import Call
from proxy.upstreams.slot_files import NAMES, SlotFiles
from proxy.upstreams.slot_states import SlotStates
from proxy.upstreams.slot_table import SlotTable
from proxy.upstreams.slots import Server
from proxy.upstreams.wire import WireUpstream
from tests.fakes import Received, RecordingUpstream, Reply

BODY = b'{ "messages":[{"role":"user","content":"Hi"}],  "odd" : 1.50 }'
PROGRESS = b'data: {"choices":[],"prompt_progress":{"total":9,"cache":7,"processed":9}}\n\n'
REST = [b'data: {"choices":[{"delta":{"content":"A"}}]}\n\n', b'data: {"choices":[],"x":"prompt_progress"}\n\n']


class Fake:
    """A llama-server with two slots. `model` is what it says that it runs; `files` what it has saved, with its tokens."""

    def __init__(self) -> None:
        self.model = "a.gguf"
        self.files: dict[str, int] = {}
        self.saves = True
        self.holds = {0: 0, 1: 0}  # slot → tokens
        self.said: list[tuple[str, str]] = []
        self.chunks = [json.dumps({"timings": {"cache_n": 7, "prompt_n": 2}}).encode()]

    def __call__(self, received: Received) -> Reply:
        if received.path == "/v1/props":
            return _json({"total_slots": 2, "model_path": self.model})
        if received.path == "/v1/slots":
            return _json([{"id": 0, "is_processing": False}, {"id": 1, "is_processing": False}])
        if "/slots/" in received.path:
            slot, action = int(received.path.rpartition("/")[2]), received.target.rpartition("=")[2]
            return self._act(slot, action, received.body.get("filename", ""))
        self.holds[json.loads(received.raw).get("id_slot", 0) if received.raw.startswith(b"{") else 0] = 9
        return Reply(
            chunks=self.chunks, content_type="text/event-stream" if len(self.chunks) > 1 else "application/json"
        )

    def _act(self, slot: int, action: str, name: str) -> Reply:
        if not self.saves and action != "erase":
            return Reply(501, chunks=[b"{}"])
        self.said.append((action, name))
        if action == "erase":
            self.holds[slot] = 0
        if action == "save":
            self.files[name] = self.holds[slot]
            return _json({"n_saved": self.files[name], "n_written": self.files[name] * 1000})
        if action == "restore" and name not in self.files:
            return Reply(400, chunks=[b"{}"])
        return _json({"n_restored": self.files.get(name, 0)})


def _json(body: Any) -> Reply:
    return Reply(chunks=[json.dumps(body).encode()])


class House:
    def __init__(self, url: str, files: SlotFiles) -> None:
        wires = [WireUpstream("mine", url, kind="llama_server") for _ in range(2)]
        self.table = SlotTable("mine", Server(wires[1]), files, clock=lambda: 5.0)
        self.upstream = LlamaServer(wires[0], self.table)
        self.states = SlotStates(wires[0], self.table)

    async def ask(
        self, cube: str = "c", session: str = "s", body: bytes = BODY, **more: Any
    ) -> tuple[dict[str, str], bytes]:
        reply = await self.upstream.send(
            Call("POST", "/chat/completions", body, [], cube=cube, session=session, **more)
        )
        answer = b"".join([chunk async for chunk in reply.chunks()])
        await reply.close()
        return {name: value for name, value in reply.headers if name.startswith("x-memory")}, answer


@pytest.fixture
def fake(upstream: RecordingUpstream) -> Fake:
    upstream.answer = fake = Fake()
    return fake


@pytest.fixture
async def house(upstream: RecordingUpstream, fake: Fake, database: Database) -> AsyncIterator[House]:
    made = House(upstream.url, SlotFiles(database, "mine", lambda: 5.0))
    yield made
    await made.upstream.close()


async def test_only_the_slot_is_put_in_and_the_servers_figure_is_told(
    house: House, upstream: RecordingUpstream
) -> None:
    told, _ = await house.ask()
    assert upstream.last.raw == b'{"id_slot":0,' + BODY[1:]
    assert told == {"x-memory-kv": "restored:7", "x-memory-kv-source": "slot"}


@pytest.mark.parametrize(
    "body", [b'{"messages":[],"id_slot":1}', b'{"messages":[],"cache_prompt":false}', b"[]", b"no"]
)
async def test_what_is_the_clients_own_affair_goes_as_it_is(
    house: House, upstream: RecordingUpstream, body: bytes
) -> None:
    assert (await house.ask(body=body))[0] == {}
    assert upstream.last.raw == body


async def test_without_a_cube_nothing_is_touched(house: House, upstream: RecordingUpstream) -> None:
    assert (await house.ask(cube=""))[0] == {}
    assert upstream.last.raw == BODY


async def test_a_stream_loses_only_the_events_that_we_asked_for(house: House, fake: Fake) -> None:
    fake.chunks = [PROGRESS, PROGRESS[:20], PROGRESS[20:] + REST[0][:5], REST[0][5:] + REST[1]]
    told, answer = await house.ask(stream=True)
    assert told["x-memory-kv"] == "restored:7"
    assert answer == b"".join(REST)


async def test_a_server_that_does_not_tell_gets_no_header(house: House, fake: Fake) -> None:
    fake.chunks = list(REST)
    assert await house.ask(stream=True) == ({}, b"".join(REST))


async def test_a_session_that_was_saved_comes_back_but_never_into_another_model(house: House, fake: Fake) -> None:
    await house.ask(session="long")
    for other in ("a", "b"):
        await house.ask(session=other)
    fake.said.clear()
    assert (await house.ask(session="long"))[0]["x-memory-kv-source"] == "disk"
    assert "restore" in [action for action, _ in fake.said]
    for other in ("a", "b"):
        await house.ask(session=other)
    fake.model = "b.gguf"
    fake.said.clear()
    await house.ask(session="long")
    assert "restore" not in [action for action, _ in fake.said]


async def test_one_whose_state_must_not_be_kept_leaves_none(house: House, fake: Fake) -> None:
    await house.ask(session="")
    for other in ("a", "b", "c"):
        await house.ask(cube="d", session=other)
    assert await house.states.of("c") == []
    assert len(await house.states.of("d")) > 0


async def test_a_cube_has_few_names_and_all_are_written_over(house: House, fake: Fake) -> None:
    for number in range(8):
        await house.ask(session=str(number))
    assert len(fake.files) == NAMES["session"]
    found = await house.states.forget("c")
    assert (found.states, found.sure) == (NAMES["session"], True)
    assert set(fake.files.values()) == {0}
    assert await house.states.of("c") == []


async def test_while_nothing_can_be_written_over_it_is_not_said_to_be_gone(house: House, fake: Fake) -> None:
    for name in ("a", "b", "c"):
        await house.ask(session=name)
    fake.saves = False
    assert not (await house.states.forget("c")).sure
    fake.saves = True
    assert (await house.states.forget("c")).sure


async def test_what_another_process_has_forgotten_is_not_saved_again(
    house: House, fake: Fake, upstream: RecordingUpstream, database: Database
) -> None:
    await house.ask("ann", "s1")
    other = House(upstream.url, SlotFiles(database, "mine", lambda: 5.0))
    assert (await other.states.forget("ann")).sure
    for number in range(2):
        await house.ask("bob", f"b{number}")
    assert await house.states.of("ann") == []
    assert not any(fake.files.values())
    assert "erase" in [action for action, _ in fake.said]
    await other.upstream.close()


async def test_a_session_goes_on_in_an_empty_slot_when_another_process_has_forgotten_it(
    house: House, fake: Fake, upstream: RecordingUpstream, database: Database
) -> None:
    await house.ask("ann", "s1")
    other = House(upstream.url, SlotFiles(database, "mine", lambda: 5.0))
    await other.states.forget("ann")
    fake.said.clear()
    await house.ask("ann", "s1")
    assert fake.said == [("erase", "")]
    await other.upstream.close()


async def test_what_is_forgotten_while_it_is_saved_is_emptied(
    house: House, fake: Fake, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.ask("ann", "s1")
    files = SlotFiles(database, "mine", lambda: 5.0)
    whole = Server.save

    async def save(server: Server, slot: int, name: str) -> tuple[int, int] | None:
        done = await whole(server, slot, name)
        monkeypatch.setattr(Server, "save", whole)
        await files.forgotten("ann")
        return done

    monkeypatch.setattr(Server, "save", save)
    for number in range(2):
        await house.ask("bob", f"b{number}")
    assert await house.states.of("ann") == []
    assert not any(fake.files.values())
