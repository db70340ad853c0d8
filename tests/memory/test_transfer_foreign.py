"""Dumps of other products: what was said and remembered there is here, once, by whom it was said, and nothing else."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from memory.cube import Cubes
from memory.memories import Memories
from memory.sql import Database
from memory.transfer import Adopter, Imported, Refused, Target, sniff
from memory.transfer.elements import elements
from memory.turns import TurnLog
from memory.types import Kind, Memory, Turn
from tests.memory.archives import rows, zipped
from tests.memory.make import CUBE, OWNER

DATA = Path(__file__).parent / "data"
NOW = 1_800_000_000.0


def dump(name: str) -> bytes:
    return (DATA / f"{name}.json").read_bytes()


CHATGPT = dump("chatgpt_conversations")
CLAUDE = zipped(
    {
        "conversations.json": dump("claude_conversations"),
        "memories.json": dump("claude_memories"),
        "projects.json": dump("claude_projects"),
        "users.json": b"[]",
    }
)
MEM0 = dump("mem0")


async def adopt(database: Database, file: bytes, form: str = "", **options: Any) -> Imported:
    given = io.BytesIO(file)
    target = Target(CUBE, OWNER, options.pop("at", NOW), erased=options.pop("erased", "restore"))
    return await Adopter(database).run(given, form or sniff(given), target, **options)


async def turns(database: Database) -> list[Turn]:
    return await TurnLog(database).unextracted(CUBE, 100)


async def said(database: Database) -> list[tuple[str, str]]:
    return [(turn.user_text, turn.assistant_text) for turn in await turns(database)]


async def known(database: Database) -> dict[str, Memory]:
    kinds = [kind for kind in Kind if kind is not Kind.EPISODE]
    return {m.text: m for m in await Memories(database).page(CUBE, kinds=kinds)}


# --- ChatGPT --------------------------------------------------------------------------------------------------------------


async def test_chatgpt_gives_the_branch_that_its_owner_sees(database: Database) -> None:
    assert await adopt(database, CHATGPT) == Imported(turns=3, memories=6, refused=2, waiting=3)
    assert await said(database) == [
        ("My dog is called Rex, he is a beagle.", "What a fine name for a beagle!"),
        ("What should he eat?", "Meat and vegetables, twice a day."),
        ("I moved to Bruges.\n\nAnd I like it there.", "Lovely."),
    ]


async def test_chatgpt_turns_carry_when_and_where_they_were_said(database: Database) -> None:
    await adopt(database, CHATGPT)
    dog, food, move = await turns(database)
    assert (dog.said_at, dog.answered_at, dog.model) == (1_690_000_010.0, 1_690_000_012.0, "gpt-4o")
    assert dog.session == food.session != move.session
    assert move.said_at == 1_690_001_000.0  # the voice message has no time of its own


async def test_chatgpt_memory_and_instructions_become_memories(database: Database) -> None:
    await adopt(database, CHATGPT)
    found = {text: (m.kind.value, m.trust.value) for text, m in (await known(database)).items()}
    assert found == {
        "Has a beagle named Rex.": ("fact", "accepted"),
        "I am a nurse in Ghent.": ("identity", "user"),
        "Answer briefly.": ("preference", "user"),
    }


async def test_what_chatgpt_was_not_to_remember_is_not_remembered(database: Database) -> None:
    await adopt(database, CHATGPT)
    assert "zq" not in str(await rows(database))


async def test_the_zip_may_hold_numbered_parts_in_a_folder(database: Database) -> None:
    conversations = json.loads(CHATGPT)
    parts = {f"export/conversations-{n:03}.json": json.dumps([c]).encode() for n, c in enumerate(conversations)}
    other = {
        "export/chat.html": b"<html>",
        "export/dalle/a photo\u200d.png": b"x",
        "__MACOSX/._conversations.json": b"\0",
    }
    assert (await adopt(database, zipped(parts | other))).turns == 3


@pytest.mark.parametrize("damage", ["current", "loop", "orphan"])
async def test_a_broken_tree_gives_what_can_be_read(database: Database, damage: str) -> None:
    (conversation, *_) = json.loads(CHATGPT)
    if damage == "current":
        del conversation["current_node"]
    elif damage == "loop":
        conversation["mapping"]["u1"]["parent"] = "a2b"
    else:
        conversation["mapping"]["u1"]["parent"] = "lost"
    assert (await adopt(database, json.dumps([conversation]).encode())).turns == 2
    assert (await said(database))[1][1] == "Meat and vegetables, twice a day."


# --- Claude ---------------------------------------------------------------------------------------------------------------


async def test_claude_gives_spoken_text_only(database: Database) -> None:
    assert await adopt(database, CLAUDE) == Imported(turns=4, memories=9, refused=1, waiting=4)
    assert await said(database) == [
        ("I prefer green tea to coffee.", "Noted,\n\ngreen tea it is."),
        ("Which one is best?", ""),
        ("My sister is called Ann.", "A good name."),
        ("She lives in Lyon.", "Good to know."),
    ]
    assert "zq" not in str(await rows(database))


async def test_an_old_claude_dump_has_its_text_beside_the_blocks(database: Database) -> None:
    conversations = json.loads(dump("claude_conversations"))
    for message in conversations[0]["chat_messages"]:
        del message["content"]
    await adopt(database, json.dumps(conversations[:1]).encode())
    assert [user for user, _ in await said(database)] == ["I prefer green tea to coffee.", "Which one is best?"]


async def test_claude_memories_and_projects_become_memories(database: Database) -> None:
    await adopt(database, CLAUDE)
    found = {text: (m.trust.value, m.tags) for text, m in (await known(database)).items()}
    assert found == {
        "The user is a glaciologist.": ("accepted", ("claude", "Work context")),
        "Plays the cello.": ("accepted", ("claude", "Personal")),
        "Has a cat.": ("accepted", ("claude", "Personal")),
        "Writes a book about ice.": ("accepted", ("project p-1",)),
        "Project Ice: A book about glaciers.": ("user", ("project",)),
    }


async def test_claude_memories_may_come_alone(database: Database) -> None:
    assert (await adopt(database, dump("claude_memories"))).memories == 4


# --- mem0 -----------------------------------------------------------------------------------------------------------------


async def test_mem0_memories_become_facts(database: Database) -> None:
    assert await adopt(database, MEM0) == Imported(memories=3, refused=2)
    found = {text: (m.kind.value, m.trust.value, m.tags) for text, m in (await known(database)).items()}
    assert found == {
        "Lives in Porto": ("fact", "accepted", ("personal_details", "home")),
        "Allergic to nuts": ("fact", "user", ()),
        "I recommended hiking boots": ("fact", "assistant", ()),
    }
    assert (await known(database))["Lives in Porto"].message_time == 1_717_254_000.123


@pytest.mark.parametrize("shape", [lambda found: found, lambda found: {"memories": found}])
async def test_mem0_has_several_shapes(database: Database, shape: Any) -> None:
    assert (await adopt(database, json.dumps(shape(json.loads(MEM0)["results"])).encode())).memories == 3


async def test_a_memory_that_changed_in_mem0_changes_here(database: Database) -> None:
    await adopt(database, MEM0)
    told = json.loads(MEM0)
    told["results"][0] |= {"memory": "Lives in Lisbon", "updated_at": NOW + 5}
    done = await adopt(database, json.dumps(told).encode(), at=NOW + 10)
    assert (done.merged, done.skipped) == (1, 2)
    changed = (await known(database))["Lives in Lisbon"]
    assert [c.before["text"] for c in await Memories(database).history(CUBE, changed.id)] == ["Lives in Porto"]


async def test_a_memory_that_is_here_already_is_not_added(database: Database) -> None:
    await adopt(database, MEM0)
    again = json.dumps([{"id": "another", "memory": "lives in  Porto."}]).encode()
    assert await adopt(database, again) == Imported(skipped=1)


# --- all of them ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [CHATGPT, CLAUDE, MEM0])
async def test_a_second_time_adds_nothing(database: Database, file: bytes) -> None:
    first = await adopt(database, file)
    before = await rows(database), await Cubes(database).get(CUBE)
    again = await adopt(database, file, at=NOW + 1000)
    assert (again.turns, again.memories, again.merged, again.refused) == (0, 0, 0, first.refused)
    assert (await rows(database), await Cubes(database).get(CUBE)) == before


async def test_a_newer_dump_adds_what_was_said_since_and_replaces_what_was_edited(database: Database) -> None:
    await adopt(database, CHATGPT)
    conversations = json.loads(CHATGPT)
    mapping = conversations[0]["mapping"]
    conversations[0]["current_node"] = "a2old"  # the user went back to another question
    conversations[1]["current_node"] = "v5"
    for name, parent, role, text in (("v4", "v3", "user", "It rains."), ("v5", "v4", "assistant", "Often.")):
        conversations[1]["mapping"][name] = {
            "id": name,
            "parent": parent,
            "children": [],
            "message": mapping["u1"]["message"]
            | {
                "author": {"role": role},
                "content": {"content_type": "text", "parts": [text]},
                "create_time": 1_690_001_100,
            },
        }
    assert (await adopt(database, json.dumps(conversations).encode())).turns == 2
    words = await said(database)
    assert ("It rains.", "Often.") in words
    assert ("What does he eat? I mean Max.", "Max eats fish.") in words
    assert "What should he eat?" not in [user for user, _ in words]


async def test_secrets_are_taken_out(database: Database) -> None:
    secret = "sk-" + "a1b2c3d4" * 4
    for file in (CHATGPT, MEM0):
        harmed = file.replace(b"Rex", secret.encode()).replace(b"Porto", secret.encode())
        assert secret.encode() in harmed
        await adopt(database, harmed)
    assert secret not in str(await rows(database))


@pytest.mark.parametrize("form", ["chatgpt", "claude", "mem0"])
@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"[",
        b"nonsense",
        b'[{"mapping": 7}]',
        b'[{"a": 1}] more',
        b'[{"mapping": {"a": {"message": {"author": 7, "content": []}}}, "id": 5}]',
        b'[{"chat_messages": [7, {"sender": []}], "uuid": {}}]',
        b'[{"memory": ["x"], "id": 1}]',
        b"[" * 100_000,
        b'["' + b"\\" * 1001,
        CHATGPT[: len(CHATGPT) // 2],
        CLAUDE[: len(CLAUDE) // 2],
        zipped({"conversations.json": b"[{"}),
    ],
)
async def test_what_cannot_be_read_leaves_nothing_behind(database: Database, form: str, file: bytes) -> None:
    with pytest.raises(Refused):
        await adopt(database, file, form)
    assert await Cubes(database).get(CUBE) is None


@pytest.mark.parametrize("file", [CHATGPT, CLAUDE, MEM0])
async def test_a_dump_that_is_cut_off_anywhere_leaves_nothing_behind(database: Database, file: bytes) -> None:
    for at in range(0, len(file) - 2, max(1, len(file) // 100)):
        with pytest.raises(Refused):
            await adopt(database, file[:at])
    assert await Cubes(database).get(CUBE) is None


@pytest.mark.parametrize(("file", "form"), [(CHATGPT, "chatgpt"), (CLAUDE, "claude"), (MEM0, "mem0")])
def test_a_dump_is_recognised(file: bytes, form: str) -> None:
    assert sniff(io.BytesIO(file)) == form
    assert sniff(io.BytesIO(b"\xef\xbb\xbf" + file if not file.startswith(b"PK") else file)) == form


async def test_half_a_character_and_odd_times_do_no_harm(database: Database) -> None:
    (conversation, *_) = json.loads(CHATGPT)
    text = json.dumps([conversation]).replace("beagle.", r"beagle \ud83d.").replace("1690000010.0", "1690000010000")
    assert r"\ud83d" in text
    await adopt(database, text.encode())
    dog = (await turns(database))[0]
    assert dog.user_text == "My dog is called Rex, he is a beagle ?."
    assert dog.said_at == 1_690_000_000.0  # milliseconds are no time here: the conversation's


# --- large lists ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_elements_are_found_however_the_bytes_are_cut(size: int) -> None:
    raw = b' [ {"a": "]}\\"\\\\"} , [1, [2]], "x,\\u005d", 7,\n null,true, {}, [] ] \n'
    chunks = [raw[at : at + size] for at in range(0, len(raw), size)]
    assert [json.loads(element) for element in elements(chunks, 1000)] == json.loads(raw)


@pytest.mark.parametrize("raw", [b"", b"{}", b"7", b"[1", b'["a', b"[1] 2", b"[[]", b"]"])
def test_what_is_no_list_is_refused(raw: bytes) -> None:
    with pytest.raises(Refused):
        list(elements([raw], 1000))


def test_an_element_has_a_limit() -> None:
    with pytest.raises(Refused, match="larger than 100 bytes"):
        list(elements([b'["' + b"x" * 200, b'"]'], 100))


def test_a_large_list_is_not_held_in_memory() -> None:
    entry = b'{"a": "' + b"x" * 100_000 + b'"},'
    chunks = (b"[" if n == 0 else b"7]" if n == 301 else entry for n in range(302))
    tracemalloc.start()
    number = sum(1 for _ in elements(chunks, 1_000_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number == 301
    assert peak < 3_000_000
