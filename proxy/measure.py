"""The commands that measure: `memrelay eval …` (what is found again) and `memrelay bench retrieval` (how fast)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from proxy.console import Session, command, fail


@click.group("eval")
def evaluation() -> None:
    """How much of what was said is found again."""


@click.group("bench")
def bench() -> None:
    """How fast it is."""


_OPTIONS = (
    click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
    click.option("--conversations", default="", metavar="0,1,…", help="Only these, counted from 0."),
    click.option(
        "--sample", type=click.IntRange(min=1), metavar="N", help="Only N questions, drawn the same each time."
    ),
    click.option("--embedder", metavar="NAME", help="Overrides memory.embedder."),
    click.option("--no-names", is_flag=True, help="Store no speaker's name; the texts stay as they are."),
    click.option("--baselines", is_flag=True, help="Also BM25, dense and LanceDB's hybrid (RRF) on the same texts."),
    click.option("--peer-python", default="", metavar="PATH", help="A Python that has mem0, for one more baseline."),
    click.option("--keep", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Keep the data here."),
)


def _eval(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    def decorate(function: Callable[..., Any]) -> click.Command:
        for option in reversed(_OPTIONS):
            function = option(function)
        return command(evaluation, name)(function)

    return decorate


@_eval("locomo")
@click.option("--pairs", is_flag=True, help="Speaker a as user, speaker b as assistant; rounds are found, not turns.")
def locomo(session: Session, path: Path, pairs: bool, **given: Any) -> None:
    """LoCoMo: conversations of two people (the public file's format)."""
    from proxy.evaluation import formats

    _run(session, "locomo", path, formats.locomo_pairs if pairs else formats.locomo, given)


@_eval("memorybank")
def memorybank(session: Session, path: Path, **given: Any) -> None:
    """MemoryBank: Chinese chats with an assistant, with questions per user."""
    from proxy.evaluation import formats

    _run(session, "memorybank", path, formats.memorybank, given)


@_eval("chats")
def chats(session: Session, path: Path, **given: Any) -> None:
    """Chats of a user with an assistant, in the format of docs/BENCHMARKS.md."""
    from proxy.evaluation import formats

    _run(session, "chats", path, formats.chats, given)


def _run(session: Session, name: str, path: Path, how: Callable[[Any], Iterator[Any]], given: dict[str, Any]) -> None:
    from proxy.evaluation import formats, run
    from proxy.evaluation.talk import BadData

    settings = session.config.memory
    settings = msgspec.structs.replace(settings, embedder=given["embedder"] or settings.embedder)
    config = msgspec.structs.replace(session.config, memory=settings)
    try:
        talks = formats.read(path, how)
        options = run.Options(
            names=not given["no_names"],
            conversations=_numbers(given["conversations"], len(talks)),
            sample=given["sample"] or 0,
            baselines=given["baselines"],
            peer_python=given["peer_python"],
        )
        with run.temporary(config, given["keep"]) as alone, shown_progress() as progress:
            result = asyncio.run(run.measure(alone, talks, options, progress))
    except (BadData, FileExistsError) as error:
        fail(str(error))
    body = {"benchmark": name, **result}
    session.answer(body, lambda console: _show(console, body))


@command(bench, "scenes")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--format", "how", type=click.Choice(["locomo", "memorybank", "chats"]), default="locomo", show_default=True
)
@click.option("--lines", is_flag=True, help="LoCoMo: every line is a turn, instead of an exchange of the two.")
@click.option("--conversations", default="", metavar="0,1,…", help="Only these, counted from 0.")
@click.option("--ablation", is_flag=True, help="Also without each signal.")
def scenes(session: Session, path: Path, how: str, lines: bool, conversations: str, ablation: bool) -> None:
    """How well the memories of the next turn are foreseen, beside last turn, LRU and frequency."""
    from proxy.evaluation import formats, run
    from proxy.evaluation import scenes as walks
    from proxy.evaluation.talk import BadData

    reader = formats.locomo_pairs if how == "locomo" and not lines else getattr(formats, how)
    try:
        talks = formats.read(path, reader)
        chosen = [talks[number] for number in _numbers(conversations, len(talks))] or talks
        with run.temporary(session.config, None) as alone, shown_progress() as progress:
            body = asyncio.run(walks.measure(alone, chosen, progress, ablation=ablation))
    except BadData as error:
        fail(str(error))
    session.answer({"benchmark": "scenes", **body}, lambda console: _show_scenes(console, body))


def _show_scenes(console: Console, body: dict[str, Any]) -> None:
    for name in ("next", "openings"):
        part = body[name]
        table = Table(title=f"{name}: {part['n']} predictions of {body['set']} memories")
        table.add_column("method")
        table.add_column("hit rate", justify="right")
        for method, rate in part["hit_rate"].items():
            table.add_row(method, "" if rate is None else f"{100 * rate:.1f} %")
        for signal, rate in part.get("without", {}).items():
            table.add_row(f"  ours without {signal}", "" if rate is None else f"{100 * rate:.1f} %")
        console.print(table)


@command(bench, "tiers")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--format", "how", type=click.Choice(["locomo", "memorybank", "chats"]), default="chats", show_default=True
)
@click.option("--conversations", default="", metavar="0,1,…", help="Only these, counted from 0.")
@click.option("--warm-mb", type=click.IntRange(min=1), default=1, show_default=True, help="Memory for cubes in use.")
@click.option("--archive-days", type=float, default=60.0, show_default=True, help="Unused so long, a memory may fade.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Draw it into this file (SVG).")
def tiers(
    session: Session, path: Path, how: str, conversations: str, warm_mb: int, archive_days: float, out: Path | None
) -> None:
    """Conversations lived through again on a clock that is set: which memory was where, beside the budgets."""
    from proxy.evaluation import drawing, formats, run
    from proxy.evaluation import tiers as films
    from proxy.evaluation.talk import BadData

    config = msgspec.structs.replace(
        session.config,
        memory=msgspec.structs.replace(session.config.memory, warm_mb=warm_mb),
        evolution=msgspec.structs.replace(
            session.config.evolution, archive_after_days=archive_days, archive_episodes_after_days=archive_days
        ),
    )
    try:
        talks = formats.read(path, formats.locomo_pairs if how == "locomo" else getattr(formats, how))
        chosen = [talks[number] for number in _numbers(conversations, len(talks))] or talks
        with run.temporary(config, None) as alone, shown_progress() as progress:
            film = asyncio.run(films.measure(alone, chosen, progress))
        if out is not None:
            out.write_text(drawing.draw(film), encoding="utf-8")
    except (BadData, OSError) as error:
        fail(str(error))
    body = {"benchmark": "tiers", **films.counted(film), "picture": str(out) if out else None}
    session.answer(body, lambda console: _show_tiers(console, body))


def _show_tiers(console: Console, body: dict[str, Any]) -> None:
    console.print(f"{body['memories']} memories, {body['sessions']} sessions in {body['days']:.0f} days")
    console.print(f"sessions that found their cube in RAM   {body['found_in_ram']}")
    table = Table(box=None)
    for title in ("tier", "budget, bytes", "most, bytes", "at the end, bytes"):
        table.add_column(title, justify="left" if title == "tier" else "right")
    for tier, most in body["most_bytes"].items():
        table.add_row(tier, str(body["budget_bytes"].get(tier, "–")), str(most), str(body["end_bytes"][tier]))
    console.print(table)
    for name, count in body["moves"].items():
        console.print(f"{count:6} {name}")


@command(bench, "prefix")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Draw it into this file (SVG).")
def prefix(session: Session, out: Path | None) -> None:
    """How much of each prompt is an unchanged prefix of the one before: no memory, ours, memory in the system prompt."""
    from proxy.evaluation import prefix as walks
    from proxy.evaluation import prefix_picture, run

    with run.temporary(session.config, None) as alone, shown_progress() as progress:
        body = asyncio.run(walks.measure(alone, progress))
    if out is not None:
        out.write_text(prefix_picture.draw(body), encoding="utf-8")
    body = {"benchmark": "prefix", **body, "picture": str(out) if out else None}
    session.answer(body, lambda console: _show_prefix(console, body))


def _show_prefix(console: Console, body: dict[str, Any]) -> None:
    table = Table(title=f"% of prompt tokens that are an unchanged prefix of the request before, {body['turns']} turns")
    for title in ("client", "no memory", "memrelay", "system prompt"):
        table.add_column(title, justify="left" if title == "client" else "right")
    for name, row in (body["per_client"] | {"all": body}).items():
        table.add_row(name, *(_percent(row[arm]) for arm in ("none", "ours", "system_prompt")))
    console.print(table)


@command(bench, "retrieval")
@click.option("--memories", "sizes", type=click.IntRange(min=1), multiple=True, help="How many; default: 1000 10000.")
@click.argument("more", type=click.IntRange(min=1), nargs=-1, metavar="[MORE]...")
@click.option("--questions", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--peer-python", default="", metavar="PATH", help="A Python that has mem0, to compare with.")
def retrieval(
    session: Session, sizes: tuple[int, ...], more: tuple[int, ...], questions: int, peer_python: str
) -> None:
    """One question among so many memories: milliseconds with its embedding, and mem0's in the same run."""
    from proxy.evaluation import latency, run
    from proxy.evaluation.talk import BadData

    chosen = (*sizes, *more) or (1000, 10_000)
    try:
        with run.temporary(session.config, None) as alone, shown_progress() as progress:
            body = asyncio.run(latency.measure(alone, chosen, questions, peer_python, progress))
    except BadData as error:
        fail(str(error))
    session.answer(body, lambda console: _show_retrieval(console, body))


def _show_retrieval(console: Console, body: dict[str, Any]) -> None:
    table = Table(box=None)
    for title in ("memories", "", "p50 ms", "p95 ms", "CPU p50", "embed", "sql", "index", "rest"):
        table.add_column(title, justify="right")
    for row in body["rows"]:
        for name in ("ours", "mem0"):
            if given := row[name]:
                timed = (*given["ms"].values(), given["cpu_ms"]["p50"], *given.get("parts_p50_ms", {}).values())
                table.add_row(str(row["memories"]), name, *(f"{value:.1f}" for value in timed))
    console.print(table)


def _numbers(told: str, most: int) -> tuple[int, ...]:
    words = [word.strip() for word in told.split(",") if word.strip()]
    if not all(word.isdecimal() and int(word) < most for word in words):
        fail(f"--conversations: numbers from 0 to {most - 1} with commas between them")
    return tuple(dict.fromkeys(map(int, words)))


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    columns = (TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total)
            shown.update(tasks[what], completed=done + 1)

        yield progress


def _show(console: Console, body: dict[str, Any]) -> None:
    console.print(
        f"{body['n']} questions over {body['turns']} turns of {body['conversations']} conversations, "
        f"embedder {body['embedder']}"
    )
    depths = list(body["recall"])
    table = Table(box=None)
    for title in ("recall of evidence, %", "n", *(f"R@{k}" for k in depths), "hit@10", "MRR"):
        table.add_column(title, justify="left" if title.startswith("recall") else "right")
    rows = {"memrelay": body} | {row["name"]: row for row in body.get("baselines", [])}
    for name, row in (rows | {f"  {category}": row for category, row in body["per_category"].items()}).items():
        ranks = [_percent(row["recall"][k]) for k in depths]
        table.add_row(name, str(row["n"]), *ranks, _percent(row["hit"]["10"]), _percent(row["mrr"]))
    console.print(table)
    budget = "   ".join(f"{tokens}: {_percent(share)}" for tokens, share in body["budget"].items())
    console.print(f"evidence within so many tokens, %   {budget}")
    for name, row in body["abstention_by"].items():
        if row["n"]:
            console.print(f"nothing returned, {name} questions ({row['n']})   {_percent(row['nothing'])} %")
    console.print(f"nothing returned though it was said   {_percent(body['silent'])} %")
    latency, cpu = body["latency_ms"], body["cpu_ms"]
    console.print(f"ms per question p50 / p95   {latency['p50']} / {latency['p95']} (CPU {cpu['p50']} / {cpu['p95']})")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f}"
