"""How the weights in scheduler/scenes.py were picked, and what each signal is worth.

`python -m benchmarks.scenes --locomo FILE` walks each conversation through the product once (proxy/evaluation/scenes.py), finds
the weights under which the exponentials' shares of what was needed are largest (cross-entropy of a softmax over all memories,
by L-BFGS), then climbs from there: one weight up or down at a time, kept when the hit rate rises. A curve turns shares into
chances (logistic regression). Each conversation is measured with weights picked without it ("held out"); the tables in scenes.py
are those picked on all of them, rounded. What LoCoMo cannot show (`due`, `guess`; `rhythm`: nobody there keeps hours) has weights
set by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from memory.expect import NEXT, OPENING
from proxy import db
from proxy.config import Config, load
from proxy.evaluation import formats, run, scenes
from proxy.evaluation.scenes import Case
from scheduler import scenes as shipped
from scheduler.scenes import LIMIT, chances

BY_HAND = ("rhythm", "due", "guess")
STEPS = (0.3, 0.1)
ROUNDS = 3
_KEPT = 1e-3  # weight of the squares of the weights


@dataclass(frozen=True, slots=True)
class Batch:
    """Cases of different length in one: values (cases, n, signals), mask (cases, n), share of what was needed (cases, n)."""

    values: torch.Tensor
    mask: torch.Tensor
    share: torch.Tensor

    @staticmethod
    def of(cases: Sequence[Case]) -> Batch:
        """Shorter cases are filled up with what is never chosen."""
        longest, width = max(len(case.expected.memories) for case in cases), cases[0].expected.values.shape[1]
        values = torch.zeros(len(cases), longest, width)
        mask, share = torch.full((len(cases), longest), -1e9), torch.zeros(len(cases), longest)
        for i, case in enumerate(cases):
            n = len(case.expected.memories)
            values[i, :n] = torch.tensor(case.expected.values)
            mask[i, :n] = 0.0
            wanted = [j for j, memory in enumerate(case.expected.memories) if memory in case.wanted]
            share[i, wanted] = 1.0 / len(case.wanted)
        return Batch(values, mask, share)

    def rate(self, weights: torch.Tensor) -> float:
        """The mean share of the needed memories among the LIMIT best."""
        total = self.values @ weights + self.mask
        best = total.topk(min(LIMIT, total.shape[1]), 1).indices
        return float(self.share.gather(1, best).sum(1).mean())


def picked(cases: Sequence[Case], names: Sequence[str]) -> dict[str, float]:
    """The weights that fit these cases best; 0 for what is set by hand."""
    batch = Batch.of(cases)
    free = [i for i, name in enumerate(names) if name not in BY_HAND]
    start = torch.zeros(len(free), requires_grad=True)
    search = torch.optim.LBFGS([start], max_iter=150, line_search_fn="strong_wolfe")
    needed = batch.share / batch.share.sum(1, keepdim=True).clamp(min=1e-9)

    def loss() -> torch.Tensor:
        search.zero_grad()
        total = batch.values[:, :, free] @ start + batch.mask
        value = -(needed * torch.log_softmax(total, 1)).sum(1).mean() + _KEPT * (start**2).sum()
        value.backward()
        return value

    search.step(loss)
    weights = torch.zeros(len(names))
    weights[free] = start.detach()
    best = batch.rate(weights)
    for step in STEPS:
        for _ in range(ROUNDS):
            before = best
            for place in free:
                for move in (step, -step):
                    tried = weights.clone()
                    tried[place] += move
                    if (rate := batch.rate(tried)) > best + 1e-4:
                        best, weights = rate, tried
            if best == before:
                break
    return {name: round(float(weight), 2) for name, weight in zip(names, weights, strict=True)}


def curve(cases: Sequence[Case], weights: Mapping[str, float]) -> tuple[float, float]:
    """Logistic regression of "was needed" on the logarithm of the share, by Newton's method."""
    x = np.concatenate([_log_shares(case, weights) for case in cases])
    needed = np.concatenate([_needed(case) for case in cases])
    points, found = np.stack([np.ones(len(x)), x], 1), np.zeros(2)
    for _ in range(30):
        p = 1 / (1 + np.exp(-points @ found))
        found = found + np.linalg.solve((points * (p * (1 - p))[:, None]).T @ points, points.T @ (needed - p))
    return round(float(found[0]), 3), round(float(found[1]), 3)


def reliability(
    cases: Sequence[Case], weights: Mapping[str, float], by: tuple[float, float]
) -> list[tuple[float, int, float, float]]:
    """(chance from which on, how many memories, mean chance, share that was needed)"""
    p = np.concatenate([chances(_total(case, weights), by) for case in cases])
    y = np.concatenate([_needed(case) for case in cases])
    edges = (0.0, 0.05, 0.15, 0.3, 0.5, 0.7, 1.01)
    rows = []
    for low, high in zip(edges, edges[1:], strict=False):  # noqa: RUF007
        inside = (p >= low) & (p < high)
        if inside.any():
            rows.append((low, int(inside.sum()), float(p[inside].mean()), float(y[inside].mean())))
    return rows


def _total(case: Case, weights: Mapping[str, float]) -> NDArray[np.float64]:
    table = np.array([weights.get(name, 0.0) for name in case.expected.names])
    return np.asarray(case.expected.values.astype(float) @ table, float)


def _log_shares(case: Case, weights: Mapping[str, float]) -> NDArray[np.float64]:
    soft = (total := _total(case, weights)) - total.max()
    return np.asarray(soft - np.log(np.exp(soft).sum()), float)


def _needed(case: Case) -> NDArray[np.float64]:
    return np.array([float(memory in case.wanted) for memory in case.expected.memories])


def report(every: Sequence[Case], opening: bool) -> None:
    """Held-out figures beside the baselines, the ablation, the weights of all."""
    cases = [case for case in every if case.opening == opening]
    names, talks = (OPENING if opening else NEXT), sorted({case.talk for case in cases})
    of = {talk: [case for case in cases if case.talk == talk] for talk in talks}
    print(f"\n{'openings' if opening else 'next turns'}: {len(cases)} predictions")
    for name in scenes.BASELINES:
        rates = [scenes.other_rate(of[talk], name) or 0.0 for talk in talks]
        print(f"  {name:12s} {np.mean(rates):.3f}  {np.round(rates, 3)}")
    tables = {talk: picked([case for case in cases if case.talk != talk], names) for talk in talks}
    rates = [scenes.hit_rate(of[talk], weights=tables[talk]) or 0.0 for talk in talks]
    print(f"  {'held out':12s} {np.mean(rates):.3f}  {np.round(rates, 3)}")
    for name in names:
        if name not in BY_HAND:
            left = [scenes.hit_rate(of[talk], weights=tables[talk], leave_out=name) or 0.0 for talk in talks]
            print(f"    without {name:14s} {np.mean(left):.3f}")
    weights = picked(cases, names)
    by = curve(cases, shipped.OPENING if opening else shipped.NEXT)
    print("  picked on all:", weights)
    rates = [scenes.hit_rate(of[talk]) or 0.0 for talk in talks]
    print(f"  the shipped table: {np.mean(rates):.3f}; its curve: {by}")
    for low, count, told, needed in reliability(cases, shipped.OPENING if opening else shipped.NEXT, by):
        print(f"    chance from {low:.2f}: {count} memories, {told:.3f} told, {needed:.3f} needed")


async def walked(path: Path, how: str, config: Config) -> list[Case]:
    """The cases of a file."""
    cases: list[Case] = []
    for talk in formats.read(path, getattr(formats, how)):
        with run.temporary(config, None) as fresh:
            await asyncio.to_thread(db.upgrade, fresh)
            async with run.opened(fresh) as (parts, work):
                cases += await scenes.walk(parts, work, talk, lambda *_: None)
    return cases


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--locomo", type=Path, required=True)
    parser.add_argument("--lines", action="store_true", help="every line is a turn, instead of two people's exchange")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        how = "locomo" if given.lines else "locomo_pairs"
        cases = asyncio.run(walked(given.locomo, how, load(None, data=folder)))
    for opening in (False, True):
        report(cases, opening)


if __name__ == "__main__":
    main()
