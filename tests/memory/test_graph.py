"""The graph: names and what mentions them, what follows and replaces what, topics, and that erasing takes all of it along."""

from __future__ import annotations

import itertools

import pytest
import sqlalchemy as sa

from memory import sql
from memory.cube import Cubes
from memory.entities import names
from memory.extract import rules
from memory.graph import Graph, Linked, entity_id
from memory.index import Index
from memory.memories import Memories
from memory.models import Embedder
from memory.nodes import ENTITY, TOPIC
from memory.organise import Organiser
from memory.sql import Database
from memory.store import Store
from memory.topics import Topics
from memory.types import Kind, Memory, Status
from memory.walk import Narrowed, Part, Walk
from tests.linear import assert_linear
from tests.memory.make import CUBE, NOW, record, turn


class World:
    """A cube that is talked to, indexed and drawn."""

    def __init__(self, database: Database, store: Store, embedder: Embedder) -> None:
        self.database = database
        self.organiser, self.index = Organiser(database, embedder), Index(database, store, embedder)
        self.graph, self.topics, self.walk = Graph(database), Topics(database, embedder.id), Walk(database)
        self.memories = Memories(database, clock=lambda: NOW + 99_999)
        self._minutes = itertools.count()

    async def say(self, *texts: str, **overrides: object) -> None:
        for text in texts:
            fields = {"user_text": text, "said_at": NOW + 60 * next(self._minutes)} | overrides
            said = await record(self.database, turn(**fields))
            await self.organiser.organise(CUBE, [said], rules.extract(said), said.said_at + 1)
        await self.draw()

    async def draw(self) -> Linked:
        await self.index.catch_up(CUBE)
        linked = await self.graph.link(CUBE)
        await self.topics.place(CUBE)
        return linked

    async def around(self, name: str, depth: int = 1, **narrowed: object) -> Part:
        node = await self.graph.entity(CUBE, name)
        assert node is not None
        return await self.walk.around(CUBE, node, depth=depth, limit=100, wanted=Narrowed(**narrowed))  # type: ignore[arg-type]

    async def mentions(self, name: str, *kinds: Kind) -> list[str]:
        part = await self.around(name, kinds=kinds or (Kind.EPISODE,))
        return [one.text for one in part.memories]

    async def the(self, words: str, kind: Kind | None = None) -> Memory:
        every = await self.memories.since(CUBE, 0)
        return next(one for one in every if words in one.text and (kind is None or one.kind is kind))

    async def rows(self) -> list[tuple[object, ...]]:
        async with self.database.read() as connection:
            edges = (await connection.execute(sa.select(sql.edges))).all()
            nodes = (await connection.execute(sa.select(sql.nodes.c.id, sql.nodes.c.kind, sql.nodes.c.name))).all()
        return sorted((tuple(row) for row in [*edges, *nodes]), key=str)


@pytest.fixture
def world(database: Database, store: Store, embedder: Embedder) -> World:
    return World(database, store, embedder)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Yesterday I met Anna at Café Central in Vienna.", ["Anna", "Café Central", "Vienna"]),
        ("Running is fun. Berlin is cold, I love Berlin.", ["Berlin"]),
        ("My dog Rex hates Mondays. Rex's vet is at PetCare.", ["Rex", "PetCare"]),
        ('I read "The Old Man and the Sea" last May.', ["The Old Man and the Sea"]),
        ("When Emma and I visited the University of Oslo, IBM hired me.", ["Emma", "University of Oslo", "IBM"]),
        ("我和王芳去了北京，她在清华大学读书，最近在看《三体》。", ["三体", "王芳", "北京", "清华大学"]),
        ("我朋友小张在华为工作。", ["小张", "华为"]),
        ("Thanks! What should I cook?", []),
        ("He said “I quit my job yesterday”.", []),
        ("今天我想吃火锅。", []),
    ],
)
def test_names_in_a_text(text: str, found: list[str]) -> None:
    assert names(text) == found


@pytest.mark.parametrize(
    "text", ["A " * 20_000, "Anna " * 20_000, '"' * 50_000, "《" * 50_000, "和王" * 30_000, "A.B." * 20_000]
)
def test_names_stay_cheap_in_long_texts(text: str) -> None:
    assert_linear(names, text)


async def test_a_name_leads_to_all_that_mentions_it(world: World) -> None:
    await world.say("I met Anna in Vienna.", "Anna's cat is ill.", "I love jazz.")
    assert await world.mentions("anna") == ["Anna's cat is ill.", "I met Anna in Vienna."]


async def test_two_steps_lead_to_what_is_known_of_the_same_people(world: World) -> None:
    await world.say("I met Anna in Vienna.", "Vienna was cold.", "I love jazz.")
    near, far = await world.around("Anna", 1), await world.around("Anna", 3, kinds=[Kind.EPISODE])
    assert "Vienna was cold." not in [one.text for one in near.memories]
    assert {"I met Anna in Vienna.", "Vienna was cold."} <= {one.text for one in far.memories}
    assert {edge.kind for edge in far.edges} >= {"mentions", "follows"}


async def test_every_edge_has_both_its_ends(world: World) -> None:
    await world.say("I met Anna in Vienna.", "I live in Vienna.", "I live in Rome.", "Bob knows Anna and Vienna.")
    part = await world.around("Vienna", 4)
    here = {node.id for node in part.nodes} | {memory.id for memory in part.memories}
    assert part.edges
    assert all({edge.source, edge.target} <= here for edge in part.edges)


async def test_turns_of_a_session_follow_each_other(world: World) -> None:
    await world.say("First thing.", "Second thing.")
    await world.say("Elsewhere.", session="s2")
    first, second, other = [await world.the(text, Kind.EPISODE) for text in ("First", "Second", "Elsewhere")]
    async with world.database.read() as connection:
        query = sa.select(sql.edges.c.source, sql.edges.c.target).where(sql.edges.c.kind == "follows")
        follows = [tuple(row) for row in (await connection.execute(query)).all()]
    assert follows == [(second.id, first.id)]
    assert other.id not in follows[0]


async def test_a_reason_that_is_remembered_causes_what_it_explains(world: World) -> None:
    await world.say("I'm allergic to cats.", "I don't like pet shops because I'm allergic to cats.")
    part = await world.walk.around(
        CUBE, (await world.the("I'm allergic", Kind.PREFERENCE)).id, depth=1, limit=20, wanted=Narrowed()
    )
    assert [(edge.kind, edge.target) for edge in part.edges if edge.kind == "causes"] == [
        ("causes", (await world.the("pet shops", Kind.PREFERENCE)).id)
    ]


async def test_a_misspelt_name_and_the_right_one_are_one(world: World) -> None:
    await world.say("My daughter's name is Katherine.", "I meant Kathryn.")
    assert (
        await world.graph.entity(CUBE, "Katherine") == await world.graph.entity(CUBE, "Kathryn") == entity_id("Kathryn")
    )
    (node,) = (await world.around("Katherine")).nodes
    assert (node.name, node.aliases) == ("Kathryn", ("Katherine",))


async def test_a_nickname_leads_to_the_name(world: World) -> None:
    await world.say("I met Robert. Robert goes by Bob.", "Dinner with Bob was nice.")
    assert await world.mentions("Robert") == await world.mentions("Bob") != []
    assert len(await world.mentions("Bob")) == 2


async def test_drawing_twice_changes_nothing(world: World) -> None:
    await world.say("I met Anna in Vienna.", "I live in Vienna.", "I live in Rome.")
    before = await world.rows()
    assert await world.draw() == Linked()
    await world.database.write(lambda connection: connection.execute(sa.update(sql.cubes).values(linked_rev=0)))
    await world.draw()
    assert await world.rows() == before


async def test_only_what_is_new_is_looked_at(world: World) -> None:
    await world.say("I met Anna in Vienna.")
    said = await record(world.database, turn(user_text="Bob came too.", said_at=NOW + 999))
    assert (await world.draw()).memories == 1
    info = await Cubes(world.database).get(CUBE)
    assert info is not None
    assert (info.linked_rev, said.user_text) == (info.rev, "Bob came too.")


async def test_erasing_a_memory_takes_its_names_along(world: World) -> None:
    await world.say("I met Anna in Vienna.", "Vienna was cold.")
    await world.memories.forget(CUBE, (await world.the("met Anna", Kind.EPISODE)).id)
    assert await world.graph.entity(CUBE, "Anna") is None
    assert await world.mentions("Vienna") == ["Vienna was cold."]
    assert "Anna" not in str(await world.rows())


async def test_erasing_the_misspelling_takes_the_alias_along(world: World) -> None:
    await world.say("My daughter's name is Katherine.", "I meant Kathryn.", "Kathryn is six and Kathryn sings.")
    await world.memories.forget(CUBE, (await world.the("Katherine", Kind.EPISODE)).id)
    await world.memories.forget(CUBE, (await world.the("I meant", Kind.EPISODE)).id)
    await world.draw()
    assert "Katherine" not in str(await world.rows())
    assert await world.mentions("Kathryn") == ["Kathryn is six and Kathryn sings."]


async def test_a_part_can_be_narrowed(world: World) -> None:
    await world.say("I live in Vienna.", "I live in Rome.")
    assert await world.mentions("Vienna", Kind.IDENTITY) == []
    past = await world.around("Vienna", kinds=[Kind.IDENTITY], statuses=[Status.SUPERSEDED])
    assert [one.text for one in past.memories] == ["I live in Vienna"]
    assert (await world.around("Rome", since=NOW + 60)).memories
    assert not (await world.around("Rome", since=NOW + 61)).memories
    assert not (await world.around("Rome", tag="travel")).memories


async def test_the_names_spoken_of_most_come_first(world: World) -> None:
    await world.say("I met Anna in Vienna.", "I called Anna.", "I love Oslo and Anna.")
    part = await world.walk.most(CUBE, ENTITY, limit=2, wanted=Narrowed(kinds=[Kind.EPISODE]))
    assert len(part.nodes) == 2
    assert (part.nodes[0].name, part.nodes[0].size) == ("Anna", 3)


async def test_what_is_alike_is_one_topic_with_a_telling_name(world: World) -> None:
    dogs = ["My dog loves long walks.", "The dog chewed my shoes.", "Our dog needs a vet for its paw."]
    taxes = ["My tax return is late.", "The tax office sent a letter about my tax return.", "Which tax form do I need?"]
    await world.say(*dogs, *taxes)
    topics = (await world.walk.most(CUBE, TOPIC, limit=10, wanted=Narrowed(kinds=[Kind.EPISODE]))).nodes
    of = {}
    for topic in topics:
        part = await world.walk.around(CUBE, topic.id, depth=1, limit=50, wanted=Narrowed(kinds=[Kind.EPISODE]))
        of |= {memory.text: topic.name for memory in part.memories}
    assert {of[text] for text in dogs}.isdisjoint({of[text] for text in taxes})
    assert "dog" in of[dogs[0]]
    assert "tax" in of[taxes[0]]


async def test_erasing_a_memory_dissolves_its_topic_and_the_others_are_placed_anew(world: World) -> None:
    await world.say("My dog loves walks with Hektor.", "The dog chewed my shoes.")
    await world.memories.forget(CUBE, (await world.the("Hektor", Kind.EPISODE)).id)
    assert "hektor" not in str(await world.rows()).lower()
    await world.draw()
    topics = (await world.walk.most(CUBE, TOPIC, limit=10, wanted=Narrowed())).nodes
    assert sum(topic.size for topic in topics) == len(await world.memories.page(CUBE))


async def test_a_turn_that_holds_no_longer_says_what_does(world: World) -> None:
    await world.say("I live in Oslo.", "I live in Rome.", "I live in Bern.", "I love jazz.")
    episodes = [await world.the(f"{text}.", Kind.EPISODE) for text in ("Oslo", "Rome", "Bern", "jazz")]
    stale = await world.graph.stale(CUBE, episodes)
    told = {episode: [(r.old.text, r.now.text if r.now else None) for r in found] for episode, found in stale.items()}
    assert told == {
        episodes[0].id: [("I live in Oslo", "I live in Bern")],
        episodes[1].id: [("I live in Rome", "I live in Bern")],
    }


async def test_the_successor_of_an_old_value_is_the_one_that_holds(world: World) -> None:
    await world.say("I work for Deloitte.", "I start at KPMG on Monday.")
    old, new = await world.the("work for", Kind.IDENTITY), await world.the("KPMG", Kind.IDENTITY)
    assert await world.graph.successors(CUBE, [old.id]) == {old.id: new}
