"""The real Codex, told of memrelay as docs/CLIENTS.md says: it works as before, sends the same bytes, and is remembered."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import acting, suites
from tests.clients.compare import bare, differences, with_blocks
from tests.clients.snippets import block
from tests.fakes import Received, RecordingUpstream
from tests.live import LiveProxy

# Codex names each run, and everything in it, anew; the time too
MADE_UP = r"[0-9a-f]{8}-[0-9a-f-]{27}|turn_started_at_unix_ms\\*\":\d+"
HAMSTER = "My hamster is called Biscuit."


@pytest.fixture
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream(acting.answer) as running:
        yield running


@pytest.fixture
def live(data: Path, upstream: RecordingUpstream) -> Iterator[LiveProxy]:
    with LiveProxy(data, upstreams=[{"name": "recording", "kind": "openai", "base_url": upstream.url}]) as running:
        yield running


def codex(upstream: RecordingUpstream, folder: Path, url: str, key: str, says: str) -> tuple[str, list[Received]]:
    """What Codex answers to one prompt, and what the upstream received for it."""
    program = suites.needed(suites.FOLDER / "js" / "node_modules" / ".bin" / "codex")
    (home := folder / "home").mkdir(exist_ok=True)
    (work := folder / "work").mkdir(exist_ok=True)
    told = block("Codex", "toml").replace("http://127.0.0.1:8000/v1", url)
    (home / "config.toml").write_text(told, encoding="utf-8")
    before = len(upstream.requests)
    ran = subprocess.run(
        [program, "exec", "--skip-git-repo-check", "--sandbox", "read-only", says],
        cwd=work,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "CODEX_HOME": str(home), "MEMRELAY_KEY": key},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout, upstream.requests[before:]


def test_codex_sends_the_same_and_is_remembered(live: LiveProxy, upstream: RecordingUpstream, tmp_path: Path) -> None:
    direct = codex(upstream, tmp_path, upstream.url, "sk-direct", HAMSTER)
    key = live.key()
    first = codex(upstream, tmp_path, f"{live.url}/v1", key, HAMSTER)
    assert first[0] == direct[0]
    assert differences(direct[1], first[1], blocks=True, random=MADE_UP) == []
    assert [item["text"] for item in live.items(key, kind="episode")] == [HAMSTER]
    asked = "What is my hamster called?"
    direct = codex(upstream, tmp_path, upstream.url, "sk-direct", asked)
    second = codex(upstream, tmp_path, f"{live.url}/v1", key, asked)
    assert bare(second[0]) == direct[0]
    assert with_blocks(second[1]) == len(second[1])
    assert "Biscuit" in second[1][-1].prompt
    assert differences(direct[1], second[1], blocks=True, random=MADE_UP) == []
