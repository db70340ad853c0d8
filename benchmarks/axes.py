"""Make memory/minilm_axes.npy: the main axes of the default model's word-piece vectors, from its own vocabulary.

No text of anybody is used: words of the vocabulary, alone and in random rows of twelve. Run once per model:
`python -m benchmarks.axes`. The file must not change afterwards without a new `EXPORT` in memory/embed.py, because
stored pieces are only comparable with the axes they were made with.
"""

from __future__ import annotations

import random
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from memory import minilm
from memory.embed import AXES, DEFAULT, OnnxEmbedder, default_weights

LATE = 96


def main() -> None:
    """Write the file."""
    with TemporaryDirectory() as made:
        folder = Path(made)
        minilm.write(default_weights(), np.eye(minilm.WIDTH, dtype=np.float32), folder / "model.onnx")
        (folder / "tokenizer.json").write_bytes((default_weights() / "tokenizer.json").read_bytes())
        embedder = OnnxEmbedder(folder)
    embedder._tokenizer.enable_padding()
    words = sorted(w for w in embedder._tokenizer.get_vocab() if w.isalpha() and len(w) > 2)
    dice = random.Random(0)
    texts = words[::3] + [" ".join(dice.sample(words, 12)) for _ in range(1500)]
    covariance = np.zeros((384, 384))
    for start in range(0, len(texts), 16):
        encoded = embedder._tokenizer.encode_batch(texts[start : start + 16])
        feed = {
            "input_ids": np.array([e.ids for e in encoded], np.int64),
            "attention_mask": np.array([e.attention_mask for e in encoded], np.int64),
        }
        (pieces,) = embedder._session.run(["pieces"], feed)
        for row, one in zip(pieces, encoded, strict=True):
            kept = row[[i for i, (a, b) in enumerate(one.offsets) if b > a]].astype(np.float64)
            covariance += kept.T @ kept
    values, axes = np.linalg.eigh(covariance)
    np.save(AXES, axes[:, ::-1][:, :LATE].astype(np.float16))
    print(f"{DEFAULT}: {LATE} axes hold {values[::-1][:LATE].sum() / values.sum():.0%} of the variance")


if __name__ == "__main__":
    main()
