"""The Markdown view: what is known can be read, in the same order every time, and says nothing but what was said."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory.sql import Database
from memory.transfer import Document
from memory.transfer.markdown import line
from memory.types import Kind
from tests.memory.archives import exported, furnish, imported
from tests.memory.make import CUBE, NOW, memory, put, record, turn


async def document(database: Database, cube: str = CUBE, **options: bool) -> str:
    return "".join([part async for part in Document(database).write(cube, **options)])


async def test_a_cube_can_be_read(database: Database) -> None:
    await furnish(database)
    assert (
        await document(database)
        == """# Memory

## Profile

### Preferences

- Prefers tea. (14 November 2023)

### Open tasks

- Call Ann. (14 November 2023, due 15 November 2023)

### Skills

- Answers briefly. (14 November 2023)

## Facts

### Dogs

- The dog is Rex. (14 November 2023)

### Milan

- ~~Lives in Milan.~~ until 15 November 2023 (14 November 2023)

### Turin

- Lives in Turin. (14 November 2023)

## Timeline

- **14 December 2023** Trip to Oslo.

## Sessions

- 14 November 2023, 1 turn
- 15 November 2023, 1 turn
"""
    )


async def test_the_words_of_every_session_can_be_read_too(database: Database) -> None:
    await furnish(database)
    text = await document(database, turns=True)
    assert "**User** (14 November 2023)\n\n> My dog is called Rex.\n\n**Assistant**\n\n> A fine name.\n" in text


async def test_the_document_is_the_same_elsewhere(database: Database, tmp_path: Path) -> None:
    await furnish(database)
    await imported(database, await exported(database, tmp_path), "another")
    assert await document(database, "another", turns=True) == await document(database, turns=True)


async def test_a_task_that_is_done_is_not_open(database: Database) -> None:
    await record(database, turn())
    await put(database, memory(kind=Kind.TASK, text="Call Ann.", attributes={"state": "done"}))
    assert "Ann" not in await document(database)


async def test_a_cube_without_anything_is_an_empty_document(database: Database) -> None:
    assert await document(database) == "# Memory\n\n## Profile\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# Heading\n## Another", r"\# Heading \#\# Another"),
        ("[a](http://x) ![b](y) <b>", r"\[a\](http://x) \!\[b\](y) \<b\>"),
        ("*a* _b_ `c` ~~d~~ \\", r"\*a\* \_b\_ \`c\` \~\~d\~\~ \\"),
        ("- item", r"\- item"),
        ("1. first", r"1\. first"),
        ("5) fifth", r"5\) fifth"),
        ("&lt;", r"\&lt;"),
        ("a | b", r"a \| b"),
        ("3 - 2 = 1", "3 - 2 = 1"),
        ("你好", "你好"),
    ],
)
def test_what_people_wrote_stays_text(text: str, shown: str) -> None:
    assert line(text) == shown


async def test_a_text_of_several_lines_stays_in_its_quotation(database: Database) -> None:
    await record(database, turn(user_text="one\n# two\n\n- three\n1) four", assistant_text="```\n<x>\n```"))
    text = await document(database, turns=True)
    assert "> one\n> \\# two\n>\n> \\- three\n> 1\\) four\n" in text
    assert "> \\`\\`\\`\n> \\<x\\>\n> \\`\\`\\`\n" in text


async def test_a_long_session_is_shown_whole(database: Database) -> None:
    for n in range(405):
        await record(database, turn(user_text=f"number {n}.", said_at=NOW + n % 3))
    text = await document(database, turns=True)
    assert [f"> number {n}.\n" in text for n in range(405)] == [True] * 405
