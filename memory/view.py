"""A cube in working memory: its pieces as arrays, so that a question is compared with all of them exactly.

A view never changes; a write makes another one that shares the large blocks and carries what is new in small ones. Knows
neither SQL nor LanceDB: whoever has pieces, from wherever, can make a view of them.
"""

from __future__ import annotations

import itertools
import math
import re
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from memory.late import SCALE, best_matches
from memory.maxsim import best_at, can
from memory.store import Filter, Piece
from memory.words import fold, squeeze, terms

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
MERGE = 512  # pieces beside the first block beyond which all become one

_TIME = re.compile(
    r"\b(?:yesterday|today|tonight|tomorrow|last|next|ago|since|weekend|week|month|years?|morning|evening|january|february"
    r"|march|april|may|june|july|august|september|october|november|december|(?:mon|tues|wednes|thurs|fri|satur|sun)day"
    r"|(?:19|20)\d\d)\b|[年月日号]|昨天|今天|明天|前天|后天|上周|下周|周[一二三四五六日末]|星期|去年|今年|明年",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|once|twice|couple|few|several|dozen)\b"
    r"|[一二两三四五六七八九十百千]",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+|[\"“][^\"”]+[\"”]|《[^》]+》|「[^」]+」")
_WORD = re.compile(r"\w+")
MOMENTS = ("time", "at", "valid_from", "valid_to")  # columns of Block.moments
SHAPES = ("asks", "time", "number", "name")  # columns of Block.shape


Read = tuple[tuple[str, ...], tuple[bool, bool, bool, bool], int]  # the terms of a piece, its shape, and what it says


@dataclass(slots=True)
class Codes:
    """Small numbers for session and memory ids and for speakers; only ever grows. Views that share it may be made in several
    threads."""

    sessions: dict[str, int] = field(default_factory=lambda: {"": 0})
    memories: dict[str, int] = field(default_factory=dict)
    speakers: dict[str, int] = field(default_factory=lambda: {"": 0})
    _called: list[frozenset[str]] = field(default_factory=lambda: [frozenset()])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, pieces: Sequence[Piece]) -> tuple[Ints, Ints, Ints]:
        """(session, memory, speaker) of each piece, in numbers."""
        with self._lock:
            sessions = [self.sessions.setdefault(piece.session, len(self.sessions)) for piece in pieces]
            memories = [self.memories.setdefault(piece.memory, len(self.memories)) for piece in pieces]
            speakers = [self._speaker(piece.speaker) for piece in pieces]
        return np.array(sessions, np.int64), np.array(memories, np.int64), np.array(speakers, np.int64)

    def called(self, speaker: int) -> frozenset[str]:
        """The words of a speaker's name, folded."""
        return self._called[speaker]

    def _speaker(self, name: str) -> int:
        known = self.speakers.get(name)
        if known is None:
            self._called.append(frozenset(_WORD.findall(fold(name))))
            known = self.speakers[name] = len(self.speakers)
        return known


@dataclass(frozen=True, slots=True)
class Block:
    """n pieces as parallel arrays, made once. Rows of `vectors` are zero where `known` is False; the word pieces of piece i are
    rows starts[i] to starts[i + 1] of `late`, which lie at the address late_at[i]; `said` is the same number for the same words.
    The vectors of the pieces themselves are windows on these arrays. `labels`: (kind | tag | entity, its name) → the rows that
    bear it. `size`: about how many bytes all this takes."""

    pieces: tuple[Piece, ...]
    reads: tuple[Read, ...]
    vectors: NDArray[np.float32]
    known: Bools
    said: Ints
    late: NDArray[np.int8]
    starts: Ints
    late_at: Ints
    late_lengths: Ints
    postings: dict[str, tuple[Ints, Floats]]
    lengths: Floats
    shape: NDArray[np.float32]
    sessions: Ints
    memories: Ints
    speakers: Ints
    moments: Floats
    active: Bools
    user_side: Bools
    episodes: Bools
    labels: dict[tuple[str, str], Ints]
    size: int

    @staticmethod
    def of(pieces: Sequence[Piece], codes: Codes, dimensions: int, reads: Sequence[Read] = ()) -> Block:
        """The pieces as arrays; `reads` of the first of them are known already."""
        n = len(pieces)
        known = np.array([piece.vector is not None for piece in pieces], bool)
        vectors = np.zeros((n, dimensions), np.float32)
        for i, piece in enumerate(pieces):
            if piece.vector is not None:
                vectors[i] = piece.vector
        late = [piece.late for piece in pieces if piece.late is not None and len(piece.late)]
        sizes = [0 if piece.late is None else len(piece.late) for piece in pieces]
        starts = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        rows = np.concatenate(late) if late else np.zeros((0, 0), np.int8)
        postings: dict[str, tuple[list[int], list[float]]] = {}
        one: dict[str, str] = {}  # one string per word, however often it stands there
        fresh = [_read(piece.text) for piece in pieces[len(reads) :]]
        reads = [
            *reads,
            *((tuple(one.setdefault(word, word) for word in words), form, said) for words, form, said in fresh),
        ]
        for i, (words, _, _) in enumerate(reads):
            for word, times in Counter(words).items():
                where, often = postings.setdefault(word, ([], []))
                where.append(i)
                often.append(times)
        sessions, memories, speakers = codes.of(pieces)
        return Block(
            pieces=tuple(
                replace(
                    piece,
                    vector=None if piece.vector is None else vectors[i],
                    late=rows[starts[i] : starts[i + 1]] if sizes[i] else None,
                )
                for i, piece in enumerate(pieces)
            ),
            reads=tuple(reads),
            vectors=vectors,
            known=known,
            said=np.array([said for _, _, said in reads], np.int64),
            late=rows,
            starts=starts,
            late_at=rows.ctypes.data + starts[:-1] * rows.shape[1],
            late_lengths=np.array(sizes, np.int64),
            postings={word: (np.array(w, np.int64), np.array(o, float)) for word, (w, o) in postings.items()},
            lengths=np.array([len(words) for words, _, _ in reads], float),
            shape=np.array([shape for _, shape, _ in reads], np.float32).reshape(n, len(SHAPES)),
            sessions=sessions,
            memories=memories,
            speakers=speakers,
            moments=np.array([[getattr(piece, name) for name in MOMENTS] for piece in pieces], float).reshape(n, 4),
            active=np.array([piece.status == "active" for piece in pieces], bool),
            user_side=np.array([piece.side == "user" for piece in pieces], bool),
            episodes=np.array([piece.kind == "episode" for piece in pieces], bool),
            labels=_labels(pieces),
            size=vectors.nbytes + rows.nbytes + 3 * sum(len(piece.text) for piece in pieces) + 700 * n,
        )


class View:
    """What is known of a cube at one revision. Piece i of block b has the number bounds[b] + i."""

    def __init__(self, blocks: Sequence[Block], alive: Bools, codes: Codes) -> None:
        self.blocks = tuple(blocks)
        self.bounds: Ints = np.cumsum([0, *(len(block.pieces) for block in blocks)], dtype=np.int64)
        self.alive = alive
        self.codes = codes
        self.sessions = np.concatenate([block.sessions for block in blocks])
        self.memories = np.concatenate([block.memories for block in blocks])
        self.speakers = np.concatenate([block.speakers for block in blocks])
        self.lengths = np.concatenate([block.lengths for block in blocks])
        self.log_lengths = np.log1p(self.lengths)
        self.shape = np.concatenate([block.shape for block in blocks])
        self.known = np.concatenate([block.known for block in blocks])
        self.said = np.concatenate([block.said for block in blocks])
        self.active = np.concatenate([block.active for block in blocks])
        self.user_side = np.concatenate([block.user_side for block in blocks])
        self.episodes = np.concatenate([block.episodes for block in blocks])
        widths = {block.late.shape[1] for block in blocks if len(block.late)}
        self._late_width = widths.pop() if len(widths) == 1 else 0
        self._late_at = np.concatenate([block.late_at for block in blocks])
        self._late_lengths = np.concatenate([block.late_lengths for block in blocks])
        moments = np.concatenate([block.moments for block in blocks])
        self.times, self.at, self.valid_from, self.valid_to = np.ascontiguousarray(moments.T)
        self.pieces = [*itertools.chain.from_iterable(block.pieces for block in blocks)]
        self.size = sum(block.size for block in blocks)
        self.before, self.after = self._chains()

    @staticmethod
    def of(pieces: Sequence[Piece], dimensions: int) -> View:
        """A view of these pieces."""
        codes = Codes()
        return View([Block.of(pieces, codes, dimensions)], np.ones(len(pieces), bool), codes)

    def changed(self, gone: Collection[str], new: Sequence[Piece], dimensions: int) -> View:
        """Another view without the pieces of the memories `gone` and with the `new` ones."""
        alive = self.alive.copy()
        numbers = [self.codes.memories[memory] for memory in gone if memory in self.codes.memories]
        if numbers:
            alive &= ~np.isin(self.memories, numbers)
        count = len(new)
        if self._merges(alive, count):
            codes = Codes()
            return View(
                [whole := self._from(0, alive, new, codes, dimensions)], np.ones(len(whole.pieces), bool), codes
            )
        # blocks that are not much larger than what comes are taken into it, so a piece moves seldom and blocks stay few
        last = len(self.blocks)
        while last > 1 and (here := int(alive[self.bounds[last - 1] : self.bounds[last]].sum())) <= 2 * count:
            last, count = last - 1, count + here
        small = self._from(last, alive, new, self.codes, dimensions)
        living = np.concatenate((alive[: self.bounds[last]], np.ones(len(small.pieces), bool)))
        return View([*self.blocks[:last], small], living, self.codes)

    def merges(self, more: int) -> bool:
        """Whether all blocks become one when so many pieces come, which takes long."""
        return self._merges(self.alive, more)

    def _merges(self, alive: Bools, more: int) -> bool:
        first = int(self.bounds[1])
        return int(alive[first:].sum()) + more > max(MERGE, first // 10)

    def _from(self, first: int, alive: Bools, new: Sequence[Piece], codes: Codes, dimensions: int) -> Block:
        """One block of what lives in the blocks from `first` on, and the new pieces."""
        low = self.bounds[first]
        reads = [read for block in self.blocks[first:] for read in block.reads]
        kept = np.flatnonzero(alive[low:])
        return Block.of([*(self.pieces[low + i] for i in kept), *new], codes, dimensions, [reads[i] for i in kept])

    @property
    def dimensions(self) -> int:
        """Of its vectors."""
        return int(self.blocks[0].vectors.shape[1])

    def unembedded(self, *, users: bool = False) -> list[Piece]:
        """The living pieces that have no vector yet, newest first; with `users`, only what users said."""
        bare = self.alive & ~self.known & self.user_side if users else self.alive & ~self.known
        return [self.pieces[i] for i in np.flatnonzero(bare)[::-1]]

    def waiting(self, since: float, until: float) -> tuple[bool, float]:
        """(whether one of the living pieces without a vector is anything but a turn of this time, when the oldest of them was said;
        infinity without any)"""
        bare = np.flatnonzero(self.alive & ~self.known)
        if not len(bare):
            return False, math.inf
        times = self.times[bare]
        within = self.episodes[bare] & (times > since) & (times <= until)
        return not within.all(), float(times.min())

    def of_memories(self, memories: Collection[str]) -> list[Piece]:
        """The living pieces of these memories."""
        numbers = [self.codes.memories[memory] for memory in memories if memory in self.codes.memories]
        if not numbers:
            return []
        return [self.pieces[i] for i in np.flatnonzero(np.isin(self.memories, numbers) & self.alive)]

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

    def _bearing(self, labels: Sequence[tuple[str, str]]) -> Bools:
        """Which pieces bear one of these labels, shape (n,)."""
        mask = np.zeros(len(self.pieces), bool)
        for low, block in zip(self.bounds, self.blocks, strict=False):
            for label in labels:
                mask[block.labels.get(label, _NO_ROWS) + low] = True
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
        found = [block.postings.get(word, _NOWHERE) for block in self.blocks]
        where = np.concatenate([there + low for low, (there, _) in zip(self.bounds, found, strict=False)])
        often = np.concatenate([times for _, times in found])
        living = self.alive[where]
        return where[living], often[living]

    def matches(self, numbers: Ints, asked: NDArray[np.float32]) -> tuple[NDArray[np.float32], Ints]:
        """(of each piece asked (m, late) the best cosine with a word piece of each of these pieces that have any (k, m), which of
        the numbers have)"""
        lengths = self._late_lengths[numbers]
        which = np.flatnonzero(lengths)
        if not len(which):
            return np.zeros((0, len(asked)), np.float32), which
        if can(asked, self._late_width):
            return best_at(asked, self._late_at[numbers[which]], lengths[which], SCALE), which
        starts = np.concatenate(([0], np.cumsum(lengths[which])[:-1]))
        return best_matches(asked, self._late(numbers[which]), starts), which

    def _late(self, numbers: Ints) -> NDArray[np.int8]:
        """The word pieces of these pieces, one after the other."""
        inside = np.searchsorted(self.bounds, numbers, side="right") - 1
        at = (numbers - self.bounds[inside]).tolist()
        rows = [(self.blocks[block], i) for block, i in zip(inside.tolist(), at, strict=True)]
        return np.concatenate([block.late[block.starts[i] : block.starts[i + 1]] for block, i in rows])

    def _chains(self) -> tuple[Ints, Ints]:
        """By memory code: which episode of the same session was said before it, and which after; -1: none."""
        before = np.full(len(self.codes.memories) + 1, -1, np.int64)
        after = before.copy()
        here = np.flatnonzero(self.alive & self.episodes & (self.sessions > 0))
        if len(here):
            memories, first = np.unique(self.memories[here], return_index=True)
            sessions, times = self.sessions[here][first], self.times[here][first]
            order = np.lexsort((memories, times, sessions))
            left, right = order[:-1], order[1:]
            same = sessions[left] == sessions[right]
            before[memories[right[same]]] = memories[left[same]]
            after[memories[left[same]]] = memories[right[same]]
        return before, after


_NO_ROWS: Ints = np.zeros(0, np.int64)
_NOWHERE: tuple[Ints, Floats] = (_NO_ROWS, np.zeros(0))


def _labels(pieces: Sequence[Piece]) -> dict[tuple[str, str], Ints]:
    found: dict[tuple[str, str], list[int]] = {}
    for i, piece in enumerate(pieces):
        named = (("entity", name) for name in piece.entities)
        for label in {("kind", piece.kind), *(("tag", tag) for tag in piece.tags), *named}:
            found.setdefault(label, []).append(i)
    return {label: np.array(rows, np.int64) for label, rows in found.items()}


def _read(text: str) -> Read:
    """A piece's terms; whether it asks something, and whether it holds what answers when, how many and who; and a number that is
    the same for all that say the same in the same words."""
    who, _, said = text.partition(": ")
    asks = "?" in said or "？" in said
    words = terms(said)
    shape = (asks, bool(_TIME.search(said)), bool(_NUMBER.search(said)), bool(_NAME.search(said)))
    return (*terms(who), *words), shape, _said(words, said)


def said_in(text: str) -> int:
    """As `View.said`, of any text."""
    return _said(terms(text), text)


def _said(words: Sequence[str], text: str) -> int:
    return hash(" ".join(sorted(set(words))) or squeeze(fold(text)))
