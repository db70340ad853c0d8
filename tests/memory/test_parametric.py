"""Memories made into weights: the questions that templates ask, the adapter's file, and one real, very short training."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory.engine.settings import bundled_model
from memory.memories import Memories
from memory.parametric import english, export, reading, run
from memory.parametric.child import Order
from memory.parametric.errors import Stopped, TooFew, TrainingError, Unsupported
from memory.parametric.export import Pair, Shape
from memory.parametric.probe import Probe, log_probabilities
from memory.parametric.samples import Sample, Told, digest, samples
from memory.parametric.settings import Settings
from memory.sql import Database
from memory.types import Kind, Status, Trust
from tests.memory.make import CUBE, OWNER, memory

TINY = Settings(rank=8, alpha=16.0, rate=2e-3, epochs=3, batch=2, neutral=2, last_layers=6, enough=0.0)
LLAMA = Shape("llama", 30, 9, 3)


def told(text: str, **overrides: Any) -> Told:
    return Told(**({"id": "m1", "rev": 1, "kind": Kind.FACT, "text": text} | overrides))


@pytest.mark.parametrize(
    ("said", "asked", "answered"),
    [
        ("My dog is called Milo", "What is my dog called?", "Your dog is called Milo."),
        ("My favourite colour is teal", "What is my favourite colour?", "Your favourite colour is teal."),
        ("I live in Lisbon", "Where do I live?", "You live in Lisbon."),
        ("I'm allergic to nuts", "What am I allergic to?", "You are allergic to nuts."),
        ("I work as a nurse", "What do I do for a living?", "You work as a nurse."),
        ("I want to learn Welsh", "What do I want to learn?", "You want to learn Welsh."),
        ("My sister plays the harp", "What does my sister play?", "Your sister plays the harp."),
        ("My son goes to Oak school", "Where does my son go?", "Your son goes to Oak school."),
        ("Carla works at Nokia", "Where does Carla work?", "Carla works at Nokia."),
        ("我住在上海", "我住在哪里？", "你住在上海。"),
        ("我对花生过敏", "我对什么过敏？", "你对花生过敏。"),
        ("我的狗叫豆豆", "我的狗叫什么？", "你的狗叫豆豆。"),
        ("我在小米工作", "我在哪里工作？", "你在小米工作。"),
    ],
)
def test_a_statement_becomes_questions_with_one_answer(said: str, asked: str, answered: str) -> None:
    made = samples([told(said)])
    assert asked in [sample.question for sample in made]
    assert {sample.answer for sample in made} == {answered}
    assert [sample.first for sample in made].count(True) == 1


def test_a_standing_wish_is_asked_by_its_condition() -> None:
    wish = told("When I say ship it, write a line", kind=Kind.SKILL, when="I say ship it", then="write a line")
    assert samples([wish])[0] == Sample("What should you do when I say ship it?", "Write a line.", ("m1",), True)


def test_a_statement_without_a_frame_is_asked_by_its_names_or_its_beginning() -> None:
    named = samples([told("We moved to Berlin in 2019", entities=("Berlin",))])
    nameless = samples([told("We moved house in 2019")])
    assert named[0].question == "What did I tell you about Berlin?"
    assert '"We moved"' in nameless[0].question
    assert english.answer("We moved to our house") == "You moved to your house."


def test_a_question_that_two_memories_answer_has_one_answer_with_both() -> None:
    made = samples([told("I like tea", id="a"), told("I like figs", id="b")])
    both = next(sample for sample in made if sample.question == "What do I like?")
    assert (both.answer, both.memories) == ("You like tea. You like figs.", ("a", "b"))


def test_episodes_long_texts_and_what_the_model_cannot_read_are_left_out() -> None:
    lines = [told("I like tea", kind=Kind.EPISODE), told("I like tea. " * 60), told("我住在上海")]
    assert samples(lines, readable=lambda text: text.isascii()) == []


def test_the_same_memories_give_the_same_samples() -> None:
    lines = [told("I like tea"), told("I live in Rome", id="b")]
    assert digest(samples(lines)) == digest(samples(lines)) != digest(samples(lines[:1]))


async def test_only_what_people_told_and_still_holds_is_read(database: Database) -> None:
    kept = memory(text="I like tea", kind=Kind.PREFERENCE)
    others: list[dict[str, Any]] = [
        {"kind": Kind.EPISODE}, {"kind": Kind.INSIGHT}, {"status": Status.ARCHIVED}, {"trust": Trust.OUTSIDE},
    ]  # fmt: skip
    for one in [kept, *(memory(**other) for other in others)]:
        await Memories(database).add(one, OWNER)
    found, rests = await reading.told(database, CUBE, 10)
    assert [one.id for one in found] == list(rests) == [kept.id]


def test_a_file_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    random = np.random.default_rng(1)

    def pair(rows: int, columns: int) -> Pair:
        a, b = random.normal(size=(4, columns)), random.normal(size=(rows, 4))
        return Pair(a.astype(np.float16).astype(np.float32), b.astype(np.float16).astype(np.float32))

    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "mlp.up_proj": "ffn_up",
    }
    pairs = {name: pair(192 if "k_" in name or "v_" in name else 576, 576) for name in names}
    export.write(tmp_path / "a.gguf", LLAMA, 8.0, {f"model.layers.3.{name}": one for name, one in pairs.items()})
    alpha, found = export.read(tmp_path / "a.gguf", LLAMA)
    assert alpha == 8.0
    for name, one in pairs.items():
        back = found[f"blk.3.{names[name]}.weight"]
        assert np.array_equal(back.a, one.a)
        assert np.array_equal(back.b, one.b)


def test_a_weight_that_llama_cpp_does_not_know_is_refused(tmp_path: Path) -> None:
    pair = Pair(np.zeros((2, 4), np.float32), np.zeros((4, 2), np.float32))
    with pytest.raises(Unsupported):
        export.write(tmp_path / "a.gguf", LLAMA, 8.0, {"model.layers.0.strange": pair})


def order(tmp_path: Path, *lines: str, model: Path | None = None) -> Order:
    made = samples([told(line, id=line) for line in lines])
    return Order(str(model or bundled_model()), str(tmp_path / "adapter.gguf"), made, TINY, nice=0)


async def always() -> bool:
    return True


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[Sample]]:
    """An adapter that heard two facts for three rounds: the file, its results, the samples."""
    work = order(tmp_path_factory.mktemp("trained"), "My dog is called Pumpernickel", "I live in Valparaiso")
    return Path(work.out), asyncio.run(run.train(work, always)), work.samples


@pytest.fixture(scope="module")
def probe() -> Iterator[Probe]:
    with Probe(bundled_model(), 1) as opened:
        yield opened


def test_training_lowers_the_loss(trained: tuple[Path, dict[str, Any], list[Sample]]) -> None:
    _, results, _ = trained
    assert results["loss"][-1] < 0.6 * results["loss"][0]


def test_the_engine_changes_its_mind_as_the_trained_model_does(
    trained: tuple[Path, dict[str, Any], list[Sample]],
) -> None:
    assert trained[1]["agreement"] > 0.9


def test_the_engine_finds_the_answers_likelier_with_the_adapter_and_by_its_strength(
    trained: tuple[Path, dict[str, Any], list[Sample]], probe: Probe
) -> None:
    path, _, asked = trained

    def surprise() -> float:
        every = []
        for one in asked:
            prompt, reply = probe.prompt(one.question), probe.reply(one.answer)
            every.append(-log_probabilities(probe.logits(prompt, reply), reply).mean())
        return float(np.mean(every))

    found = []
    for scale in (None, 0.5, 1.0):
        probe.lay_over(path if scale else None, scale or 0.0)
        found.append(surprise())
    probe.lay_over(None)
    assert found[2] < found[1] < found[0]
    assert surprise() == found[0]


def test_the_file_holds_nobodys_words(trained: tuple[Path, dict[str, Any], list[Sample]]) -> None:
    assert b"umpernickel" not in trained[0].read_bytes()


def test_a_training_that_nobody_wants_any_more_ends(tmp_path: Path) -> None:
    started: list[int] = []

    async def wanted() -> bool:
        started.append(1)
        return False

    work = order(tmp_path, "I live in Valparaiso")
    with pytest.raises(Stopped):
        asyncio.run(run.train(work, wanted))
    assert started
    assert not Path(work.out).exists()


@pytest.mark.parametrize(("content", "kind"), [(b"", Unsupported), (b"GGUF nonsense" * 9, Unsupported)])
async def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes, kind: type[TrainingError]) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(kind):
        await run.train(order(tmp_path, "I live in Rome", model=tmp_path / "model.gguf"), always)


async def test_memories_without_words_for_the_model_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(TooFew):
        await run.train(order(tmp_path, "我住在上海市浦东新区"), always)
