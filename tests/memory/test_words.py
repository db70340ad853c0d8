"""Terms, stems, folded text and the price of a text in tokens."""

from __future__ import annotations

import pytest

from memory.redact import redact
from memory.words import fold, squeeze, stem, terms, tokens, whole


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Where does my dog sleep?", ["dog", "sleep"]),
        ("I was walking my dogs", ["walk", "dog"]),
        ("It's Anna's bike, isn't it", ["anna", "bik"]),
        ("Mr O’Brien; l'hôtel d'Orsay", ["mr", "o", "brien", "l", "hotel", "d", "orsay"]),
        ("snake_case v1.2", ["snak", "cas", "v1", "2"]),
        ("我住在杭州", ["我住", "住在", "在杭", "杭州"]),
        ("茶", ["茶"]),
        ("서울에 살아요", ["서울", "울에", "살아", "아요"]),
        ("iPhone手机", ["iphon", "手机"]),
        ("ＡＢＣ１２３", ["abc123"]),
        ("the of and", []),
        ("🙂 …", []),
        ("", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@pytest.mark.parametrize(
    "family",
    [
        ("walk", "walks", "walked", "walking"),
        ("party", "parties"),
        ("stop", "stops", "stopped", "stopping"),
        ("live", "lives", "lived", "living"),
        ("name", "names", "named", "naming"),
        ("allergy", "allergies"),
        ("call", "calls", "called", "calling"),
        ("quick", "quickly"),
    ],
)
def test_a_family_of_words_has_one_stem(family: tuple[str, ...]) -> None:
    assert len({stem(word) for word in family}) == 1


@pytest.mark.parametrize(("one", "other"), [("sing", "s"), ("bus", "bu"), ("university", "universe")])
def test_other_words_have_other_stems(one: str, other: str) -> None:
    assert stem(one) != stem(other)


@pytest.mark.parametrize("word", ["ss", "is", "bus", "glass", "жить", "0", "是"])
def test_short_and_foreign_words_stay(word: str) -> None:
    assert stem(word) == word


@pytest.mark.parametrize(
    ("text", "folded"), [("Ünïcode", "unicode"), ("ＴＥＡ", "tea"), ("서울", "서울"), ("ИЙ", "ии"), ("", "")]
)
def test_folding(text: str, folded: str) -> None:
    assert fold(text) == folded
    assert fold(folded) == folded


def test_white_space_is_squeezed() -> None:
    assert squeeze(" a\n\t b\u3000c ") == "a b c"


@pytest.mark.parametrize(
    ("text", "expected"), [("", 0), ("tea", 1), ("four letters here", 5), ("我住在杭州", 5), ("я дома", 3)]
)
def test_tokens(text: str, expected: int) -> None:
    assert tokens(text) == expected


def test_tokens_grow_with_the_text() -> None:
    assert tokens("word " * 1000) == pytest.approx(1250, rel=0.1)


@pytest.mark.parametrize(
    ("text", "kept"), [("half \ud83d", "half ?"), ("nul\x00!", "nul!"), ("🙂\n\t", "🙂\n\t"), ("\x00", "")]
)
def test_what_no_database_can_store_is_taken_out(text: str, kept: str) -> None:
    assert (whole(text), redact(text)) == (kept, kept)
