"""The turn log: what is a retry, what an edit, what a new turn; a turn and its episode stand and fall together."""

from __future__ import annotations

import asyncio

import pytest

from memory.memories import Memories
from memory.sql import Database
from memory.turns import SAME_TURN_S, Place, TurnLog
from memory.types import Kind, Status, Turn
from tests.memory.make import CUBE, MINUTE, NOW, OWNER, learned_from, memory, put, record, turn

START = Place()  # the first question of a session that the client did not name


async def episodes(database: Database, *statuses: Status) -> list[tuple[str, str]]:
    page = await Memories(database).page(CUBE, kinds=[Kind.EPISODE], statuses=statuses or (Status.ACTIVE,))
    return sorted((episode.text, episode.answer) for episode in page)


async def test_a_turn_and_its_episode_are_written_together(database: Database) -> None:
    said = turn(user_text="My cat is Tom.", assistant_text="Nice.", speaker="Ann", complete=False)
    kept = await record(database, said)
    assert (kept.user_text, kept.speaker, kept.complete) == ("My cat is Tom.", "Ann", False)
    assert await episodes(database) == [("My cat is Tom.", "Nice.")]


async def test_a_retry_replaces_the_answer(database: Database) -> None:
    first = await record(database, turn(key="k", assistant_text="One."))
    again = await record(database, turn(key="k", user_text=first.user_text, assistant_text="Two."))
    assert again.id == first.id
    assert await episodes(database) == [(first.user_text, "Two.")]


async def test_a_retry_is_extracted_again(database: Database) -> None:
    first = await record(database, turn(key="k"))
    await database.write(lambda c: _extracted(c, first))
    await record(database, turn(key="k", assistant_text="Another."))
    assert [t.id for t in await TurnLog(database).unextracted(CUBE, 9)] == [first.id]


async def _extracted(connection, *turns: Turn) -> None:  # type: ignore[no-untyped-def]
    from memory.turns import mark_extracted

    await mark_extracted(connection, turns)


async def test_a_turn_that_changed_meanwhile_still_waits(database: Database) -> None:
    first = await record(database, turn(key="k"))
    await record(database, turn(key="k", assistant_text="Another.", answered_at=NOW + 9))
    await database.write(lambda c: _extracted(c, first))
    assert await TurnLog(database).waiting() == [CUBE]


@pytest.mark.parametrize(("after", "turns"), [(MINUTE, 1), (SAME_TURN_S, 1), (SAME_TURN_S + 1.5, 2), (86400, 2)])
async def test_a_first_question_repeated_later_is_a_new_turn(database: Database, after: float, turns: int) -> None:
    first = await record(database, turn(key="hi", user_text="Hello", session="s1"), START)
    again = await record(database, turn(key="hi", user_text="Hello", session="s2", said_at=NOW + after), START)
    assert len({first.id, again.id}) == len({first.session, again.session}) == turns
    assert len(await episodes(database)) == turns


async def test_a_third_conversation_with_the_same_beginning(database: Database) -> None:
    day = 86400.0
    kept = [await record(database, turn(key="hi", said_at=NOW + n * day), START) for n in range(3)]
    retried = await record(database, turn(key="hi", said_at=NOW + 2 * day + MINUTE), START)
    assert retried.id == kept[2].id
    assert len(await episodes(database)) == 3


async def test_a_named_session_is_kept_however_late_its_turn_is_retried(database: Database) -> None:
    first = await record(database, turn(key="k", session="mine"), Place(named=True))
    again = await record(database, turn(key="k", session="mine", said_at=NOW + 86400), Place(named=True))
    assert (again.id, again.session) == (first.id, "mine")


async def test_the_same_key_in_another_cube_is_another_turn(database: Database) -> None:
    one = await record(database, turn(key="k"))
    two = await record(database, turn(key="k", cube="c2"))
    assert one.id != two.id


async def test_an_edited_question_replaces_the_one_at_its_place(database: Database) -> None:
    await record(database, turn(user_text="I live in Rome."), Place("p", "x", True))
    await record(database, turn(user_text="I live in Oslo."), Place("p", "y", True))
    assert [text for text, _ in await episodes(database)] == ["I live in Oslo."]
    assert [text for text, _ in await episodes(database, Status.ARCHIVED)] == ["I live in Rome."]


async def test_an_edit_takes_what_only_the_old_question_taught(database: Database) -> None:
    other = await record(database, turn())
    old = await record(database, turn(), Place("p", "x", True))
    await put(database, memory(id="only", sources=learned_from(old)))
    await put(database, memory(id="both", sources=learned_from(old, other)))
    await record(database, turn(), Place("p", "y", True))
    assert {m.id: m.status for m in (await Memories(database).by_ids(CUBE, ["only", "both"])).values()} == {
        "only": Status.ARCHIVED,
        "both": Status.ACTIVE,
    }


async def test_what_was_edited_away_is_never_extracted(database: Database) -> None:
    await record(database, turn(user_text="I live in Rome."), Place("p", "x", True))
    new = await record(database, turn(user_text="I live in Oslo."), Place("p", "y", True))
    assert [t.id for t in await TurnLog(database).unextracted(CUBE, 9)] == [new.id]
    await database.write(lambda c: _extracted(c, new))
    assert await TurnLog(database).waiting() == []


async def test_going_back_to_the_old_branch_brings_it_back(database: Database) -> None:
    await record(database, turn(key="rome", user_text="I live in Rome."), Place("p", "x", True))
    await record(database, turn(key="oslo", user_text="I live in Oslo."), Place("p", "y", True))
    await record(database, turn(key="rome", user_text="I live in Rome."), Place("p", "x", True))
    assert [text for text, _ in await episodes(database)] == ["I live in Rome."]


async def test_the_same_place_of_another_session_is_left_alone(database: Database) -> None:
    await record(database, turn(session="s1"), Place("p", "x", True))
    await record(database, turn(session="s2"), Place("p", "y", True))
    assert len(await episodes(database)) == 2


async def test_what_the_owner_pinned_and_tagged_stays_so_after_a_retry(database: Database) -> None:
    first = await record(database, turn(key="k"))
    known = (await Memories(database).page(CUBE))[0]
    await Memories(database).change(CUBE, known.id, {"pinned": True, "tags": ("work",)})
    await record(database, turn(key="k", user_text=first.user_text))
    again = await Memories(database).get(CUBE, known.id)
    assert again is not None
    assert (again.pinned, again.tags) == (True, ("work",))


async def test_the_session_that_a_history_continues(database: Database) -> None:
    log = TurnLog(database)
    await record(database, turn(session="old"), Place("", "tail", True))
    await record(database, turn(session="new", said_at=NOW + 5), Place("", "tail", True))
    assert await log.session_at(CUBE, "tail") == "new"
    assert await log.session_at(CUBE, "elsewhere") is None
    assert await log.session_at("c2", "tail") is None


async def test_the_same_turn_recorded_at_the_same_time_is_one(database: Database) -> None:
    log = TurnLog(database)
    await asyncio.gather(*(log.record(turn(key="k", user_text="Hello"), START, OWNER) for _ in range(20)))
    assert len(await episodes(database)) == 1
    assert len(await log.unextracted(CUBE, 99)) == 1
