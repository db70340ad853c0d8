"""Rules against labelled turns (data/extract_rules.jsonl), and what each candidate carries.

`dev` was tuned on. The others were written unseen by the rules, measured, and only then looked at: `held` before the first
rule (first measured at precision 0.94, recall 0.97; all four errors were missing labels), `blind` and `last` after tuning,
in looser language (0.90 and 0.92, recall 0.58 and 0.44: what to expect of the rules in the field).
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from memory.extract.rules import extract
from memory.types import Candidate, Kind, Trust, Turn
from tests.linear import assert_linear

ROWS = [json.loads(line) for line in (Path(__file__).parent / "data" / "extract_rules.jsonl").read_text().splitlines()]
WEDNESDAY = 1684337400.0  # 2023-05-17 15:30 UTC
DAY = 86400.0


def turn(text: str, **overrides: Any) -> Turn:
    given: dict[str, Any] = {"id": "t1", "cube": "c", "session": "s", "key": "k", "user_text": text}
    given |= {"assistant_text": "Noted.", "said_at": WEDNESDAY, "answered_at": WEDNESDAY + 1}
    return Turn(**(given | overrides))


def only(text: str) -> Candidate:
    found = extract(turn(text))
    assert len(found) == 1, found
    return found[0]


class Score:
    """Right, wrong and missed candidates by language and kind. A label is "kind|kind:slot~words that must occur"."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.right: Counter[tuple[str, str]] = Counter()
        self.wrong: Counter[tuple[str, str]] = Counter()
        self.missed: Counter[tuple[str, str]] = Counter()
        for row in rows:
            self._count(row["lang"], list(row["expect"]), extract(turn(row["text"])))

    def _count(self, lang: str, labels: list[str], found: list[Candidate]) -> None:
        for candidate in found:
            label = next((label for label in labels if self._agrees(label, candidate)), None)
            if label is None:
                self.wrong[lang, candidate.kind.value] += 1
            else:
                labels.remove(label)
                self.right[lang, self._kinds(label)[0]] += 1
        for label in labels:
            self.missed[lang, self._kinds(label)[0]] += 1

    @staticmethod
    def _kinds(label: str) -> list[str]:
        return label.partition("~")[0].partition(":")[0].split("|")

    def _agrees(self, label: str, candidate: Candidate) -> bool:
        head, _, words = label.partition("~")
        slot = head.partition(":")[2]
        return candidate.kind.value in self._kinds(label) and words in candidate.text and slot in ("", candidate.slot)

    def precision(self) -> float:
        return self.right.total() / (self.right.total() + self.wrong.total())

    def report(self) -> str:
        lines = []
        for key in sorted(self.right | self.wrong | self.missed):
            right, wrong, missed = self.right[key], self.wrong[key], self.missed[key]
            lines.append(f"{key[0]} {key[1]:<10} precision {right}/{right + wrong}  recall {right}/{right + missed}")
        return "\n".join(lines)


def test_the_set_is_large_mixed_and_half_of_it_holds_nothing() -> None:
    assert len(ROWS) >= 400
    assert 0.4 <= sum(row["lang"] == "zh" for row in ROWS) / len(ROWS) <= 0.6
    assert sum(not row["expect"] for row in ROWS) / len(ROWS) >= 0.4


@pytest.mark.parametrize(("part", "least"), [("dev", 0.95), ("held", 0.95), ("blind", 0.95), ("last", 0.95)])
def test_what_is_extracted_is_right(part: str, least: float) -> None:
    score = Score([row for row in ROWS if row["part"] == part])
    print(f"\n{part}: precision {score.precision():.3f}\n{score.report()}")
    assert score.precision() >= least, score.report()


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_precision_over_the_whole_set(lang: str) -> None:
    assert Score([row for row in ROWS if row["lang"] == lang]).precision() >= 0.95


@pytest.mark.parametrize(
    ("text", "slot"),
    [
        ("My name is Anna.", "name"),
        ("I live in Oslo.", "home.city"),
        ("I just moved to Berlin.", "home.city"),
        ("My favourite colour is teal.", "favourite.color"),
        ("My favorite film is Alien.", "favourite.movie"),
        ("I have a golden retriever called Mango.", "pet.dog.name"),
        ("My wife's name is Laura.", "partner.name"),
        ("No, use metric units.", "answer.units"),
        ("Please always answer in French.", "answer.language"),
        ("I'm vegan.", "diet"),
        ("I'm allergic to nuts.", ""),
        ("I love jazz.", ""),
        ("我叫王芳。", "name"),
        ("我最喜欢的颜色是绿色。", "favourite.color"),
        ("我养了一只狗，名叫豆豆。", "pet.dog.name"),
        ("以后请用英文回答我。", "answer.language"),
        ("我对花生过敏。", ""),
    ],
)
def test_one_value_at_a_time_has_a_slot(text: str, slot: str) -> None:
    assert only(text).slot == slot


def test_a_candidate_quotes_the_user_and_cites_the_turn() -> None:
    found = only("Hi! btw I work at Acme Labs in Geneva.")
    assert (found.text, found.turn, found.role, found.trust) == (
        "I work at Acme Labs in Geneva",
        "t1",
        "user",
        Trust.USER,
    )
    assert found.entities == ("Acme Labs", "Geneva")
    assert "work" in found.tags


def test_a_chinese_clause_without_subject_gets_it_back() -> None:
    assert [c.text for c in extract(turn("我叫王芳，今年32岁，在杭州做产品经理。"))] == [
        "我叫王芳",
        "我今年32岁",
        "我在杭州做产品经理",
    ]


@pytest.mark.parametrize("text", ["I need to finish the report by Friday.", "我周五之前得把季度报告交上去。"])
def test_a_task_is_open_until_its_due_day_ends(text: str) -> None:
    assert only(text).attributes == {"state": "open", "due": 1684540800.0}  # the end of Friday 19 May


@pytest.mark.parametrize("text", ["I finished the report.", "我已经把论文交了。"])
def test_a_finished_task_says_done(text: str) -> None:
    assert only(text).attributes == {"state": "done", "due": None}


@pytest.mark.parametrize("text", ["Yesterday I went to the museum.", "我昨天去了博物馆。"])
def test_an_event_has_the_time_it_speaks_of(text: str) -> None:
    found = only(text)
    assert (found.kind, found.event_time, found.event_end) == (Kind.EVENT, 1684195200.0, 1684195200.0 + DAY)


def test_a_standing_instruction_says_when_and_then() -> None:
    found = only("When I ask for code, don't add comments from now on.")
    assert found.attributes == {"when": "When I ask for code", "then": "don't add comments from now on"}


def test_the_assistants_words_are_not_read() -> None:
    assert extract(turn("ok", assistant_text="I live in Oslo. Your name is Anna.")) == []


@pytest.mark.parametrize("text", ["Hey, can you please remind me to call Ann tomorrow?", "能提醒我明天交报告吗？"])
def test_an_order_in_the_shape_of_a_question_is_a_task(text: str) -> None:
    assert only(text).kind is Kind.TASK


def test_the_same_statement_twice_is_one_candidate() -> None:
    assert len(extract(turn("I love jazz. I love jazz!"))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "> I love my job\n> I live in Rome",
        "```\nI live in Rome\n```",
        "Rewrite this:\nI live in Rome. I love my job.",
        "I live in Rome. " * 120,
        "Anna: I live in Rome\nBob: I love pasta\nAnna: I have a dog\nwho is nicer?",
        "\n".join("I love my garden." for _ in range(60)),
    ],
)
def test_pasted_text_says_nothing_of_the_user(text: str) -> None:
    assert extract(turn(text)) == []


def test_what_stands_around_a_paste_is_still_read() -> None:
    found = extract(turn("I'm vegan.\n\n> I love steak\n\n" + "Lorem ipsum dolor sit amet. " * 80))
    assert [c.text for c in found] == ["I'm vegan"]


NASTY = {
    "blanks": "I " + " " * 100_000 + "love",
    "really": "I " + "really " * 15_000 + "love jazz",
    "quotes": '"' * 100_000,
    "open quotes": "“" * 100_000,
    "apostrophes": "I'm " + "'a " * 30_000,
    "no end": "I have a " + "very-" * 20_000 + "dog",
    "names": "My name is " + "Anna " * 20_000,
    "commas": "I love jazz, " * 8_000,
    "dots": "." * 100_000,
    "a.b.": "A. " * 33_000,
    "digits": "I am " + "1" * 100_000,
    "dates": "on 5 May " * 11_000,
    "chinese": "我" * 100_000,
    "chinese adverbs": "我" + "很" * 50_000 + "喜欢",
    "chinese commas": "我叫王芳，" * 20_000,
    "chinese numbers": "我有" + "十" * 100_000 + "个孩子",
    "newlines": "I\n" * 50_000,
    "colons": "a: b\n" * 20_000,
    "my": "my my " * 16_000,
    "fences": "```\n" * 25_000,
    "write": "write " * 16_000 + "a",
    "word clauses": "\n".join("I " + "word " * 200 for _ in range(100)),
}


@pytest.mark.parametrize("name", NASTY)
def test_long_inputs_stay_cheap(name: str) -> None:
    assert_linear(lambda text: extract(turn(text)), NASTY[name])
