"""The other two kinds of upstream through the front door: the bundled local model, and litellm to a foreign protocol."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.anthropic_server import AnthropicServer
from tests.live import Installation, LiveProxy, wait_for

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Installation]:
    """`memrelay serve` as it comes, without a word of configuration about upstreams."""
    data = tmp_path_factory.mktemp("local")
    (data / "models").symlink_to(models_dir)
    with Installation(data) as running:
        yield running


def test_the_readmes_five_lines_work(local: Installation) -> None:
    lines = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert lines is not None
    key = local.key()
    code = lines.group(1).replace("http://127.0.0.1:8000", local.url).replace("sk-mem-…", key)
    assert len(code.strip().splitlines()) == 5
    said = io.StringIO()
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(said):
        exec(code, names)
    assert said.getvalue().strip()
    # what so small a model makes of it is its own affair; what it was given is ours
    (fact,) = [item for item in local.items(key, kind="episode") if item["text"] == "My locker code is 4711."]
    asked = names["client"].chat.completions.with_raw_response.create(
        model="any", max_tokens=1, messages=[{"role": "user", "content": "What is my locker code?"}]
    )
    names["client"].close()
    assert fact["id"] in asked.headers["x-memory-ids"].split(",")


def test_the_local_model_streams_and_is_given_what_was_said(local: Installation) -> None:
    key = local.key()
    client = local.client(key)
    say = {"model": "anything", "max_tokens": 12, "temperature": 0}
    client.chat.completions.create(messages=[{"role": "user", "content": "My canary is called Tweet."}], **say)
    (said,) = local.items(key, kind="episode")
    with client.chat.completions.with_streaming_response.create(
        messages=[{"role": "user", "content": "What is my canary called?"}], stream=True, **say
    ) as response:
        assert response.headers["x-memory-state"] == "hit"
        assert said["id"] in response.headers["x-memory-ids"].split(",")
        events = [line for line in response.iter_lines() if line]
    assert len(events) > 3
    assert events[-1] == "data: [DONE]"


def test_the_local_model_is_listed(local: Installation) -> None:
    assert [model.id for model in local.client(local.key()).models.list()] == ["SmolLM2-135M-Instruct.Q4_1"]


def test_the_local_model_is_asked_over_every_surface(local: Installation) -> None:
    key = local.key()
    client, other = local.client(key), local.anthropic(key)
    assert client.responses.create(model="any", input="My wren is called Jot.", max_output_tokens=8).output_text
    events = list(client.responses.create(model="any", input="Hello!", max_output_tokens=8, stream=True))
    assert events[-1].type in ("response.completed", "response.incomplete")
    with other.messages.stream(
        model="any", max_tokens=8, messages=[{"role": "user", "content": "What is my wren called?"}]
    ) as told:
        assert told.get_final_text()
        assert told.response.headers["x-memory-state"] == "hit"
    other.close()
    assert len(local.items(key, kind="episode")) == 3


def test_a_killed_engine_comes_back_and_the_proxy_never_left(local: Installation) -> None:
    import os
    import signal

    key = local.key()
    os.kill(local.processes()["engine"]["pid"], signal.SIGKILL)
    body = {"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "Hello?"}]}

    def answered() -> bool:
        response = httpx.post(
            f"{local.url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}, timeout=60
        )
        assert response.status_code in (200, 502, 503), response.text
        return response.status_code == 200

    wait_for(answered, "the engine to answer again", 60)
    assert local.processes()["engine"]["restarts"] == 1


@pytest.fixture
def anthropic() -> Iterator[AnthropicServer]:
    with AnthropicServer() as running:
        yield running


@pytest.fixture
def live(data: Path, anthropic: AnthropicServer) -> Iterator[LiveProxy]:
    upstreams = [
        {
            "name": "claude",
            "kind": "litellm",
            "provider": "anthropic",
            "base_url": anthropic.url,
            "api_key": "sk-ant-test",
            "models": ["claude-*"],
        }
    ]
    with LiveProxy(data, upstreams=upstreams) as running:
        yield running


@pytest.mark.parametrize("stream", [False, True])
def test_memory_goes_through_litellm_to_another_protocol(
    live: LiveProxy, anthropic: AnthropicServer, stream: bool
) -> None:
    key = live.key()
    client = live.client(key)
    say: dict[str, Any] = {"model": "claude-sonnet-4-5", "max_tokens": 50, "stream": stream}
    for text in ("My ferret is called Slinky.", "What is my ferret called?"):
        answer = client.chat.completions.create(messages=[{"role": "user", "content": text}], **say)
        if stream:
            assert "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    assert "Slinky" in json.dumps(anthropic.requests[-1].body)
    assert len(live.items(key)) == 2
    assert all(item["answer"] for item in live.items(key))
