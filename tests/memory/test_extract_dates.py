"""Dates in English and Chinese, seen from Wednesday 17 May 2023, 15:30 UTC."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from memory.extract.dates import find_dates
from memory.extract.spans import Prefer
from tests.linear import assert_linear

NOW = datetime(2023, 5, 17, 15, 30, tzinfo=UTC).timestamp()


def said(epoch: float) -> str:
    text = f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%d %H:%M}"
    return text.removesuffix(" 00:00")


def one(text: str, prefer: Prefer = "near") -> tuple[str, str]:
    found = find_dates(text, NOW, prefer=prefer)
    assert len(found) == 1, found
    return said(found[0].start), said(found[0].end)


ENGLISH = [
    ("yesterday I went", "2023-05-16", "2023-05-17"),
    ("the day before yesterday", "2023-05-15", "2023-05-16"),
    ("the day after tomorrow", "2023-05-19", "2023-05-20"),
    ("see you tomorrow", "2023-05-18", "2023-05-19"),
    ("tomorrow morning", "2023-05-18 06:00", "2023-05-18 12:00"),
    ("tomorrow at 3pm", "2023-05-18 15:00", "2023-05-18 16:00"),
    ("3 pm tomorrow", "2023-05-18 15:00", "2023-05-18 16:00"),
    ("today at 9:45", "2023-05-17 09:45", "2023-05-17 10:45"),
    ("2 hours ago", "2023-05-17 13:30", "2023-05-17 14:30"),
    ("last Friday", "2023-05-12", "2023-05-13"),
    ("this Friday", "2023-05-19", "2023-05-20"),
    ("next Friday", "2023-05-26", "2023-05-27"),
    ("by Friday", "2023-05-19", "2023-05-20"),
    ("last Wednesday", "2023-05-10", "2023-05-11"),
    ("last week", "2023-05-08", "2023-05-15"),
    ("next week", "2023-05-22", "2023-05-29"),
    ("last weekend", "2023-05-13", "2023-05-15"),
    ("on the weekend", "2023-05-20", "2023-05-22"),
    ("next month", "2023-06-01", "2023-07-01"),
    ("last year", "2022-01-01", "2023-01-01"),
    ("three days ago", "2023-05-14", "2023-05-15"),
    ("two weeks ago", "2023-05-01", "2023-05-08"),
    ("a couple of months ago", "2023-03-01", "2023-04-01"),
    ("in 10 days", "2023-05-27", "2023-05-28"),
    ("a year from now", "2024-01-01", "2025-01-01"),
    ("on 5 May", "2023-05-05", "2023-05-06"),
    ("the 5th of May", "2023-05-05", "2023-05-06"),
    ("May 5th 2021", "2021-05-05", "2021-05-06"),
    ("May 5, 2021", "2021-05-05", "2021-05-06"),
    ("3 January", "2023-01-03", "2023-01-04"),
    ("2023-05-08", "2023-05-08", "2023-05-09"),
    ("25/12/2022", "2022-12-25", "2022-12-26"),
    ("12/25/2022", "2022-12-25", "2022-12-26"),
    ("in March", "2023-03-01", "2023-04-01"),
    ("last October", "2022-10-01", "2022-11-01"),
    ("next March", "2024-03-01", "2024-04-01"),
    ("what did I do in May 2022?", "2022-05-01", "2022-06-01"),
    ("in 2021", "2021-01-01", "2022-01-01"),
    ("between 2019 and 2021", "2019-01-01", "2022-01-01"),
    ("last summer", "2022-06-01", "2022-09-01"),
    ("in the summer of 2021", "2021-06-01", "2021-09-01"),
    ("next winter", "2023-12-01", "2024-03-01"),
    ("early June", "2023-06-01", "2023-06-11"),
    ("the end of the month", "2023-05-21", "2023-06-01"),
    ("the end of the year", "2023-11-01", "2024-01-01"),
    ("the week before 9 June", "2023-06-02", "2023-06-09"),
    ("the day after 5 May 2023", "2023-05-06", "2023-05-07"),
    ("the Sunday before 25 May 2023", "2023-05-21", "2023-05-22"),
    ("the weekend before 9 June 2023", "2023-06-03", "2023-06-05"),
    ("two days before Christmas", "2022-12-23", "2022-12-24"),
    ("two weeks before 9 June", "2023-05-26", "2023-05-27"),
    ("the week of 9 June", "2023-06-05", "2023-06-12"),
    ("the month before June 2022", "2022-05-01", "2022-06-01"),
    ("from May 3 to May 7", "2023-05-03", "2023-05-08"),
    ("29 February 2024", "2024-02-29", "2024-03-01"),
]
CHINESE = [
    ("我昨天去了故宫", "2023-05-16", "2023-05-17"),
    ("大前天", "2023-05-14", "2023-05-15"),
    ("后天", "2023-05-19", "2023-05-20"),
    ("前天晚上", "2023-05-15 18:00", "2023-05-16"),
    ("明天下午三点", "2023-05-18 15:00", "2023-05-18 16:00"),
    ("周五晚上8点半", "2023-05-19 20:30", "2023-05-19 21:30"),
    ("上周五", "2023-05-12", "2023-05-13"),
    ("下周一", "2023-05-22", "2023-05-23"),
    ("这个星期三", "2023-05-17", "2023-05-18"),
    ("周五之前", "2023-05-19", "2023-05-20"),
    ("上周", "2023-05-08", "2023-05-15"),
    ("上个周末", "2023-05-13", "2023-05-15"),
    ("下个月", "2023-06-01", "2023-07-01"),
    ("三天前", "2023-05-14", "2023-05-15"),
    ("两周后", "2023-05-29", "2023-06-05"),
    ("半年前", "2022-11-01", "2022-12-01"),
    ("十二天后", "2023-05-29", "2023-05-30"),
    ("5月2日", "2023-05-02", "2023-05-03"),
    ("五月二号", "2023-05-02", "2023-05-03"),
    ("十二月二十五号", "2022-12-25", "2022-12-26"),
    ("下个月5号", "2023-06-05", "2023-06-06"),
    ("2021年5月", "2021-05-01", "2021-06-01"),
    ("2021年5月3日", "2021-05-03", "2021-05-04"),
    ("二〇二二年", "2022-01-01", "2023-01-01"),
    ("去年", "2022-01-01", "2023-01-01"),
    ("去年夏天", "2022-06-01", "2022-09-01"),
    ("明年三月", "2024-03-01", "2024-04-01"),
    ("月底", "2023-05-21", "2023-06-01"),
    ("5月初", "2023-05-01", "2023-05-11"),
    ("今年年初", "2023-01-01", "2023-04-01"),
    ("去年国庆节", "2022-10-01", "2022-10-02"),
    ("5月1日到5月7日", "2023-05-01", "2023-05-08"),
]


@pytest.mark.parametrize(("text", "start", "end"), ENGLISH + CHINESE)
def test_a_date_is_resolved_against_the_message(text: str, start: str, end: str) -> None:
    assert one(text) == (start, end)


@pytest.mark.parametrize(
    ("text", "prefer", "start"),
    [
        ("on Friday", "past", "2023-05-12"),
        ("on Friday", "future", "2023-05-19"),
        ("in December", "past", "2022-12-01"),
        ("in December", "future", "2023-12-01"),
        ("on 5 May", "future", "2024-05-05"),
        ("on 5 June", "past", "2022-06-05"),
        ("on the weekend", "past", "2023-05-13"),
        ("周五", "past", "2023-05-12"),
        ("1月3日", "future", "2024-01-03"),
    ],
)
def test_the_tense_decides_where_a_date_without_year_lies(text: str, prefer: Prefer, start: str) -> None:
    assert one(text, prefer)[0] == start


@pytest.mark.parametrize(
    "text",
    [
        "may I ask", "you may 5 times", "version 2022.1", "5/6/2023", "31 February", "in 99999 days", "I sat in the sun",
        "march on", "call 555-2023", "我有三年经验", "一周三次", "月饼真好吃", "13月5日", "", "1.5 mg", "the second one",
    ],
)  # fmt: skip
def test_what_is_no_date_is_left_alone(text: str) -> None:
    assert find_dates(text, NOW) == []


def test_spans_quote_the_text_in_order_without_overlap() -> None:
    text = "I moved in March 2021 and left last Friday."
    found = find_dates(text, NOW)
    assert [span.text for span in found] == ["March 2021", "last Friday"]
    assert all(text[span.at : span.at + len(span.text)] == span.text for span in found)
    assert [span.precision for span in found] == ["month", "day"]


@pytest.mark.parametrize("now", [0.0, -62135596800.0 + 86400 * 400, 253402300000.0])
def test_the_edges_of_the_calendar_raise_nothing(now: float) -> None:
    for text, _, _ in ENGLISH + CHINESE:
        find_dates(text, now)


@pytest.mark.parametrize(
    "text", ["1 " * 50_000, "may " * 25_000, "the week before " * 6_000, "十" * 100_000, "周" * 100_000]
)
def test_long_inputs_stay_cheap(text: str) -> None:
    assert_linear(lambda part: find_dates(part, NOW), text)
