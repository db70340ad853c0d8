"""Texts to vectors by the model's own pooling, in a context apart from the chats'. Only models that name a pooling offer it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from memory.engine.errors import ContextTooLong, EngineError, InvalidChat
from memory.engine.llama import Model

LONGEST = 2048  # tokens of one text; its whole attention is computed at once
_POOLS = {1, 2, 3}  # mean, first token, last token


class Embedder:
    """Made with the model; its context is made when it is first asked. May be called from any thread, and answers one at a time."""

    def __init__(self, model: Model, threads: int) -> None:
        self._model = model
        self._threads = threads
        self._lock = threading.Lock()
        self._handle: Any = None
        self.offered = model.pooling in _POOLS
        self.longest = min(LONGEST, model.trained_context)

    def embed(self, texts: Sequence[str | list[int]]) -> tuple[list[NDArray[np.float32]], int]:
        """A vector of length 1 for each text (or list of tokens), and how many tokens were read. Raises InvalidChat
        (ContextTooLong), EngineError."""
        if not self.offered:
            raise InvalidChat(
                "this model offers no embeddings: its file names no pooling", code="embeddings_not_offered"
            )
        read = [self._tokens(text, f"input.[{at}]") for at, text in enumerate(texts)]
        with self._lock:
            return [self._embed(tokens) for tokens in read], sum(map(len, read))

    def close(self) -> None:
        """Free the context. Nothing may be asked after it."""
        with self._lock:
            self.offered = False
            if self._handle:
                lib.llama_free(self._handle)
                self._handle = None

    def _tokens(self, text: str | list[int], at: str) -> list[int]:
        tokens = self._model.tokenize(text) if isinstance(text, str) else text
        if not tokens or any(not 0 <= token < self._model.size for token in tokens):
            raise InvalidChat(f"{at} is empty, or has tokens that this model does not know", param=at)
        if len(tokens) > self.longest:
            raise ContextTooLong(f"{at} has {len(tokens)} tokens; this model reads at most {self.longest}", param=at)
        return tokens

    def _embed(self, tokens: list[int]) -> NDArray[np.float32]:
        handle = self._handle = self._handle or self._context()
        lib.llama_memory_clear(lib.llama_get_memory(handle), True)
        batch = lib.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for at, token in enumerate(tokens):
                batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.seq_id[at][0] = token, at, 1, 0
                batch.logits[at] = 1
            if code := lib.llama_decode(handle, batch):
                raise EngineError(f"llama_decode returned {code}")
        finally:
            lib.llama_batch_free(batch)
        width = lib.llama_model_n_embd(self._model.handle)
        vector: NDArray[np.float32] = np.array(np.ctypeslib.as_array(lib.llama_get_embeddings_seq(handle, 0), (width,)))
        return vector / np.float32(max(float(np.linalg.norm(vector)), 1e-12))

    def _context(self) -> Any:
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self.longest
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = self._threads
        params.embeddings, params.flash_attn_type, params.no_perf = True, 0, True
        handle = lib.llama_init_from_model(self._model.handle, params)
        if not handle:
            raise EngineError("llama.cpp could not make a context for embeddings: too little memory?")
        return handle
