"""A view that has changed often is the view that it would be, made anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from memory.store import Piece
from memory.view import MERGE, View
from tests.memory.make import NOW
from tests.memory.test_rank import piece

WORDS = "tea soup boat dog Oslo garden violin snow Anna yesterday".split()


def some(dice: np.random.Generator, memory: int, *, bare: bool) -> list[Piece]:
    """Both sides of a turn, or a fact."""
    session, kind = str(dice.choice(["", "s1", "s2", "s3"])), str(dice.choice(["episode"] * 4 + ["fact"]))
    out = []
    for place, side in enumerate(("user", "assistant") if kind == "episode" else ("user",)):
        made = piece(
            memory * 2 + place,
            " ".join(dice.choice(WORDS, 4)),
            side=side,
            memory=f"m{memory}",
            session=session,
            kind=kind,
            time=NOW - float(dice.integers(0, 1000)),
        )
        vector = None if bare else dice.normal(size=8).astype(np.float32)
        out.append(replace(made, vector=vector, late=None if bare else dice.integers(-9, 9, (3, 16)).astype(np.int8)))
    return out


@pytest.mark.parametrize("merge", [MERGE, 40])
@pytest.mark.parametrize("seed", range(3))
def test_changed_again_and_again(seed: int, merge: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.view.MERGE", merge)
    dice = np.random.default_rng(seed)
    now = {memory: some(dice, memory, bare=False) for memory in range(30)}
    view = View.of([one for pieces in now.values() for one in pieces], 8)
    for step in range(120):
        touched = {int(n) for n in dice.integers(0, 60, int(dice.integers(1, 12 if step % 10 else 30)))}
        for memory in touched:
            now[memory] = some(dice, memory, bare=bool(dice.random() < 0.3)) if dice.random() < 0.8 else []
        new = [one for memory in touched for one in now[memory]]
        view = view.changed({f"m{memory}" for memory in touched}, new, 8)
        assert [chain.tolist() for chain in (view.before, view.after)] == [chain.tolist() for chain in view._chains()]
    told = {one.id: one for one in view.living()}
    assert told.keys() == {one.id for pieces in now.values() for one in pieces}
    anew = View.of(list(told.values()), 8)
    for number in np.flatnonzero(view.alive).tolist():
        one, there = view.pieces[number].id, [one.id for one in anew.pieces].index(view.pieces[number].id)
        for name in ("said", "lengths", "log_lengths", "times", "at", "known", "active", "user_side", "episodes"):
            assert getattr(view, name)[number] == getattr(anew, name)[there], (one, name)
        assert view.shape[number].tolist() == anew.shape[there].tolist()
    for word in (*WORDS, "nobody"):
        stemmed = word.lower()
        assert view.bears(stemmed) == bool(len(view.postings(stemmed)[0])) == anew.bears(stemmed)
