"""How long a local model's first word takes: without memory, with memory in the prompt, and with its saved state.

One model, two engines: one runs on, the other knows only the files that a closed one has left, and reads them every time. Every
request is of a cube whose states no other has used, so nothing is there but what is meant to be; the kinds of a size are
measured in turns. `slot` is the floor: the same memory, still in the slot of the question before. Greedy answers must be the same
in all of them. Knows no HTTP: the time is from the question to the first piece of the answer.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from memory.activation.states import Budgets
from memory.activation.store import States
from memory.engine.chat import Chat, read
from memory.engine.engine import NOBODY, Engine
from memory.engine.settings import EngineSettings
from memory.engine.slots import Owner

MEMORY = (600, 1200, 2700, 6000)  # tokens of the system message
NEW = (25, 170, 300, 950)  # tokens after it
KINDS = ("none", "cold", "slot", "ram", "disk")
_WORDS_PER_TOKEN = 0.72  # of the sentences below, with the bundled model
_ANSWER = 8  # tokens of every answer
_UNLIMITED = 2**40

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer: time and CPU time to its first piece, its text, the prompt's tokens, how many of them were computed already, and
    where."""

    ms: float
    cpu_ms: float
    text: str
    prompt: int
    restored: int
    source: str


@dataclass(slots=True)
class _Cell:
    """One size: what was seen of each kind."""

    memory: int
    new: int
    prompt: int = 0
    restored: int = 0
    ms: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    cpu: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    said: set[str] = field(default_factory=set)


async def measure(
    settings: EngineSettings, memory: Sequence[int], new: Sequence[int], repeats: int, progress: Progress
) -> dict[str, Any]:
    """The rows for every size that the context allows: {"memory_tokens", "new_tokens", "none_ms", …}, and how many were identical.
    Reading all anew takes as long as everything else together: it is measured once in three turns."""
    settings = replace(settings, slots=1, idle_chunk=settings.chunk, build_wait_s=3600.0)
    cells = [_Cell(m, n) for m, n in itertools.product(memory, new) if m + n + 64 < settings.context]
    memory = list(dict.fromkeys(cell.memory for cell in cells))
    sizes: dict[int, int] = {}
    with TemporaryDirectory(prefix="memrelay-kv-") as folder:
        root = Path(folder)
        async with running(settings, root, ram=0) as first:
            for at, size in enumerate(memory):
                progress("saving", at, len(memory))
                built = await first.build(Owner(f"m-{size}"), [{"role": "system", "content": remembered(size)}])
                sizes[size] = built.held.bytes
        async with running(settings, root) as warm, running(settings, root, ram=0) as cold:
            for size in memory:  # from here on it is in RAM
                await first_word(warm, asked(size, 25), Owner(f"m-{size}"))
            turns = list(itertools.product(range(repeats), cells))
            for at, (turn, cell) in enumerate(turns):
                progress("asking", at, len(turns))
                await _ask(cell, warm, cold, turn)
    rows = [_row(cell, sizes[cell.memory]) for cell in cells]
    return {"rows": rows, "identical": f"{sum(len(cell.said) == 1 for cell in cells)}/{len(cells)}", "repeats": repeats}


async def _ask(cell: _Cell, warm: Engine, cold: Engine, turn: int) -> None:
    """Every kind once."""
    fresh = f"{turn}-{cell.memory}-{cell.new}"
    chat = asked(cell.memory, cell.new)
    for kind, engine, one, cube in (
        ("none", warm, asked(0, cell.new), f"none-{fresh}"),
        ("cold", warm, chat, f"cold-{fresh}"),
        ("ram", warm, chat, f"m-{cell.memory}"),
        (
            "",
            warm,
            asked(cell.memory, 25, "Hm."),
            f"m-{cell.memory}",
        ),  # leaves the memory in the slot, and another question
        ("slot", warm, chat, f"m-{cell.memory}"),
        ("disk", cold, chat, f"m-{cell.memory}"),
        ("", cold, asked(0, 25), f"none-{fresh}"),  # takes the slot
    ):
        if kind == "cold" and turn % 3:
            continue
        seen = await first_word(engine, one, Owner(cube))
        if not kind:
            continue
        if seen.source != {"none": "", "cold": ""}.get(kind, kind):
            raise RuntimeError(f"{kind}: the prompt began from {seen.source or 'nothing'}")
        cell.ms[kind].append(seen.ms)
        cell.cpu[kind].append(seen.cpu_ms)
        if kind != "none":
            cell.said.add(seen.text)
            cell.prompt, cell.restored = seen.prompt, max(cell.restored, seen.restored)


def _row(cell: _Cell, size: int) -> dict[str, Any]:
    middle = {kind: statistics.median(times) for kind, times in cell.ms.items()}
    work = {kind: statistics.median(times) for kind, times in cell.cpu.items()}
    return {
        "memory_tokens": cell.memory,
        "new_tokens": cell.new,
        **{f"{kind}_ms": round(ms, 1) for kind, ms in middle.items()},
        **{f"{kind}_to_none": round(middle[kind] / middle["none"], 3) for kind in ("slot", "ram", "disk")},
        **{f"{kind}_cpu_ms": round(ms, 1) for kind, ms in work.items()},
        **{f"{kind}_cpu_to_none": round(work[kind] / work["none"], 3) for kind in ("slot", "ram", "disk")},
        "gain": round(1 - middle["ram"] / middle["cold"], 3),
        "prompt_tokens": cell.prompt,
        "restored_tokens": cell.restored,
        "state_bytes": size,
        "identical": len(cell.said) == 1,
    }


async def identity(
    settings: EngineSettings, count: int, progress: Progress, sizes: Sequence[int] = (150, 300, 600)
) -> dict[str, Any]:
    """So many prompts, four at a time, memory of several sizes: greedy answers cold, from RAM, and from files after a restart."""
    prompts = [asked(sizes[at % len(sizes)], 12 + at % 23, f"Question {at}.", tokens=16) for at in range(count)]
    cubes = [f"cube-{at}" for at in range(count)]
    settings = replace(settings, slots=4, build_wait_s=3600.0)
    with TemporaryDirectory(prefix="memrelay-kv-") as folder:
        root = Path(folder)

        async def all_of(engine: Engine, name: str) -> tuple[list[str], list[str]]:
            gate = asyncio.Semaphore(4)
            done = itertools.count()

            async def one(cube: str, chat: Chat) -> tuple[str, str]:
                async with gate:
                    seen = await first_word(engine, chat, Owner(cube))
                    progress(name, next(done), count)
                    return seen.text, seen.source

            both = await asyncio.gather(*map(one, cubes, prompts))
            return [text for text, _ in both], [source for _, source in both]

        async with running(settings, None) as engine:
            cold, _ = await all_of(engine, "cold")
        async with running(settings, root) as engine:
            for cube, chat in zip(cubes, prompts, strict=True):
                await engine.build(Owner(cube), chat.messages[:1])
            ram, from_ram = await all_of(engine, "from RAM")
        async with running(settings, root) as engine:
            disk, from_disk = await all_of(engine, "after a restart")
    return {
        "prompts": count,
        "identical_ram": sum(a == b for a, b in zip(cold, ram, strict=True)),
        "identical_disk": sum(a == b for a, b in zip(cold, disk, strict=True)),
        "restored_ram": from_ram.count("ram"),
        "restored_disk": from_disk.count("disk"),
        "different_answers": len(set(cold)),
    }


async def throughput(settings: EngineSettings, progress: Progress, tokens: int = 96) -> dict[str, Any]:
    """Answer tokens per second, of one user and of four at once."""
    out: dict[str, Any] = {}
    async with running(replace(settings, slots=4), None) as engine:
        for at, users in enumerate((1, 4)):
            progress("users", at, 2)
            chats = [asked(150, 20, f"User {user}.", tokens=tokens, endless=True) for user in range(users)]
            await asyncio.gather(*(first_word(engine, replace(one, max_tokens=1), NOBODY) for one in chats))
            begun = time.perf_counter()
            await asyncio.gather(*(first_word(engine, one, NOBODY) for one in chats))
            out[f"tokens_per_s_{users}"] = round(tokens * users / (time.perf_counter() - begun), 1)
    return out


async def endurance(settings: EngineSettings, count: int, progress: Progress) -> dict[str, Any]:
    """So many requests of 25 cubes with four sessions each, under a RAM budget that holds a part of their states: the process's
    resident memory along the way."""
    turns = [
        (Owner(f"cube-{at % 25}", f"s{at % 100}"), asked(60, 20, f"Question {at}.", tokens=2)) for at in range(count)
    ]
    seen: list[int] = []
    with TemporaryDirectory(prefix="memrelay-kv-") as folder:
        async with running(replace(settings, slots=4), Path(folder), ram=48 * 2**20) as engine:
            for at in range(0, count, 4):
                progress("asking", at, count)
                await asyncio.gather(*(first_word(engine, chat, owner) for owner, chat in turns[at : at + 4]))
                if at * 10 // count > (at - 4) * 10 // count:
                    seen.append(_resident())
            sums = engine.states.sums() if engine.states else None
    return {"requests": count, "resident_mb": seen, "counts": sums.counts if sums else {}}


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


@asynccontextmanager
async def running(settings: EngineSettings, root: Path | None, *, ram: int = _UNLIMITED) -> AsyncIterator[Engine]:
    """An engine over the states in `root`, warmed up by one short chat."""
    states = States(root, Budgets(ram, _UNLIMITED)) if root is not None else None
    engine = Engine(settings, states)
    engine.start()
    try:
        await engine.ready()
        await first_word(engine, asked(0, 25), NOBODY)
        yield engine
    finally:
        await asyncio.to_thread(engine.close)
        if states is not None:
            await asyncio.to_thread(states.close)


async def first_word(engine: Engine, chat: Chat, owner: Owner) -> Seen:
    """Ask and read the whole answer."""
    begun, worked = time.perf_counter(), time.process_time()
    generation = await engine.generate(chat, owner)
    ms = cpu_ms = 0.0
    texts: list[str] = []
    async for delta in generation.deltas():
        if not texts:
            ms, cpu_ms = 1000 * (time.perf_counter() - begun), 1000 * (time.process_time() - worked)
        texts.append(delta.text)
    counts = generation.prompt_tokens, generation.cached_tokens
    return Seen(ms, cpu_ms, "".join(texts), *counts, generation.cached_from)


def asked(memory: int, new: int, first: str = "Tell me.", *, tokens: int = _ANSWER, endless: bool = False) -> Chat:
    """A chat with about so many tokens in the system message and so many after it."""
    words = f"{first} What do you make of this?".split()
    words += itertools.islice(_words("The neighbour"), max(0, int((new - 19) * _WORDS_PER_TOKEN)))
    messages = [{"role": "system", "content": remembered(memory)}, {"role": "user", "content": " ".join(words)}]
    body: dict[str, Any] = {"messages": messages, "temperature": 0, "max_tokens": tokens}
    return read(body | {"logit_bias": {"2": -100}} if endless else body)  # 2 ends the bundled model's answers


def remembered(tokens: int) -> str:
    """A memory of about so many tokens."""
    return " ".join(itertools.islice(_words("The user"), max(0, int((tokens - 8) * _WORDS_PER_TOKEN))))


def _words(who: str) -> Iterator[str]:
    things = ("a violin", "green tea", "old maps", "her garden", "chess", "the sea", "two cats", "night trains")
    for number in itertools.count():
        thing = things[number * 5 % len(things)]
        yield from f"{who} said on day {number + 1} that {thing} and item {number * 37 % 101} mattered most.".split()
