"""The default embedder: unit vectors that stay the same whatever stands beside the text."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from memory import compiled, minilm
from memory.embed import (
    DEFAULT,
    CompiledEmbedder,
    OnnxEmbedder,
    SentenceTransformersEmbedder,
    default_folder,
    default_weights,
    export_default,
    make,
)
from memory.late import encode, encode_query
from memory.models import Embedder


@pytest.mark.parametrize("text", ["tea", "", " ", "我住在杭州", "🙂", "word " * 5000, "\x00", "a" * 10_000])
def test_every_text_has_a_finite_vector(embedder: Embedder, text: str) -> None:
    (row,) = embedder.embed([text])
    assert row.shape == (embedder.dimensions,)
    assert np.linalg.norm(row) == pytest.approx(1.0, abs=1e-3)


def test_no_texts_have_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 384)


def test_rows_come_in_the_order_of_the_texts(embedder: Embedder) -> None:
    texts = [f"{'long ' * (40 - n)}text {n}" for n in range(40)]
    together = embedder.embed(texts)
    for n in (0, 17, 39):
        alike = together @ embedder.embed_query(texts[n])
        assert int(np.argmax(alike)) == n
        assert alike[n] > 0.98  # int8: the neighbours in a batch move a vector a little


def test_meaning_is_near_and_other_things_are_far(embedder: Embedder) -> None:
    dog, puppy, tax = embedder.embed(["My dog is seven.", "How old is my dog?", "The tax form is due in April."])
    assert dog @ puppy > 0.5 > 0.2 > dog @ tax


def test_threads_may_share_it(embedder: Embedder) -> None:
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(embedder.embed_query, ["tea"] * 16))
    assert all(np.array_equal(row, rows[0]) for row in rows)


def test_the_export_is_made_once(models_dir: Path) -> None:
    before = (default_folder(models_dir) / "model.onnx").stat()
    assert export_default(models_dir) == default_folder(models_dir)
    assert (default_folder(models_dir) / "model.onnx").stat().st_mtime_ns == before.st_mtime_ns
    assert make(DEFAULT, models_dir).id == make(DEFAULT, models_dir).id


def test_it_is_the_model_that_sentence_transformers_runs(embedder: Embedder) -> None:
    texts = ["My dog is seven.", "Könnten wir das verschieben?", "昨天我去了上海", "word " * 400, "yes", "3.14 or 42?"]
    theirs = SentenceTransformersEmbedder(str(default_weights())).embed(texts)
    ours = np.stack([embedder.embed_query(text) for text in texts])
    assert np.einsum("ij,ij->i", ours, theirs).min() > 0.97  # of int8; 0.994 on average


def test_what_is_beside_it_in_a_batch_is_not_read(embedder: Embedder) -> None:
    long = "The river runs past the old mill and under three bridges before it meets the sea. " * 3
    together = embedder.embed(["tea", long, "My dog is seven."])
    assert together[0] @ embedder.embed_query("tea") > 0.97
    assert together[2] @ embedder.embed_query("My dog is seven.") > 0.97


def test_a_question_has_its_words_where_they_stand(embedder: Embedder) -> None:
    asked = encode_query(embedder, "Where is my dog?")
    assert asked.spans is not None
    assert asked.pieces is not None
    assert ["Where is my dog?"[a:b] for a, b in asked.spans] == ["Where", "is", "my", "dog", "?"]
    assert asked.pieces.shape == (5, 96)


TALK = [
    "My dog is seven.", "Könnten wir das verschieben?", "昨天我去了上海", "word " * 400, "yes", "", "\x00",
    *("The river runs past the old mill and under three bridges. " * n for n in range(1, 12)),
]  # fmt: skip


def ours(models_dir: Path, *, tiles: bool) -> CompiledEmbedder:
    folder = export_default(models_dir)
    found = minilm.read_rounded(folder / "rounded.safetensors", tiles=tiles)
    if found is None:
        pytest.skip("no compiler was there, or this processor has no products of bytes")
    return CompiledEmbedder(folder, found)


@pytest.mark.parametrize("tiles", [True, False])
def test_our_own_pass_is_nearer_to_the_model_than_onnxruntimes(models_dir: Path, tiles: bool) -> None:
    mine, onnx = ours(models_dir, tiles=tiles), OnnxEmbedder(default_folder(models_dir))
    exact = SentenceTransformersEmbedder(str(default_weights())).embed(TALK)
    near, usual = (
        np.einsum("ij,ij->i", np.stack([one.embed_query(text) for text in TALK]), exact) for one in (mine, onnx)
    )
    assert near.min() > 0.985
    assert near.mean() > usual.mean()


@pytest.mark.parametrize("tiles", [True, False])
def test_in_our_own_pass_nothing_depends_on_what_is_beside_it(models_dir: Path, tiles: bool) -> None:
    mine = ours(models_dir, tiles=tiles)
    together = encode(mine, TALK)
    for n, text in enumerate(TALK):
        alone = encode(mine, [text])
        assert np.array_equal(together.vectors[n], alone.vectors[0])
        assert np.array_equal(together.pieces[n], alone.pieces[0])


def test_with_and_without_matrices_of_bytes_it_is_the_same(models_dir: Path) -> None:
    if not (with_tiles := ours(models_dir, tiles=True)).ours.tiles:
        pytest.skip("this processor has no AMX")
    one, other = encode(with_tiles, TALK), encode(ours(models_dir, tiles=False), TALK)
    assert np.array_equal(one.vectors, other.vectors)
    assert all(np.array_equal(a, b) for a, b in zip(one.pieces, other.pieces, strict=True))


def test_onnxruntime_serves_where_our_own_pass_cannot_run(
    models_dir: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_library", None)
    other = make(DEFAULT, models_dir)
    assert isinstance(other, OnnxEmbedder)
    assert other.id == embedder.id  # their vectors stand side by side
    text = "My dog is seven."
    assert other.embed_query(text) @ embedder.embed_query(text) > 0.98
    asked, pieces = encode_query(other, text), encode_query(embedder, text)
    assert asked.spans == pieces.spans
    assert asked.pieces is not None
    assert pieces.pieces is not None
    assert np.einsum("ij,ij->i", asked.pieces, pieces.pieces).min() > 0.9


def test_an_export_of_an_earlier_release_is_made_whole(models_dir: Path, tmp_path: Path) -> None:
    old = default_folder(tmp_path)
    old.mkdir()
    for name in ("model.onnx", "tokenizer.json"):
        (old / name).symlink_to((default_folder(models_dir) / name).resolve())
    export_default(tmp_path)
    rounded = default_folder(models_dir) / "rounded.safetensors"
    assert (old / "rounded.safetensors").read_bytes() == rounded.read_bytes()
    assert {path.name for path in old.iterdir()} == {"model.onnx", "tokenizer.json", "rounded.safetensors"}


def test_threads_run_our_own_pass_at_a_time(models_dir: Path) -> None:
    mine = ours(models_dir, tiles=True)
    expected = [mine.embed([text])[0] for text in TALK]
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda n: mine.embed([TALK[n % len(TALK)]])[0], range(10 * len(TALK))))
    assert all(np.array_equal(row, expected[n % len(TALK)]) for n, row in enumerate(rows))
