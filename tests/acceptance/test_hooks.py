"""Hooks by dotted path, as docs/HOOKS.md shows them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes import RecordingUpstream, Reply
from tests.hooks import recorder
from tests.live import LiveProxy

HOOKS_MD = Path(__file__).parents[2] / "docs" / "HOOKS.md"


def ask(text: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


def settings(upstream: RecordingUpstream, *hooks: str) -> dict[str, Any]:
    return {"upstreams": [{"name": "r", "kind": "openai", "base_url": upstream.url}], "hooks": list(hooks)}


def test_a_hook_sees_the_exchange_and_changes_the_request(data: Path, upstream: RecordingUpstream) -> None:
    recorder.seen.clear()
    with LiveProxy(data, **settings(upstream, "tests.hooks:recorder")) as live:
        client = live.client(live.key())
        raw = client.chat.completions.with_raw_response.create(**ask("My rug is round."))
        upstream.answer = lambda _: Reply(500, chunks=[b'{"error": {"message": "no"}}'])
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(**ask("What is round?"))
    assert raw.headers["x-recorder"] == "was here"
    assert upstream.requests[0].messages[-1]["content"] == "My rug is round.\n\n(be polite)"
    assert recorder.seen == ["request m", "response Noted.", "request m", "error 500"]


def test_memory_still_finds_its_place_when_a_hook_has_added_a_message(data: Path, upstream: RecordingUpstream) -> None:
    with LiveProxy(data, **settings(upstream, "tests.hooks:Leading")) as live:
        client = live.client(live.key())
        client.chat.completions.create(**ask("My sofa is green."))
        client.chat.completions.create(**ask("What colour is my sofa?"))
    roles = [message["role"] for message in upstream.last.messages]
    assert roles == ["system", "user"]
    assert "My sofa is green." in upstream.last.messages[1]["content"]


def test_a_hook_can_refuse(data: Path, upstream: RecordingUpstream) -> None:
    with LiveProxy(data, **settings(upstream, "tests.hooks:Bouncer")) as live:
        client = live.client(live.key())
        with pytest.raises(openai.PermissionDeniedError, match="not here"):
            client.chat.completions.create(**ask("the forbidden word"))
    assert upstream.requests == []


def test_the_documented_example_runs(
    data: Path, upstream: RecordingUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = re.search(r"```python\n(.*?)```", HOOKS_MD.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    (tmp_path / "examples.py").write_text(code.group(1), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with LiveProxy(data, **settings(upstream, "examples:House")) as live:
        client = live.client(live.key())
        raw = client.chat.completions.with_raw_response.create(**ask("How are you?"))
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(**ask("My passphrase is tulip."))
    assert raw.headers["x-house"] == "seen"
    assert upstream.last.messages[0] == {"role": "system", "content": "Answer in one sentence."}
    assert sys.modules.pop("examples").House.answers == 1
