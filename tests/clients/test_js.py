"""npm openai and the AI SDK, driven through every feature: the same answers, and the upstream gets the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients import acting, suites
from tests.clients.compare import bare, differences, with_blocks
from tests.fakes import Received, RecordingUpstream, Reply
from tests.live import LiveProxy

SCRIPTS = ["openai.mjs", "ai.mjs"]
MADE_UP = r"----[A-Za-z]*[Ff]ormdata-[A-Za-z0-9-]+"


def upstreams_answer(received: Received) -> Reply:
    if received.path == "/v1/files":
        return Reply(chunks=[b'{"id": "file-0001abcd", "object": "file", "bytes": 5}'])
    if received.path.startswith("/v1/models/"):
        return Reply(chunks=[b'{"id": "org/fake-2", "object": "model", "created": 1, "owned_by": "fake"}'])
    if received.path == "/v1/moderations":
        return Reply(
            418, chunks=[b'{"error": {"message": "no assistants", "type": "x", "param": null, "code": "teapot"}}']
        )
    return acting.answer(received)


@pytest.fixture(scope="module")
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream(upstreams_answer) as running:
        yield running


@pytest.fixture
def live(data: Path, upstream: RecordingUpstream) -> Iterator[LiveProxy]:
    with LiveProxy(data, upstreams=[{"name": "recording", "kind": "openai", "base_url": upstream.url}]) as running:
        yield running


def run(upstream: RecordingUpstream, script: str, url: str, key: str, **more: str) -> tuple[list[Any], list[Received]]:
    """What the script has seen, and what the upstream received."""
    suites.needed(suites.FOLDER / "js" / "node_modules")
    before = len(upstream.requests)
    given = {**os.environ, "OUTSIDE_URL": url, "OUTSIDE_KEY": key, **more}
    ran = subprocess.run(
        ["node", suites.FOLDER / "js" / script], env=given, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout), upstream.requests[before:]


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_memory_nothing_is_different(live: LiveProxy, upstream: RecordingUpstream, script: str) -> None:
    told, received = run(upstream, script, upstream.url, "sk-direct")
    assert len(received) >= 10
    off = run(upstream, script, f"{live.url}/v1", live.key(), OUTSIDE_OFF="1")
    assert off[0] == told
    assert differences(received, off[1], random=MADE_UP) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_with_memory_the_block_alone_is_different(live: LiveProxy, upstream: RecordingUpstream, script: str) -> None:
    told, received = run(upstream, script, upstream.url, "sk-direct")
    key = live.key()
    assert live.api(key, "POST", "/v1/memory/items", {"kind": "preference", "text": "I prefer metric units."})[0] < 300
    on = run(upstream, script, f"{live.url}/v1", key)
    assert bare(on[0]) == told  # a response repeats its instructions
    assert differences(received, on[1], blocks=True, random=MADE_UP) == []
    assert with_blocks(on[1]) >= 9
