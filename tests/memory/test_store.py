"""The door to LanceDB: a table per cube and generation, found by meaning and by words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memory.store import IndexBroken, Piece, Store
from tests.memory.make import CUBE, NOW

X, Y = np.array([1, 0, 0], np.float32), np.array([0, 1, 0], np.float32)


def piece(number: int, text: str, vector: np.ndarray = X) -> Piece:
    return Piece(f"m{number}:u0", f"m{number}", "user", "s1", "fact", text, NOW, vector=vector)


async def found(store: Store, words: str = "", vector: np.ndarray | None = None, limit: int = 10) -> list[str]:
    hits = await store.search(CUBE, 1, vector=vector, words=words, limit=limit)
    return sorted(hit.piece.memory for hit in hits)


async def test_by_meaning_and_by_words(store: Store) -> None:
    await store.build(CUBE, 1, [piece(1, "tea"), piece(2, "coffee", Y)], 3)
    hits = {hit.piece.memory: hit for hit in await store.search(CUBE, 1, vector=X, words="coffee", limit=1)}
    assert hits["m1"].cosine == pytest.approx(1.0)
    assert hits["m1"].words is None
    assert hits["m2"].cosine == pytest.approx(0.0)
    assert (hits["m2"].words or 0) > 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [("walking", ["m1"]), ("杭州", ["m2"]), ("CAFE", ["m3"]), ("dog", ["m1"]), ("the", []), ("'\"*:(-", []), ("", [])],
)
async def test_words(store: Store, words: str, expected: list[str]) -> None:
    texts = ["I walk the dog", "我住在杭州", "the café"]
    await store.build(CUBE, 1, [piece(n, text) for n, text in enumerate(texts, 1)], 3)
    assert await found(store, words) == expected


async def test_added_rows_are_found_at_once(store: Store) -> None:
    await store.build(CUBE, 1, [], 3)
    await store.put(CUBE, 1, [], [piece(1, "zanzibar")])
    assert await found(store, "zanzibar") == ["m1"]
    assert await found(store, vector=X) == ["m1"]


async def test_another_process_sees_what_was_written(store: Store) -> None:
    await store.build(CUBE, 1, [piece(1, "tea")], 3)
    other = Store(store.root)
    assert await found(other, "tea") == ["m1"]
    await store.put(CUBE, 1, ["m1"], [piece(2, "tea")])
    assert await found(other, "tea") == ["m2"]


async def test_ids_of_any_shape_are_taken_out(store: Store) -> None:
    odd = [Piece(f"{m}:u0", m, "user", "", "fact", "tea", NOW, vector=X) for m in ("a'b", 'a"b', "a\\b", "a%")]
    await store.build(CUBE, 1, odd, 3)
    await store.put(CUBE, 1, [p.memory for p in odd[:3]], [])
    assert await found(store, "tea") == ["a%"]


async def test_a_missing_table_is_named_without_its_path(store: Store) -> None:
    with pytest.raises(IndexBroken) as caught:
        await found(store, "tea")
    assert str(caught.value) == "cannot open: not found"


async def test_dropping_keeps_the_current_generation_and_other_cubes(store: Store, data: Path) -> None:
    for cube, generation in ((CUBE, 1), (CUBE, 2), ("c11", 1)):
        await store.build(cube, generation, [piece(1, "tea")], 3)
    assert await store.drop(CUBE, keep=2) == 1
    assert sorted(f.name for f in (data / "lance").glob("*/*.lance")) == ["c11_g1.lance", "c1_g2.lance"]


async def test_a_generation_can_be_dropped_while_another_process_reads_it(store: Store) -> None:
    await store.build(CUBE, 1, [piece(1, "tea")], 3)
    other = Store(store.root)
    await found(other, "tea")
    await store.drop(CUBE, keep=None)
    with pytest.raises(IndexBroken):
        await found(other, "tea", X)


def test_a_piece_changes_its_digest_with_anything_that_counts() -> None:
    one = piece(1, "tea")
    others = [piece(2, "tea"), piece(1, "Tea"), piece(1, "tea", Y)]
    assert len({p.digest() for p in (one, *others)}) == 4
    assert one.digest() == piece(1, "tea").digest()
