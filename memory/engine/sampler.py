"""From logits to the next token. Pure numpy; the same seed and logits always choose the same tokens.

Temperature 0 is greedy. Order: biases and penalties, grammar, temperature, top-k, top-p, min-p (the last two as in
"The Curious Case of Neural Text Degeneration", arXiv 1904.09751, and arXiv 2407.01082). Penalties follow OpenAI's formula
over the answer's own tokens: logit − count · frequency − (count > 0) · presence.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memory.engine.errors import EngineError

Logits = NDArray[np.float32]
SHORTLIST = 1024  # a full sort of a large vocabulary costs milliseconds; the nucleus is nearly always within these


class Grammar(Protocol):
    """What may come next."""

    def allows(self, token: int) -> bool: ...
    def mask(self, logits: Logits) -> Logits: ...
    def accept(self, token: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose. The defaults are OpenAI's."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    min_p: float = 0.0
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None  # None: no logprobs wanted


@dataclass(frozen=True, slots=True)
class Choice:
    """A token; with logprobs wanted also its log-probability and the likeliest (token, log-probability) pairs."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses one answer's tokens, one after the other."""

    def __init__(self, how: Sampling, grammar: Grammar | None = None) -> None:
        self._how = how
        self._grammar = grammar
        self._random = np.random.Generator(np.random.PCG64(how.seed))
        self._counts: Counter[int] = Counter()

    def choose(self, logits: Logits) -> Choice:
        """The next token after `logits`, shape (vocabulary,), which are not changed."""
        adjusted = self._adjust(logits)
        token = self._pick(adjusted)
        if self._grammar is not None:
            # one candidate is cheap to check; the whole vocabulary only when the model wants out of the grammar
            if not self._grammar.allows(token):
                masked = self._grammar.mask(adjusted)
                if not np.isfinite(masked.max()):
                    raise EngineError("the grammar leaves no token to choose")
                token = self._pick(masked)
            self._grammar.accept(token)
        self._counts[token] += 1
        return self._with_logprobs(token, logits)

    def _adjust(self, logits: Logits) -> Logits:
        how = self._how
        penalised = bool(self._counts) and bool(how.frequency_penalty or how.presence_penalty)
        if not (how.logit_bias or penalised):
            return logits
        out = logits.copy()
        if how.logit_bias:
            out[list(how.logit_bias)] += np.fromiter(how.logit_bias.values(), np.float32)
        if penalised:
            counts = np.fromiter(self._counts.values(), np.float32)
            out[list(self._counts)] -= counts * how.frequency_penalty + how.presence_penalty
        return out

    def _pick(self, logits: Logits) -> int:
        how = self._how
        if how.temperature <= 0:
            return int(logits.argmax())
        ids, scaled = self._candidates(logits / np.float32(how.temperature))
        weights = np.exp(scaled - scaled.max(), dtype=np.float64)
        if how.min_p > 0:
            weights[weights < how.min_p] = 0.0  # the likeliest has weight 1
        total = weights.cumsum()
        at = int(np.searchsorted(total, self._random.random() * total[-1], side="right"))
        at = min(at, len(weights) - 1)
        return int(ids[at]) if ids is not None else at

    def _candidates(self, scaled: Logits) -> tuple[NDArray[np.int64] | None, Logits]:
        """What top-k and top-p leave, likeliest first; ids None means the whole vocabulary in its own order."""
        how, size = self._how, scaled.size
        limit = how.top_k if 0 < how.top_k < size else size
        if how.top_p >= 1:
            if limit == size:
                return None, scaled
            ids = _largest(scaled, limit)
            return ids, scaled[ids]
        mass = np.exp(scaled - scaled.max(), dtype=np.float64)
        ids = _largest(scaled, min(limit, SHORTLIST) if limit == size else limit)
        wanted = how.top_p * float(mass.sum() if limit == size else mass[ids].sum())
        inside = np.cumsum(mass[ids])
        if inside[-1] < wanted and len(ids) < limit:
            ids = _largest(scaled, limit)
            inside = np.cumsum(mass[ids])
        ids = ids[: int(np.searchsorted(inside, wanted)) + 1]
        return ids, scaled[ids]

    def _with_logprobs(self, token: int, logits: Logits) -> Choice:
        wanted = self._how.top_logprobs
        if wanted is None:
            return Choice(token)
        peak = float(logits.max())
        norm = peak + float(np.log(np.exp(logits - peak, dtype=np.float64).sum()))
        top = tuple((int(t), float(logits[t]) - norm) for t in _largest(logits, wanted)) if wanted else ()
        return Choice(token, float(logits[token]) - norm, top)


def _largest(values: Logits, count: int) -> NDArray[np.int64]:
    """The indices of the `count` largest values, largest first."""
    if count >= values.size:
        return np.argsort(-values, kind="stable")
    part = np.argpartition(values, values.size - count)[values.size - count :]
    return part[np.argsort(-values[part], kind="stable")]
