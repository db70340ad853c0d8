"""Sentences, content words and the normal form."""

from __future__ import annotations

import pytest

from memory.extract.text import bigrams, content_words, normalise, numbers, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I am Anna. I live in Oslo!", ["I am Anna.", "I live in Oslo!"]),
        ("Dr. Smith gave me 2.5 mg. It helped.", ["Dr. Smith gave me 2.5 mg.", "It helped."]),
        ("J. R. Hartley wrote it. Really?", ["J. R. Hartley wrote it.", "Really?"]),
        ("I use e.g. tea. Ok", ["I use e.g. tea.", "Ok"]),
        ("It was me and I. Then we left.", ["It was me and I.", "Then we left."]),
        ("我叫王芳。我住在杭州！你呢？", ["我叫王芳。", "我住在杭州！", "你呢？"]),
        ("first line\nsecond line", ["first line", "second line"]),
        ("价格是3.5元。好", ["价格是3.5元。", "好"]),
        ("", []),
        ("...", ["..."]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_normal_form_ignores_width_case_and_marks() -> None:
    assert normalise("  Ｉ’m  Vegan! ") == "i'm vegan"


def test_content_words_compare_what_two_texts_are_about() -> None:
    assert content_words("I was walking my dogs") == content_words("He walks the dog")


def test_chinese_is_compared_by_character_pairs_without_particles() -> None:
    assert bigrams("我喜欢爬山") == {"喜欢", "欢爬", "爬山"}


def test_numbers_have_no_leading_zeros() -> None:
    assert numbers("on 05 May ２０２３") == {"5", "2023"}
