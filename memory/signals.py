"""Signals: what speaks for each piece as the answer to a question. Numbers only; weighing them is rank's business.

Two steps. Meaning and words are compared with every piece of the view; the best few hundred, with what was said around
them, are then compared word piece by word piece. Words are scored by BM25 (Robertson and Zaragoza, 2009; k1 = 1.2,
b = 0.75), rarity is its idf. signals.cpp does all of this in one go; it is written again here, with numpy, for where it
was not built.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory.blocks import Bools, Floats, Ints
from memory.compiled import Closely, Compared, Comparison, Limits, compares
from memory.extract.dates import DateSpan, find_dates
from memory.late import SCALE, Asked
from memory.store import Filter
from memory.view import View
from memory.words import fold, terms

CLOSELY = 320  # pieces that are compared word piece by word piece …
AROUND = 80  # … and of so many of them also what was said around them
WHOLE = 640  # a cube that is not larger is compared as a whole
NAMES = (
    "meaning", "around", "words", "words_around", "match", "reply_to", "window", "wide", "session", "session_words",
    "replies", "asks", "length", "when", "number", "name", "date", "speaker", "recency", "own", "yours", "exact",
    "echo",
)  # fmt: skip
_CLOSELY = Closely(WHOLE, CLOSELY, AROUND)
_EVEN = np.full(len(NAMES), 1.0 / len(NAMES), np.float32)
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
_WORD = re.compile(r"\w+")
_SHARE = {"day": 1.0, "week": 0.9, "weekend": 0.9, "month": 0.7, "season": 0.5, "year": 0.3}
_NONE, _NOWHERE = np.zeros((0, 0), np.float32), np.zeros(0, np.int64)
_NEAR_S = 8 * 86400.0  # what happened is told within about a week


@dataclass(frozen=True, slots=True)
class Signals:
    """The candidates of one question: numbers of pieces (n,), their signals (n, len(NAMES)), and how well each fits on an
    absolute scale: cosine, share of the question's rare words, share of its word pieces met (NaN: not known); their weighed
    total, the places 0 to n - 1 with the best first, and where that was asked which of them fit (None: not told)."""

    numbers: Ints
    values: NDArray[np.float32]
    cosine: Floats
    covered: Floats
    met: Floats
    total: NDArray[Any]
    order: Ints
    fits: Bools | None = None


def signals(
    view: View,
    question: str,
    asked: Asked,
    only: Filter,
    now: float,
    table: NDArray[np.float32] | None = None,
    limits: Limits | None = None,
) -> Signals:
    """What speaks for the pieces that pass the filter. With a `table` of what each signal weighs, in the order of NAMES, they are
    weighed too; with `limits` it may be told which of them fit."""
    table = _EVEN if table is None else table
    if compares(asked.pieces, view.late_width):
        return told(comparison(view, question, asked, only, now, table, limits).run(), limits is not None)
    mask, counted, words, asks, dated, speaker = _read(view, question, asked, only, now)
    near = _nearest(view, mask, asked.vector, counted)
    chosen = near.numbers
    if not len(chosen):
        none = np.zeros(0)
        return Signals(chosen, np.zeros((0, len(NAMES)), np.float32), none, none, none, none, chosen)
    weights = None if asked.spans is None else _weights(words, [*near.rarity.values()]).astype(np.float32)
    on_date = None if dated is None else dated[chosen]
    values, met = _told(view, near, asked, weights, asks, on_date, view.speakers[chosen] == speaker, now)
    total = (values * table).sum(axis=1)
    return Signals(chosen, values, near.cosine, near.covered, met, total, np.argsort(-total, kind="stable"))


def comparison(
    view: View, question: str, asked: Asked, only: Filter, now: float, table: NDArray[np.float32], limits: Limits | None
) -> Comparison:
    """The same for whoever has it compared elsewhere: the vectors of `asked` need not be there yet. Only where `compares` says that
    it can be done."""
    mask, counted, words, asks, dated, speaker = _read(view, question, asked, only, now)
    return Comparison(
        view.layout, mask, asked.vector, counted, view.codes.words, _CLOSELY, asked.pieces, SCALE, words, asks, dated,
        speaker, now, table, limits, view,
    )  # fmt: skip


def told(found: Compared, limited: bool) -> Signals:
    """What a comparison has found; `limited`: it was given limits."""
    fits = found.fits if limited else None
    return Signals(found.numbers, found.values, found.cosine, found.covered, found.met, found.total, found.order, fits)


def _read(view: View, question: str, asked: Asked, only: Filter, now: float) -> tuple[
    Bools, Counter[str], list[list[int]], tuple[bool, ...], Floats | None, int
]:  # fmt: skip
    """(which pieces pass, how often the question has each term, of which terms each of its word pieces is part, what it asks for,
    how well its dates fit each piece, whom it names)"""
    counted = Counter(terms(question))
    words = [] if asked.spans is None else _words_of(question, asked.spans, list(counted))
    asks = tuple(bool(sort.search(question)) for sort in (_WHEN, _NUMBER, _NAME, _YOURS))
    return view.wanted(only), counted, words, asks, _dated(view, find_dates(question, now)), _named(view, question)


@dataclass(frozen=True, slots=True)
class _Near:
    """Pieces that are worth a closer look: numbers (n,), how near in meaning, BM25, cosine (NaN: not known), share of the
    question's rare words, share of its numbers and codes; and how rare each word is."""

    numbers: Ints
    meaning: Floats
    words: Floats
    cosine: Floats
    covered: Floats
    exact: Floats
    rarity: dict[str, float]


def _nearest(view: View, mask: Bools, vector: NDArray[np.float32], counted: Mapping[str, int]) -> _Near:
    """Every piece compared by meaning and by words; those that are worth a closer look."""
    every = np.flatnonzero(mask)
    if not len(every):
        none = np.zeros(0)
        return _Near(every, none, none, none, none, none, {})
    cosine, (words, covered, exact), rarity = view.cosines(vector), *_words(view, counted, mask)
    meaning = np.where(np.isnan(cosine), _mean(cosine[every]), cosine)
    chosen = _chosen(view, mask, every, scaled(meaning[every]) + scaled(words[every]))
    return _Near(chosen, meaning[chosen], words[chosen], cosine[chosen], covered[chosen], exact[chosen], rarity)


def _told(
    view: View,
    near: _Near,
    asked: Asked,
    weights: NDArray[np.float32] | None,
    asks: tuple[bool, ...],
    dated: Floats | None,
    spoken: Bools,
    now: float,
) -> tuple[NDArray[np.float32], Floats]:
    """(the signals of these pieces (n, len(NAMES)), the share of the question's word pieces that each meets (n,))"""
    chosen, f, w = near.numbers, near.meaning, near.words
    rounds = _Rounds.of(view, chosen)
    matched, met = _matched(view, chosen, asked, weights, near.covered)
    best_f, best_w = rounds.best(f), rounds.best(w)
    user_side, shape = view.user_side[chosen], view.shape[chosen].astype(float)
    asking, nothing = shape[:, 0], np.zeros(len(chosen))
    match = scaled(matched.sum(axis=1))
    alike = {  # these are brought to one scale together
        "meaning": f,
        "around": f + 0.5 * rounds.told(best_f, rounds.earlier, rounds.later),
        "words": w,
        "words_around": w + 0.5 * rounds.told(best_w, rounds.earlier, rounds.later),
        "session_words": _top_three(rounds, best_w),
        "length": view.log_lengths[chosen],
        **_late(rounds, matched),
    }
    when, number, name, yours = asks
    columns = {
        **dict(zip(alike, _scaled_rows(np.array([*alike.values()])), strict=True)),
        "match": match,
        "replies": _replies(rounds, match * asking, user_side),
        # whether a piece holds the sort of thing that is asked for
        "when": shape[:, 1] * when,
        "number": shape[:, 2] * number,
        "name": shape[:, 3] * name,
        "asks": -asking,
        "date": nothing if dated is None else dated,
        "speaker": spoken,
        "recency": np.exp(np.minimum(view.times[chosen] - now, 0.0) / (90 * 86400)),
        "exact": near.exact,
        # the same question asked before answers nothing
        "echo": asking * (np.minimum(np.maximum(np.nan_to_num(near.cosine), 0.7), 0.9) - 0.7) / -0.2,
        "own": user_side & (not yours),
        "yours": ~user_side & yours,
    }
    values = np.empty((len(chosen), len(NAMES)), np.float32)
    for place, column in enumerate(NAMES):
        values[:, place] = columns[column]
    return values, met


def scaled(values: Floats) -> Floats:
    """Min-max to [0, 1]; when every value is the same, all ones if there is anything, else zeros."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9:
        return np.full(len(values), float(high > 1e-9))
    return (values - low) / (high - low)


def _scaled_rows(rows: Floats) -> Floats:
    """Each row as `scaled` does it, in place; shape (k, n)."""
    low, high = rows.min(axis=1), rows.max(axis=1)
    spread = high - low
    flat = spread < 1e-9
    rows -= low[:, None]
    rows /= np.where(flat, 1.0, spread)[:, None]
    if flat.any():
        rows[flat] = (high[flat] > 1e-9)[:, None]
    return rows


def _mean(values: Floats) -> float:
    """A piece without a vector yet is taken for as near as the others are on average."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def _words(
    view: View, counted: Mapping[str, int], mask: Bools
) -> tuple[tuple[Floats, Floats, Floats], dict[str, float]]:
    """((BM25, share of the question's words by rarity, share of its numbers and codes), rarity by word), over all pieces."""
    count = int(mask.sum())
    average = max(float(view.lengths[mask].mean()), 1.0)
    found, covered, exact = np.zeros(len(mask)), np.zeros(len(mask)), np.zeros(len(mask))
    codes = 0.0
    rarity: dict[str, float] = {}
    for word, times in counted.items():
        where, often = view.postings(word)
        inside = mask[where]
        where, often = where[inside], often[inside]
        rarity[word] = math.log(1.0 + (count - len(where) + 0.5) / (len(where) + 0.5))
        if not len(where):
            continue
        spread = 1.2 * (0.25 + 0.75 * view.lengths[where] / average)
        found[where] += times * rarity[word] * often * 2.2 / (often + spread)
        covered[where] += rarity[word]
        if any(c.isdigit() for c in word):
            codes += rarity[word]
            exact[where] += rarity[word]
    return (found, covered / max(sum(rarity.values()), 1e-9), exact / max(codes, 1e-9)), rarity


def _chosen(view: View, mask: Bools, every: Ints, score: Floats) -> Ints:
    """The numbers of the pieces worth a closer look."""
    if len(every) <= WHOLE:
        return every
    order = np.argpartition(-score, (AROUND, CLOSELY))
    top = every[order[:AROUND]]
    near = view.memories[top[view.episodes[top]]]
    one = np.concatenate((view.before[near], view.after[near]))
    two = np.concatenate((view.before[view.before[near]], view.after[view.after[near]]))  # the last one is -1
    wanted = np.zeros(len(view.before), bool)  # by memory
    wanted[near] = wanted[one] = wanted[two] = True
    wanted[-1] = False  # no memory
    taken = wanted[view.memories]
    taken[every[order[:CLOSELY]]] = True
    return np.flatnonzero(taken & mask)


@dataclass(frozen=True, slots=True)
class _Rounds:
    """The candidates grouped by memory and by session. `of_piece` (n,) → its round; `earlier`, `later`, and `two_earlier`,
    `two_later` (n,) → the round so many before or after its own, or -1; `sessions` (rounds,) → session."""

    of_piece: Ints
    order: Ints
    starts: Ints
    earlier: Ints
    later: Ints
    two_earlier: Ints
    two_later: Ints
    sessions: Ints

    @staticmethod
    def of(view: View, chosen: Ints) -> _Rounds:
        codes = view.memories[chosen]
        memories, of_piece = np.unique(codes, return_inverse=True)
        order = np.argsort(of_piece, kind="stable")
        starts = np.concatenate(([0], np.cumsum(np.bincount(of_piece))[:-1]))
        local = np.full(len(view.before), -1, np.int64)  # by memory; the last one is none
        local[memories] = np.arange(len(memories))
        before, after = (np.append(local[chain[memories]], -1) for chain in (view.before, view.after))
        sessions = view.sessions[chosen[order[starts]]]
        alone = sessions == 0  # what belongs to no session is not lifted by others of its sort
        _, sessions = np.unique(np.where(alone, -1 - np.arange(len(sessions)), sessions), return_inverse=True)
        two_before, two_after = before[before], after[after]
        beside = before[of_piece], after[of_piece], two_before[of_piece], two_after[of_piece]
        return _Rounds(of_piece, order, starts, *beside, sessions)

    def best(self, values: NDArray[Any]) -> NDArray[Any]:
        """Per round the greatest of its pieces' values (n,) or (n, m)."""
        found: NDArray[Any] = np.maximum.reduceat(values[self.order], self.starts, axis=0)
        return found

    @staticmethod
    def told(values: Floats, *chains: Ints) -> Floats:
        """For each piece the sum of the values of these rounds of it; 0 without one."""
        known = np.append(values, 0.0)
        return np.asarray(sum(known[chain] for chain in chains), float)

    def over_sessions(self, values: NDArray[Any]) -> NDArray[Any]:
        """Per session the greatest of its rounds' values (rounds, m)."""
        order = np.argsort(self.sessions, kind="stable")
        starts = np.concatenate(([0], np.cumsum(np.bincount(self.sessions))[:-1]))
        found: NDArray[Any] = np.maximum.reduceat(values[order], starts, axis=0)
        return found


def _top_three(rounds: _Rounds, best: Floats) -> Floats:
    """For each piece the mean of the three best rounds of its session; `best` (rounds,)."""
    order = np.lexsort((-best, rounds.sessions))
    sessions = rounds.sessions[order]
    place = np.arange(len(order)) - np.searchsorted(sessions, sessions)
    among = place < 3
    mean = np.bincount(sessions[among], best[order[among]] / 3)
    return np.asarray(mean[rounds.sessions[rounds.of_piece]], float)


def _matched(
    view: View, chosen: Ints, asked: Asked, weights: NDArray[np.float32] | None, covered: Floats
) -> tuple[NDArray[np.float32], Floats]:
    """((n, m): how much more than usual each piece of the question is met, by rarity; (n,): the share of it that is met)"""
    best, which = (_NONE, _NOWHERE) if asked.pieces is None else view.matches(chosen, asked.pieces)
    if weights is None or not best.size:
        return np.zeros((len(chosen), 1), np.float32), np.full(len(chosen), np.nan)
    over = np.maximum(best - best.mean(axis=0), 0.0)
    over *= weights
    if len(which) == len(chosen):
        return over, (best @ weights).astype(float)
    found = (0.5 * covered[:, None] * weights).astype(np.float32)  # a piece without vectors yet is judged by its words
    met = np.full(len(chosen), np.nan)
    found[which], met[which] = over, best @ weights
    return found, met


def _words_of(question: str, spans: Sequence[tuple[int, int]], known: Sequence[str]) -> list[list[int]]:
    """For each piece of the question the terms of the word that it belongs to, by their places among the `known` ones."""
    places = {word: place for place, word in enumerate(known)}
    out = []
    for start, end in spans:
        low, high = start, end
        while low > 0 and question[low - 1].isalnum() and question[low].isascii():
            low -= 1
        while high < len(question) and question[high].isalnum() and question[high - 1].isascii():
            high += 1
        found = [places[word] for word in terms(question[low:high]) if word in places]
        if not found and question[low:high].isalnum() and not question[low].isascii():
            part = fold(question[low:high])
            found = [place for word, place in places.items() if part in word]
        out.append(found)
    return out


def _weights(words: Sequence[Sequence[int]], rarity: Sequence[float]) -> Floats:
    """Per piece of the question the rarity of its word; function words count little. Sum 1."""
    usual = 0.08 * max(rarity, default=1.0)
    weights = np.array([max((rarity[term] for term in word), default=usual) for word in words])
    return weights / max(float(weights.sum()), 1e-9)


def _late(rounds: _Rounds, matched: NDArray[np.float32]) -> dict[str, Floats]:
    best = rounds.best(matched)
    known = np.concatenate((best, np.zeros((1, best.shape[1]), np.float32)))  # round -1 meets nothing
    at = (rounds.of_piece, rounds.earlier, rounds.later, rounds.two_earlier, rounds.two_later)
    own, before, after, two_before, two_after = (known[chain] for chain in at)
    near = np.maximum(matched, 0.6 * own)
    before *= 0.7
    reply_to = np.maximum(near, before)
    window = np.maximum(np.maximum(near, before * (0.5 / 0.7)), 0.5 * after)
    wide = np.maximum.reduce([reply_to, 0.6 * after, 0.5 * two_before, 0.4 * two_after])
    return {
        "reply_to": reply_to.sum(axis=1),
        "window": window.sum(axis=1),
        "wide": wide.sum(axis=1),
        "session": rounds.over_sessions(best).sum(axis=1)[rounds.sessions[rounds.of_piece]],
    }


def _replies(rounds: _Rounds, asked: Floats, user_side: Bools) -> Floats:
    """How well a question fits that a piece answers, or that stands beside it; `asked` (n,): how well each fits as a question."""
    best = np.append(rounds.best(asked), 0.0)
    return np.asarray(best[np.where(user_side, rounds.earlier, rounds.of_piece)], float)


def _dated(view: View, spans: Sequence[DateSpan]) -> Floats | None:
    """How well the day on which a piece was said, or of which it tells, fits a date in the question, of every piece; None: it names
    none."""
    if not spans:
        return None
    found = np.zeros(len(view.times))
    for span in spans:
        share = _SHARE.get(span.precision, 0.5)
        for times in (view.times, view.at):
            inside = (times >= span.start) & (times < span.end)
            soon = (times >= span.end) & (times < span.end + _NEAR_S) & (share >= 0.7)
            found = np.maximum(found, np.where(inside, share, np.where(soon, 0.7 * share, 0.0)))
    return found


def _named(view: View, question: str) -> int:
    """The one speaker whom the question names; -1: none, or several."""
    asked = set(_WORD.findall(fold(question)))
    named = [who for who in view.speaking if asked & view.codes.called(who)]
    return named[0] if len(named) == 1 else -1
