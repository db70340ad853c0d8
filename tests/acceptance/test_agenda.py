"""Through the front door: tasks are told, finished and moved; a new chat that asks hears of just the open ones, by due date; a
session begins with a reminder of what presses, once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memory.pieces import day
from tests.fakes import RecordingUpstream
from tests.live import Installation, wait_for

LINE = re.compile(r"- (?:task|goal), (?:due [^:]*|no due date[^:]*): [^\\]*")


@pytest.fixture(scope="module")
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, upstream: RecordingUpstream
) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("agenda")
    (folder / "models").symlink_to(models_dir)
    upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url, "api_key": "upstream-secret"}]
    with Installation(folder, upstreams=upstreams, executor={"sweep_s": 1}) as running:
        yield running


def ahead(days: int) -> str:
    """The day in so many days, as people write it to be understood everywhere."""
    return (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%d")


def shown(days: int) -> str:
    """The same as it stands in a prompt."""
    return day(datetime.strptime(ahead(days), "%Y-%m-%d").replace(tzinfo=UTC).timestamp())


def chat(live: Installation, key: str, messages: list[dict[str, str]], **headers: str) -> None:
    live.client(key, **headers).chat.completions.create(model="any", messages=messages)  # type: ignore[arg-type]


def ask(live: Installation, key: str, text: str, **headers: str) -> None:
    chat(live, key, [{"role": "user", "content": text}], **headers)


def say(live: Installation, key: str, session: str, *texts: str) -> None:
    """Each text a turn of the session, learned before the next."""
    for text in texts:
        before = told(live, key)
        ask(live, key, text, X_Memory_Session=session)
        wait_for(partial(differs, live, key, before), f"{text!r} to be learned")


def told(live: Installation, key: str) -> list[Any]:
    return [
        (one["id"], one["status"], one["attributes"])
        for one in live.items(key, status="all")
        if one["kind"] != "episode"
    ]


def differs(live: Installation, key: str, before: list[Any]) -> bool:
    return told(live, key) != before


def tasks(live: Installation, key: str, **query: str) -> list[dict[str, Any]]:
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    found: list[dict[str, Any]] = live.api(key, "GET", f"/v1/memory/tasks?{asked}")[1]["data"]
    return found


def lines(upstream: RecordingUpstream) -> list[str]:
    """The lines of the agenda in the last recorded question."""
    return LINE.findall(str(upstream.last.messages[-1]["content"]).replace("\n", "\\n"))


@pytest.fixture(scope="module")
def key(live: Installation) -> str:
    """A user with three open tasks and one that is done, told in two sessions."""
    key = live.key()
    say(live, key, "one", f"I need to send the tax form by {ahead(3)}.", f"I have to renew my passport by {ahead(20)}.")
    say(live, key, "two", "Remind me to call the plumber.", f"I still need to book the dentist by {ahead(1)}.")
    say(live, key, "two", "I called the plumber this morning.")
    say(live, key, "one", f"Renewing my passport is postponed to {ahead(40)}.")
    return key


def test_who_asks_what_is_open_hears_of_all_that_is_and_of_nothing_else(
    live: Installation, upstream: RecordingUpstream, key: str
) -> None:
    ask(live, key, "What is open?")
    said = lines(upstream)
    assert [re.sub(r" by \d.*", "", line.partition(": ")[2]) for line in said] == [
        "I still need to book the dentist", "I need to send the tax form", "I have to renew my passport"
    ]  # fmt: skip
    assert [shown(days) in line for days, line in zip((1, 3, 40), said, strict=True)] == [True] * 3
    assert "plumber" not in str(upstream.last.messages[-1]["content"])


def test_the_time_in_the_question_narrows_the_list(live: Installation, upstream: RecordingUpstream, key: str) -> None:
    ask(live, key, "What's due tomorrow?")
    (only,) = lines(upstream)
    assert "book the dentist" in only
    assert "besides, 2 open" in upstream.last.prompt
    ask(live, key, "现在还有什么没做？")
    assert len(lines(upstream)) == 3


def test_the_api_says_the_same(live: Installation, key: str) -> None:
    found = tasks(live, key)
    assert [day(one["due"] - 1) for one in found] == [shown(1), shown(3), shown(40)]
    (moved,) = [one for one in found if one["feedback"]]
    assert (moved["feedback"][0]["how"], moved["when"]) == ("moved", "later")
    history = live.api(key, "GET", f"/v1/memory/items/{moved['id']}/history")[1]["data"]
    assert day(history[-1]["before"]["attributes"]["due"] - 1) == shown(20)
    (done,) = tasks(live, key, state="done")
    assert (done["text"], [one["how"] for one in done["feedback"]]) == ("Remind me to call the plumber", ["done"])


def test_another_key_sees_nothing(live: Installation, upstream: RecordingUpstream, key: str) -> None:
    other = live.key()
    assert tasks(live, other, state="all") == []
    for text in ("What is open?", "What is on my plate?"):
        ask(live, other, text)
        assert "tax form" not in upstream.last.prompt
        assert lines(upstream) == []


def test_a_session_begins_with_a_reminder_of_what_presses_once(live: Installation, upstream: RecordingUpstream) -> None:
    key = live.key()
    say(live, key, "told", f"I have to pay the rent by {ahead(1)}.", f"I need to buy a tent by {ahead(12)}.")
    history = [{"role": "user", "content": "How do I make pancakes?"}]
    chat(live, key, history)
    first = upstream.last.messages
    (reminded,) = lines(upstream)
    assert "pay the rent" in reminded
    history += [{"role": "assistant", "content": "Noted."}, {"role": "user", "content": "And crêpes?"}]
    chat(live, key, history)
    assert upstream.last.messages[: len(first)] == first
    assert upstream.last.prompt.count("(reminder") == 1
    ask(live, key, "How do I make waffles?", X_Memory_Task="title")
    assert "(reminder" not in upstream.last.prompt
    ask(live, key, "How do I make waffles?")
    assert upstream.last.prompt.count("(reminder") == 1


def test_what_is_set_by_hand_counts_in_the_next_chat(live: Installation, upstream: RecordingUpstream) -> None:
    key = live.key()
    say(live, key, "told", "Remind me to water the plants.", "I still have to return the library books.")
    books = next(one for one in tasks(live, key) if "books" in one["text"])
    live.api(key, "PATCH", f"/v1/memory/items/{books['id']}", {"state": "done"})
    ask(live, key, "What's left to do?")
    assert [line.partition(": ")[2] for line in lines(upstream)] == ["Remind me to water the plants"]
    live.api(key, "POST", f"/v1/memory/items/{books['id']}/undo")
    ask(live, key, "What's still open?")
    assert len(lines(upstream)) == 2
