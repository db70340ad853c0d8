"""Signals: what speaks for each piece as the answer to a question. Numbers only; weighing them is rank's business.

Two steps. Meaning and words are compared with every piece of the view; the best few hundred, with what was said around
them, are then compared word piece by word piece. Words are scored by BM25 (Robertson and Zaragoza, 2009; k1 = 1.2,
b = 0.75), rarity is its idf.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memory.extract.dates import DateSpan, find_dates
from memory.late import Asked, best_matches
from memory.store import Filter
from memory.view import Bools, Floats, Ints, View
from memory.words import fold, terms

CLOSELY = 320  # pieces that are compared word piece by word piece …
AROUND = 80  # … and of so many of them also what was said around them
WHOLE = 640  # a cube that is not larger is compared as a whole
NAMES = (
    "meaning", "around", "words", "words_around", "match", "reply_to", "window", "wide", "session", "session_words",
    "replies", "asks", "length", "when", "number", "name", "date", "speaker", "recency", "own", "yours", "exact",
    "echo",
)  # fmt: skip
_WHEN = re.compile(
    r"\b(?:when|how long|since when|what (?:year|month|date|day|time)|which (?:year|month|date|day))\b"
    r"|什么时候|何时|几月|几号|哪天|哪年|哪一天|多久|いつ",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"\bhow (?:many|much|old|often|tall|far|big)\b|多少|几[个次本位岁]|多大|いくつ|何[回人個]", re.IGNORECASE
)
_NAME = re.compile(
    r"\b(?:who|whom|whose|where|names?|which|called|title|city|country|place)\b|谁|哪|名字|叫什么|什么书|什么电影|誰|どこ",
    re.IGNORECASE,
)
_YOURS = re.compile(
    r"\b(?:you|your) (?:\w+ ){0,2}(?:recommend|suggest|told|tell|said|say|mention|advi[sc]e|explain|answer|gave|give)"
    r"|\b(?:did|have|do) you\b|你.{0,6}(?:推荐|建议|告诉|说过|介绍|提到|给我)",
    re.IGNORECASE,
)
_SHARE = {"day": 1.0, "week": 0.9, "weekend": 0.9, "month": 0.7, "season": 0.5, "year": 0.3}
_NEAR_S = 8 * 86400.0  # what happened is told within about a week


@dataclass(frozen=True, slots=True)
class Signals:
    """The candidates of one question: numbers of pieces (n,), their signals (n, len(NAMES)), and how well each fits on an
    absolute scale: cosine, share of the question's rare words, share of its word pieces met (NaN: not known)."""

    numbers: Ints
    values: NDArray[np.float32]
    cosine: Floats
    covered: Floats
    met: Floats


def signals(view: View, question: str, asked: Asked, only: Filter, now: float) -> Signals:
    """What speaks for the pieces that pass the filter."""
    mask = view.wanted(only)
    every = np.flatnonzero(mask)
    if not len(every):
        return Signals(every, np.zeros((0, len(NAMES)), np.float32), *(np.zeros(0) for _ in range(3)))
    cosine, (words, covered, exact), rarity = view.cosines(asked.vector), *_words(view, question, mask)
    meaning = np.where(np.isnan(cosine), _mean(cosine[every]), cosine)
    chosen = _chosen(view, every, scaled(meaning[every]) + scaled(words[every]))
    rounds = _Rounds.of(view, chosen)
    matched, met = _matched(view, chosen, question, asked, rarity, covered[chosen])
    f, w = meaning[chosen], words[chosen]
    columns = {
        "meaning": scaled(f),
        "around": scaled(
            f + 0.5 * (rounds.told(rounds.best(f), rounds.before) + rounds.told(rounds.best(f), rounds.after))
        ),
        "words": scaled(w),
        "words_around": scaled(
            w + 0.5 * (rounds.told(rounds.best(w), rounds.before) + rounds.told(rounds.best(w), rounds.after))
        ),
        "session_words": scaled(_top_three(rounds, w)),
        **_late(rounds, matched, view.shape[chosen, 0], view.user_side[chosen]),
        **_answers(view, chosen, question),
        "asks": -view.shape[chosen, 0],
        "length": scaled(np.log1p(view.lengths[chosen])),
        "date": _dated(view, chosen, find_dates(question, now)),
        "speaker": _named(view, chosen, question),
        "recency": np.exp(-np.maximum(now - view.times[chosen], 0.0) / (90 * 86400)),
    }
    yours = bool(_YOURS.search(question))
    columns["exact"] = exact[chosen]
    # the same question asked before answers nothing
    columns["echo"] = -view.shape[chosen, 0] * np.clip((np.nan_to_num(cosine[chosen]) - 0.7) / 0.2, 0.0, 1.0)
    columns["own"] = (view.user_side[chosen] & (not yours)).astype(float)
    columns["yours"] = (~view.user_side[chosen] & yours).astype(float)
    values = np.stack([columns[name] for name in NAMES], axis=1).astype(np.float32)
    return Signals(chosen, values, cosine[chosen], covered[chosen], met)


def scaled(values: Floats) -> Floats:
    """Min-max to [0, 1]; when every value is the same, all ones if there is anything, else zeros."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9:
        return np.full(len(values), float(high > 1e-9))
    return (values - low) / (high - low)


def _mean(values: Floats) -> float:
    """A piece without a vector yet is taken for as near as the others are on average."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def _words(view: View, question: str, mask: Bools) -> tuple[tuple[Floats, Floats, Floats], dict[str, float]]:
    """((BM25, share of the question's words by rarity, share of its numbers and codes), rarity by word), over all pieces."""
    count = int(mask.sum())
    average = max(float(view.lengths[mask].mean()), 1.0)
    found, covered, exact = np.zeros(len(mask)), np.zeros(len(mask)), np.zeros(len(mask))
    codes = 0.0
    rarity: dict[str, float] = {}
    for word, times in Counter(terms(question)).items():
        where, often = view.postings(word)
        inside = mask[where]
        where, often = where[inside], often[inside]
        rarity[word] = math.log(1.0 + (count - len(where) + 0.5) / (len(where) + 0.5))
        spread = 1.2 * (0.25 + 0.75 * view.lengths[where] / average)
        found[where] += times * rarity[word] * often * 2.2 / (often + spread)
        covered[where] += rarity[word]
        if len(where) and any(c.isdigit() for c in word):
            codes += rarity[word]
            exact[where] += rarity[word]
    return (found, covered / max(sum(rarity.values()), 1e-9), exact / max(codes, 1e-9)), rarity


def _chosen(view: View, every: Ints, score: Floats) -> Ints:
    """The numbers of the pieces worth a closer look."""
    if len(every) <= WHOLE:
        return every
    best = every[np.argpartition(-score, CLOSELY)[:CLOSELY]]
    top = every[np.argpartition(-score, AROUND)[:AROUND]]
    near = view.memories[top[view.episodes[top]]]
    around = [near]
    for chain in (view.before, view.after):
        one = chain[near]
        two = chain[one[one >= 0]]
        around += [one, two]
    wanted = np.unique(np.concatenate(around))
    beside = every[np.isin(view.memories[every], wanted[wanted >= 0])]
    return np.union1d(best, beside)


@dataclass(frozen=True, slots=True)
class _Rounds:
    """The candidates grouped by memory and by session. `of_piece` (n,) → round; `before`, `after` (rounds,) → round or -1;
    `sessions` (rounds,) → session."""

    of_piece: Ints
    order: Ints
    starts: Ints
    before: Ints
    after: Ints
    sessions: Ints

    @staticmethod
    def of(view: View, chosen: Ints) -> _Rounds:
        memories, of_piece = np.unique(view.memories[chosen], return_inverse=True)
        order = np.argsort(of_piece, kind="stable")
        starts = np.searchsorted(of_piece[order], np.arange(len(memories)))

        def local(codes: Ints) -> Ints:
            at = np.minimum(np.searchsorted(memories, codes), len(memories) - 1)
            return np.where((codes >= 0) & (memories[at] == codes), at, -1)

        sessions = view.sessions[chosen[order[starts]]]
        alone = sessions == 0  # what belongs to no session is not lifted by others of its sort
        _, sessions = np.unique(np.where(alone, -1 - np.arange(len(sessions)), sessions), return_inverse=True)
        return _Rounds(of_piece, order, starts, local(view.before[memories]), local(view.after[memories]), sessions)

    def best(self, values: Floats) -> Floats:
        """Per round the greatest of its pieces' values (n,) or (n, m)."""
        found: Floats = np.maximum.reduceat(values[self.order], self.starts, axis=0)
        return found

    def told(self, values: Floats, chain: Ints) -> Floats:
        """For each piece the value of the round before or after its own; 0 without one."""
        moved = np.where((chain >= 0).reshape((-1,) + (1,) * (values.ndim - 1)), values[chain], 0.0)
        return moved[self.of_piece]

    def over_sessions(self, values: Floats) -> Floats:
        """Per session the greatest of its rounds' values (rounds, m)."""
        order = np.argsort(self.sessions, kind="stable")
        starts = np.searchsorted(self.sessions[order], np.arange(self.sessions.max() + 1))
        found: Floats = np.maximum.reduceat(values[order], starts, axis=0)
        return found


def _top_three(rounds: _Rounds, values: Floats) -> Floats:
    """For each piece the mean of the three best rounds of its session."""
    best = rounds.best(values)
    order = np.lexsort((-best, rounds.sessions))
    sessions = rounds.sessions[order]
    place = np.arange(len(order)) - np.searchsorted(sessions, sessions)
    mean = np.zeros(int(rounds.sessions.max()) + 1)
    np.add.at(mean, sessions[place < 3], best[order][place < 3] / 3)
    return mean[rounds.sessions[rounds.of_piece]]


def _matched(
    view: View, chosen: Ints, question: str, asked: Asked, rarity: dict[str, float], covered: Floats
) -> tuple[Floats, Floats]:
    """((n, m): how much more than usual each piece of the question is met, by rarity; (n,): the share of it that is met)"""
    flat, starts, which = view.late(chosen)
    if asked.pieces is None or asked.spans is None or not len(which) or not len(asked.pieces):
        return np.zeros((len(chosen), 1)), np.full(len(chosen), np.nan)
    weights = _weights(question, asked.spans, rarity)
    found = 0.5 * covered[:, None] * weights  # a piece without vectors yet is judged by its words
    best = best_matches(asked.pieces, flat, starts).astype(float)
    found[which] = np.maximum(best - best.mean(axis=0), 0.0) * weights
    met = np.full(len(chosen), np.nan)
    met[which] = best @ weights
    return found, met


def _weights(question: str, spans: Sequence[tuple[int, int]], rarity: dict[str, float]) -> Floats:
    """Per piece of the question the rarity of its word; function words count little. Sum 1."""
    most = max(rarity.values(), default=1.0)
    weights = np.full(len(spans), 0.08 * most)
    for i, (start, end) in enumerate(spans):
        low, high = start, end
        while low > 0 and question[low - 1].isalnum() and question[low].isascii():
            low -= 1
        while high < len(question) and question[high].isalnum() and question[high - 1].isascii():
            high += 1
        found = [rarity[word] for word in terms(question[low:high]) if word in rarity]
        if not found and question[low:high].isalnum() and not question[low].isascii():
            part = fold(question[low:high])
            found = [r for word, r in rarity.items() if part in word]
        if found:
            weights[i] = max(found)
    return weights / max(float(weights.sum()), 1e-9)


def _late(rounds: _Rounds, matched: Floats, asks: NDArray[np.float32], user_side: Bools) -> dict[str, Floats]:
    best = rounds.best(matched)
    near = np.maximum(matched, 0.6 * best[rounds.of_piece])
    before, after = rounds.told(best, rounds.before), rounds.told(best, rounds.after)
    two_before = rounds.told(np.where(rounds.before[:, None] >= 0, best[rounds.before], 0.0), rounds.before)
    two_after = rounds.told(np.where(rounds.after[:, None] >= 0, best[rounds.after], 0.0), rounds.after)
    match = scaled(matched.sum(axis=1))
    asked_here = rounds.best(match * asks)  # how well a question of the round fits
    return {
        "match": match,
        "reply_to": scaled(np.maximum(near, 0.7 * before).sum(axis=1)),
        "window": scaled(np.maximum.reduce([near, 0.5 * before, 0.5 * after]).sum(axis=1)),
        "wide": scaled(
            np.maximum.reduce([near, 0.7 * before, 0.6 * after, 0.5 * two_before, 0.4 * two_after]).sum(axis=1)
        ),
        "session": scaled(rounds.over_sessions(best).sum(axis=1)[rounds.sessions[rounds.of_piece]]),
        "replies": np.where(user_side, rounds.told(asked_here, rounds.before), asked_here[rounds.of_piece]),
    }


def _answers(view: View, chosen: Ints, question: str) -> dict[str, Floats]:
    """Whether a piece holds the sort of thing that is asked for."""
    shape = view.shape[chosen].astype(float)
    return {
        "when": shape[:, 1] * bool(_WHEN.search(question)),
        "number": shape[:, 2] * bool(_NUMBER.search(question)),
        "name": shape[:, 3] * bool(_NAME.search(question)),
    }


def _dated(view: View, chosen: Ints, spans: Sequence[DateSpan]) -> Floats:
    """How well the day on which a piece was said, or of which it tells, fits a date in the question."""
    found = np.zeros(len(chosen))
    for span in spans:
        share = _SHARE.get(span.precision, 0.5)
        for times in (view.times[chosen], view.at[chosen]):
            inside = (times >= span.start) & (times < span.end)
            soon = (times >= span.end) & (times < span.end + _NEAR_S) & (share >= 0.7)
            found = np.maximum(found, np.where(inside, share, np.where(soon, 0.7 * share, 0.0)))
    return found


def _named(view: View, chosen: Ints, question: str) -> Floats:
    """1 where the one speaker whom the question names is the one who speaks."""
    speakers = {view.pieces[i].speaker for i in chosen} - {""}
    asked = set(re.findall(r"\w+", fold(question)))
    named = {speaker for speaker in speakers if set(re.findall(r"\w+", fold(speaker))) & asked}
    if len(named) != 1:
        return np.zeros(len(chosen))
    return np.array([float(view.pieces[i].speaker in named) for i in chosen])
