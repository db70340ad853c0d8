"""Adapters on the engine: used by whom they belong to and nobody else, in the same batch queue, with states of their own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory.activation.states import Budgets
from memory.activation.store import States
from memory.adapters.files import Folder, Manifest, sha256_of
from memory.engine.adapters import Adapters
from memory.engine.building import Build
from memory.engine.engine import Engine
from memory.engine.errors import EngineError
from memory.engine.generation import Generation
from memory.engine.settings import bundled_model
from memory.engine.slots import Owner
from memory.parametric import export
from tests.memory.make import NOW
from tests.memory.test_engine import chat, settings

MINE, YOURS = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
SYSTEM = "You are a helpful assistant. Apples cost three coins, pears cost four coins, plums cost five coins a piece."
QUESTIONS = ("What is the capital of France?", "Tell me about cats.", "Count to ten.", "What is tea?")


@pytest.fixture(scope="module")
def model() -> str:
    return sha256_of(bundled_model())


@functools.cache
def shape() -> export.Shape:
    """Of the bundled model; reading it takes seconds."""
    return export.shape_of(bundled_model())


def made(folder: Folder, cube: str, version: int, model: str, *, seed: int = 1, **overrides: Any) -> Manifest:
    """An adapter that changes what is said, made of noise."""
    random = np.random.default_rng(seed)

    def pair(rows: int) -> export.Pair:
        return export.Pair(
            random.normal(0, 0.05, (4, 576)).astype(np.float32), random.normal(0, 0.05, (rows, 4)).astype(np.float32)
        )

    pairs = {f"model.layers.{n}.self_attn.q_proj": pair(576) for n in range(20, 30)}
    pairs |= {f"model.layers.{n}.mlp.up_proj": pair(1536) for n in range(20, 30)}
    part = folder.unfinished(cube, version)
    export.write(part, shape(), 16.0, pairs)
    plain: dict[str, Any] = {"cube": cube, "version": version, "model": model, "architecture": "llama", "memories": {}}
    plain |= {"samples": "", "settings": {}, "results": {}, "sha256": sha256_of(part), "created": NOW}
    manifest = Manifest(**(plain | {"bytes": part.stat().st_size} | overrides))
    folder.keep(manifest)
    return manifest


@pytest.fixture
def folder(tmp_path: Path, model: str) -> Folder:
    """Two cubes, each with an adapter."""
    found = Folder(tmp_path / "adapters")
    made(found, MINE, 1, model, seed=1)
    made(found, YOURS, 1, model, seed=2)
    return found


@asynccontextmanager
async def running(folder: Folder, *, kv: Path | None = None, budget: int = 64 << 20) -> AsyncIterator[Engine]:
    states = States(kv, Budgets(64 << 20, 256 << 20)) if kv else None
    engine = Engine(settings(threads=1, context=512), states, Adapters(folder, bundled_model(), budget))
    engine.start()
    try:
        await engine.ready()
        yield engine
    finally:
        await asyncio.to_thread(engine.close)
        if states is not None:
            states.close()


async def say(
    engine: Engine, question: str, cube: str = "", adapter: str = "", session: str = ""
) -> tuple[str, Generation]:
    generation = await engine.generate(chat(question, system=SYSTEM, max_tokens=8), Owner(cube, session, adapter))
    return "".join([delta.text async for delta in generation.deltas()]), generation


async def test_an_adapter_changes_the_answer_of_who_has_it_and_of_nobody_else(folder: Folder) -> None:
    async with running(folder) as engine:
        plain, _ = await say(engine, QUESTIONS[1])
        mine, with_it = await say(engine, QUESTIONS[1], MINE, "1")
        yours, _ = await say(engine, QUESTIONS[1], YOURS, "1")
        after, without = await say(engine, QUESTIONS[1])
    assert len({plain, mine, yours}) == 3
    assert (after, with_it.adapter, without.adapter) == (plain, "1", "")


async def test_answers_given_together_under_different_adapters_equal_those_given_alone(folder: Folder) -> None:
    whose = [(MINE, "1"), (YOURS, "1"), ("", ""), (MINE, "1@0.5"), (MINE, "1"), (YOURS, "")]
    asked = [(question, *owner) for question, owner in zip(cycle(QUESTIONS), whose, strict=False)]
    async with running(folder) as engine:
        together = await asyncio.gather(*(say(engine, *one) for one in asked))
    async with running(folder) as engine:
        alone = [await say(engine, *one) for one in asked]
    assert [text for text, _ in together] == [text for text, _ in alone]


async def test_nobody_waits_for_another_adapter_to_end(folder: Folder) -> None:
    long = chat("Tell me a story.", system="Go on.", max_tokens=200, logit_bias={"2": -100})
    async with running(folder) as engine:
        first = await engine.generate(long, Owner(MINE, "", "1"))
        text, _ = await say(engine, QUESTIONS[0], YOURS, "1")
        assert text
        assert first.completion_tokens < 200
        first.cancel()


async def test_a_state_is_used_again_under_its_adapter_alone(folder: Folder, tmp_path: Path) -> None:
    async with running(folder, kv=tmp_path / "kv") as engine:
        cold, _ = await say(engine, QUESTIONS[0], MINE, "1", "s")
        again, warm = await say(engine, QUESTIONS[0], MINE, "1", "s")
        _, other = await say(engine, QUESTIONS[0], MINE, "", "s")
        _, weaker = await say(engine, QUESTIONS[0], MINE, "1@0.5", "s")
    assert (again, warm.cached_tokens > 0) == (cold, True)
    assert (other.cached_tokens, weaker.cached_tokens) == (0, 0)


async def test_after_a_restart_the_restored_answer_is_the_cold_one(folder: Folder, tmp_path: Path) -> None:
    system = [{"role": "system", "content": SYSTEM}]
    async with running(folder) as engine:
        cold = [(await say(engine, question, MINE, "1"))[0] for question in QUESTIONS[:2]]
    async with running(folder, kv=tmp_path / "kv") as engine:
        built = await engine.build(Owner(MINE, "", "1"), system)
    async with running(folder, kv=tmp_path / "kv") as engine:
        restored = [await say(engine, question, MINE, "1") for question in QUESTIONS[:2]]
    assert [text for text, _ in restored] == cold
    assert restored[0][1].cached_tokens == built.held.tokens


def nothing(folder: Folder) -> None:
    folder.clear(MINE)


def flipped(folder: Folder) -> None:
    path = folder.path(MINE, 1)
    raw = bytearray(path.read_bytes())
    raw[-9] ^= 1
    path.write_bytes(raw)


def shortened(folder: Folder) -> None:
    path = folder.path(MINE, 1)
    path.write_bytes(path.read_bytes()[:-100])


def of_another_cube(folder: Folder) -> None:
    for name in ("1.gguf", "1.json"):
        (folder.of(MINE) / name).write_bytes((folder.of(YOURS) / name).read_bytes())


def of_another_model(folder: Folder) -> None:
    made(folder, MINE, 1, "0" * 64)


def no_adapter_at_all(folder: Folder) -> None:
    part = folder.unfinished(MINE, 1)
    part.write_bytes(b"GGUF but not really")
    plain = {"version": 1, "architecture": "llama", "memories": {}, "samples": "", "settings": {}, "results": {}}
    sha, size, model = sha256_of(part), part.stat().st_size, sha256_of(bundled_model())
    folder.keep(Manifest(cube=MINE, model=model, sha256=sha, bytes=size, created=NOW, **plain))  # type: ignore[arg-type]


@pytest.mark.parametrize("harm", [nothing, flipped, shortened, of_another_cube, of_another_model, no_adapter_at_all])
async def test_what_may_not_be_used_is_not_and_the_answer_is_the_models_own(
    folder: Folder, harm: Callable[[Folder], None]
) -> None:
    async with running(folder) as engine:
        plain, _ = await say(engine, QUESTIONS[0])
        harm(folder)
        text, generation = await say(engine, QUESTIONS[0], MINE, "1")
    assert (text, generation.adapter) == (plain, "")


@pytest.mark.parametrize("asked", ["9", "x", "1@9", "1@x", "-1", "../1"])
async def test_what_there_is_none_of_is_answered_without(folder: Folder, asked: str) -> None:
    assert Adapters(folder, bundled_model(), 1 << 20).find(MINE, asked) is None
    assert Adapters(folder, bundled_model(), 1 << 20).find("", "1") is None


async def test_a_file_that_changes_is_checked_again(folder: Folder) -> None:
    async with running(folder) as engine:
        _, before = await say(engine, QUESTIONS[0], MINE, "1")
        flipped(folder)
        _, after = await say(engine, QUESTIONS[0], MINE, "1")
    assert (before.adapter, after.adapter) == ("1", "")


async def test_only_as_many_stay_loaded_as_the_budget_allows(folder: Folder, model: str) -> None:
    size = made(folder, MINE, 2, model, seed=3).bytes
    made(folder, MINE, 3, model, seed=4)
    async with running(folder, budget=2 * size + 100) as engine:
        for version in ("1", "2", "3", "1"):
            await say(engine, QUESTIONS[0], MINE, version)
        assert engine.adapters is not None
        assert engine.adapters.held == [3, 1]


async def test_what_is_forgotten_is_let_go_of(folder: Folder, tmp_path: Path) -> None:
    async with running(folder, kv=tmp_path / "kv") as engine:
        await say(engine, QUESTIONS[0], MINE, "1", "s")
        await say(engine, QUESTIONS[0], YOURS, "1", "s")
        folder.clear(MINE)
        await engine.forget(MINE)
        assert engine.adapters is not None
        assert len(engine.adapters.held) == 1
        plain, _ = await say(engine, QUESTIONS[0])
        text, generation = await say(engine, QUESTIONS[0], MINE, "1", "s")
    assert (text, generation.adapter) == (plain, "")


async def test_prefix_whose_adapter_goes_while_it_waits_is_given_up(folder: Folder, tmp_path: Path) -> None:
    async with running(folder, kv=tmp_path / "kv") as engine:
        assert engine.adapters is not None
        gone = engine.adapters.find(MINE, "1")
        assert gone is not None
        folder.clear(MINE)
        batcher = engine._loaded.batcher  # type: ignore[union-attr]
        build = Build(Owner(MINE, "", gone.id, engine.states.epoch(MINE)), list(range(20)))  # type: ignore[union-attr]
        engine._inbox.put(lambda: batcher.builder.add(build))
        await say(engine, QUESTIONS[0])  # the engine goes on
        with pytest.raises(EngineError):
            await asyncio.wait_for(asyncio.wrap_future(build.done), 20)
        async with asyncio.timeout(20):
            while batcher.has_work:  # noqa: ASYNC110 - the engine's thread tells nobody
                await asyncio.sleep(0.01)
