"""Several upstreams, through the front door: who is asked when one cannot answer, and who is not."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.fakes import RecordingUpstream, Reply, completion, events, free_port
from tests.live import LiveProxy, wait_for

ASKED: Any = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def second() -> Iterator[RecordingUpstream]:
    with RecordingUpstream(lambda received: "From the second.") as running:
        yield running


def entries(first: str, second: str, **more: Any) -> dict[str, Any]:
    named = {
        "name": "first",
        "kind": "openai",
        "base_url": first,
        "models": ["m*"],
        "fallback": ["second/other"],
        **more,
    }
    behind = {"name": "second", "kind": "openai", "base_url": second, "models": ["s*"]}
    return {"upstreams": [named, behind], "aliases": {"quick": "second/small", "safe": "first/m-1"}}


@pytest.fixture
def live(data: Path, upstream: RecordingUpstream, second: RecordingUpstream) -> Iterator[LiveProxy]:
    with LiveProxy(data, **entries(upstream.url, second.url, first_byte_s=0.5)) as running:
        yield running


def post(live: LiveProxy, body: Any, path: str = "/v1/chat/completions", key: str = "") -> httpx.Response:
    named = {"authorization": f"Bearer {key or live.key()}"}
    return httpx.post(f"{live.url}{path}", json=body, headers=named, timeout=30)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 529])
def test_an_upstream_that_says_not_now_is_stood_in_for(
    live: LiveProxy, upstream: RecordingUpstream, second: RecordingUpstream, status: int
) -> None:
    upstream.answer = lambda received: Reply(status=status, chunks=[b"{}"])
    reply = post(live, {"model": "m-1", "messages": ASKED, "odd": 1.50})
    assert reply.json()["choices"][0]["message"]["content"] == "From the second."
    assert reply.headers["x-memory-upstream"] == "second"
    assert second.last.raw == upstream.last.raw.replace(b'"m-1"', b'"other"')


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_what_is_the_requests_own_fault_is_not_asked_again(
    live: LiveProxy, upstream: RecordingUpstream, second: RecordingUpstream, status: int
) -> None:
    upstream.answer = lambda received: Reply(status=status, chunks=[b'{"error": {"message": "no"}}'])
    reply = post(live, {"model": "m-1", "messages": ASKED})
    assert (reply.status_code, reply.json()) == (status, {"error": {"message": "no"}})
    assert second.requests == []


def test_silence_before_the_first_byte_is_stood_in_for_and_cancelled(
    live: LiveProxy, upstream: RecordingUpstream, second: RecordingUpstream
) -> None:
    upstream.answer = lambda received: Reply(chunks=[completion("late")], wait_s=20)
    assert "second" in post(live, {"model": "m-1", "messages": ASKED}).text
    wait_for(lambda: upstream.cancelled, "the silent upstream to be cancelled")


def test_nobody_at_the_address_is_stood_in_for(data: Path, second: RecordingUpstream) -> None:
    with LiveProxy(data, **entries(f"http://127.0.0.1:{free_port()}/v1", second.url)) as live:
        text = live.client(live.key()).chat.completions.create(model="m-1", messages=ASKED).choices[0].message.content
    assert text == "From the second."


def test_a_stream_that_has_begun_is_never_begun_again(
    live: LiveProxy, upstream: RecordingUpstream, second: RecordingUpstream
) -> None:
    broken = [*events("One two three")[:3], b'data: {"error": {"message": "overloaded", "code": 503}}\n\n']
    upstream.answer = lambda received: Reply(content_type="text/event-stream", chunks=broken, pause_s=0.8)
    reply = post(live, {"model": "m-1", "messages": ASKED, "stream": True})
    assert reply.content == b"".join(broken)
    assert second.requests == []


def test_when_nobody_serves_the_first_ones_answer_is_the_clients(
    live: LiveProxy, upstream: RecordingUpstream, second: RecordingUpstream
) -> None:
    upstream.answer = lambda received: Reply(status=429, headers={"retry-after": "7"}, chunks=[b'{"error": {}}'])
    second.answer = lambda received: Reply(status=503, chunks=[b"{}"])
    reply = post(live, {"model": "m-1", "messages": ASKED})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "7")


def test_an_upstream_that_fails_again_and_again_rests(
    live: LiveProxy, upstream: RecordingUpstream, second: RecordingUpstream
) -> None:
    upstream.answer = lambda received: Reply(status=500, chunks=[b"{}"])
    for _ in range(6):
        assert post(live, {"model": "m-1", "messages": ASKED}).status_code == 200
    assert (len(upstream.requests), len(second.requests)) == (3, 6)


async def test_hanging_up_while_the_second_is_asked_cancels_it(
    live: LiveProxy, upstream: RecordingUpstream, second: RecordingUpstream
) -> None:
    upstream.answer = lambda received: Reply(status=503, chunks=[b"{}"])
    second.answer = lambda received: Reply(chunks=[completion("late")], wait_s=20)
    async with live.async_client(await asyncio.to_thread(live.key)) as client:
        asking = asyncio.create_task(client.chat.completions.create(model="m-1", messages=ASKED))
        await asyncio.to_thread(wait_for, lambda: second.requests, "the second to be asked")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await asyncio.to_thread(wait_for, lambda: second.cancelled, "the second to be cancelled")


def test_what_lies_at_one_upstream_is_asked_of_no_other(
    live: LiveProxy, upstream: RecordingUpstream, second: RecordingUpstream
) -> None:
    client = live.client(live.key())
    made = client.responses.create(model="m-1", input="Hello")
    upstream.answer = lambda received: Reply(status=503, chunks=[b'{"error": {"message": "busy"}}'])
    with pytest.raises(openai.InternalServerError):
        client.responses.create(model="m-1", input="And?", previous_response_id=made.id)
    assert second.requests == []


def test_an_alias_changes_the_models_name_and_nothing_else(live: LiveProxy, second: RecordingUpstream) -> None:
    reply = post(live, {"temperature": 1.0, "model": "quick", "messages": ASKED})
    assert reply.headers["x-memory-upstream"] == "second"
    assert json.loads(second.last.raw) == {"temperature": 1.0, "model": "small", "messages": ASKED}
    assert {"quick", "safe"} <= {model.id for model in live.client(live.key()).models.list()}


def test_what_is_passed_through_falls_back_too(
    live: LiveProxy, upstream: RecordingUpstream, second: RecordingUpstream
) -> None:
    upstream.answer = lambda received: Reply(status=502, chunks=[b"{}"])
    second.answer = lambda received: Reply(chunks=[b'{"data": []}'])
    reply = post(live, {"model": "safe", "input": "x"}, "/v1/embeddings")
    assert (reply.json(), reply.headers["x-memory-upstream"]) == ({"data": []}, "second")


def form(model: str, sound: bytes, *, last: bool = False) -> bytes:
    """A transcription's form with boundary b; `last`: its model stands behind the file."""
    field = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\n%b\r\n' % model.encode()
    file = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + sound + b"\r\n"
    return (file + field if last else field + file) + b"--b--\r\n"


FORM = {"content-type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize("size", [9, 300_000])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("models", [None, ["quick"]])
def test_an_alias_changes_the_models_name_in_a_form(
    live: LiveProxy, second: RecordingUpstream, size: int, told: bool, models: list[str] | None
) -> None:
    sound, named = bytes(size), {"authorization": f"Bearer {live.key(models=models)}", **FORM}
    second.answer = lambda received: Reply(chunks=[b'{"text": "hello"}'])
    sent = form("quick", sound)
    pieces = (sent[at : at + 50_000] for at in range(0, len(sent), 50_000))
    reply = httpx.post(
        f"{live.url}/v1/audio/transcriptions", content=sent if told else pieces, headers=named, timeout=30
    )
    assert (reply.json(), reply.headers["x-memory-upstream"]) == ({"text": "hello"}, "second")
    assert second.last.raw == form("small", sound)
    whole = told or size < 1 << 16 or models is not None
    assert second.last.headers.get("content-length") == (str(len(second.last.raw)) if whole else None)


def test_a_form_whose_model_changes_begins_to_go_out_before_it_has_come(
    live: LiveProxy, second: RecordingUpstream
) -> None:
    sent = form("quick", bytes(400_000))
    connection = http.client.HTTPConnection("127.0.0.1", live.port)
    connection.putrequest("POST", "/v1/audio/transcriptions")
    for name, value in {"authorization": f"Bearer {live.key()}", "content-length": str(len(sent)), **FORM}.items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(sent[:200_000])
    wait_for(lambda: second.begun > 0, "the upstream to see the beginning")
    connection.send(sent[200_000:])
    assert connection.getresponse().status == 200
    connection.close()
    assert second.last.raw == form("small", bytes(400_000))


def test_a_small_form_falls_back_under_the_others_name(
    live: LiveProxy, upstream: RecordingUpstream, second: RecordingUpstream
) -> None:
    upstream.answer = lambda received: Reply(status=503, chunks=[b"{}"])
    named = {"authorization": f"Bearer {live.key()}", **FORM}
    sent = form("safe", b"RIFF", last=True)
    httpx.post(f"{live.url}/v1/audio/transcriptions", content=sent, headers=named, timeout=30)
    assert upstream.last.raw == form("m-1", b"RIFF", last=True)
    assert second.last.raw == form("other", b"RIFF", last=True)
