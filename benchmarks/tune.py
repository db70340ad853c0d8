"""How the weights in memory/rank.py were picked, and what each signal is worth.

`python -m benchmarks.tune --locomo FILE --chats FILE…` computes every signal once, then climbs: one weight up or down at a
time, kept when the mean of R@1, R@5, R@10, R@50 and the evidence within 1,000 tokens rises. Each LoCoMo conversation is
measured with weights that were picked without it ("held out"); the table in rank.py is near the mean of those, rounded by
hand, so that no weight hangs on a few questions. Ends with what is lost when one signal is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory.embed import DEFAULT, make
from memory.index import embed_pieces
from memory.late import encode_query
from memory.models import Embedder
from memory.pieces import pieces
from memory.rank import LATE
from memory.signals import NAMES, signals
from memory.store import Filter
from memory.turns import episode
from memory.view import View
from memory.words import tokens
from proxy.evaluation import formats
from proxy.evaluation.talk import Talk
from proxy.inject import PER_TOKEN

Floats = NDArray[np.float64]
STEPS = (0.2, -0.2, 0.08, -0.08, 0.03, -0.03)
FIGURES = ("R@1", "R@5", "R@10", "R@50", "1000 tokens")
WORTH = np.array([1.5, 0.7, 1.5, 1.5, 1.5])


@dataclass(frozen=True, slots=True)
class Case:
    """A question's candidates: signals (n, len(NAMES)), each one's turn, its tokens; and the turns wanted (-1: not there)."""

    values: Floats
    turns: NDArray[np.int64]
    cost: Floats
    wanted: tuple[int, ...]


def cases(talk: Talk, embedder: Embedder) -> list[Case]:
    """The signals of every question that counts."""
    rows = []
    for said in talk.turns:
        rows += pieces(episode(said.turn("c")).evolve(id=said.key))
    view = View.of(embed_pieces(embedder, rows), embedder.dimensions)
    out = []
    for asked in talk.questions:
        if not asked.counts:
            continue
        found = signals(view, asked.text, encode_query(embedder, asked.text), Filter(), talk.now)
        keys = [view.pieces[i].memory for i in found.numbers]
        number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        cost = np.array([tokens(view.pieces[i].text) for i in found.numbers], float)
        wanted = tuple(number.get(key, -1) for key in asked.evidence)
        out.append(Case(found.values.astype(float), np.array([number[key] for key in keys]), cost, wanted))
    return out


def measured(given: Sequence[Case], weights: Floats) -> Floats:
    """FIGURES, as means over the cases."""
    rows = []
    for case in given:
        score = case.values @ weights
        packed = score - PER_TOKEN * weights.sum() * case.cost
        best, dense = (np.full(case.turns.max() + 1, -np.inf) for _ in range(2))
        np.maximum.at(best, case.turns, score)
        np.maximum.at(dense, case.turns, packed)
        place = [(best > best[turn]).sum() if turn >= 0 else np.inf for turn in case.wanted]
        within = [turn >= 0 and case.cost[packed >= dense[turn]].sum() <= 1000 for turn in case.wanted]
        rows.append([*(np.mean([p < k for p in place]) for k in (1, 5, 10, 50)), np.mean(within)])
    return np.asarray(np.mean(rows, axis=0), float)


def climbed(groups: Sequence[Sequence[Case]], weights: Floats, rounds: int) -> Floats:
    """The weights after climbing on the groups, which count alike."""

    def value(tried: Floats) -> float:
        return float(np.mean([measured(group, tried) @ WORTH for group in groups]))

    best = value(weights)
    for _ in range(rounds):
        before = best
        for i in range(len(weights)):
            for step in STEPS:
                tried = weights.copy()
                tried[i] = max(0.0, tried[i] + step)
                if tried[i] != weights[i] and (now := value(tried)) > best + 1e-5:
                    best, weights = now, tried
        if best == before:
            break
    return weights


def main() -> None:
    """Pick, measure on what was held out, leave one out."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--locomo", type=Path, required=True)
    options.add_argument("--chats", type=Path, nargs="*", default=[Path(__file__).parent / "data" / "chats_en.json"])
    options.add_argument("--rounds", type=int, default=2)
    given = options.parse_args()
    embedder = make(DEFAULT, Path(".cache/models"), threads=2)
    talks = [cases(talk, embedder) for talk in formats.read(given.locomo, formats.locomo)]
    chats = [
        case for path in given.chats for talk in formats.read(path, formats.chats) for case in cases(talk, embedder)
    ]
    shipped = np.array([LATE.get(name, 0.0) for name in NAMES])
    everything = [case for talk in talks for case in talk]
    show("shipped, LoCoMo", measured(everything, shipped))
    show("shipped, chats", measured(chats, shipped))
    held: list[Any] = []
    for out, talk in enumerate(talks):
        rest = [case for i, other in enumerate(talks) if i != out for case in other]
        weights = climbed([rest, chats], shipped, given.rounds)
        held.append((measured(talk, weights), len(talk), weights))
        show(f"held out {out}", held[-1][0])
    show("held out, mean", np.average([row[0] for row in held], axis=0, weights=[row[1] for row in held]))
    mean = np.mean([row[2] for row in held], axis=0)
    print("mean weights:", {name: round(float(weight), 2) for name, weight in zip(NAMES, mean, strict=True)})
    for i, name in enumerate(NAMES):
        without = shipped.copy()
        without[i] = 0.0
        show(f"without {name}", measured(everything, without))


def show(name: str, figures: Floats) -> None:
    """One row."""
    print(f"{name:24}", "  ".join(f"{label} {100 * value:.1f}" for label, value in zip(FIGURES, figures, strict=True)))


if __name__ == "__main__":
    main()
