"""Figures from rankings. Pure: what was asked and what came back in, fractions out.

R@k is the share of a question's evidence turns among the first k turns, averaged over questions; hit@k the share of
questions with at least one of them; mrr the mean of one over the place of the first, 0 when it is not among the first 50.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from proxy.evaluation.talk import Asked

AT = (1, 5, 10, 20, 50)
BUDGETS = (250, 500, 1000, 2000, 4000)  # tokens


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one question: the keys of distinct turns, best first, and which of them fit into each budget."""

    asked: Asked
    turns: tuple[str, ...]
    within: dict[int, frozenset[str]] = field(default_factory=dict)
    ms: float = 0.0
    cpu_ms: float = 0.0

    def found(self, k: int) -> float:
        """Share of the evidence among the first k turns."""
        return len(self.asked.evidence & set(self.turns[:k])) / len(self.asked.evidence)

    def first(self) -> float:
        """One over the place of the first evidence turn."""
        places = (place for place, key in enumerate(self.turns[: AT[-1]], 1) if key in self.asked.evidence)
        return 1.0 / next(places, float("inf"))

    def packed(self, budget: int) -> float:
        """Share of the evidence that fits into the budget."""
        return len(self.asked.evidence & self.within.get(budget, frozenset())) / len(self.asked.evidence)


def of_ranking(answers: Sequence[Answer]) -> dict[str, Any]:
    """n, recall, hit, mrr; nulls when nothing was asked."""
    return {
        "n": len(answers),
        "recall": {str(k): mean([answer.found(k) for answer in answers]) for k in AT},
        "hit": {str(k): mean([float(answer.found(k) > 0) for answer in answers]) for k in AT},
        "mrr": mean([answer.first() for answer in answers]),
    }


def of_budget(answers: Sequence[Answer]) -> dict[str, float | None]:
    """Share of the evidence within each token budget."""
    return {str(budget): mean([answer.packed(budget) for answer in answers]) for budget in BUDGETS}


def per_category(answers: Sequence[Answer]) -> dict[str, Any]:
    """The ranking's figures for each category that has evidence, adversarial ones too."""
    names = dict.fromkeys(answer.asked.category for answer in answers if answer.asked.evidence)
    return {name: of_ranking([a for a in answers if a.asked.category == name and a.asked.evidence]) for name in names}


def nothing(answers: Sequence[Answer]) -> float | None:
    """Share of the questions for which nothing came back."""
    return mean([float(not answer.turns) for answer in answers])


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """The median and the 95th percentile, linearly interpolated."""
    if not values:
        return {"p50": None, "p95": None}
    return {name: round(float(np.percentile(values, share)), 3) for name, share in (("p50", 50), ("p95", 95))}


def mean(values: Sequence[float]) -> float | None:
    """The arithmetic mean, or None of nothing."""
    return round(sum(values) / len(values), 6) if values else None
