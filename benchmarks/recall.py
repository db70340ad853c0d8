"""How much of what was said comes back: a LoCoMo file replayed through the front door, then its questions asked.

    python -m benchmarks.recall PATH/locomo.json [--conversations N] [--json]

Each conversation has a key of its own. In every session the one who speaks first is the user; what the other says is the
upstream's answer, and the client resends its history as chat clients do. Then every question (categories 1 to 4) is asked
in a new session, and what counts is whether its evidence turns stand in the block that memrelay put into the prompt.
The dates of the conversations are not told: everything is said today.
"""

from __future__ import annotations

import json
import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from openai import OpenAI
from rich.console import Console
from rich.progress import track

from memory.words import fold, squeeze
from tests.fakes import Received, RecordingUpstream
from tests.live import Installation, wait_for

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop"}
_BLOCK = re.compile(r'<memrelay:(\w+) n="[0-9a-f]{8}">.*?</memrelay:\1', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Question:
    """A question with the texts of its evidence turns."""

    text: str
    category: int
    evidence: tuple[str, ...]


class Script:
    """What the upstream answers next."""

    def __init__(self) -> None:
        self.next = "Noted."

    def __call__(self, _: Received) -> str:
        return self.next


def sessions(conversation: dict[str, Any]) -> Iterator[list[tuple[str, str]]]:
    """Each session as (speaker, text), neighbouring turns of one speaker joined."""
    number = 1
    while f"session_{number}" in conversation:
        said: list[tuple[str, str]] = []
        for turn in conversation[f"session_{number}"]:
            text = _text(turn)
            if said and said[-1][0] == turn["speaker"]:
                said[-1] = (turn["speaker"], f"{said[-1][1]}\n{text}")
            else:
                said.append((turn["speaker"], text))
        yield said
        number += 1


def _text(turn: dict[str, Any]) -> str:
    caption = turn.get("blip_caption")
    return f"{turn['text']} [photo: {caption}]" if caption else str(turn["text"])


def questions(sample: dict[str, Any]) -> list[Question]:
    """Those of categories 1 to 4 whose evidence ids can be read."""
    spoken = {
        turn["dia_id"]: turn["text"]
        for name, turns in sample["conversation"].items()
        if isinstance(turns, list) and name.startswith("session_")
        for turn in turns
    }
    out = []
    for entry in sample["qa"]:
        ids = re.findall(r"D?\d+:\d+", " ".join(map(str, entry.get("evidence") or [])))
        texts = [spoken[key] for key in (i if i.startswith("D") else f"D{i}" for i in ids) if key in spoken]
        if texts and entry["category"] in CATEGORIES:
            out.append(Question(entry["question"], entry["category"], tuple(dict.fromkeys(texts))))
    return out


def replay(client: OpenAI, script: Script, conversation: dict[str, Any]) -> int:
    """Say everything; returns how many chats that were."""
    chats = 0
    for said in sessions(conversation):
        messages: list[Any] = []
        for at in range(0, len(said), 2):
            speaker, text = said[at]
            script.next = said[at + 1][1] if at + 1 < len(said) else "Noted."
            messages.append({"role": "user", "name": speaker, "content": text})
            for _ in client.chat.completions.create(model="m", messages=messages, stream=True):
                pass
            messages.append({"role": "assistant", "content": script.next})
            chats += 1
    return chats


def blocks(received: Received) -> str:
    """What was injected, folded for comparison."""
    texts = [text for message in received.messages for text in _contents(message)]
    return squeeze(fold(" ".join(match.group() for text in texts for match in _BLOCK.finditer(text))))


def _contents(message: dict[str, Any]) -> list[str]:
    content = message.get("content")
    if isinstance(content, list):
        return [part["text"] for part in content if part.get("type") == "text"]
    return [content] if isinstance(content, str) else []


def measure(samples: list[dict[str, Any]], console: Console) -> dict[str, Any]:
    """Replay and ask; the figures."""
    script = Script()
    found: dict[int, list[float]] = defaultdict(list)
    any_found: list[bool] = []
    tokens: list[int] = []
    waits: list[float] = []
    chats = 0
    with tempfile.TemporaryDirectory() as folder, RecordingUpstream(script) as upstream:
        upstreams = [{"name": "recording", "kind": "openai", "base_url": upstream.url}]
        with Installation(Path(folder), upstreams=upstreams) as live:
            for sample in samples:
                key = live.key()
                client = live.client(key)
                began = time.monotonic()
                count = replay(client, script, sample["conversation"])
                chats += count
                wait_for(lambda key=key: _settled(live, key), "the executor", 300)  # type: ignore[misc]
                console.print(
                    f"{sample.get('sample_id', '?')}: {count} chats replayed in {time.monotonic() - began:.0f} s"
                )
                script.next = "I do not know."
                for question in track(questions(sample), "asking", console=console, transient=True):
                    reply = client.chat.completions.with_raw_response.create(
                        model="m",
                        messages=[{"role": "user", "content": question.text}],
                        extra_headers={"x-memory": "read"},
                    )
                    given = blocks(upstream.last)
                    hit = [squeeze(fold(text)) in given for text in question.evidence]
                    found[question.category].append(sum(hit) / len(hit))
                    any_found.append(any(hit))
                    tokens.append(int(reply.headers.get("x-memory-tokens", "0")))
                    waits.append(float(reply.headers["x-memory-ms"]))
                    upstream.requests.clear()
    every = [share for shares in found.values() for share in shares]
    return {
        "conversations": len(samples),
        "chats": chats,
        "questions": len(every),
        "evidence_in_block": statistics.mean(every),
        "any_evidence_in_block": statistics.mean(any_found),
        "all_evidence_in_block": statistics.mean(share == 1 for share in every),
        "per_category": {CATEGORIES[c]: statistics.mean(shares) for c, shares in sorted(found.items())},
        "block_tokens_mean": statistics.mean(tokens),
        "memory_ms": {"p50": statistics.median(waits), "p95": statistics.quantiles(waits, n=20)[18]},
    }


def _settled(live: Installation, key: str) -> bool:
    status, body = live.api(key, "GET", "/v1/memory/jobs?limit=5")
    return status == 200 and bool(body["data"]) and all(job["state"] == "done" for job in body["data"])


@click.command()
@click.argument("path", type=click.Path(exists=True))
@click.option("--conversations", default=0, help="Only the first so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def main(path: str, conversations: int, as_json: bool) -> None:
    """Share of questions whose evidence stands in the injected block."""
    samples = json.loads(Path(path).read_text(encoding="utf-8"))
    result = measure(samples[: conversations or None], Console(stderr=True))
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(f"questions                        {result['questions']} ({result['chats']} chats replayed)")
    click.echo(f"evidence in the injected block   {result['evidence_in_block']:.1%}")
    click.echo(f"  at least one piece of it       {result['any_evidence_in_block']:.1%}")
    click.echo(f"  all of it                      {result['all_evidence_in_block']:.1%}")
    for name, share in result["per_category"].items():
        click.echo(f"  {name:30} {share:.1%}")
    click.echo(f"tokens injected, mean            {result['block_tokens_mean']:.0f}")
    click.echo(f"memory ms p50 / p95              {result['memory_ms']['p50']:.1f} / {result['memory_ms']['p95']:.1f}")


if __name__ == "__main__":
    main()
