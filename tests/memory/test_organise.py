"""Organising: one memory of each thing that was said, the latest value of what can change, and twice is like once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from memory.memories import Memories
from memory.models import Embedder
from memory.organise import Organised, Organiser, says_the_same
from memory.sql import Database
from memory.turns import Place
from memory.types import Candidate, Kind, Memory, Status, Turn
from tests.memory.make import CUBE, NOW, candidate, learned_from, record, turn


class Learner:
    """Says things and learns from them, a minute apart."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self.database = database
        self.organiser = Organiser(database, embedder)
        self.memories = Memories(database, clock=lambda: NOW)
        self.said: list[tuple[Turn, str, str]] = []

    async def say(self, text: str, slot: str = "", **overrides: object) -> Turn:
        fields = {"user_text": text, "said_at": NOW + 60 * len(self.said)} | overrides
        kept = await record(self.database, turn(**fields))
        self.said.append((kept, text, slot))
        await self.learn([kept], [candidate(kept, text, slot=slot)])
        return kept

    async def learn(self, turns: Sequence[Turn], candidates: Sequence[Candidate]) -> Organised:
        return await self.organiser.organise(CUBE, turns, candidates, NOW + 9999)

    async def again(self) -> Organised:
        return await self.learn([t for t, *_ in self.said], [candidate(t, x, slot=s) for t, x, s in self.said])

    async def facts(self, *statuses: Status) -> list[str]:
        page = await self.memories.page(CUBE, kinds=[Kind.FACT], statuses=statuses or (Status.ACTIVE,))
        return sorted(one.text for one in page)

    async def everything(self) -> list[Memory]:
        return sorted(await self.memories.since(CUBE, 0), key=lambda one: one.id)

    async def the(self, text: str) -> Memory:
        page = await self.memories.page(CUBE, kinds=[Kind.FACT], statuses=list(Status))
        return next(one for one in page if one.text == text)


@pytest.fixture
def learner(database: Database, embedder: Embedder) -> Learner:
    return Learner(database, embedder)


@pytest.mark.parametrize(
    ("one", "again"),
    [
        ("I like tea.", "i like  TEA"),
        ("我喜欢喝绿茶", "我喜欢喝绿茶。"),
        ("The user lives in Oslo", "The user lives in Oslo now"),
        ("The user's dog is called Rex", "The user’s dog is just called Rex"),
    ],
)
async def test_what_is_known_is_cited_and_not_doubled(learner: Learner, one: str, again: str) -> None:
    first, second = await learner.say(one), await learner.say(again)
    assert await learner.facts() == [one]
    assert (await learner.the(one)).sources == learned_from(first, second)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I take 5 mg every day", "I take 50 mg every day"),
        ("I like green tea", "I do not like green tea"),
        ("I moved from Oslo to Bergen", "I moved to Oslo from Bergen"),
        ("Anna loves Bob", "Bob loves Anna"),
        ("My sister is called Anna", "My sister is called Hanna"),
        ("我对花生过敏", "我对花生不过敏"),
        ("我儿子叫小明", "我儿子叫小红"),
        ("我住在3楼", "我住在13楼"),
    ],
)
async def test_what_differs_in_what_matters_is_kept(learner: Learner, one: str, other: str) -> None:
    await learner.say(one)
    await learner.say(other)
    assert await learner.facts() == sorted([one, other])


LONG = "{} from accounting organises the {} party at the lake near the old mill every year in July with music and food"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a b c", "a b c", True),
        ("I walk the dog", "I am walking the dogs", True),
        (LONG.format("Anna", "big"), LONG.format("Anna", "big summer"), True),
        (LONG.format("Anna", "big"), LONG.format("Bert", "big"), False),
        (LONG.format("Anna", "big"), LONG.format("Anna", "small"), False),
        (LONG.format("Anna", "big"), LONG.format("Anna", "big").replace("organises", "didn't organise"), False),
        ("7:30", "7:31", False),
        ("I can swim", "I can't swim", False),
        ("I could swim", "I couldn’t swim", False),
    ],
)
def test_says_the_same(one: str, other: str, same: bool) -> None:
    assert says_the_same(one, other) is same
    assert says_the_same(other, one) is same


async def test_one_turn_that_says_it_twice_teaches_it_once(learner: Learner) -> None:
    said = await record(learner.database, turn())
    done = await learner.learn([said], [candidate(said, "I like tea."), candidate(said, "I like tea")])
    assert done == Organised(added=1, skipped=1)
    assert await learner.facts() == ["I like tea."]


async def test_a_new_value_closes_the_old_one(learner: Learner) -> None:
    await learner.say("I live in Oslo", "home.city")
    moved = await learner.say("I live in Rome", "home.city")
    old, new = await learner.the("I live in Oslo"), await learner.the("I live in Rome")
    assert (old.status, old.valid_to, new.supersedes) == (Status.SUPERSEDED, moved.said_at, old.id)
    assert await learner.facts() == ["I live in Rome"]


async def test_what_was_said_earlier_does_not_come_after_what_was_said_later(learner: Learner) -> None:
    rome = await learner.say("I live in Rome", "home.city")
    await learner.say("I live in Oslo", "home.city", said_at=NOW - 500)
    assert await learner.facts() == ["I live in Rome"]
    assert (await learner.the("I live in Oslo")).valid_to == rome.said_at


async def test_other_slots_stay_open(learner: Learner) -> None:
    await learner.say("I live in Oslo", "home.city")
    await learner.say("My name is Ann", "name")
    assert len(await learner.facts()) == 2


async def test_there_and_back_again(learner: Learner) -> None:
    for city in ("Oslo", "Rome", "Oslo"):
        await learner.say(f"I live in {city}", "home.city")
    assert await learner.facts() == ["I live in Oslo"]
    assert await learner.facts(Status.SUPERSEDED) == ["I live in Oslo", "I live in Rome"]


async def test_the_same_batch_again_changes_nothing(learner: Learner) -> None:
    for text, slot in (("I live in Oslo", "home"), ("I like tea", ""), ("I live in Rome", "home"), ("i like tea!", "")):
        await learner.say(text, slot)
    before = await learner.everything()
    await learner.again()
    assert await learner.everything() == before


async def test_the_old_turn_alone_again_changes_nothing(learner: Learner) -> None:
    oslo = await learner.say("I live in Oslo", "home")
    await learner.say("I live in Rome", "home")
    before = await learner.everything()
    await learner.learn([oslo], [candidate(oslo, "I live in Oslo", slot="home")])
    assert await learner.everything() == before


async def test_what_the_owner_wrote_is_not_written_over(learner: Learner) -> None:
    await learner.say("I live in Olso")
    known = await learner.the("I live in Olso")
    await learner.memories.change(CUBE, known.id, {"text": "I live in Oslo"})
    await learner.again()
    assert await learner.facts() == ["I live in Oslo"]


async def test_what_an_edited_answer_no_longer_says_is_withdrawn(learner: Learner) -> None:
    said = await learner.say("I like tea")
    await learner.learn([said], [candidate(said, "I like coffee")])
    assert await learner.facts() == ["I like coffee"]
    assert await learner.facts(Status.ARCHIVED) == ["I like tea"]


async def test_what_comes_back_is_active_again(learner: Learner) -> None:
    said = await learner.say("I like tea")
    await learner.learn([said], [])
    await learner.learn([said], [candidate(said, "I like tea")])
    assert await learner.facts() == ["I like tea"]
    assert (await learner.the("I like tea")).valid_to is None


async def test_a_value_that_was_withdrawn_gives_way_to_the_one_before(learner: Learner) -> None:
    await learner.say("I live in Oslo", "home")
    wrong = await learner.say("I live in Rome", "home")
    await learner.learn([wrong], [])
    assert await learner.facts() == ["I live in Oslo"]
    assert (await learner.the("I live in Oslo")).valid_to is None


async def test_a_question_that_was_edited_gives_way_to_the_value_before(learner: Learner) -> None:
    await learner.say("I live in Oslo", "home")
    wrong = await record(learner.database, turn(said_at=NOW + 60), Place("p", "x", True))
    await learner.learn([wrong], [candidate(wrong, "I live in Rome", slot="home")])
    await record(learner.database, turn(said_at=NOW + 90), Place("p", "y", True))
    assert await learner.facts() == ["I live in Oslo"]


async def test_what_two_turns_said_stays_when_one_takes_it_back(learner: Learner) -> None:
    await learner.say("I like tea")
    again = await learner.say("I like tea")
    await learner.learn([again], [])
    assert await learner.facts() == ["I like tea"]


async def test_a_turn_erased_while_it_was_read_teaches_nothing(learner: Learner) -> None:
    said = await record(learner.database, turn(user_text="My PIN is 0000"))
    (episode,) = await learner.memories.page(CUBE)
    await learner.memories.forget(CUBE, episode.id)
    await learner.learn([said], [candidate(said, "My PIN is 0000")])
    assert await learner.facts() == []


async def test_a_turn_edited_while_it_was_read_teaches_nothing(learner: Learner) -> None:
    old = await record(learner.database, turn(), Place("p", "x", True))
    await record(learner.database, turn(), Place("p", "y", True))
    await learner.learn([old], [candidate(old, "I live in Rome")])
    assert await learner.facts() == []


async def test_a_conversation_replayed_three_times_leaves_one_of_each(learner: Learner) -> None:
    for _ in range(3):
        for text in ("My dog is called Rex", "我对花生过敏", "I was born on 5 May 1990"):
            await learner.say(text, assistant_text="Noted.")
    assert len(await learner.facts()) == 3
    assert len(await learner.memories.page(CUBE, kinds=[Kind.EPISODE])) == 3
    assert len(await learner.memories.page(CUBE, kinds=[Kind.EPISODE], statuses=[Status.MERGED])) == 6


async def test_a_candidate_of_another_batch_is_left_out(learner: Learner) -> None:
    said = await record(learner.database, turn())
    assert await learner.learn([said], [candidate(turn(), "I like tea")]) == Organised()
