"""The two kinds of model that memory needs, as Protocols; who provides them is not known here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class ChatModelError(Exception):
    """The model could not be reached or refused; `retryable` says whether trying again later makes sense."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class ChatModel(Protocol):
    """A chat model that can be asked for JSON."""

    name: str

    async def complete(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answer one chat-completions body (without `model` and `stream`, which the implementation sets).

        Returns the chat-completions response object. Raises ChatModelError.
        """
        ...


class Embedder(Protocol):
    """Texts to unit vectors. Thread-safe; blocking (callers run it off the event loop)."""

    id: str  # changes whenever the same text could get another vector
    dimensions: int

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape (len(texts), dimensions), float32, each row of length 1 (an empty text may give zeros)."""
        ...

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Shape (dimensions,). Some models want questions marked differently from what is stored."""
        ...


class Reranker(Protocol):
    """Reads a question together with each text (a cross-encoder). Thread-safe; blocking."""

    id: str

    def score(self, question: str, texts: Sequence[str]) -> Sequence[float]:
        """For each text how well it answers the question; higher is better, on a scale of its own."""
        ...
