"""langchain-tests' suites for chat models with ChatOpenAI: the same ones pass, and the upstream gets the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import acting, suites
from tests.clients.compare import differences, with_blocks
from tests.fakes import RecordingUpstream
from tests.live import LiveProxy

# one loop for all tests: ChatOpenAI keeps its connections for as long as it lives; test_serdes compares with a file not shipped
_OPTIONS = (
    "--asyncio-mode=auto -o asyncio_default_fixture_loop_scope=session -o asyncio_default_test_loop_scope=session "
    "--benchmark-disable --deselect=chat_openai.py::TestUnits::test_serdes"
).split()
MADE_UP = r"[0-9a-f]{8}-[0-9a-f-]{27}"  # ids of messages and calls


@pytest.fixture(scope="module")
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream(acting.answer) as running:
        yield running


@pytest.fixture(scope="module")
def direct(upstream: RecordingUpstream, tmp_path_factory: pytest.TempPathFactory) -> suites.Run:
    return run(upstream, upstream.url, "sk-direct", tmp_path_factory.mktemp("direct"))


@pytest.fixture
def live(data: Path, upstream: RecordingUpstream) -> Iterator[LiveProxy]:
    with LiveProxy(data, upstreams=[{"name": "recording", "kind": "openai", "base_url": upstream.url}]) as running:
        yield running


def run(upstream: RecordingUpstream, url: str, key: str, folder: Path, **more: str) -> suites.Run:
    given = {"OUTSIDE_URL": url, "OUTSIDE_KEY": key, "LANGSMITH_TRACING": "false", **more}
    suite = shutil.copy(suites.HERE / "langchain" / "chat_openai.py", folder)  # away from our conftest
    return suites.pytests(upstream, folder, [*_OPTIONS, suite], given)


def test_the_suite_passes_directly(direct: suites.Run) -> None:
    assert direct.failed == [], direct.told[-6000:]
    assert direct.count("passed") > 70


def test_without_memory_nothing_is_different(
    direct: suites.Run, live: LiveProxy, upstream: RecordingUpstream, tmp_path: Path
) -> None:
    relayed = run(upstream, f"{live.url}/v1", live.key(), tmp_path, OUTSIDE_OFF="1")
    assert relayed.outcomes == direct.outcomes
    assert differences(direct.received, relayed.received, random=MADE_UP, apart=4) == []


def test_with_memory_nothing_is_different_but_the_block(
    direct: suites.Run, live: LiveProxy, upstream: RecordingUpstream, tmp_path: Path
) -> None:
    key = live.key()
    assert live.api(key, "POST", "/v1/memory/items", {"kind": "preference", "text": "I prefer metric units."})[0] < 300
    relayed = run(upstream, f"{live.url}/v1", key, tmp_path)
    assert relayed.outcomes == direct.outcomes
    assert differences(direct.received, relayed.received, blocks=True, random=MADE_UP, apart=4) == []
    assert with_blocks(relayed.received) > 70
