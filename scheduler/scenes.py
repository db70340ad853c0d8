"""Next-scene prediction: which memories will be needed next, how surely, and why. Pure; no I/O.

Signals come in as one row of numbers per memory, in [0, 1]. They are weighed and added; the share of the exponentials (softmax)
ranks them, and a logistic curve over its logarithm turns it into the chance that the memory is among the ten that the next
question finds. Memories of one topic are a scene; its chance is that of the likeliest among them, because they come together.
`benchmarks/scenes.py` picks the weights and measures them on conversations that they were not picked on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

LIMIT = 20  # memories of a prediction
NEXT: Mapping[str, float] = {
    "asked": 0.3, "course": 0.6, "said": 1.4, "said_course": 0.5, "beside": 0.5, "meaning": 2.6, "again": 0.35, "often": 0.6,
    "follows": 0.35, "recency": 0.75, "opens": -0.6, "due": 1.5, "guess": 1.0,
}  # fmt: skip
OPENING: Mapping[str, float] = {
    "ended": 0.3, "ended_said": 1.0, "first": 1.05, "second": 1.1, "opened": 0.8, "often": 0.6, "again": 0.2, "follows": 0.65,
    "recency": 1.2, "latest": 0.3, "ending": -0.9, "rhythm": 0.3, "due": 3.5, "guess": 1.5,
}  # fmt: skip
NEXT_CURVE = (2.59, 1.01)
OPENING_CURVE = (3.16, 1.14)
_TOLD = 0.08  # share of a memory's score from which a signal is given as a reason
REASONS: Mapping[str, str] = {
    "asked": "found for the last question",
    "course": "found in the course of the session",
    "said": "near to the last question and its answer",
    "said_course": "near to what the session is about",
    "beside": "said beside what the session is about",
    "meaning": "near to the last answer",
    "again": "shown a short while ago",
    "often": "shown often",
    "follows": "shown after the like of this before",
    "recency": "said not long ago",
    "opens": "like the beginning of a session",
    "rhythm": "said at this hour or on this weekday",
    "due": "an open task is due",
    "guess": "guessed by the model",
    "ended": "found at the end of the last session",
    "ended_said": "near to what the last session ended with",
    "first": "a session began with it",
    "second": "said at the beginning of a session",
    "opened": "shown at the beginning of sessions",
    "like_openings": "like the beginning of a session",
    "latest": "said in the last session",
    "ending": "a session ended with it",
}


@dataclass(frozen=True, slots=True)
class Foreseen:
    """A memory that will be needed with this chance, and each signal's share of its score."""

    memory: str
    chance: float
    why: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Scene:
    """What may come up: a topic, with the memories that it takes. `reasons` are sentences, the weightiest first."""

    topic: str
    chance: float
    memories: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Arrival:
    """When the next session is expected: the hour that begins at `at` (seconds since the epoch), with this chance."""

    at: float
    chance: float


def predict(
    memories: Sequence[str],
    names: Sequence[str],
    values: NDArray[np.float32],
    weights: Mapping[str, float],
    curve: tuple[float, float],
    *,
    limit: int = LIMIT,
) -> list[Foreseen]:
    """The likeliest memories, the likeliest first. `values` has shape (len(memories), len(names))."""
    if not len(memories):
        return []
    shares = values.astype(float) * np.array([weights.get(name, 0.0) for name in names])
    total = shares.sum(axis=1)
    chance = chances(total, curve)
    best = np.argsort(-total, kind="stable")[:limit]
    return [
        Foreseen(
            memories[i],
            round(float(chance[i]), 4),
            {name: round(float(s), 3) for name, s in zip(names, shares[i], strict=True) if s >= 0.005},
        )
        for i in best
    ]


def chances(total: NDArray[np.float64], curve: tuple[float, float]) -> NDArray[np.float64]:
    """The chance of each memory with such a score among such others."""
    soft = total - total.max()
    log_share = soft - math.log(float(np.exp(soft).sum()))
    return np.asarray(1.0 / (1.0 + np.exp(-(curve[0] + curve[1] * log_share))), float)


def scenes(foreseen: Sequence[Foreseen], topic_of: Mapping[str, str]) -> list[Scene]:
    """The foreseen memories by topic, the likeliest first; those without a topic are one scene of their own, named ""."""
    groups: dict[str, list[Foreseen]] = {}
    for one in foreseen:
        groups.setdefault(topic_of.get(one.memory, ""), []).append(one)
    found = [
        Scene(topic, max(one.chance for one in group), tuple(one.memory for one in group), _reasons(group))
        for topic, group in groups.items()
    ]
    return sorted(found, key=lambda scene: (-scene.chance, scene.topic))


def _reasons(group: Sequence[Foreseen]) -> tuple[str, ...]:
    shares: Counter[str] = Counter()
    for one in group:
        shares.update(one.why)
    total = sum(shares.values())
    told = [REASONS.get(name, name) for name, share in shares.most_common() if share >= _TOLD * total]
    return tuple(dict.fromkeys(told))


def arrival(begun: Sequence[float], now: float) -> Arrival | None:
    """The likeliest hour of the coming week in which the next session begins, from when the earlier ones began (seconds since
    the epoch). Sessions at the same hour of the same weekday count fully, on other days half, neighbouring hours a quarter;
    older ones less (half-life 30 days). None when there are fewer than three, or no habit shows."""
    if len(begun) < 3:
        return None
    hour = 3600.0
    first = math.floor(now / hour) * hour + hour
    slots = first + hour * np.arange(7 * 24)
    ages = np.array([0.5 ** ((now - at) / (30 * 86400.0)) for at in begun])
    weight = np.zeros(len(slots))
    for at, age in zip(begun, ages, strict=True):
        apart = np.round((slots - math.floor(at / hour) * hour) / hour)
        same_hour = apart % 24
        near = np.where(same_hour == 0, 1.0, np.where((same_hour == 1) | (same_hour == 23), 0.25, 0.0))
        day = np.array([_weekday(slot) == _weekday(at) for slot in slots])
        weight += age * near * np.where(day, 1.0, 0.5)
    total = float(weight.sum())
    best = int(np.argmax(weight))
    chance = float(weight[best]) / max(float(ages.sum()), 1e-9)
    return Arrival(float(slots[best]), round(min(chance, 1.0), 4)) if total and chance >= 0.3 else None


def _weekday(at: float) -> int:
    return datetime.fromtimestamp(at, UTC).weekday()
