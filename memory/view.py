"""A cube in working memory: its pieces as arrays, so that a question is compared with all of them exactly.

A view never changes; a write makes another one that shares the large blocks and carries what is new in small ones. Knows
neither SQL nor LanceDB: whoever has pieces, from wherever, can make a view of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory.blocks import Block, Bools, Codes, Floats, Ints, Label, side_by_side
from memory.compiled import Layout
from memory.late import best_matches
from memory.store import Filter, Piece
from memory.words import fold

Chains = tuple[Ints, Ints]  # by memory: which stands before it, and which after
_ARRAYS = ("ints", "floats", "bools")
_FEW = 8  # memories, or sessions, that are looked for one by one
MERGE = 512  # pieces beside the first block beyond which all become one


class View:
    """What is known of a cube at one revision. Piece i of block b has the number bounds[b] + i."""

    def __init__(self, blocks: Sequence[Block], alive: Bools, codes: Codes, *, chains: Chains | None = None) -> None:
        """`chains`: what `_chains` would find, for who knows."""
        self.blocks = tuple(blocks)
        self.bounds: Ints = np.cumsum([0, *(len(block) for block in blocks)], dtype=np.int64)
        self.alive = alive
        self.codes = codes
        ints, floats, bools = (side_by_side([getattr(block, kind) for block in blocks]) for kind in _ARRAYS)
        self._ints, self._floats, self._bools = ints, floats, bools
        self.sessions, self.memories, self.speakers, self.said, _, _, self._late_lengths = ints
        self.lengths, self.log_lengths, self.times, self.at, self.valid_from, self.valid_to = floats
        self.known, self.active, self.user_side, self.episodes = bools
        self.shape = np.concatenate([block.shape for block in blocks])
        # of the word pieces; 0: there are none, or those of several embedders
        widths = {block.late.shape[1] for block in blocks if len(block.late)}
        self.late_width = widths.pop() if len(widths) == 1 else 0
        self.pieces = [*itertools.chain.from_iterable(block.pieces for block in blocks)]
        self.size = sum(block.size for block in blocks)
        self.before, self.after = self._chains() if chains is None else chains

    @staticmethod
    def of(pieces: Sequence[Piece], dimensions: int) -> View:
        """A view of these pieces."""
        codes = Codes()
        return View([Block.of(pieces, codes, dimensions)], np.ones(len(pieces), bool), codes)

    def changed(self, gone: Collection[str], new: Sequence[Piece], dimensions: int) -> View:
        """Another view without the pieces of the memories `gone` and with the `new` ones; all pieces of a memory are of one
        session."""
        alive = self.alive.copy()
        numbers = [self.codes.memories[memory] for memory in gone if memory in self.codes.memories]
        for number in numbers if len(numbers) <= _FEW else ():
            alive[self.memories == number] = False
        if len(numbers) > _FEW:
            alive &= ~np.isin(self.memories, numbers)
        count = len(new)
        fresh = Block.of(new, self.codes, dimensions)
        if self._merges(alive, count):
            codes, whole = self.codes.only(self._from(0, alive, fresh))
            return View([whole], np.ones(len(whole), bool), codes)
        # blocks that are not much larger than what comes are taken into it, so a piece moves seldom and blocks stay few
        last = len(self.blocks)
        while last > 1 and (here := int(alive[self.bounds[last - 1] : self.bounds[last]].sum())) <= 2 * count:
            last, count = last - 1, count + here
        small = self._from(last, alive, fresh)
        living = np.concatenate((alive[: self.bounds[last]], np.ones(len(small), bool)))
        touched = {*self.sessions[self.alive & ~alive].tolist(), *fresh.ints[0].tolist()}
        chains = self._without(touched) if len(touched) <= _FEW else None
        view = View([*self.blocks[:last], small], living, self.codes, chains=chains)
        if chains is not None:
            view._chain(*chains, np.logical_or.reduce([view.sessions == session for session in touched]))
        return view

    def merges(self, more: int) -> bool:
        """Whether all blocks become one when so many pieces come, which takes long."""
        return self._merges(self.alive, more)

    def _merges(self, alive: Bools, more: int) -> bool:
        first = int(self.bounds[1])
        return int(alive[first:].sum()) + more > max(MERGE, first // 10)

    def _from(self, first: int, alive: Bools, fresh: Block) -> Block:
        """One block of what lives in the blocks from `first` on, and the fresh one."""
        bounds = self.bounds[first:]
        parts = [
            (block, np.flatnonzero(alive[low:high]))
            for block, low, high in zip(self.blocks[first:], bounds[:-1], bounds[1:], strict=True)
        ]
        return Block.joined([*parts, (fresh, np.arange(len(fresh)))]) if parts else fresh

    @cached_property
    def layout(self) -> Layout:
        """Where its arrays lie."""
        session, memory, speaker, said, _, late_at, late_lengths = _places(self._ints)
        lengths, log_lengths, times, *_ = _places(self._floats)
        known, _, user_side, episodes = _places(self._bools)
        arrays = (
            memory, session, speaker, said, self.before.ctypes.data, self.after.ctypes.data, known, episodes, user_side,
            lengths, log_lengths, times, self.shape.ctypes.data, late_at, late_lengths,
        )  # fmt: skip
        blocks = [(low, *block.places) for low, block in zip(self.bounds.tolist(), self.blocks, strict=False)]
        numbers = len(self.pieces), len(self.before) - 1, self.dimensions, self.late_width
        return Layout.of(numbers, arrays, blocks)

    @property
    def dimensions(self) -> int:
        """Of its vectors."""
        return int(self.blocks[0].vectors.shape[1])

    def unembedded(self, *, users: bool = False) -> list[Piece]:
        """The living pieces that have no vector yet, newest first; with `users`, only what users said."""
        bare = self.alive & ~self.known & self.user_side if users else self.alive & ~self.known
        return [self.pieces[i] for i in np.flatnonzero(bare)[::-1]]

    @cached_property
    def speaking(self) -> list[int]:
        """Who has said any of the living pieces, by their numbers."""
        found: list[int] = np.flatnonzero(np.bincount(self.speakers[self.alive])).tolist()
        return found

    @cached_property
    def overtaken(self) -> bool:
        """Whether anything learned holds no longer."""
        return bool((self.alive & ~self.active & ~self.episodes).any())

    def waiting(self, since: float, until: float) -> tuple[bool, float]:
        """(whether one of the living pieces without a vector is anything but a turn of this time, when the oldest of them was said;
        infinity without any)"""
        bare = np.flatnonzero(self.alive & ~self.known)
        if not len(bare):
            return False, math.inf
        times = self.times[bare]
        within = self.episodes[bare] & (times > since) & (times <= until)
        return not within.all(), float(times.min())

    def of_memories(self, memories: Collection[str], *, bare: bool = False) -> list[Piece]:
        """The living pieces of these memories; `bare`: without their vectors."""
        numbers = [self.codes.memories[memory] for memory in memories if memory in self.codes.memories]
        if not numbers:
            return []
        found = np.flatnonzero(np.isin(self.memories, numbers) & self.alive).tolist()
        return [self.pieces[i] if bare else self.piece(i) for i in found]

    def living(self) -> list[Piece]:
        """All living pieces, with their vectors."""
        return [self.piece(i) for i in np.flatnonzero(self.alive).tolist()]

    def piece(self, number: int) -> Piece:
        """A piece with its vectors."""
        block = int(np.searchsorted(self.bounds, number, side="right")) - 1
        return self.blocks[block].piece(number - int(self.bounds[block]))

    def wanted(self, only: Filter) -> Bools:
        """Which pieces pass the filter, shape (n,)."""
        if only.as_of is None:
            mask = self.alive & self.active
        else:
            mask = self.alive & (self.valid_from <= only.as_of) & (only.as_of < self.valid_to)
        if only.kinds:
            mask &= self._bearing([("kind", kind) for kind in only.kinds])
        if only.tag is not None:
            mask &= self._bearing([("tag", only.tag)])
        if only.entity is not None:
            mask &= self._bearing([("entity", fold(only.entity))])
        if only.since is not None:
            mask &= self.at >= only.since
        if only.until is not None:
            mask &= self.at < only.until
        return np.asarray(mask, bool)

    def _bearing(self, labels: Sequence[Label]) -> Bools:
        """Which pieces bear one of these labels, shape (n,)."""
        mask = np.zeros(len(self.pieces), bool)
        known = [code for label in labels if (code := self.codes.labels.get(label)) is not None]
        for low, block in zip(self.bounds, self.blocks, strict=False):
            for code in known:
                mask[block.labels.rows[block.labels.at(code)] + low] = True
        return mask

    def cosines(self, vector: NDArray[np.float32]) -> Floats:
        """Of every piece with the vector, shape (n,); NaN where no vector is known."""
        found = np.concatenate([block.vectors @ vector for block in self.blocks]).astype(float)
        found[~self.known] = np.nan
        return found

    def vector_sum(self, numbers: Ints) -> NDArray[np.float32]:
        """The sum of these pieces' vectors."""
        inside = np.searchsorted(self.bounds, numbers, side="right") - 1
        parts = [
            block.vectors[numbers[inside == which] - self.bounds[which]].sum(axis=0)
            for which, block in enumerate(self.blocks)
        ]
        return np.asarray(np.sum(parts, axis=0), np.float32)

    def postings(self, word: str) -> tuple[Ints, Floats]:
        """(numbers of the living pieces with the word, how often each has it)"""
        code = self.codes.words.get(word)
        if code is None:
            return np.zeros(0, np.int64), np.zeros(0)
        found = [(block.words, block.words.at(code)) for block in self.blocks]
        where = np.concatenate([words.rows[at] + low for low, (words, at) in zip(self.bounds, found, strict=False)])
        often = np.concatenate([words.often[at] for words, at in found]).astype(float)
        living = self.alive[where]
        return where[living], often[living]

    def bears(self, word: str) -> bool:
        """Whether a living piece has the word."""
        code = self.codes.words.get(word)
        if code is None:
            return False
        for low, block in zip(self.bounds.tolist(), self.blocks, strict=False):
            rows = block.words.rows[block.words.at(code)]
            if len(rows) and self.alive[rows + low].any():
                return True
        return False

    def matches(self, numbers: Ints, asked: NDArray[np.float32]) -> tuple[NDArray[np.float32], Ints]:
        """(of each piece asked (m, late) the best cosine with a word piece of each of these pieces that have any (k, m), which of
        the numbers have)"""
        lengths = self._late_lengths[numbers]
        which = np.flatnonzero(lengths)
        if not len(which):
            return np.zeros((0, len(asked)), np.float32), which
        starts = np.concatenate(([0], np.cumsum(lengths[which])[:-1]))
        return best_matches(asked, self._late(numbers[which]), starts), which

    def _late(self, numbers: Ints) -> NDArray[np.int8]:
        """The word pieces of these pieces, one after the other."""
        inside = np.searchsorted(self.bounds, numbers, side="right") - 1
        at = (numbers - self.bounds[inside]).tolist()
        rows = [(self.blocks[block], i) for block, i in zip(inside.tolist(), at, strict=True)]
        return np.concatenate([block.late[block.starts[i] : block.starts[i + 1]] for block, i in rows])

    def _chains(self) -> Chains:
        """By memory code: which episode of the same session was said before it, and which after; -1: none."""
        before = np.full(len(self.codes.memories) + 1, -1, np.int64)
        after = before.copy()
        self._chain(before, after, None)
        return before, after

    def _without(self, sessions: Collection[int]) -> Chains:
        """The same as it is now, with room for memories that are new, and without these sessions."""
        before = np.full(len(self.codes.memories) + 1, -1, np.int64)
        after = before.copy()
        before[: len(self.before) - 1], after[: len(self.after) - 1] = self.before[:-1], self.after[:-1]
        for session in sessions:
            here = self.memories[self.alive & (self.sessions == session)]
            before[here] = after[here] = -1
        return before, after

    def _chain(self, before: Ints, after: Ints, within: Bools | None) -> None:
        """Put down the episodes of all sessions, or of those pieces `within`."""
        among = self.alive & self.episodes & (self.sessions > 0)
        here = np.flatnonzero(among if within is None else among & within)
        if len(here):
            memories, first = np.unique(self.memories[here], return_index=True)
            sessions, times = self.sessions[here][first], self.times[here][first]
            order = np.lexsort((memories, times, sessions))
            left, right = order[:-1], order[1:]
            same = sessions[left] == sessions[right]
            before[memories[right[same]]] = memories[left[same]]
            after[memories[left[same]]] = memories[right[same]]


def _places(array: NDArray[Any]) -> list[int]:
    """Where each of its rows lies."""
    start, step = array.ctypes.data, array.strides[0]
    return [start + step * row for row in range(len(array))]
