"""Hooks by dotted path, as docs/HOOKS.md shows them."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes import RecordingUpstream, Reply
from tests.hooks import recorder
from tests.live import Installation, LiveProxy, wait_for

HOOKS_MD = Path(__file__).parents[2] / "docs" / "HOOKS.md"


def ask(text: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


def settings(upstream: RecordingUpstream, *hooks: str) -> dict[str, Any]:
    return {"upstreams": [{"name": "r", "kind": "openai", "base_url": upstream.url}], "hooks": list(hooks)}


def example(number: int) -> str:
    """A piece of Python from the document."""
    return re.findall(r"```python\n(.*?)```", HOOKS_MD.read_text(encoding="utf-8"), re.DOTALL)[number]


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
    (tmp_path / "examples.py").write_text(example(0), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with LiveProxy(data, **settings(upstream, "examples:House")) as live:
        client = live.client(live.key())
        raw = client.chat.completions.with_raw_response.create(**ask("How are you?"))
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(**ask("My passphrase is tulip."))
    assert raw.headers["x-house"] == "seen"
    assert upstream.last.messages[0] == {"role": "system", "content": "Answer in one sentence."}
    assert sys.modules.pop("examples").House.answers == 1


def test_the_documented_task_runs_in_the_executor(
    data: Path, upstream: RecordingUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "journals.py").write_text(example(1), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(HOOKS_MD.parents[1])]))
    monkeypatch.setenv("JOURNAL", str(tmp_path / "journal"))
    often = [{"event": "clock", "task": "trim", "every_s": 1}, {"event": "query_arrived", "task": "journal"}]
    with Installation(data, **settings(upstream, "journals:Journal"), triggers=often, executor={"sweep_s": 1}) as live:
        key = live.key()
        wait_for(lambda: live.api(key, "GET", "/v1/memory/jobs")[0] == 200, "the executor to make the queue")
        live.client(key).chat.completions.create(**ask("My rug is round."))
        wait_for(lambda: {"journal", "trim"} <= done(live, key), "the tasks to run")
        (job, *_) = [job for job in jobs(live, key) if job["task"] == "journal"]
    assert job["result"] == {"lines": 1}
    assert job["cube"] in (tmp_path / "journal").read_text().split()


def jobs(live: Installation, key: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = live.api(key, "GET", "/v1/memory/jobs")[1]["data"]
    return found


def done(live: Installation, key: str) -> set[str]:
    """The tasks that have run."""
    return {job["task"] for job in jobs(live, key) if job["state"] == "done"}
