"""What docs/CLIENTS.md tells users to write is run as it stands there, with this server's address and key in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.clients import acting, suites
from tests.clients.snippets import block
from tests.fakes import RecordingUpstream
from tests.live import LiveProxy

PYTHON = {"openai (Python)": Path(sys.executable), "Anthropic SDK": Path(sys.executable), "LangChain": suites.PYTHON}
SAID = "My locker code is 4711."


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[LiveProxy]:
    folder = tmp_path_factory.mktemp("snippets")
    (folder / "models").symlink_to(models_dir)
    with (
        RecordingUpstream(acting.answer) as upstream,
        LiveProxy(folder, upstreams=[{"name": "recording", "kind": "openai", "base_url": upstream.url}]) as running,
    ):
        yield running


def filled(live: LiveProxy, heading: str, language: str, key: str) -> str:
    return block(heading, language).replace("http://127.0.0.1:8000", live.url).replace("sk-mem-…", key)


def check(live: LiveProxy, key: str, told: str) -> None:
    assert f"You said: {SAID}" in told
    assert [item["text"] for item in live.items(key, kind="episode")] == [SAID]


@pytest.mark.parametrize("heading", PYTHON)
def test_python(live: LiveProxy, heading: str) -> None:
    key = live.key()
    command = [suites.needed(PYTHON[heading]), "-c", filled(live, heading, "python", key)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    check(live, key, ran.stdout)


@pytest.mark.parametrize("heading", ["openai (JavaScript)", "AI SDK"])
def test_javascript(live: LiveProxy, heading: str) -> None:
    suites.needed(suites.FOLDER / "js" / "node_modules")
    key = live.key()
    command = ["node", "--input-type=module", "-e", filled(live, heading, "js", key)]
    ran = subprocess.run(command, cwd=suites.FOLDER / "js", capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    check(live, key, ran.stdout)


def test_curl(live: LiveProxy) -> None:
    key = live.key()
    ran = subprocess.run(["sh", "-c", filled(live, "curl", "sh", key)], capture_output=True, text=True, timeout=60)
    check(live, key, ran.stdout.encode().decode("unicode_escape"))


def test_librechats_headers_are_known(live: LiveProxy) -> None:
    told = yaml.safe_load(filled(live, "LibreChat", "yaml", "sk"))["endpoints"]["custom"][0]
    sessions = live.config.sessions
    assert {name.lower() for name in told["headers"]} <= {*sessions.session_headers, *sessions.user_headers}
    assert told["baseURL"] == f"{live.url}/v1"
