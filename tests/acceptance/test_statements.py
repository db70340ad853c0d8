"""How often a chat asks the database: an upper bound, so that it does not creep up again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from memory import prepared, sqlite
from tests.fakes import RecordingUpstream
from tests.live import LiveProxy, wait_for

MOST = 34  # of a later turn with memory on, with what follows it in the proxy: its prediction, the working set, the written blocks


@contextmanager
def statements() -> Iterator[list[str]]:
    """What is asked meanwhile, of every database."""
    asked: list[str] = []

    def before(_: Any, __: Any, statement: str, *___: Any) -> None:
        asked.append(statement)

    def driver(connection: sa.Connection, text: str, values: Sequence[Any] = ()) -> Any:
        asked.append(text)
        return plain(connection, text, values)

    plain = prepared.driver
    sa.event.listen(Engine, "before_cursor_execute", before)
    prepared.driver = sqlite.driver = driver
    try:
        yield asked
    finally:
        prepared.driver = sqlite.driver = plain
        sa.event.remove(Engine, "before_cursor_execute", before)


def test_a_chat_asks_the_database_seldom(data: Path, upstream: RecordingUpstream) -> None:
    upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url}]
    with LiveProxy(data, upstreams=upstreams) as live:
        key = live.key()
        history: list[Any] = []
        for said in ("My boat is called Marlin.", "What is my boat called?", "And where does Marlin lie?"):
            history.append({"role": "user", "content": said})
            with statements() as asked:
                live.client(key).chat.completions.create(model="m", messages=history)
                wait_for(lambda: not live.parts.background.tasks, "what follows the chat")
            history.append({"role": "assistant", "content": "Noted."})
        assert "Marlin" in upstream.last.prompt
        assert 10 < len(asked) <= MOST, "\n".join(asked)


def test_a_chat_without_memory_asks_for_its_key_only(data: Path, upstream: RecordingUpstream) -> None:
    upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url}]
    with LiveProxy(data, upstreams=upstreams) as live:
        client = live.client(live.key(), x_memory="off")
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello."}])
        with statements() as asked:
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello."}])
        assert len(asked) == 1, "\n".join(asked)
