"""Embeddings: by a model that names a pooling, and a clear refusal by one that does not."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from memory.engine.chat import read
from memory.engine.engine import Engine
from memory.engine.errors import ContextTooLong, InvalidChat
from memory.engine.settings import EngineSettings, bundled_model


def with_mean_pooling(target: Path) -> Path:
    """The small model's file with two more fields, which together are as long as its alignment, so that nothing else moves."""
    raw = bundled_model().read_bytes()
    (fields,) = struct.unpack_from("<Q", raw, 16)

    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    more = text(b"llama.pooling_type") + struct.pack("<II", 4, 1)  # a u32: mean
    more += text(b"x.pad") + struct.pack("<I", 8) + text(b" " * 5)
    assert len(more) % 32 == 0
    target.write_bytes(raw[:16] + struct.pack("<Q", fields + 2) + more + raw[24:])
    return target


@pytest.fixture(scope="module")
def pooling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    path = with_mean_pooling(tmp_path_factory.mktemp("model") / "pooling.gguf")
    engine = Engine(EngineSettings(path, "pooling", slots=1, context=512, threads=1))
    engine.start()
    asyncio.run(engine.ready())
    yield engine
    engine.close()


async def test_like_texts_have_like_vectors(pooling: Engine) -> None:
    (cat, kitten, tax), tokens = await pooling.embed(
        ["The cat sleeps.", "The kitten sleeps.", "Taxes are due in March."]
    )
    assert (cat.shape, tokens) == ((576,), 17)
    assert float(np.linalg.norm(cat)) == pytest.approx(1)
    assert cat @ kitten > cat @ tax


async def test_vectors_do_not_depend_on_company(pooling: Engine) -> None:
    together, _ = await pooling.embed(["One.", "Two."])
    alone, _ = await pooling.embed(["Two."])
    assert (together[1] == alone[0]).all()


async def test_model_with_pooling_still_answers(pooling: Engine) -> None:
    generation = await pooling.generate(read({"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 2}))
    assert [delta.finish async for delta in generation.deltas()][-1] == "length"


async def test_text_that_is_too_long_is_refused_by_its_place(pooling: Engine) -> None:
    with pytest.raises(ContextTooLong) as refused:
        await pooling.embed(["Short.", "word " * 3000])
    assert refused.value.param == "input.[1]"


@pytest.mark.parametrize("text", ["", [], [10**7]])
async def test_nothing_and_strange_tokens_are_refused(pooling: Engine, text: str | list[int]) -> None:
    with pytest.raises(InvalidChat):
        await pooling.embed([text])
