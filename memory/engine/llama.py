"""llama.cpp as a few plain objects: a Model (weights, vocabulary), a Context (KV states, decoding), a Grammar.

Tokens are ints, logits a float32 array that is valid until the next decode. A Context belongs to one thread; a Model's
vocabulary may be read from any. Raises NoModel when weights cannot be loaded, EngineError when decoding fails.
"""

from __future__ import annotations

import ctypes
import json
import logging
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as lib
from llama_cpp import llama_grammar
from numpy.typing import NDArray

from memory.engine.errors import EngineError, InvalidChat, NoModel

log = logging.getLogger(__name__)

Logits = NDArray[np.float32]
Payload = NDArray[np.uint8]
WARNING, ERROR = 3, 4  # ggml_log_level
KV_TYPES = {"f16": 1, "q8_0": 8}  # ggml_type


def _forward(level: int, text: bytes, _: Any) -> None:
    if level == ERROR:
        log.error("llama.cpp: %s", text.decode("utf-8", "replace").strip())
    elif level == WARNING:
        log.debug("llama.cpp: %s", text.decode("utf-8", "replace").strip())


_LOG = lib.llama_log_callback(_forward)  # llama.cpp keeps only the address: this must live as long as the process


class Model:
    """Weights and vocabulary of one GGUF file."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise NoModel(f"no such model file: {path}")
        lib.llama_log_set(_LOG, None)
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        if b"AMX_INT8 = 1" in lib.llama_print_system_info():
            params.use_extra_bufts = False  # built with GCC 12, llama.cpp's AMX products end the process (docs/LOG.md)
        self.handle = lib.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise NoModel(f"llama.cpp cannot load {path}")
        self.vocab = lib.llama_model_get_vocab(self.handle)
        self.size: int = lib.llama_vocab_n_tokens(self.vocab)
        self.trained_context: int = lib.llama_model_n_ctx_train(self.handle)
        self.pooling = self._number(f"{self._meta('general.architecture')}.pooling_type")  # None: it names none
        # of some architectures' states nothing can be cut off; theirs are used as a whole or not at all
        self.can_cut = not (lib.llama_model_is_recurrent(self.handle) or lib.llama_model_is_hybrid(self.handle))
        self.bos, self.eos = lib.llama_vocab_bos(self.vocab), lib.llama_vocab_eos(self.vocab)
        self._ends = frozenset(t for t in range(self.size) if lib.llama_vocab_is_eog(self.vocab, t))
        self._pieces: dict[int, bytes] = {}

    def close(self) -> None:
        """Free the weights. Nothing may be called after it."""
        lib.llama_model_free(self.handle)

    def _meta(self, key: str) -> str:
        out = ctypes.create_string_buffer(256)
        lib.llama_model_meta_val_str(self.handle, key.encode(), out, len(out))
        return out.value.decode("utf-8", "replace")

    def _number(self, key: str) -> int | None:
        return int(text) if (text := self._meta(key)).isdecimal() else None

    def template(self) -> str | None:
        """The chat template that the file carries."""
        text = lib.llama_model_chat_template(self.handle, None)
        return text.decode("utf-8") if text else None

    def control_texts(self) -> list[str]:
        """The texts of the tokens that steer the model (turn marks, end marks), longest first."""
        ids = (t for t in range(self.size) if lib.llama_vocab_is_control(self.vocab, t))
        return sorted({self.text_of(t) for t in ids} - {""}, key=lambda text: (-len(text), text))

    def text_of(self, token: int) -> str:
        """A token as text, special ones included; "" when there is no such token."""
        return self._piece(token, special=True).decode("utf-8", "replace") if 0 <= token < self.size else ""

    def is_end(self, token: int) -> bool:
        """Does this token end the answer?"""
        return token in self._ends

    def tokenize(self, text: str) -> list[int]:
        """A rendered prompt as tokens; special tokens' texts become those tokens. Adds the model's BOS if it is missing."""
        raw = text.encode("utf-8", "replace")
        bos = self.text_of(self.bos)
        add = bool(lib.llama_vocab_get_add_bos(self.vocab)) and not (bos and text.startswith(bos))
        room = len(raw) + 8
        out = (lib.llama_token * room)()
        count = lib.llama_tokenize(self.vocab, raw, len(raw), out, room, add, True)
        if count < 0:
            raise EngineError("llama.cpp could not tokenize the prompt")
        return list(out[:count])

    def piece(self, token: int) -> bytes:
        """The bytes that a token adds to the answer: nothing for control tokens; may end within a character."""
        if token not in self._pieces:
            self._pieces[token] = self._piece(token, special=False)
        return self._pieces[token]

    def _piece(self, token: int, *, special: bool) -> bytes:
        room = 64
        while True:
            out = ctypes.create_string_buffer(room)
            count = lib.llama_token_to_piece(self.vocab, token, out, room, 0, special)
            if count >= 0:
                return bytes(out.raw[:count])
            room = -count


class Context:
    """KV states of `sequences` chats, `per_sequence` tokens each, and the decoding of mixed batches over them."""

    def __init__(
        self,
        model: Model,
        *,
        sequences: int,
        per_sequence: int,
        batch: int,
        threads: int,
        kv_type: str = "f16",
        flash_attention: bool = False,
    ) -> None:
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_seq_max = sequences * per_sequence, sequences
        params.n_batch = params.n_ubatch = batch
        params.n_threads = params.n_threads_batch = threads
        # f16 without flash attention: the only settings measured where a reused, a cold and a batched answer are the same bit
        # for bit; llama.cpp has quantised values with flash attention only
        params.kv_unified, params.flash_attn_type = False, int(flash_attention or kv_type != "f16")
        params.type_k = params.type_v = KV_TYPES[kv_type]
        params.swa_full = True  # with a small sliding-window cache a rolled-back state silently lacks cells
        params.no_perf = True
        self.handle = lib.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise NoModel("llama.cpp could not make a context: too little memory?")
        self.per_sequence: int = lib.llama_n_ctx_seq(self.handle)
        self.compat = _compat(params)
        self._vocab_size = model.size
        self.can_cut = model.can_cut
        self._memory = lib.llama_get_memory(self.handle)
        if not self._memory:
            raise NoModel("this model cannot answer: it has no KV cache")
        self._batch = lib.llama_batch_init(batch, 0, 1)
        self._token = np.ctypeslib.as_array(self._batch.token, (batch,))
        self._pos = np.ctypeslib.as_array(self._batch.pos, (batch,))
        self._wanted = np.ctypeslib.as_array(self._batch.logits, (batch,))
        np.ctypeslib.as_array(self._batch.n_seq_id, (batch,))[:] = 1

    def close(self) -> None:
        """Free the KV states. Nothing may be called after it."""
        lib.llama_batch_free(self._batch)
        lib.llama_free(self.handle)

    def decode(self, parts: Sequence[tuple[int, int, Sequence[int]]]) -> list[int]:
        """Run one batch of (sequence, first position, tokens) parts.

        Returns for each part the row where `logits` finds what follows its last token. Raises EngineError; the parts'
        sequences are then in an unknown state.
        """
        rows, n = [], 0
        for sequence, position, tokens in parts:
            end = n + len(tokens)
            self._token[n:end] = tokens
            self._pos[n:end] = range(position, position + len(tokens))
            self._wanted[n:end] = 0
            self._wanted[end - 1] = 1
            for i in range(n, end):
                self._batch.seq_id[i][0] = sequence
            rows.append(end - 1)
            n = end
        self._batch.n_tokens = n
        if code := lib.llama_decode(self.handle, self._batch):
            raise EngineError(f"llama_decode returned {code}")
        return rows

    def logits(self, row: int) -> Logits:
        """What llama.cpp computed at `row` of the last batch, shape (vocabulary,). Not a copy: do not write to it."""
        return np.ctypeslib.as_array(lib.llama_get_logits_ith(self.handle, row), (self._vocab_size,))

    def keep(self, sequence: int, tokens: int) -> bool:
        """Forget all but the first `tokens` of a sequence; False (and an empty sequence) if the model cannot go back."""
        if lib.llama_memory_seq_rm(self._memory, sequence, tokens, -1):
            return True
        lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return False

    def copy(self, source: int, target: int) -> None:
        """Make `target` hold what `source` holds."""
        lib.llama_memory_seq_rm(self._memory, target, -1, -1)
        lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def state(self, sequence: int) -> Payload:
        """All cells of a sequence as bytes. Raises EngineError."""
        size = lib.llama_state_seq_get_size(self.handle, sequence)
        out: Payload = np.empty(size, np.uint8)
        if lib.llama_state_seq_get_data(self.handle, _bytes(out), size, sequence) != size:
            raise EngineError("llama.cpp did not give the state of a sequence")
        return out

    def restore(self, sequence: int, payload: Payload, tokens: int) -> bool:
        """Make a sequence hold the `tokens` cells that `state` gave; False (and an empty sequence) if they are not taken.

        llama.cpp checks almost nothing of them: give it only what was checked before.
        """
        lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        read = lib.llama_state_seq_set_data(self.handle, _bytes(payload), len(payload), sequence)
        last = lib.llama_memory_seq_pos_max(self._memory, sequence)
        if read == len(payload) and last == tokens - 1:
            return True
        lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return False


def _bytes(array: Payload) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def _compat(params: Any) -> dict[str, Any]:
    """The settings without which a state means something else, or nothing; also the machine's, whose kernels round as they do."""
    return {
        "llama": f"{llama_cpp.__version__} {lib.llama_version().decode()} {lib.llama_print_system_info().decode().strip()}",
        "sequences": params.n_seq_max,
        "unified": bool(params.kv_unified),
        "kv": [params.type_k, params.type_v],
        "flash_attention": params.flash_attn_type,
        "rope": [params.rope_scaling_type, params.rope_freq_base, params.rope_freq_scale],
        "yarn": [
            getattr(params, f"yarn_{name}")
            for name in ("ext_factor", "attn_factor", "beta_fast", "beta_slow", "orig_ctx")
        ],
        "swa_full": bool(params.swa_full),
    }


class Grammar:
    """JSON of one schema ({} for any object): walks along one answer and says which tokens may come next.

    Raises InvalidChat when there is no grammar for the schema.
    """

    def __init__(self, model: Model, schema: Mapping[str, Any]) -> None:
        try:
            text = llama_grammar.json_schema_to_gbnf(json.dumps(schema)) if schema else llama_grammar.JSON_GBNF
        except Exception as error:  # the converter raises whatever comes: KeyError, AssertionError, RecursionError
            raise InvalidChat(f"the schema cannot be used: {error!r}", param="response_format") from error
        self._handle = lib.llama_sampler_init_grammar(model.vocab, text.encode(), b"root")
        if not self._handle:
            raise InvalidChat("the schema cannot be turned into a grammar", param="response_format")
        self._size = model.size
        weakref.finalize(self, lib.llama_sampler_free, self._handle)

    def allows(self, token: int) -> bool:
        """May `token` come next?"""
        return bool(np.isfinite(self._apply(np.array([token], np.int32), np.zeros(1, np.float32)))[0])

    def mask(self, logits: Logits) -> Logits:
        """A copy of `logits` with -inf for all that may not come next."""
        return self._apply(np.arange(self._size, dtype=np.int32), logits)

    def accept(self, token: int) -> None:
        """Go on by one token, which must be allowed: llama.cpp ends the process otherwise."""
        lib.llama_sampler_accept(self._handle, token)

    def _apply(self, ids: NDArray[np.int32], logits: Logits) -> Logits:
        data = np.zeros(len(ids), dtype=[("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        data["id"], data["logit"] = ids, logits
        array = lib.llama_token_data_array(
            data=data.ctypes.data_as(lib.llama_token_data_p), size=len(ids), selected=-1, sorted=False
        )
        lib.llama_sampler_apply(self._handle, ctypes.byref(array))
        return np.ascontiguousarray(data["logit"])
