"""Ranking: signals are weighed and added, and what has nothing to do with the question is left out. Pure; no I/O.

Three tables of weights: for an embedder that gives vectors of word pieces, for one that does not, and for questions in a
script that the embedder was not trained on, where words count most. `benchmarks/tune.py` makes them; docs/BENCHMARKS.md
says on what, and measures them on what they were not made on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from memory.blocks import Bools, Floats, Ints, said_in
from memory.compiled import Compared, Limits, compares
from memory.extract.text import has_cjk
from memory.late import Asked
from memory.models import Embedder
from memory.signals import NAMES, Signals, comparison, signals, told
from memory.store import Filter
from memory.view import View
from memory.words import fold, stem, terms

LATE: Mapping[str, float] = {
    "meaning": 0.05, "around": 0.04, "words": 0.02, "words_around": 0.05, "match": 0.33, "reply_to": 0.07, "window": 0.30,
    "wide": 0.12, "session": 0.30, "session_words": 0.12, "replies": 0.30, "asks": 0.10, "length": 0.05, "when": 0.30,
    "number": 0.15, "name": 0.30, "date": 0.60, "speaker": 0.35, "recency": 0.02, "own": 0.40, "yours": 0.40,
    "exact": 0.30, "echo": 0.50,
}  # fmt: skip
PLAIN: Mapping[str, float] = {
    "meaning": 0.45, "around": 0.30, "words": 0.40, "words_around": 0.15, "session_words": 0.15, "length": 0.05,
    "asks": 0.08, "when": 0.15, "number": 0.10, "name": 0.10, "date": 0.40, "speaker": 0.25, "recency": 0.02, "own": 0.20,
    "yours": 0.40, "exact": 0.30, "echo": 0.50,
}  # fmt: skip
FOREIGN: Mapping[str, float] = {
    "meaning": 0.10, "around": 0.10, "words": 0.80, "words_around": 0.45, "match": 0.24, "window": 0.20, "session": 0.03,
    "session_words": 0.20, "replies": 0.10, "asks": 0.05, "when": 0.10, "number": 0.10, "name": 0.15, "date": 0.50,
    "own": 0.40, "yours": 0.40, "exact": 0.30, "echo": 0.50,
}  # fmt: skip
_SHARES = {
    id(table): np.array([table.get(name, 0.0) for name in NAMES], np.float32) / np.float32(sum(table.values()))
    for table in (LATE, PLAIN, FOREIGN)
}  # of the whole, in the order of NAMES
# log-odds that a question can be answered, fitted on questions of one person asked of another (docs/BENCHMARKS.md): by the best
# cosine, the mean of the best three, and the share of the question's word pieces that the best meets
BY_BEST, BY_THREE, BY_MET, USUALLY = 10.5, 4.2, 10.0, 10.0
ANSWERABLE = -2.2
UNKNOWN = 7.0  # the same, when every name in the question is unknown
NEAR = 0.12  # rescaled cosine from which two texts have something to do with each other
COVERED = 0.45  # share of the question's rare words from which a match by words alone counts …
EXACT = 0.60  # … for any embedder
SHARED = 0.20  # the same in a script that the embedder does not know: share of the question's telling characters
MET, TOUCHED, PLACED = 0.35, 0.15, 0.45  # where a match counts at all: of word pieces, of rare words, beside what fits
PLAIN_COSINE, PLAIN_MET = 0.35, 0.55  # from which it counts however much better another one is
_LARGEST = 20_000  # pieces of a view whose comparison takes so little that others may wait for it
FLOOR = 0.30  # of the best score; what is further behind is not worth its tokens
_LIMITS = np.array(
    [
        BY_BEST, BY_THREE, BY_MET, USUALLY, ANSWERABLE, NEAR, MET, TOUCHED, PLACED, COVERED, PLAIN_COSINE, PLAIN_MET, EXACT,
        FLOOR,
    ]
)  # as signals.cpp has them  # fmt: skip
_NAME = re.compile(r"(?<![.?!\"“] )(?<!^)\b[A-Z][\w'’]+")  # in the middle of a sentence
_CALENDAR = frozenset(
    stem(word)
    for word in "january february march april may june july august september october november december monday tuesday"
    " wednesday thursday friday saturday sunday".split()
)
_UNRELATED = [
    "The kettle is boiling.", "Our team lost the final on penalties.", "How do I sort a list in Python?",
    "Grandma planted tulips by the fence.", "The invoice is due next Thursday.", "I am allergic to penicillin.",
    "我家的猫叫团子。", "明天要去看牙医。", "这部电影的结局出人意料。", "The train to Lyon was late again.",
]  # fmt: skip
_CHINESE_GRAMMAR = re.compile(
    "什么时候|什么|为什么|怎么样|怎么|哪里|哪儿|哪些|哪个|哪天|哪|谁|多少|几|吗|呢|吧|啊|的|了|是|我|你|他|她|它|们|在|有|和|跟|与|要|会|过"
    "|着|就|都|也|还|又|很|把|被|给|对|曾经|那个|这个|那|这|个|叫|名字|时候|现在|上次|最近|之前|以前|告诉|说|提到|记得|一下|请问|应该|可以|能|想"
)
_TRAINED_ON = re.compile(r"[\u0000-\u024f\u2000-\u206f]")  # Latin script and what stands between its words


@dataclass(frozen=True, slots=True)
class Ranked:
    """Piece `number` of the view, with its score in [0, 1], its signals in the order of NAMES, and what each of them weighs."""

    number: int
    score: float
    signals: NDArray[np.float32]
    table: NDArray[np.float32]

    @property
    def shares(self) -> NDArray[np.float32]:
        """Each signal's share of the score."""
        return self.signals * self.table

    @property
    def why(self) -> dict[str, float]:
        """The shares that are worth naming, by signal."""
        shares = zip(NAMES, self.shares.tolist(), strict=True)
        return {name: round(share, 4) for name, share in shares if abs(share) >= 5e-5}


class Order(Sequence[Ranked]):
    """Ranked pieces, best first; each is made when it is looked at, as mostly few are."""

    def __init__(
        self, numbers: Ints, scores: NDArray[Any], signals: NDArray[np.float32], table: NDArray[np.float32]
    ) -> None:
        self._numbers, self._scores, self._signals, self._table = numbers, scores, signals, table

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def pairs(self) -> list[tuple[int, float]]:
        """(number, score) of each."""
        return self.part(0, len(self))

    def part(self, start: int, end: int) -> list[tuple[int, float]]:
        """(number, score) of those from `start` on, before `end`."""
        return [*zip(self._numbers[start:end].tolist(), self._scores[start:end].tolist(), strict=True)]

    @overload
    def __getitem__(self, at: int) -> Ranked: ...
    @overload
    def __getitem__(self, at: slice) -> Order: ...
    def __getitem__(self, at: int | slice) -> Ranked | Order:
        if isinstance(at, slice):
            return Order(self._numbers[at], self._scores[at], self._signals[at], self._table)
        return Ranked(int(self._numbers[at]), float(self._scores[at]), self._signals[at], self._table)


def rank(
    view: View, question: str, asked: Asked, only: Filter, now: float, *, usual: float = 0.0, every: bool = False
) -> Order:
    """The pieces that have to do with the question, best first; none for a question that nothing fits. `usual`: the cosine
    of texts that have nothing to do with each other. `every`: leave nothing out."""
    weights = _weights(question, asked)
    table, limits, unknown = _tables(view, question, weights, every=every)
    found = signals(view, question, asked, only, now, table, limits)
    order = found.order
    if not every and len(order):
        fits = _fits(view, question, found, weights, usual, unknown) if found.fits is None else found.fits
        order = order[fits[order]]
    return Order(found.numbers[order], found.total[order], found.values[order], table)


def is_quick(view: View, question: str, asked: Asked) -> bool:
    """Whether all that takes long of `rank` is one comparison, as `Comparing` makes it; `asked` as it will be."""
    return (
        len(view.pieces) <= _LARGEST and compares(asked.pieces, view.late_width) and _weights(question, asked) is LATE
    )


class Comparing:
    """`rank` in two parts: a comparison is laid out, for somebody else to run, and what it has found is read. For questions that
    are quick; the vectors of `asked` need not be there yet."""

    def __init__(
        self, view: View, question: str, asked: Asked, only: Filter, now: float, *, every: bool = False
    ) -> None:
        self._table, limits, _ = _tables(view, question, LATE, every=every)
        self._every = every
        self.comparison = comparison(view, question, asked, only, now, self._table, limits)

    def order(self, compared: Compared) -> Order:
        """What `rank` gives."""
        found = told(compared, limited=not self._every)
        order = found.order if found.fits is None else found.order[found.fits[found.order]]
        return Order(found.numbers[order], found.total[order], found.values[order], self._table)


def _tables(
    view: View, question: str, weights: Mapping[str, float], *, every: bool
) -> tuple[NDArray[np.float32], Limits | None, float]:
    """(what each signal weighs, where compiled code may say what fits, how far names that nobody has heard of speak against it)"""
    unknown = 0.0 if every else UNKNOWN * _unknown_names(view, question)
    limits = Limits(_LIMITS, said_in(question), unknown) if weights is LATE and not every else None
    return _SHARES[id(weights)], limits, unknown


def usual_cosine(embedder: Embedder) -> float:
    """The mean cosine of texts that have nothing to do with each other: some models never go below 0.7."""
    rows = embedder.embed(_UNRELATED)
    cosines = rows @ rows.T
    return float(cosines[np.triu_indices(len(rows), 1)].mean())


def _weights(question: str, asked: Asked) -> Mapping[str, float]:
    if asked.pieces is not None and len(_TRAINED_ON.findall(question)) < 0.7 * len(question):
        return FOREIGN
    return PLAIN if asked.pieces is None else LATE


def _fits(
    view: View, question: str, found: Signals, weights: Mapping[str, float], usual: float, unknown: float
) -> Bools:
    """Which candidates may be returned: none when nothing fits well enough, else those not far behind the best."""
    total = found.total
    plain = found.covered >= COVERED  # fits by itself, however much better another one does
    if weights is LATE:
        cosine_of, met_of = (np.where(np.isnan(values), 0.0, values) for values in (found.cosine, found.met))
        other = view.said[found.numbers] != said_in(question)  # what was said before in the same words is no answer
        best = np.sort(cosine_of * other)[::-1]
        likely = BY_BEST * best[0] + BY_THREE * best[:3].mean() + BY_MET * (met_of * other).max() - USUALLY - unknown
        answerable = likely > ANSWERABLE
        placed = found.values[:, NAMES.index("window")]  # said beside what fits
        beside = (cosine_of >= NEAR) | (met_of >= MET) | (found.covered >= TOUCHED) | (placed >= PLACED)
        fits = beside & answerable
        plain |= (cosine_of >= PLAIN_COSINE) | (met_of >= PLAIN_MET)
    elif weights is FOREIGN:
        shared = _shared(question, [view.pieces[number].text for number in found.numbers])
        fits = np.full(len(total), shared.max() >= SHARED and unknown < UNKNOWN)
    else:
        near = (found.cosine - usual) / (1.0 - usual)
        fits = ((np.nan_to_num(near, nan=0.0) >= NEAR) | plain) & (unknown < UNKNOWN)
    exact = found.covered >= EXACT  # a rare word that stands there is enough, whatever the vectors say
    fits = fits | exact if not unknown else fits
    return np.asarray(fits & (plain | (total >= FLOOR * total.max())), bool)


def _shared(question: str, texts: Sequence[str]) -> Floats:
    """For each text the share of the question's characters that stand in it, by rarity, grammar left out. In a script with
    spaces: of its words."""
    bare = _CHINESE_GRAMMAR.sub(" ", question)
    units = {c for c in bare if c.isalpha() and not _TRAINED_ON.match(c)} if has_cjk(question) else set(terms(question))
    folded = [fold(text) for text in texts]
    held = np.array([[unit in text for unit in units] for text in folded], float).reshape(len(texts), len(units))
    count = max(len(texts), 200)  # few texts say nothing about what is rare
    often = held.sum(axis=0)
    rarity = np.log(1.0 + (count - often + 0.5) / (often + 0.5))
    return np.asarray(held @ rarity / max(float(rarity.sum()), 1e-9), float)


def _unknown_names(view: View, question: str) -> float:
    """The share of the names in the question that the cube has never heard of."""
    names = [terms(match.group()) for match in _NAME.finditer(question)]
    asked = [name for name in names if name and name[0] not in _CALENDAR]
    if not asked:
        return 0.0
    return sum(not any(map(view.bears, name)) for name in asked) / len(asked)
