"""What becomes of memories when something else is said: endings, refinements, corrections, settled tasks, and undoing."""

from __future__ import annotations

import itertools

import pytest

from memory.extract import rules
from memory.memories import Memories
from memory.models import Embedder
from memory.organise import Organiser
from memory.progress import reports
from memory.sql import Database
from memory.types import Kind, Memory, Status, Trust
from tests.memory.make import CUBE, NOW, candidate, record, turn

DERIVED = [kind for kind in Kind if kind is not Kind.EPISODE]


class Chat:
    """A user who says things, a minute apart, and a memory that learns by rules."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self.database, self.organiser = database, Organiser(database, embedder)
        self.memories = Memories(database, clock=lambda: NOW + 99_999)
        self._minutes = itertools.count()

    async def say(self, *texts: str, **overrides: object) -> None:
        for text in texts:
            fields = {"user_text": text, "said_at": NOW + 60 * next(self._minutes)} | overrides
            said = await record(self.database, turn(**fields))
            await self.organiser.organise(CUBE, [said], rules.extract(said), said.said_at + 1)

    async def hears(self, text: str, slot: str = "") -> None:
        """The assistant says something of the user."""
        said = await record(self.database, turn(said_at=NOW + 60 * next(self._minutes), assistant_text=text))
        told = candidate(said, text, slot=slot, role="assistant", trust=Trust.ASSISTANT, kind=Kind.IDENTITY)
        await self.organiser.organise(CUBE, [said], [told], said.said_at + 1)

    async def every(self, *statuses: Status) -> list[Memory]:
        page = await self.memories.page(CUBE, kinds=DERIVED, statuses=statuses or (Status.ACTIVE,))
        return sorted(page, key=lambda one: (one.message_time, one.text))

    async def holds(self, *statuses: Status) -> list[str]:
        return [one.text for one in await self.every(*statuses)]

    async def the(self, words: str) -> Memory:
        return next(one for one in await self.every(*Status) if words in one.text)


@pytest.fixture
def chat(database: Database, embedder: Embedder) -> Chat:
    return Chat(database, embedder)


@pytest.mark.parametrize(
    ("general", "specific"),
    [
        ("I have a dog.", "My dog is a labrador."),
        ("I have two kids.", "I have two kids, Ann and Bob."),
        ("I speak Spanish.", "I speak Spanish and French."),
    ],
)
async def test_what_says_more_takes_the_place_of_what_says_less(chat: Chat, general: str, specific: str) -> None:
    await chat.say(general, specific)
    more, less = await chat.the(specific.strip(".")), await chat.the(general.strip("."))
    assert (less.status, less.supersedes, more.status) == (Status.MERGED, more.id, Status.ACTIVE)
    assert {source.turn for source in less.sources} < {source.turn for source in more.sources}
    assert more.valid_from == less.valid_from


async def test_what_says_less_adds_nothing(chat: Chat) -> None:
    await chat.say("My dog is a labrador.", "I have a dog.")
    assert await chat.holds() == ["My dog is a labrador"]
    assert len((await chat.the("labrador")).sources) == 2


async def test_a_second_one_is_another_one(chat: Chat) -> None:
    await chat.say("I have a dog.", "I also have a dog called Rex.")
    assert len(await chat.holds()) == 2


async def test_a_finished_task_says_how_and_is_past(chat: Chat) -> None:
    await chat.say("Remind me to call the plumber.", "I called the plumber.")
    task = await chat.the("Remind me")
    assert (task.status, (task.attributes or {})["state"]) == (Status.SUPERSEDED, "done")
    (report,) = reports(task.attributes)
    assert (report.how, report.text, report.at) == ("done", "I called the plumber", NOW + 60)
    assert (await chat.the("I called")).attributes == {"state": "done"}


async def test_a_task_that_is_not_done_yet_stays_open(chat: Chat) -> None:
    await chat.say(
        "Remind me to call the plumber.", "I haven't called the plumber yet.", "I will call the plumber later."
    )
    assert (await chat.the("Remind me")).attributes == {"state": "open", "due": None}


async def test_a_corrected_value_never_held(chat: Chat) -> None:
    await chat.say("My birthday is on 3 June.", "Oops, I meant 30 June.")
    wrong, right = await chat.the("3 June"), await chat.the("30 June")
    assert right.text == "My birthday is on 30 June"
    assert (wrong.valid_to, right.valid_from) == (wrong.valid_from, wrong.valid_from)


@pytest.mark.parametrize("text", ["No, it's Lyon.", "Sorry, that's wrong.", "Actually it's fine."])
async def test_a_correction_of_the_assistant_changes_no_memory(chat: Chat, text: str) -> None:
    await chat.say("I live in Paris.", "What is the capital of the Rhône?", text)
    assert await chat.holds() == ["I live in Paris"]


async def test_the_assistant_does_not_replace_what_the_user_said(chat: Chat) -> None:
    await chat.say("I live in Oslo.")
    await chat.hears("You live in Rome.", "home.city")
    assert await chat.holds() == ["I live in Oslo"]
    await chat.say("I live in Bern.")
    assert await chat.holds() == ["I live in Bern"]


async def test_each_speaker_has_a_home_of_his_own(chat: Chat) -> None:
    await chat.say("I live in Oslo.", speaker="Ann")
    await chat.say("I live in Rome.", speaker="Bob")
    await chat.say("I no longer live in Oslo.", speaker="Bob")
    assert await chat.holds() == ["I live in Oslo", "I live in Rome"]


async def test_late_news_land_between_what_was_before_and_after(chat: Chat) -> None:
    await chat.say("I live in Oslo.", said_at=NOW)
    await chat.say("I live in Rome.", said_at=NOW + 2000)
    await chat.say("I live in Bern.", said_at=NOW + 1000)
    windows = [
        (one.text[-4:], one.valid_from - NOW, one.valid_to and one.valid_to - NOW) for one in await chat.every(*Status)
    ]
    assert windows == [("Oslo", 0, 1000), ("Bern", 1000, 2000), ("Rome", 2000, None)]
    assert await chat.holds() == ["I live in Rome"]


async def test_a_move_stays_an_event_and_the_new_home_is_known(chat: Chat) -> None:
    await chat.say("I live in Oslo.", "We moved to Rome.")
    assert [(one.kind, one.text) for one in await chat.every()] == [
        (Kind.IDENTITY, "I live in Rome"),
        (Kind.EVENT, "We moved to Rome"),
    ]


async def test_what_ended_and_began_again_holds_once(chat: Chat) -> None:
    await chat.say("I drive a Ford Fiesta.", "I sold my Ford Fiesta.", "I drive a Ford Fiesta.")
    assert await chat.holds() == ["I drive a Ford Fiesta"]


async def test_undoing_an_addition_brings_back_what_it_had_closed(chat: Chat) -> None:
    await chat.say("I really like techno.", "I don't like techno anymore.")
    wrong, before = await chat.the("anymore"), await chat.the("really like")
    after, others = await chat.memories.undo(CUBE, wrong.id) or pytest.fail("no such memory")
    assert (after.status, others) == (Status.ARCHIVED, [before.id])
    assert await chat.holds() == ["I really like techno"]
    assert (await chat.the("really like")).valid_to is None


async def test_undoing_twice_changes_nothing(chat: Chat) -> None:
    await chat.say("I live in Oslo.", "I live in Rome.")
    rome = await chat.the("Rome")
    for expected in (["I live in Oslo"], ["I live in Rome"]):
        await chat.memories.undo(CUBE, rome.id)
        assert await chat.holds() == expected


async def test_what_was_closed_by_mistake_can_hold_again_beside_the_new(chat: Chat) -> None:
    await chat.say("I live in Oslo.", "I live in Rome.")
    await chat.memories.undo(CUBE, (await chat.the("Oslo")).id)
    assert await chat.holds() == ["I live in Oslo", "I live in Rome"]
    assert (await chat.the("Rome")).supersedes is None


async def test_undoing_an_edit_brings_the_old_words_back(chat: Chat) -> None:
    await chat.say("I live in Oslo.")
    known = await chat.the("Oslo")
    await chat.memories.change(CUBE, known.id, {"text": "I live in Bergen", "pinned": True})
    after, _ = await chat.memories.undo(CUBE, known.id) or pytest.fail("no such memory")
    assert (after.text, after.pinned) == ("I live in Oslo", False)


async def test_undoing_a_refinement_leaves_what_was_known_before(chat: Chat) -> None:
    await chat.say("I have a dog.", "My dog is a labrador.")
    await chat.memories.undo(CUBE, (await chat.the("labrador")).id)
    assert await chat.holds() == ["I have a dog"]


async def test_a_settled_task_is_open_again_when_that_is_undone(chat: Chat) -> None:
    await chat.say("Remind me to call the plumber.", "I called the plumber.")
    await chat.memories.undo(CUBE, (await chat.the("I called")).id)
    task = await chat.the("Remind me")
    assert (task.status, task.attributes) == (Status.ACTIVE, {"state": "open", "due": None})


async def test_there_is_nothing_to_undo_where_there_is_nothing(chat: Chat) -> None:
    assert await chat.memories.undo(CUBE, "none") is None


async def test_when_the_first_of_two_equal_turns_goes_the_second_stands_for_it(chat: Chat) -> None:
    await chat.say("My dog is called Rex.", "My dog is called Rex.")
    first = next(one for one in await chat.memories.page(CUBE, kinds=[Kind.EPISODE]))
    await chat.memories.undo(CUBE, first.id)
    (left,) = await chat.memories.page(CUBE, kinds=[Kind.EPISODE])
    assert (left.id != first.id, left.text) == (True, "My dog is called Rex.")
