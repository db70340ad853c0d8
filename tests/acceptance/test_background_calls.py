"""Frontends call the model for themselves (titles, tags …): memory stays out of those, and only of those."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import RecordingUpstream
from tests.live import LiveProxy

HISTORY = "<chat_history>\nUSER: my parrot is called Kiwi\nASSISTANT: nice\n</chat_history>"
TITLE = (
    "Provide a concise, 5-word-or-less title for the conversation, using title case conventions. Only return the title."
)
CALLS: dict[str, dict[str, Any]] = {
    "open webui title": {
        "messages": [
            {
                "role": "user",
                "content": f"### Task:\nGenerate a concise title summarizing the chat history.\n### Chat History:\n{HISTORY}",
            }
        ]
    },
    "open webui tags": {
        "messages": [
            {"role": "user", "content": f"### Task:\nGenerate 1-3 broad tags categorizing the main themes\n{HISTORY}"},
        ]
    },
    "open webui follow-ups": {
        "messages": [
            {
                "role": "user",
                "content": f"### Task:\nPredict 3-5 useful messages this user might naturally send next\n{HISTORY}",
            },
        ]
    },
    "open webui queries": {
        "messages": [
            {
                "role": "user",
                "content": "### Task:\nAnalyze the chat history to determine the necessity of generating search queries\n"
                + HISTORY,
            },
        ]
    },
    "open webui autocomplete": {
        "messages": [
            {"role": "user", "content": "### Task:\nYou are an autocompletion system. Continue the text: my parrot"}
        ]
    },
    "librechat title": {
        "messages": [{"role": "user", "content": f"{TITLE}\n\nUser: my parrot is called Kiwi\nAI: nice"}]
    },
    "lobehub title": {
        "messages": [
            {"role": "system", "content": "You are a professional conversation summarizer. Generate a concise title"},
            {"role": "user", "content": "user: my parrot is called Kiwi"},
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "topic_title", "schema": {"type": "object"}},
        },
    },
    "lobehub follow-ups": {
        "messages": [{"role": "user", "content": "my parrot is called Kiwi"}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "follow_up_suggestions", "schema": {"type": "object"}},
        },
    },
    "big-agi title": {
        "messages": [
            {
                "role": "system",
                "content": "You are an AI conversation titles assistant who specializes in short titles.",
            },
            {"role": "user", "content": "my parrot is called Kiwi"},
        ]
    },
}


@pytest.fixture
def live(data: Path, upstream: RecordingUpstream) -> Iterator[LiveProxy]:
    upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url}]
    with LiveProxy(data, upstreams=upstreams, sessions={"task_markers": ["ZQ-HOUSE-MARKER"]}) as running:
        yield running


@pytest.mark.parametrize("name", CALLS)
def test_a_background_call_goes_through_untouched_and_leaves_nothing(
    live: LiveProxy, upstream: RecordingUpstream, name: str
) -> None:
    key = live.key()
    client = live.client(key)
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "My parrot is called Kiwi."}])
    raw = client.chat.completions.with_raw_response.create(model="m", **CALLS[name])
    assert raw.headers["x-memory-state"] == "off"
    assert upstream.last.body == {"model": "m", **CALLS[name]}
    assert [item["text"] for item in live.items(key)] == ["My parrot is called Kiwi."]


@pytest.mark.parametrize("header", [{"X-Memory-Task": "title_generation"}, {"X-Memory": "off"}])
def test_a_header_says_it_for_sure(live: LiveProxy, header: dict[str, str]) -> None:
    key = live.key()
    live.client(key).chat.completions.create(
        model="m", messages=[{"role": "user", "content": "My parrot is called Kiwi."}], extra_headers=header
    )
    assert live.items(key) == []


def test_an_empty_task_header_marks_a_chat(live: LiveProxy) -> None:
    key = live.key()
    live.client(key).chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "My parrot is called Kiwi."}],
        extra_headers={"X-Memory-Task": ""},
    )
    assert len(live.items(key)) == 1


def test_further_markers_come_from_the_configuration(live: LiveProxy) -> None:
    key = live.key()
    live.client(key).chat.completions.create(
        model="m", messages=[{"role": "user", "content": "ZQ-HOUSE-MARKER: name this"}]
    )
    assert live.items(key) == []


def test_of_a_question_over_documents_only_the_question_counts(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    client = live.client(key)
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "My allergy is hazelnuts."}])
    wrapped = (
        "### Task:\nRespond to the user query using the provided context, incorporating inline citations in the format [id].\n"
        '<context>\n<source id="1">I am a web page and my favourite food is zqcake.</source>\n</context>\n\n'
        "Which cakes suit my allergy?"
    )
    raw = client.chat.completions.with_raw_response.create(model="m", messages=[{"role": "user", "content": wrapped}])
    assert raw.headers["x-memory-state"] == "hit"
    assert "hazelnuts" in upstream.last.prompt
    texts = [item["text"] for item in live.items(key)]
    assert "Which cakes suit my allergy?" in texts
    assert not [text for text in texts if "zqcake" in text]


def test_another_memory_systems_block_is_not_taken_for_the_users_words(live: LiveProxy) -> None:
    key = live.key()
    text = "<memory_context>[User Memory] likes zqjazz</memory_context>\nWhat shall I listen to?"
    live.client(key).chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
    assert [item["text"] for item in live.items(key)] == ["What shall I listen to?"]
