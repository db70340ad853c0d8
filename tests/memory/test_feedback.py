"""What becomes of memories when their user praises, blames or corrects them."""

from __future__ import annotations

import pytest

from memory.feedback import FLOOR, Feedback, judged, verdict
from memory.memories import Memories
from memory.sql import Database
from memory.types import Kind, Memory, Status, Trust
from tests.memory.make import CUBE, NOW, OWNER, memory

LATER = NOW + 1000


@pytest.fixture
def feedback(database: Database) -> Feedback:
    return Feedback(database, lambda: LATER)


async def stored(database: Database, **fields: object) -> Memory:
    return await Memories(database).add(memory(**fields), OWNER, slot="home.city")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Perfect, exactly like that!", 1),
        ("Yes, that's right, thanks.", 1),
        ("Spot on.", 1),
        ("完美！", 1),
        ("对，就是这样", 1),
        ("That's wrong, I live in Bergen.", -1),
        ("No, that is not what I said.", -1),
        ("you're mistaken", -1),
        ("不对，我住在上海", -1),
        ("你记错了，我没这么说过", -1),
        ("记错了，是五月", -1),
        ("What is wrong with my code?", 0),
        ("Wrong way up the stairs?", 0),
        ("Exactly how far is it?", 0),
        ("Is that right?", 0),
        ("That's right?", 0),
        ("Perfection is hard.", 0),
        ("Write a perfect letter", 0),
        ("The answer he gave is wrong, why?", 0),
        ("", 0),
    ],
)
def test_a_verdict_stands_at_the_beginning(text: str, says: int) -> None:
    assert verdict(text) == says


def test_steps_are_bounded() -> None:
    up = down = memory(confidence=0.9, importance=0.5)
    for _ in range(50):
        up, down = judged(up, True), judged(down, False)
    assert up.confidence <= 1
    assert up.importance <= 1
    assert (down.confidence, down.importance) == (FLOOR, FLOOR)


async def test_a_verdict_counts_once_an_occasion_and_stands_in_the_history(
    database: Database, feedback: Feedback
) -> None:
    one = await stored(database, confidence=0.8)
    for _ in range(2):
        await feedback.judge(CUBE, {one.id: 1.0}, False, by="turn 7", reason="beside the point")
    after = await Memories(database).get(CUBE, one.id)
    assert after is not None
    assert after.confidence == pytest.approx(0.8 * 0.7)
    (entry,) = await Memories(database).history(CUBE, one.id)
    assert (entry.action, entry.before["confidence"], entry.before["reason"]) == ("feedback", 0.8, "beside the point")


async def test_a_correction_takes_the_place_of_what_was_wrong(database: Database, feedback: Feedback) -> None:
    old = await stored(database, text="I live in Oslo.", entities=("Oslo",), trust=Trust.ASSISTANT, tags=("home",))
    new = await feedback.correct(CUBE, old.id, "I live in Bergen.", outdated=False)
    assert new is not None
    assert (new.text, new.trust, new.supersedes, new.entities, new.tags) == (
        "I live in Bergen.", Trust.USER, old.id, (), ("home",),
    )  # fmt: skip
    closed = await Memories(database).get(CUBE, old.id)
    assert closed is not None
    assert (closed.status, closed.valid_to, new.valid_from) == (Status.SUPERSEDED, old.valid_from, old.valid_from)


async def test_what_is_outdated_held_until_now(database: Database, feedback: Feedback) -> None:
    old = await stored(database)
    new = await feedback.correct(CUBE, old.id, "I live in Bergen.", outdated=True)
    closed = await Memories(database).get(CUBE, old.id)
    assert new is not None
    assert closed is not None
    assert closed.valid_to == new.valid_from == LATER


async def test_a_corrected_skill_is_followed_anew(database: Database, feedback: Feedback) -> None:
    old = await stored(database, kind=Kind.SKILL, attributes={"when": "in chats", "then": "use metric units"})
    new = await feedback.correct(CUBE, old.id, "use SI units", outdated=False)
    assert new is not None
    assert new.attributes == {"when": "in chats", "then": "use SI units"}


async def test_what_a_wrong_memory_had_superseded_holds_again(database: Database, feedback: Feedback) -> None:
    first = await stored(database, status=Status.SUPERSEDED, valid_to=NOW)
    wrong = await stored(database, supersedes=first.id)
    gone = await feedback.reject(CUBE, wrong.id, "wrong")
    again = await Memories(database).get(CUBE, first.id)
    assert gone is not None
    assert again is not None
    assert (gone.status, again.status) == (Status.ARCHIVED, Status.ACTIVE)
    entry = (await Memories(database).history(CUBE, wrong.id))[-1]
    assert (entry.action, entry.before["reason"]) == ("feedback", "wrong")


async def test_what_is_not_there_takes_no_feedback(feedback: Feedback) -> None:
    assert await feedback.judge(CUBE, {"nobody": 1.0}, True, by="x") == []
    assert await feedback.correct(CUBE, "nobody", "x", outdated=False) is None
    assert await feedback.reject(CUBE, "nobody", "wrong") is None
