"""Embeddings of providers with protocols of their own, through litellm: OpenAI's shape, packed when its clients ask for that."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.upstreams.litellm_adapter import LitellmUpstream
from proxy.upstreams.port import Call, Reply
from tests import fakes
from tests.fakes import RecordingUpstream

VECTORS = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}],
    "model": "voyage-3",
}


@pytest.fixture
def provider() -> Iterator[RecordingUpstream]:
    with RecordingUpstream(
        lambda _: fakes.Reply(chunks=[json.dumps({**VECTORS, "usage": {"total_tokens": 3}}).encode()])
    ) as running:
        yield running


async def ask(provider: RecordingUpstream, **fields: Any) -> tuple[int, Any]:
    url = f"{provider.url}/embeddings"
    upstream = LitellmUpstream(name="voyage", provider="voyage", api_key="sk-test", base_url=url, timeout_s=10)
    raw = json.dumps({"model": "voyage-3", **fields}).encode()
    reply: Reply = await upstream.send(Call("POST", "/embeddings", raw, []))
    body = json.loads(b"".join([chunk async for chunk in reply.chunks()]))
    await upstream.close()
    return reply.status, body


async def test_a_list_of_numbers_comes_back(provider: RecordingUpstream) -> None:
    status, body = await ask(provider, input=["a"], encoding_format="float")
    assert (status, body["data"]) == (200, [{"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}])
    assert provider.last.body == {"model": "voyage-3", "input": ["a"]}
    assert provider.last.headers["authorization"] == "Bearer sk-test"


async def test_what_openais_clients_unpack_is_packed(provider: RecordingUpstream) -> None:
    _, body = await ask(provider, input="a", encoding_format="base64")
    assert struct.unpack("<2f", base64.b64decode(body["data"][0]["embedding"])) == (0.5, 1.0)


@pytest.mark.parametrize(
    "fields", [{}, {"input": 7}, {"input": ["a"], "api_base": "http://127.0.0.1:9"}, {"input": "a", "mock_x": 1}]
)
async def test_what_is_no_request_for_embeddings_is_refused(
    provider: RecordingUpstream, fields: dict[str, Any]
) -> None:
    assert (await ask(provider, **fields))[0] == 400
    assert provider.requests == []


async def test_the_providers_refusal_is_told(provider: RecordingUpstream) -> None:
    provider.answer = lambda _: fakes.Reply(429, headers={"retry-after": "7"}, chunks=[b'{"message": "too many"}'])
    status, body = await ask(provider, input="a")
    assert (status, body["error"]["message"]) == (429, "too many")
    assert len(provider.requests) == 1
