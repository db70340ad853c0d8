"""Ranking: signals of each candidate, scaled to the same range and added with weights. Pure; no I/O.

Signals are min-max scaled within the candidates of one question and added (measured better than reciprocal rank fusion).
Words are scored by BM25 (Robertson and Zaragoza, 2009; k1 = 1.2, b = 0.75) over the candidates' texts.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from memory.words import terms

Scores = NDArray[np.float64]
WEIGHTS: Mapping[str, float] = {"meaning": 0.45, "words": 0.35, "session": 0.15, "recency": 0.05}
NEAR = 0.30  # a cosine from which two texts have something to do with each other (default embedder)
COVERED = 0.40  # share of the question's rare words, by weight, from which a match by words alone counts


@dataclass(frozen=True, slots=True)
class Signals:
    """One question's candidates: parallel arrays of length n. `cosine` may hold NaN (no vector known)."""

    cosine: Scores
    texts: Sequence[str]
    sessions: Sequence[str]
    times: Scores
    sides: Sequence[str]


@dataclass(frozen=True, slots=True)
class Ranked:
    """Candidate `index` with its score in [0, 1] and each signal's share of it."""

    index: int
    score: float
    why: dict[str, float]


def rank(question: str, signals: Signals, now: float, weights: Mapping[str, float] = WEIGHTS) -> list[Ranked]:
    """The candidates that have to do with the question, best first. Nothing is returned for a question that none fits."""
    n = len(signals.texts)
    if n == 0:
        return []
    asked = terms(question)
    words, covered = bm25(asked, [_terms(text) for text in signals.texts])
    known = ~np.isnan(signals.cosine)
    cosine = np.where(known, signals.cosine, -1.0)
    parts = {
        # without a vector yet: as near as the others are on average
        "meaning": scaled(np.where(known, cosine, cosine[known].mean() if known.any() else -1.0)),
        "words": scaled(words),
        "recency": np.exp(-np.maximum(now - signals.times, 0.0) / (90 * 86400)),
    }
    base = weights["meaning"] * parts["meaning"] + weights["words"] * parts["words"]
    parts["session"] = scaled(session_signal(base, signals.sessions))
    total = sum((weights[name] * parts[name] for name in weights), np.zeros(n))
    # what the assistant said is long and seldom the point: a small step back, so that equals fall to the user's side
    total *= np.array([0.92 if side == "assistant" else 1.0 for side in signals.sides])
    fits = (cosine >= NEAR) | (covered >= COVERED)
    order = [int(i) for i in np.argsort(-total, kind="stable") if fits[i]]
    return [
        Ranked(i, float(total[i]), {name: round(float(weights[name] * parts[name][i]), 4) for name in weights})
        for i in order
    ]


@lru_cache(maxsize=1 << 14)
def _terms(text: str) -> tuple[str, ...]:
    """The same pieces come up question after question, and cutting them is most of the work here."""
    return tuple(terms(text))


def bm25(asked: Sequence[str], documents: Sequence[Sequence[str]]) -> tuple[Scores, Scores]:
    """(BM25 scores, share of the question's words covered weighted by their rarity), each of shape (len(documents),)."""
    n = len(documents)
    scores, covered = np.zeros(n), np.zeros(n)
    wanted = Counter(asked)
    if not wanted or n == 0:
        return scores, covered
    counts = [Counter(term for term in document if term in wanted) for document in documents]
    lengths = np.array([len(document) for document in documents], float)
    average = max(float(lengths.mean()), 1.0)
    frequency = Counter(term for count in counts for term in count)
    total = 0.0
    for term, times in wanted.items():
        rarity = math.log(1.0 + (n - frequency[term] + 0.5) / (frequency[term] + 0.5))
        total += rarity
        for i, count in enumerate(counts):
            if tf := count.get(term, 0):
                scores[i] += times * rarity * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * lengths[i] / average))
                covered[i] += rarity
    return scores, covered / max(total, 1e-9)


def session_signal(base: Scores, sessions: Sequence[str]) -> Scores:
    """For each candidate the mean of the three best scores of its session: a session that fits lifts all its turns."""
    best: dict[str, list[float]] = defaultdict(list)
    for value, session in zip(base, sessions, strict=True):
        best[session].append(float(value))
    mean = {session: sum(sorted(values)[-3:]) / 3 for session, values in best.items()}
    return np.array([mean[session] if session else 0.0 for session in sessions])


def scaled(values: Scores) -> Scores:
    """Min-max to [0, 1]; all zeros when every value is the same."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9:
        return np.zeros_like(values)
    return (values - low) / (high - low)
