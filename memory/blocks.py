"""Blocks: pieces as parallel arrays, made once; of several of them one is made without reading any piece again.

Words, labels, sessions, memories and speakers stand in them as small numbers (Codes), so that comparing and joining is work for
arrays.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory.store import Piece
from memory.words import fold, squeeze, terms

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Label = tuple[str, str]  # (kind | tag | entity, its name)

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
INTS = ("sessions", "memories", "speakers", "said", "text_bytes", "late_at", "late_lengths")  # rows of Block.ints
FLOATS = ("lengths", "log_lengths", "times", "at", "valid_from", "valid_to")  # … of Block.floats
BOOLS = ("known", "active", "user_side", "episodes")  # … of Block.bools
SHAPES = ("asks", "time", "number", "name")  # columns of Block.shape
_OVERHEAD = 700  # bytes a piece takes beside its text and its vectors, about


@dataclass(slots=True)
class Codes:
    """Small numbers for words, labels, session and memory ids and speakers; only ever grows. Views that share it may be made in
    several threads."""

    sessions: dict[str, int] = field(default_factory=lambda: {"": 0})
    memories: dict[str, int] = field(default_factory=dict)
    speakers: dict[str, int] = field(default_factory=lambda: {"": 0})
    words: dict[str, int] = field(default_factory=dict)
    labels: dict[Label, int] = field(default_factory=dict)
    _called: list[frozenset[str]] = field(default_factory=lambda: [frozenset()])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, pieces: Sequence[Piece]) -> tuple[list[int], list[int], list[int]]:
        """(session, memory, speaker) of each piece, in numbers."""
        with self._lock:
            sessions = [self.sessions.setdefault(piece.session, len(self.sessions)) for piece in pieces]
            memories = [self.memories.setdefault(piece.memory, len(self.memories)) for piece in pieces]
            speakers = [self._speaker(piece.speaker) for piece in pieces]
        return sessions, memories, speakers

    def of_words(self, words: Iterable[str]) -> list[int]:
        """The words in numbers."""
        with self._lock:
            return [self.words.setdefault(word, len(self.words)) for word in words]

    def of_labels(self, labels: Iterable[Label]) -> list[int]:
        """The labels in numbers."""
        with self._lock:
            return [self.labels.setdefault(label, len(self.labels)) for label in labels]

    def called(self, speaker: int) -> frozenset[str]:
        """The words of a speaker's name, folded."""
        return self._called[speaker]

    def only(self, block: Block) -> tuple[Codes, Block]:
        """Codes of what stands in the block and of nothing else, and the block in them."""
        codes = Codes()
        with self._lock:
            # the empty name is 0 everywhere
            codes.sessions, sessions = _kept(self.sessions, np.append(block.ints[0], 0))
            codes.speakers, speakers = _kept(self.speakers, np.append(block.ints[2], 0))
            codes.memories, memories = _kept(self.memories, block.ints[1])
            codes.words, words = _kept(self.words, block.words.codes)
            codes.labels, labels = _kept(self.labels, block.labels.codes)
        codes._called = [frozenset(_WORD.findall(fold(name))) for name in codes.speakers]
        ints = block.ints.copy()
        ints[:3] = sessions[:-1], memories, speakers[:-1]
        return codes, replace(
            block,
            ints=ints,
            words=replace(block.words, codes=words.astype(np.int32)),  # still in order: none overtakes another
            labels=replace(block.labels, codes=labels.astype(np.int32)),
        )

    def _speaker(self, name: str) -> int:
        known = self.speakers.get(name)
        if known is None:
            self._called.append(frozenset(_WORD.findall(fold(name))))
            known = self.speakers[name] = len(self.speakers)
        return known


def _kept(known: dict[Any, int], used: NDArray[Any]) -> tuple[dict[Any, int], Ints]:
    """(what of `known` is used, numbered anew in the same order; `used` in the new numbers)"""
    numbers, again = np.unique(used, return_inverse=True)
    names = list(known)
    return {names[number]: i for i, number in enumerate(numbers.tolist())}, again.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Entries:
    """Which rows bear which codes, and how often: three arrays (k,), by code in rising order."""

    codes: NDArray[np.int32]
    rows: NDArray[np.int32]
    often: NDArray[np.float32]

    @staticmethod
    def of(codes: Sequence[int], rows: Sequence[int], often: Sequence[int]) -> Entries:
        """In any order."""
        by_code = np.array(codes, np.int32)
        order = np.argsort(by_code, kind="stable")
        return Entries(by_code[order], np.array(rows, np.int32)[order], np.array(often, np.float32)[order])

    @staticmethod
    def joined(parts: Sequence[tuple[Entries, Ints]]) -> Entries:
        """Of several blocks; with each, which row each of its rows becomes (-1: none)."""
        rows = np.concatenate([place[entries.rows] for entries, place in parts])
        codes = np.concatenate([entries.codes for entries, _ in parts])
        often = np.concatenate([entries.often for entries, _ in parts])
        order = np.argsort(codes, kind="stable")
        order = order[rows[order] >= 0]
        return Entries(codes[order], rows[order].astype(np.int32), often[order])

    def at(self, code: int) -> slice:
        """The entries of a code."""
        low, high = self.codes.searchsorted(np.array([code, code + 1], np.int32)).tolist()
        return slice(low, high)

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return self.codes.nbytes + self.rows.nbytes + self.often.nbytes


@dataclass(frozen=True, slots=True)
class Block:
    """n pieces as parallel arrays, those of one type as the rows of one. Rows of `vectors` are zero where `known` is False; the
    word pieces of piece i are rows starts[i] to starts[i + 1] of `late`, which lie at the address late_at[i]; `said` is the same
    number for the same words; `text_bytes` about what each text takes. The pieces themselves bear no vectors."""

    pieces: tuple[Piece, ...]
    vectors: NDArray[np.float32]
    late: NDArray[np.int8]
    starts: Ints
    words: Entries
    labels: Entries
    ints: Ints  # (INTS, n)
    floats: Floats  # (FLOATS, n)
    bools: Bools  # (BOOLS, n)
    shape: NDArray[np.float32]  # (n, SHAPES)

    @staticmethod
    def of(pieces: Sequence[Piece], codes: Codes, dimensions: int) -> Block:
        """The pieces as arrays."""
        n = len(pieces)
        vectors = np.zeros((n, dimensions), np.float32)
        for i, piece in enumerate(pieces):
            if piece.vector is not None:
                vectors[i] = piece.vector
        late = [piece.late for piece in pieces if piece.late is not None and len(piece.late)]
        sizes = [0 if piece.late is None else len(piece.late) for piece in pieces]
        rows = np.concatenate(late) if late else np.zeros((0, 0), np.int8)
        starts = np.array([0, *itertools.accumulate(sizes)], np.int64)
        reads = [_read(piece.text) for piece in pieces]
        lengths = [len(words) for words, _, _ in reads]
        said, text_bytes = [said for _, _, said in reads], [3 * len(piece.text) for piece in pieces]
        bare = (replace(piece, vector=None, late=None) if piece.vector is not None or piece.late is not None else piece
                for piece in pieces)  # fmt: skip
        floats = [
            lengths, [0.0] * n, [piece.time for piece in pieces], [piece.at for piece in pieces],
            [piece.valid_from for piece in pieces], [piece.valid_to for piece in pieces],
        ]  # fmt: skip
        bools = [
            [piece.vector is not None for piece in pieces], [piece.status == "active" for piece in pieces],
            [piece.side == "user" for piece in pieces], [piece.kind == "episode" for piece in pieces],
        ]  # fmt: skip
        block = Block(
            pieces=tuple(bare),
            vectors=vectors,
            late=rows,
            starts=starts,
            words=_words(reads, codes),
            labels=_labels(pieces, codes),
            ints=np.array([*codes.of(pieces), said, text_bytes, [0] * n, sizes], np.int64),
            floats=np.array(floats, np.float64),
            bools=np.array(bools, bool),
            shape=np.array([shape for _, shape, _ in reads], np.float32).reshape(n, len(SHAPES)),
        )
        np.log1p(block.floats[0], out=block.floats[1])
        _lay(block)
        return block

    @staticmethod
    def joined(parts: Sequence[tuple[Block, Ints]]) -> Block:
        """One block of these rows of each, in this order."""
        late = [block.late[_spans(block.starts, kept)] for block, kept in parts]
        rows = np.concatenate([rows for rows in late if len(rows)] or [parts[0][0].late[:0]])
        places, low = [], 0
        for block, kept in parts:
            place = np.full(len(block.pieces), -1, np.int64)
            place[kept] = np.arange(low, low + len(kept))
            places.append(place)
            low += len(kept)
        ints = side_by_side([block.ints[:, kept] for block, kept in parts])
        starts = np.zeros(low + 1, np.int64)
        np.cumsum(ints[_LATE_LENGTHS], out=starts[1:])
        joined = Block(
            pieces=tuple(block.pieces[i] for block, kept in parts for i in kept.tolist()),
            vectors=np.concatenate([block.vectors[kept] for block, kept in parts]),
            late=rows,
            starts=starts,
            words=Entries.joined([(block.words, place) for (block, _), place in zip(parts, places, strict=True)]),
            labels=Entries.joined([(block.labels, place) for (block, _), place in zip(parts, places, strict=True)]),
            ints=ints,
            floats=side_by_side([block.floats[:, kept] for block, kept in parts]),
            bools=side_by_side([block.bools[:, kept] for block, kept in parts]),
            shape=np.concatenate([block.shape[kept] for block, kept in parts]),
        )
        _lay(joined)
        return joined

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        arrays = self.vectors.nbytes + self.late.nbytes + self.words.nbytes + self.labels.nbytes
        return arrays + int(self.ints[_TEXT_BYTES].sum()) + _OVERHEAD * len(self.pieces)

    @property
    def places(self) -> tuple[int, ...]:
        """How many pieces it has, where their vectors lie, how many words, and where their codes, rows and numbers lie."""
        words = self.words
        return (
            len(self.pieces), self.vectors.ctypes.data, len(words.codes), words.codes.ctypes.data, words.rows.ctypes.data,
            words.often.ctypes.data,
        )  # fmt: skip

    def piece(self, row: int) -> Piece:
        """A piece with its vectors, which are windows on these arrays."""
        start, end = self.starts[row : row + 2].tolist()
        vector = self.vectors[row] if self.bools[_KNOWN, row] else None
        return replace(self.pieces[row], vector=vector, late=self.late[start:end] if end > start else None)


_TEXT_BYTES, _LATE_AT, _LATE_LENGTHS = (INTS.index(name) for name in ("text_bytes", "late_at", "late_lengths"))
_KNOWN = BOOLS.index("known")


def side_by_side(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Rows of the same kind put together, each of them in one piece: what numpy has picked columns from lies column by column."""
    whole: NDArray[Any] = np.ascontiguousarray(arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1))
    return whole


def _lay(block: Block) -> None:
    """Say where its word pieces lie."""
    np.multiply(block.starts[:-1], block.late.shape[1], out=block.ints[_LATE_AT])
    block.ints[_LATE_AT] += block.late.ctypes.data


def _spans(starts: Ints, kept: Ints) -> Ints:
    """The rows from starts[i] to starts[i + 1], for each i that is kept."""
    sizes = np.diff(starts)[kept]
    ends = np.cumsum(sizes)
    found: Ints = np.repeat(starts[kept] - (ends - sizes), sizes) + np.arange(int(ends[-1]) if len(ends) else 0)
    return found


_Read = tuple[tuple[str, ...], tuple[bool, bool, bool, bool], int]  # a piece's terms, its shape, and what it says


def _words(reads: Sequence[_Read], codes: Codes) -> Entries:
    words: list[str] = []
    rows: list[int] = []
    often: list[int] = []
    for row, (terms_of_it, _, _) in enumerate(reads):
        counted = Counter(terms_of_it)
        words += counted
        often += counted.values()
        rows += [row] * len(counted)
    return Entries.of(codes.of_words(words), rows, often)


def _labels(pieces: Sequence[Piece], codes: Codes) -> Entries:
    labels: list[Label] = []
    rows: list[int] = []
    for row, piece in enumerate(pieces):
        named = (("entity", name) for name in piece.entities)
        own = {("kind", piece.kind), *(("tag", tag) for tag in piece.tags), *named}
        labels += own
        rows += [row] * len(own)
    return Entries.of(codes.of_labels(labels), rows, [1] * len(rows))


def _read(text: str) -> _Read:
    """A piece's terms; whether it asks something, and whether it holds what answers when, how many and who; and a number that is
    the same for all that say the same in the same words."""
    who, _, said = text.partition(": ")
    asks = "?" in said or "？" in said
    words = terms(said)
    shape = (asks, bool(_TIME.search(said)), bool(_NUMBER.search(said)), bool(_NAME.search(said)))
    return (*terms(who), *words), shape, _said(words, said)


def said_in(text: str) -> int:
    """As `Block.said`, of any text."""
    return _said(terms(text), text)


def _said(words: Sequence[str], text: str) -> int:
    return hash(" ".join(sorted(set(words))) or squeeze(fold(text)))
