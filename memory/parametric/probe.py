"""What the engine's model says, with an adapter or without: greedy answers, and the probability of given ones.

A context of its own in the process that trains; the same rendering, tokens and kernels as the engine's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memory.engine.llama import Context, Model
from memory.engine.lora import Adapter, take_off
from memory.engine.template import ChatTemplate

_ROOM = 1024  # tokens of one question with its answer


class Probe:
    """One model file. Close it when done."""

    def __init__(self, path: Path, threads: int) -> None:
        self.model = Model(path)
        self.template = ChatTemplate(
            self.model.template(),
            bos=self.model.text_of(self.model.bos),
            eos=self.model.text_of(self.model.eos),
            controls=self.model.control_texts(),
        )
        self._controls = [text for text in self.model.control_texts() if len(text) > 1]
        self._context = Context(self.model, sequences=1, per_sequence=_ROOM, batch=_ROOM, threads=threads)
        self._adapter: Adapter | None = None

    def close(self) -> None:
        """Free everything."""
        self.lay_over(None)
        self._context.close()
        self.model.close()

    def lay_over(self, path: Path | None, scale: float = 1.0) -> None:
        """Answer with the adapter of this file; None: with the model alone. Raises EngineError."""
        take_off(self._context)
        if self._adapter is not None:
            self._adapter.close()
            self._adapter = None
        if path is not None:
            self._adapter = Adapter(self.model, path)
            self._adapter.lay_over(self._context, scale)

    def readable(self, text: str) -> bool:
        """Whether the model has words for this text: it reads less than 1.5 tokens a character, and no turn marks."""
        return len(self.model.tokenize(text)) < 1.5 * len(text) and not any(mark in text for mark in self._controls)

    def prompt(self, question: str, system: str | None = None) -> list[int]:
        """The tokens before the answer, as a chat with this question begins."""
        said = [{"role": "user", "content": question}]
        if system is not None:
            said.insert(0, {"role": "system", "content": system})
        return self.model.tokenize(self.template.render(said))

    def reply(self, text: str) -> list[int]:
        """The tokens of an answer with its end."""
        tokens = self.model.tokenize(text)
        return [*(tokens[1:] if tokens[:1] == [self.model.bos] else tokens), self.model.eos]

    def greedy(self, prompt: Sequence[int], most: int) -> list[int]:
        """The likeliest answer, at most so many tokens, without its end."""
        self._context.keep(0, 0)
        todo, at, out = list(prompt), 0, list[int]()
        while len(out) < most:
            (row,) = self._context.decode([(0, at, todo)])
            at += len(todo)
            token = int(np.argmax(self._context.logits(row)))
            if self.model.is_end(token):
                break
            out.append(token)
            todo = [token]
        return out

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens of an answer as text."""
        return b"".join(self.model.piece(token) for token in tokens).decode("utf-8", "replace")

    def logits(self, prompt: Sequence[int], reply: Sequence[int]) -> NDArray[np.float32]:
        """What the model expects at each token of the reply, shape (len(reply), vocabulary)."""
        self._context.keep(0, 0)
        before = len(prompt)
        parts: list[tuple[int, int, Sequence[int]]] = [(0, 0, prompt)]
        parts += [(0, before + i, [token]) for i, token in enumerate(reply[:-1])]
        rows = self._context.decode(parts)
        return np.stack([self._context.logits(row) for row in rows])

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):
            self.close()


def log_probabilities(logits: NDArray[np.float32], tokens: Sequence[int]) -> NDArray[np.float32]:
    """The natural log-probability of each of the tokens, shape (len(tokens),)."""
    top = logits.max(axis=1, keepdims=True)
    total = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    found: NDArray[np.float32] = logits[np.arange(len(tokens)), list(tokens)] - total
    return found
