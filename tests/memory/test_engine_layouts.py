"""Templates that put the system message elsewhere, or take none: what was read ahead is used as far as it is a true prefix, and the
answer is the one of an engine that had nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from memory.activation.states import Budgets
from memory.activation.store import States
from memory.engine.chat import read
from memory.engine.engine import Engine
from memory.engine.llama import Model
from memory.engine.settings import EngineSettings, bundled_model
from memory.engine.slots import Owner

# in our own words, after what the families do
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SYSTEM_LAST = (
    "{% for m in messages %}{% if m.role != 'system' %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}{{ '<|im_start|>assistant\\n' }}"
)
SYSTEM = "You help Ann. " + " ".join(f"Ann counted {n} birds on day {n * 3}." for n in range(6))


def with_template(folder: Path, template: str) -> Path:
    """The bundled model with another template; as long as its own, so that nothing else in the file moves."""
    model = Model(bundled_model())
    own = (model.template() or "").encode()
    model.close()
    room = len(own) - len(template.encode())
    assert room == 0 or room >= 4, f"{-room} bytes too long"
    padded = template + ("{#" + " " * (room - 4) + "#}" if room else "")
    path, raw = folder / "model.gguf", bundled_model().read_bytes()
    assert raw.count(own) == 1
    path.write_bytes(raw.replace(own, padded.encode()))
    return path


@asynccontextmanager
async def running(folder: Path, template: str) -> AsyncIterator[Engine]:
    states = States(folder / "kv", Budgets(2**28, 2**28), settle_s=0.0)
    path = await asyncio.to_thread(with_template, folder, template)
    engine = Engine(EngineSettings(path, "other", context=1024, slots=1, threads=1), states)
    engine.start()
    await engine.ready()
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.close)
        await asyncio.to_thread(states.close)


async def ask(engine: Engine, cube: str, *texts: str) -> tuple[str, int]:
    """(what the model says, how many tokens of the prompt were there)"""
    said: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}]
    said += [{"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(texts)]
    generation = await engine.generate(read({"messages": said, "temperature": 0, "max_tokens": 12}), Owner(cube, "s"))
    text = "".join([delta.text async for delta in generation.deltas()])
    return text, generation.cached_tokens


@pytest.mark.parametrize(("template", "least"), [(NO_SYSTEM, 60), (SYSTEM_LAST, 0)], ids=["no_system", "system_last"])
async def test_the_answer_is_right_and_no_more_is_restored_than_is_a_prefix(
    tmp_path: Path, template: str, least: int
) -> None:
    async with running(tmp_path, template) as engine:
        question = "How many birds were there on day 6?"
        cold, nothing = await ask(engine, "bob", question)
        assert nothing == 0
        built = await engine.build(Owner("ann", ""), [{"role": "system", "content": SYSTEM}])
        text, restored = await ask(engine, "ann", question)
        assert text == cold
        assert least <= restored <= built.held.tokens
        onwards = (question, text, "And on day 9?")
        assert (await ask(engine, "ann", *onwards))[0] == (await ask(engine, "carl", *onwards))[0]
