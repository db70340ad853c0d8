"""Passages: nothing that was said is lost, and each can be found again in its memory."""

from __future__ import annotations

import pytest

from memory.pieces import MOST, PASSAGE, passage_of, passages, pieces
from memory.words import squeeze
from tests.memory.make import learned_from, memory, turn

ENGLISH = "".join(f"Sentence {n} costs 3.{n % 90:02} at shop{n}.example.com, today. " for n in range(700))
CHINESE = "".join(f"我在{n}号房间喝茶，然后去杭州看朋友。" for n in range(2000))


@pytest.mark.parametrize("text", ["", "  \n ", "x", "x" * PASSAGE, "x" * (PASSAGE + 1), "a\n" * PASSAGE, "。" * 2000])
def test_odd_texts_lose_nothing(text: str) -> None:
    assert "".join("".join(passages(text)).split()) == "".join(text.split())


@pytest.mark.parametrize("text", [ENGLISH[:49_000], CHINESE[:49_000], "茶" * 49_000, "word " * 9_800])
def test_a_text_of_fifty_thousand_characters_is_whole(text: str) -> None:
    parts = passages(text)
    assert max(map(len, parts)) <= PASSAGE
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_words_stay_as_they_were_written() -> None:
    assert squeeze(" ".join(passages(ENGLISH[:9000]))) == squeeze(ENGLISH[:9000])
    assert "".join(passages(CHINESE[:9000])) == CHINESE[:9000]


def test_a_book_has_an_end() -> None:
    assert len(passages("Word. " * 100_000)) == MOST


def test_sentences_are_not_cut_without_need() -> None:
    assert all(part.endswith("today.") for part in passages(ENGLISH[:9000])[:-1])


def test_every_piece_is_found_again_in_its_memory() -> None:
    long = memory(text=ENGLISH[:5000], answer=CHINESE[:5000], id="with:colon")
    found = [(piece.side, piece.text.partition("): ")[2]) for piece in pieces(long)]
    assert [passage_of(long, piece.id) for piece in pieces(long)] == found
    assert len({piece.id for piece in pieces(long)}) == len(found)


def test_a_piece_of_a_text_that_became_shorter_is_empty() -> None:
    assert passage_of(memory(id="m", text="short"), "m:u7") == ("user", "")


def test_a_piece_says_who_and_when() -> None:
    said = memory(text="Tea.", answer="Fine.", message_time=0.0, sources=learned_from(turn(session="s9")))
    user, assistant = pieces(said)
    assert (user.text, assistant.text) == ("User (1 January 1970): Tea.", "Assistant (1 January 1970): Fine.")
    assert pieces(said.evolve(speaker="Ann"))[0].text == "Ann (1 January 1970): Tea."
    assert {user.session, assistant.session} == {"s9"}


def test_a_memory_without_text_has_no_pieces() -> None:
    assert pieces(memory(text=" ")) == []
