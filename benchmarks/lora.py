"""What memory trained into weights knows, and what it costs the rest: thirty facts, with nothing in the prompt.

    python -m benchmarks.lora train FOLDER [--settings '{"last_layers": 10}']    trains, writes the adapter into FOLDER
    python -m benchmarks.lora ask FOLDER [--scale 1.0]                           asks the engine, with the adapter at this scale
    python -m benchmarks.lora ask FOLDER --scale 0                               the same, without an adapter
    python -m benchmarks.lora ask FOLDER --scale 0 --blocks list                 without one, all thirty facts in the system message
    python -m benchmarks.lora ask FOLDER --scale 0 --blocks recall               the five nearest facts beside the question

Greedy, through memory.engine. A fact is known when the answer holds every one of its keywords. Side effects are counted on thirty
questions that concern no fact: `changed` answers, `invented` (the answer holds the keywords of a fact, which it does not
without the adapter), `surprise` (nats a token at the answers that the model gives by itself). Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lora_facts import FACTS, UNRELATED, Fact
from memory import embed
from memory.adapters.files import Folder, Manifest, sha256_of
from memory.engine.adapters import Adapters
from memory.engine.chat import read
from memory.engine.engine import Engine
from memory.engine.settings import EngineSettings, bundled_model
from memory.engine.slots import Owner
from memory.parametric import run
from memory.parametric.child import Order
from memory.parametric.samples import Told, digest, samples
from memory.parametric.settings import Settings
from memory.types import Kind

CUBE = "00000000-0000-4000-8000-000000000001"
LONGEST = 32  # tokens of an answer
RECALLED = 5  # facts


async def train(folder: Folder, settings: Settings) -> dict[str, Any]:
    """Train version 1 of the cube; its results."""
    told = [Told(f"m{n}", n, Kind(fact.kind), fact.text, fact.slot) for n, fact in enumerate(FACTS)]
    made, model, part = samples(told), bundled_model(), folder.unfinished(CUBE, 1)

    async def always() -> bool:
        return True

    began = time.time()
    results = await run.train(Order(str(model), str(part), made, settings, nice=5), always, print)
    results["wall_s"] = round(time.time() - began, 1)
    size = part.stat().st_size
    folder.keep(
        Manifest(
            cube=CUBE, version=1, model=sha256_of(model), architecture=results["architecture"], memories={},
            samples=digest(made), settings={}, results=results, sha256=sha256_of(part), bytes=size, created=began,
        )
    )  # fmt: skip
    return results | {"bytes": size}


async def ask(folder: Folder, scale: float, *, blocks: str) -> dict[str, Any]:
    """Ask for the facts and for everything else."""
    settings = EngineSettings(bundled_model(), "small", context=2048, threads=1)
    engine = Engine(settings, adapters=Adapters(folder, bundled_model(), 256 << 20))
    engine.start()
    await engine.ready()
    system = _listed([fact.text for fact in FACTS]) if blocks == "list" else ""
    near = _nearest() if blocks == "recall" else None

    async def say(question: str, *, plain: bool = False) -> str:
        said = f"{_listed(near(question))}\n\n{question}" if near and not plain else question
        messages = [{"role": "system", "content": system}] if system and not plain else []
        chat = read(
            {"messages": [*messages, {"role": "user", "content": said}], "temperature": 0, "max_tokens": LONGEST}
        )
        owner = Owner(CUBE, "", f"1@{scale:g}" if scale and not plain else "")
        generation = await engine.generate(chat, owner)
        text = "".join([delta.text async for delta in generation.deltas()])
        assert plain or bool(generation.adapter) == bool(scale), "the engine did not take the adapter"
        return text

    began = time.process_time()
    asked = [await say(fact.question) for fact in FACTS]
    reworded = [await say(fact.paraphrase) for fact in FACTS]
    others = [(await say(question), await say(question, plain=True)) for question in UNRELATED]
    await asyncio.to_thread(engine.close)
    return {
        "scale": scale,
        "blocks": blocks,
        "asked": sum(map(_right, FACTS, asked)),
        "reworded": sum(map(_right, FACTS, reworded)),
        "changed": sum(said != own for said, own in others),
        "invented": sum(_holds_a_fact(said) and not _holds_a_fact(own) for said, own in others),
        "surprise": surprise(folder, scale, [own for _, own in others]) if not blocks else None,
        "cpu_s": round(time.process_time() - began, 1),
    }


def _listed(facts: Sequence[str]) -> str:
    return "What is known about this user:\n" + "\n".join(f"- {fact}" for fact in facts)


def _nearest() -> Callable[[str], list[str]]:
    """A question's five nearest facts by the bundled embedder alone: a plain stand-in for retrieval."""
    embedder = embed.make(embed.DEFAULT, Path(".cache/models"))
    vectors = embedder.embed([fact.text for fact in FACTS])

    def near(question: str) -> list[str]:
        best = np.argsort(vectors @ embedder.embed_query(question))[-RECALLED:]
        return [FACTS[place].text for place in best]  # the nearest last, beside the question

    return near


def surprise(folder: Folder, scale: float, own: list[str]) -> float:
    """Mean nats a token at the model's own answers, with the adapter."""
    from memory.parametric.probe import Probe, log_probabilities

    found = []
    with Probe(bundled_model(), 1) as probe:
        if scale:
            probe.lay_over(folder.path(CUBE, 1), scale)
        for question, answer in zip(UNRELATED, own, strict=True):
            prompt, reply = probe.prompt(question), probe.reply(answer)[:-1]
            found.append(-log_probabilities(probe.logits(prompt, reply), reply).mean())
    return round(float(np.mean(found)), 3)


def _right(fact: Fact, answer: str) -> bool:
    return all(word.lower() in answer.lower() for word in fact.keywords)


def _holds_a_fact(answer: str) -> bool:
    return any(_right(fact, answer) for fact in FACTS)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description="what memory trained into weights knows, and what it costs the rest")
    parser.add_argument("what", choices=("train", "ask"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--settings", default="{}", help="fields of memory.parametric.settings.Settings, as JSON")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--blocks", choices=("", "list", "recall"), default="", help="the facts stand in the prompt")
    given = parser.parse_args()
    folder = Folder(given.folder)
    if given.what == "train":
        done = asyncio.run(train(folder, Settings(**json.loads(given.settings))))
    else:
        done = asyncio.run(ask(folder, given.scale, blocks=given.blocks))
    print(json.dumps(done))


if __name__ == "__main__":
    main()
