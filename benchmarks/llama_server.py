"""Time to the first word with a saved state: our engine and a llama-server (the xllamacpp wheel's), the same model, in one run.

    python -m benchmarks.llama_server [--memory 150 --memory 600] [--new 25] [--repeats 3] [--json]

For each size of memory, in turns: read anew (cold), and from the file of its state. Ours: the engine in this process, whose RAM
holds no states. Theirs: over HTTP on loopback, the slot erased before each question; the time of `action=restore` counts. Both have
two threads, one slot and the same messages. `read`: tokens of the prompt that were computed anew behind the restored ones.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from memory.engine.settings import EngineSettings, bundled_model
from memory.engine.slots import Owner
from proxy.evaluation.kv import asked, first_word, remembered, running
from tests.llama_server import LlamaServer

_FILE = "benchmark.kv"


@click.command()
@click.option("--memory", multiple=True, type=int, default=(150, 600), show_default=True, help="Tokens of memory.")
@click.option("--new", type=int, default=25, show_default=True, help="Tokens of the question.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(memory: Sequence[int], new: int, repeats: int, as_json: bool) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="memrelay-slots-") as folder:
        context = max(memory) + new + 256
        with LlamaServer(Path(folder), slots=1, context=context) as server:
            body = asyncio.run(measure(server, memory, new, repeats, context))
    if as_json:
        click.echo(json.dumps(body))
        return
    table = Table(box=None)
    for title in body["rows"][0]:
        table.add_column(title)
    for row in body["rows"]:
        table.add_row(*map(str, row.values()))
    Console().print(table)


async def measure(
    server: LlamaServer, memory: Sequence[int], new: int, repeats: int, context: int
) -> dict[str, list[dict[str, Any]]]:
    """{"rows": one for each size: median milliseconds, tokens that were read anew from the file on}"""
    settings = EngineSettings(bundled_model(), "small", slots=1, context=context, threads=2, build_wait_s=3600.0)
    rows = []
    with tempfile.TemporaryDirectory(prefix="memrelay-kv-") as folder:
        async with running(settings, Path(folder), ram=0) as engine:
            for size in memory:
                await engine.build(Owner(f"disk-{size}"), [{"role": "system", "content": remembered(size)}])
                _save(server, size)
            seen: dict[tuple[int, str], list[float]] = {}
            read: dict[tuple[int, str], int] = {}
            for turn, size in itertools.product(range(repeats), memory):
                chat = asked(size, new)
                for kind, cube in (("cold", f"cold-{turn}-{size}"), ("file", f"disk-{size}")):
                    ours = await first_word(engine, chat, Owner(cube))
                    seen.setdefault((size, f"ours_{kind}"), []).append(ours.ms)
                    read[size, f"ours_{kind}"] = ours.prompt - ours.restored
                    ms, fresh = await asyncio.to_thread(_first_word, server, list(chat.messages), kind, size)
                    seen.setdefault((size, f"theirs_{kind}"), []).append(ms)
                    read[size, f"theirs_{kind}"] = fresh
            for size in memory:
                middle = {name: statistics.median(times) for (of, name), times in seen.items() if of == size}
                figures = {f"{name}_ms": round(ms, 1) for name, ms in middle.items()}
                anew: dict[str, float] = {f"{side}_read": read[size, f"{side}_file"] for side in ("ours", "theirs")}
                rows.append({"memory_tokens": size, "new_tokens": new, **figures, **anew})
    return {"rows": rows}


def _save(server: LlamaServer, size: int) -> None:
    """Have the server read the memory, and save its slot."""
    said = [{"role": "system", "content": remembered(size)}, {"role": "user", "content": "."}]
    server.ask("POST", "/slots/0?action=erase", {})
    server.ask("POST", "/v1/chat/completions", {"messages": said, "max_tokens": 1, "id_slot": 0})
    server.ask("POST", "/slots/0?action=save", {"filename": f"{size}-{_FILE}"})


def _first_word(server: LlamaServer, messages: list[Any], kind: str, size: int) -> tuple[float, int]:
    """(milliseconds until the first word, tokens that were read anew)"""
    server.ask("POST", "/slots/0?action=erase", {})
    body = {"messages": messages, "max_tokens": 2, "temperature": 0, "id_slot": 0, "stream": True}
    raw, head = json.dumps(body).encode(), {"content-type": "application/json"}
    began, first, fresh = time.perf_counter(), 0.0, 0
    if kind == "file":
        server.ask("POST", "/slots/0?action=restore", {"filename": f"{size}-{_FILE}"})
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/v1/chat/completions", raw, head)) as answer:
        for line in answer:
            event = json.loads(line[6:]) if line.startswith(b"data: {") else {}
            if not first and event and event["choices"][0]["delta"].get("content"):
                first = time.perf_counter()
            fresh = event.get("timings", {}).get("prompt_n", fresh)
    return ((first or time.perf_counter()) - began) * 1000, fresh


if __name__ == "__main__":
    main()
