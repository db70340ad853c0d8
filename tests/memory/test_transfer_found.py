"""After a move the same questions find the same: with the same embedder by the vectors that came along, with another one by
new vectors, just as if everything had been said there."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from memory.index import Index
from memory.late import Asked, Encoded, LateEmbedder
from memory.memories import Memories
from memory.models import Embedder, Vectors
from memory.retrieve import Question, Retriever
from memory.sql import Database
from memory.store import Store
from memory.transfer import Archive, Importer, Target
from proxy import db
from proxy.config import Config
from tests.memory.archives import changed, no_blobs
from tests.memory.make import CUBE, NOW, OWNER, memory, record, turn

SAID = (
    "My dog is called Rex and he loves swimming.",
    "I moved from Milan to Turin in spring.",
    "My sister Ann plays the cello in an orchestra.",
    "I am allergic to hazelnuts.",
    "We booked the ferry to Sardinia for July.",
    "My locker code is 4711.",
    "The car needs new brakes before winter.",
    "我养了一只叫团团的猫。",
)
ASKED = (
    "What is the name of my dog?",
    "Where do I live now?",
    "Who plays an instrument?",
    "Which food must I avoid?",
    "How do we travel in summer?",
    "locker code",
    "我的猫叫什么名字？",
    "What is wrong with the car?",
)


class Hashing:
    """Words hashed into 64 numbers: another embedder, made from nothing."""

    id = "hashing/1"
    dimensions = 64

    def embed(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self.embed_query(text) for text in texts]) if texts else np.zeros((0, 64), np.float32)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        row = np.zeros(64, np.float32)
        for word in re.findall(r"\w+", text.lower()):
            row[zlib.crc32(word.encode()) % 64] += 1
        length = float(np.linalg.norm(row))
        return row / length if length else row


class Counting:
    """The bundled embedder, counting what it is asked to embed."""

    def __init__(self, embedder: Embedder) -> None:
        assert isinstance(embedder, LateEmbedder)
        self.id, self.dimensions, self.late, self.embedded = embedder.id, embedder.dimensions, embedder.late, 0
        self._embedder = embedder

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.embedded += len(texts)
        return self._embedder.embed(texts)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        return self._embedder.embed_query(text)

    def encode(self, texts: list[str]) -> Encoded:
        self.embedded += len(texts)
        return self._embedder.encode(texts)

    def encode_query(self, text: str) -> Asked:
        return self._embedder.encode_query(text)


class Place:
    """An installation with an embedder of its own."""

    def __init__(self, folder: Path, embedder: Embedder, threads: ThreadPoolExecutor) -> None:
        config = Config(data=str(folder))
        db.upgrade(config)
        self.database: Database = db.open_database(config)
        self.folder, self.embedder = folder, embedder
        store = Store(str(folder / "lance"))
        self.index = Index(self.database, store, embedder)
        self.retriever = Retriever(self.database, store, embedder, threads)

    async def live(self) -> None:
        """Say everything here."""
        for number, text in enumerate(SAID):
            said = turn(
                id=f"t{number}", user_text=text, assistant_text="I see.", said_at=NOW + number, session=f"s{number % 3}"
            )
            await record(self.database, said)
        await Memories(self.database).add(memory(id="m1", text="Lives in Turin.", entities=("Turin",)), OWNER)
        await self.index.catch_up(CUBE)

    async def export(self, *, vectors: bool = True) -> bytes:
        out = io.BytesIO()
        archive = Archive(self.database, self.folder, "test", no_blobs)
        await archive.write(CUBE, out, at=NOW + 1000, vectors=vectors)
        return out.getvalue()

    async def take_in(self, archive: bytes) -> None:
        importer = Importer(self.database, self.embedder, no_blobs)
        await importer.run(io.BytesIO(archive), Target(CUBE, OWNER, NOW + 2000))
        await self.index.catch_up(CUBE)

    async def answers(self) -> list[list[tuple[float, str]]]:
        """What each question finds, with its score, best first. Not by ids: of two who heard the same, each has its own."""
        found = []
        for question in ASKED:
            result = await self.retriever.retrieve(CUBE, Question(question, NOW + 3000, limit=10))
            assert result.degraded is None
            found.append(sorted(((round(hit.score, 5), hit.passage) for hit in result.hits), reverse=True))
        return found


class Places:
    """Makes installations, and closes them."""

    def __init__(self, folder: Path, threads: ThreadPoolExecutor) -> None:
        self._folder, self._threads = folder, threads
        self.made: list[Place] = []

    def make(self, name: str, embedder: Embedder) -> Place:
        self.made.append(Place(self._folder / name, embedder, self._threads))
        return self.made[-1]


@pytest.fixture
async def places(tmp_path: Path, threads: ThreadPoolExecutor) -> AsyncIterator[Places]:
    found = Places(tmp_path, threads)
    yield found
    for place in found.made:
        await place.database.close()


async def test_with_the_same_embedder_nothing_is_embedded_again(places: Places, embedder: Embedder) -> None:
    counting = Counting(embedder)
    here, there = places.make("here", embedder), places.make("there", counting)
    await here.live()
    await there.take_in(await here.export())
    assert counting.embedded == 0
    assert await there.answers() == await here.answers()
    assert sum(bool(hits) for hits in await here.answers()) >= 5
    assert await there.index.verify(CUBE) is None


@pytest.mark.parametrize("vectors", [True, False])
async def test_with_another_embedder_it_is_as_if_all_had_been_said_there(
    places: Places, embedder: Embedder, vectors: bool
) -> None:
    here, there = places.make("here", embedder), places.make("there", Hashing())
    await here.live()
    await there.take_in(await here.export(vectors=vectors))
    native = places.make("native", Hashing())
    await native.live()
    assert await there.answers() == await native.answers()
    assert sum(bool(hits) for hits in await there.answers()) >= 3
    assert await there.index.verify(CUBE) is None


async def test_a_vector_whose_text_was_changed_on_the_way_is_not_used(places: Places, embedder: Embedder) -> None:
    counting = Counting(embedder)
    here, there = places.make("here", embedder), places.make("there", counting)
    await here.live()

    def rewrite(found: list[dict[str, object]]) -> None:
        for row in found:
            if row["id"] == "m1":
                row["text"] = "Lives in Oslo."

    await there.take_in(changed(await here.export(), "memories.jsonl", rewrite))
    assert counting.embedded == 1
    assert await there.index.verify(CUBE) is None


async def test_vectors_of_another_length_are_not_taken_over(places: Places, embedder: Embedder) -> None:
    class Claiming(Hashing):
        id = embedder.id

    here, there = places.make("here", Claiming()), places.make("there", embedder)
    await here.live()
    await there.take_in(await here.export())
    assert await there.index.verify(CUBE) is None
    assert any(await there.answers())


@pytest.mark.parametrize("pieces", [{"late": None, "width": 0}, {"late": "AQID", "width": 3}, {"late": "", "width": 0}])
async def test_word_pieces_of_another_width_are_not_taken_over(
    places: Places, embedder: Embedder, pieces: dict[str, object]
) -> None:
    here, there = places.make("here", embedder), places.make("there", embedder)
    await here.live()

    def rewrite(found: list[dict[str, object]]) -> None:
        for row in found[::2]:
            row.update(pieces)

    await there.take_in(changed(await here.export(), "vectors/rows.jsonl", rewrite))
    # embedded in a batch with others, a score moves by a hair
    for found, expected in zip(await there.answers(), await here.answers(), strict=True):
        assert [passage for _, passage in found[:1]] == [passage for _, passage in expected[:1]]
    assert await there.index.verify(CUBE) is None
