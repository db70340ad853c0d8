"""Two people, one Open WebUI, one connection: each is known again in the next chat, and nobody else is.

The upstream behind memrelay is the recording one: it can only read back what stands in its prompt of earlier conversations.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import Received, RecordingUpstream
from tests.live import LiveProxy
from tests.openwebui.serving import OpenWebUI, browse, told_to_users

PICTURES = Path(__file__).parents[2] / "docs"
HAMSTER = "My hamster is called Biscuit, and he loves basil."
CELLO = "I am learning to play the cello with Mrs. Okafor on Tuesdays."
ASKED = "What is my hamster called?"
NOTES = re.compile(r"^- (.*)$", re.MULTILINE)


def reads_back(received: Received) -> str:
    """A model that knows nothing but its prompt."""
    said = received.messages[-1]["content"]
    if said.startswith("### Task:"):
        return '{"title": "A chat", "tags": ["pets"], "follow_ups": ["And then?"]}'
    block = re.search(r"<memrelay:recall.*?</memrelay:recall", said, re.DOTALL)
    notes = NOTES.findall(block.group()) if block else []
    return "You told me before: " + " ".join(notes) if notes else "You have not told me anything about that yet."


@dataclass
class Stage:
    """All that runs: the pages, memrelay, the upstream, and the users' ids."""

    pages: OpenWebUI
    memrelay: LiveProxy
    upstream: RecordingUpstream
    key: str
    users: dict[str, str]
    before_bob: int = 0  # requests that the upstream had when Bob came

    def chats(self, name: str, *chats: dict[str, Any]) -> list[list[str]]:
        return browse(self.pages.url, {"email": f"{name}@example.com", "password": "pw-12345-Xyz"}, list(chats))

    def remembered(self, name: str) -> list[str]:
        headers = {"authorization": f"Bearer {self.key}", "x-memory-user": self.users[name]}
        answer = httpx.get(f"{self.memrelay.url}/v1/memory/items?kind=episode", headers=headers, timeout=30)
        return sorted(item["text"] for item in answer.json()["data"])


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Stage]:
    if not os.environ.get("OPENWEBUI"):
        pytest.skip("Open WebUI is large: make openwebui")
    folder = tmp_path_factory.mktemp("openwebui")
    (folder / "models").symlink_to(models_dir)
    with RecordingUpstream(reads_back) as upstream:
        upstream.models = ("mirror",)
        upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url}]
        with LiveProxy(folder, upstreams=upstreams) as memrelay:
            key = memrelay.key("chat", "memory:read", "memory:write", "act_as_user")
            given = told_to_users(OPENAI_API_BASE_URL=f"{memrelay.url}/v1", OPENAI_API_KEY=key)
            with OpenWebUI(folder, given) as pages:
                users = {name: pages.add(name.title(), "pw-12345-Xyz") for name in ("ada", "bob")}
                yield Stage(pages, memrelay, upstream, key, users)


@pytest.fixture(scope="module")
def told(stage: Stage) -> dict[str, list[list[str]]]:
    """What Ada and Bob were answered, in two chats each."""
    ada = stage.chats("ada", {"say": [HAMSTER]}, {"say": [ASKED], "picture": str(PICTURES / "openwebui-ada.png")})
    stage.before_bob = len(stage.upstream.requests)
    bob = stage.chats("bob", {"say": [CELLO]}, {"say": [ASKED], "picture": str(PICTURES / "openwebui-bob.png")})
    return {"ada": ada, "bob": bob}


def background(stage: Stage) -> list[Received]:
    return [one for one in stage.upstream.requests if one.messages[-1]["content"].startswith("### Task:")]


def test_the_second_chat_of_a_user_knows_the_first(told: dict[str, list[list[str]]]) -> None:
    (first,), (second,) = told["ada"]
    assert "not told me anything" in first
    assert "Biscuit" in second


def test_the_other_users_chat_does_not(stage: Stage, told: dict[str, list[list[str]]]) -> None:
    assert not any("Biscuit" in answer for chat in told["bob"] for answer in chat)
    his = stage.upstream.requests[stage.before_bob :]
    assert len(his) >= 4
    assert not any("Biscuit" in one.prompt for one in his)


def test_titles_tags_and_follow_ups_leave_nothing_and_read_nothing(
    stage: Stage, told: dict[str, list[list[str]]]
) -> None:
    assert told
    asked = " ".join(one.prompt for one in background(stage))
    assert all(word in asked for word in ("title", "tags", "messages this user might"))
    assert not any(b"memrelay:" in one.raw for one in background(stage))
    assert stage.remembered("ada") == sorted([HAMSTER, ASKED])
    assert stage.remembered("bob") == sorted([CELLO, ASKED])


def test_a_temporary_chat_is_not_kept(stage: Stage, told: dict[str, list[list[str]]]) -> None:
    before = stage.remembered("ada")
    stage.chats("ada", {"say": ["I am planning a surprise party for Bob."], "temporary": True})
    assert any("surprise party" in one.prompt for one in stage.upstream.requests)
    assert stage.remembered("ada") == before
