"""How an adapter is trained, and the texts that training goes through. Values only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train. `last_layers`: only so many of the uppermost layers are changed; 0: all of them."""

    rank: int = 16
    alpha: float = 32.0
    rate: float = 1e-3
    epochs: int = 10
    batch: int = 6
    enough: float = 0.03  # mean loss of an answer's token at which it is known
    neutral: int = 24  # neutral questions
    keep: float = 1.0  # weight of the divergence on them
    last_layers: int = 10
    threads: int = 1
    seed: int = 7


@dataclass(frozen=True, slots=True)
class Text:
    """Tokens of a prompt and of its answer."""

    prompt: tuple[int, ...]
    reply: tuple[int, ...]
