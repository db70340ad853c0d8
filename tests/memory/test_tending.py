"""Tasks that move, are reported on, settled and taken up again in a chat: the row stays, its history and its turns are kept."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from memory.agenda import Agenda, Item, state_of
from memory.memories import Memories
from memory.models import Embedder
from memory.progress import reports
from memory.sql import Database
from memory.types import Kind, Memory, Status
from tests.memory.make import CUBE, NOW, candidate, record, turn
from tests.memory.test_organise_changes import Chat

TAX = "I need to send the tax form by Friday."  # said on Tuesday 14 November 2023


@pytest.fixture
def chat(database: Database, embedder: Embedder) -> Chat:
    return Chat(database, embedder)


def due(memory: Memory) -> str:
    at = (memory.attributes or {})["due"]
    return "" if at is None else datetime.fromtimestamp(at - 1, UTC).date().isoformat()


async def agenda(chat: Chat) -> list[Item]:
    return await Agenda(chat.database).open(CUBE, NOW + 3600)


async def test_a_task_that_moves_stays_the_same_and_remembers_when_it_was_due(chat: Chat) -> None:
    await chat.say(TAX)
    before = await chat.the("tax form")
    await chat.say("The tax form deadline got extended to 30 November.")
    after = await chat.the("I need to send")
    assert (before.id, due(before), due(after)) == (after.id, "2023-11-17", "2023-11-30")
    (report,) = reports(after.attributes)
    assert (report.how, report.text, report.was) == (
        "moved", "The tax form deadline got extended to 30 November", (before.attributes or {})["due"]
    )  # fmt: skip
    (change,) = await chat.memories.history(CUBE, after.id)
    assert (change.action, change.before["attributes"]) == ("update", before.attributes)
    await chat.memories.undo(CUBE, after.id)
    assert due(await chat.the("I need to send")) == "2023-11-17"


async def test_asking_for_the_same_with_another_date_moves_it(chat: Chat) -> None:
    await chat.say(TAX, "I have to send the tax form by Monday.")
    (only,) = await agenda(chat)
    assert (due(only.memory), len(only.memory.sources), only.feedback[0].how) == ("2023-11-20", 2, "moved")


async def test_the_same_turn_learned_twice_reports_once(chat: Chat) -> None:
    await chat.say(TAX)
    said = await record(chat.database, turn(user_text="The tax form is half done.", said_at=NOW + 60))
    for _ in range(2):
        await chat.organiser.organise(CUBE, [said], [], NOW + 61)
    task = await chat.the("tax form")
    assert [one.how for one in reports(task.attributes)] == ["progress"]
    assert state_of(task) == "open"


async def test_a_task_that_was_done_can_be_taken_up_again(chat: Chat) -> None:
    await chat.say(TAX, "I sent the tax form.")
    assert await agenda(chat) == []
    await chat.say("The tax form came back, I have to send it again.")
    (only,) = await agenda(chat)
    assert [one.how for one in only.feedback] == ["done", "reopened"]
    assert (await chat.the("I sent the tax form")).status is Status.SUPERSEDED


async def test_what_comes_again_is_never_over(chat: Chat) -> None:
    await chat.say("Remind me to water the plants every Monday.", "I watered the plants.")
    (only,) = await agenda(chat)
    assert [one.how for one in only.feedback] == ["done"]


async def test_a_goal_that_was_given_up_is_none_any_more(chat: Chat) -> None:
    await chat.say("I want to learn Spanish.", "I gave up on learning Spanish.")
    assert await agenda(chat) == []
    assert state_of(await chat.the("I want to")) == "cancelled"


@pytest.mark.parametrize(
    ("task", "text"),
    [("Remind me to call the plumber.", "Done!"), (TAX, "Sent it this morning."), ("提醒我交房租。", "交了。")],
)
async def test_done_alone_means_the_task_that_was_just_told(chat: Chat, task: str, text: str) -> None:
    await chat.say(task, text)
    assert await agenda(chat) == []
    (settled,) = await chat.memories.page(CUBE, kinds=[Kind.TASK], statuses=[Status.SUPERSEDED])
    await chat.memories.undo(CUBE, settled.id)
    assert len(await agenda(chat)) == 1


async def test_done_alone_means_what_the_answer_before_it_named(chat: Chat) -> None:
    await chat.say(TAX, "Remind me to call the plumber.")
    await chat.say("What should I do?", assistant_text="You still have to send the tax form.")
    await chat.say("Done!")
    assert [one.memory.text for one in await agenda(chat)] == ["Remind me to call the plumber"]


@pytest.mark.parametrize("text", ["Done!", "Called him.", "搞定了"])
async def test_done_alone_settles_nothing_when_nothing_or_something_else_was_spoken_of(chat: Chat, text: str) -> None:
    await chat.say(TAX, "How do I sort a list in Python?", text)
    assert len(await agenda(chat)) == 1


async def test_a_report_goes_with_the_turn_that_gave_it(chat: Chat) -> None:
    await chat.say(TAX, "The tax form deadline got extended to 30 November.", "The tax form is half done.")
    for words in ("extended", "half done"):
        (episode,) = [one for one in await chat.memories.page(CUBE, kinds=[Kind.EPISODE]) if words in one.text]
        await chat.memories.forget(CUBE, episode.id)
    task = await chat.the("tax form")
    assert (reports(task.attributes), due(task)) == ((), "2023-11-17")
    history = await Memories(chat.database).history(CUBE, task.id)
    assert not any(word in str(change.before) for change in history for word in ("extended", "half done"))


async def test_a_friends_news_move_nobody_elses_tasks(chat: Chat) -> None:
    await chat.say(TAX, "My brother postponed his tax form to June.", "Ann sent her tax form.")
    (only,) = await agenda(chat)
    assert only.feedback == ()


async def test_a_statement_that_calls_a_task_off_is_no_task_whatever_a_model_calls_it(chat: Chat) -> None:
    await chat.say("Remind me to write the thesis proposal.")
    said = await record(chat.database, turn(user_text="I gave up on the thesis proposal.", said_at=NOW + 60))
    told = candidate(
        said, "I gave up on the thesis proposal", kind=Kind.TASK, attributes={"state": "open", "due": None}
    )
    await chat.organiser.organise(CUBE, [said], [told], NOW + 61)
    assert await agenda(chat) == []
    assert state_of(await chat.the("Remind me")) == "cancelled"
