"""openai-python's own tests, direct and through memrelay: the same ones pass, and the upstream gets the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import suites
from tests.clients.compare import differences, with_blocks
from tests.clients.schema import OpenApi
from tests.fakes import RecordingUpstream
from tests.live import LiveProxy

FAMILIES = ["chat", "test_completions.py", "test_embeddings.py", "test_models.py", "test_responses.py", "responses"]


@pytest.fixture(scope="module")
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream(OpenApi(suites.openai_document()).answer) as running:
        running.models = ("gpt-4o-mini", "gpt-5.4")
        yield running


@pytest.fixture(scope="module")
def direct(upstream: RecordingUpstream, tmp_path_factory: pytest.TempPathFactory) -> suites.Run:
    return suites.openai_python(upstream, upstream.url, "My API Key", tmp_path_factory.mktemp("direct"), FAMILIES)


@pytest.fixture
def live(data: Path, upstream: RecordingUpstream) -> Iterator[LiveProxy]:
    with LiveProxy(data, upstreams=[{"name": "recording", "kind": "openai", "base_url": upstream.url}]) as running:
        yield running


def test_the_suite_passes_directly(direct: suites.Run) -> None:
    assert direct.count("passed") > 400
    assert direct.failed == []


def test_without_memory_nothing_is_different(
    direct: suites.Run, live: LiveProxy, upstream: RecordingUpstream, tmp_path: Path
) -> None:
    relayed = suites.openai_python(upstream, f"{live.url}/v1", live.key(), tmp_path, FAMILIES, {"X-Memory": "off"})
    assert relayed.outcomes == direct.outcomes
    assert differences(direct.received, relayed.received) == []


def test_with_memory_nothing_is_different_but_the_block(
    direct: suites.Run, live: LiveProxy, upstream: RecordingUpstream, tmp_path: Path
) -> None:
    key = live.key()
    assert live.api(key, "POST", "/v1/memory/items", {"kind": "preference", "text": "I prefer metric units."})[0] < 300
    relayed = suites.openai_python(upstream, f"{live.url}/v1", key, tmp_path, FAMILIES)
    assert relayed.outcomes == direct.outcomes
    assert differences(direct.received, relayed.received, blocks=True) == []
    assert with_blocks(relayed.received) >= 8  # those that ask something as a user
