"""Chinese date expressions: a table of patterns, each with what it means around a moment."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

from memory.extract import spans
from memory.extract.spans import Bounds, Moment

DIGITS = {char: value for value, char in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
DAYS = {"大前天": -3, "前天": -2, "昨天": -1, "昨日": -1, "昨晚": -1, "今天": 0, "今日": 0, "今晚": 0, "今早": 0} | {
    "明天": 1,
    "明日": 1,
    "明晚": 1,
    "明早": 1,
    "后天": 2,
    "大后天": 3,
    "後天": 2,
}
YEARS = {"大前年": -3, "前年": -2, "去年": -1, "今年": 0, "明年": 1, "后年": 2}
SHIFTS = {"上上": -2, "上": -1, "这": 0, "這": 0, "本": 0, "下": 1, "下下": 2}
WEEKDAYS = {"一": 0, "二": 1, "三": 2, "四": 3, "五": 4, "六": 5, "日": 6, "天": 6} | {
    str(n): n - 1 for n in range(1, 7)
}
SEASONS = {"春": 3, "夏": 6, "秋": 9, "冬": 12}
PARTS = {"初": "early", "上旬": "early", "中": "mid", "中旬": "mid", "底": "late", "末": "late", "下旬": "late"}
FEASTS = {"元旦": (1, 1), "情人节": (2, 14), "劳动节": (5, 1), "儿童节": (6, 1), "国庆节": (10, 1), "国庆": (10, 1)} | {
    "平安夜": (12, 24),
    "圣诞节": (12, 25),
    "圣诞": (12, 25),
}


def _any(words: dict[str, object] | dict[str, int] | dict[str, str] | dict[str, tuple[int, int]]) -> str:
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


_NUM = r"(?:\d{1,3}|[一二两兩三四五六七八九十]{1,3})"
_YEAR = r"(?:(?P<year>(?:19|20)\d\d|[一二][零〇九][零〇一二三四五六七八九]{2})年)"
_SOME_YEAR = rf"(?:{_YEAR}|(?P<relative>{_any(YEARS)}))"
_MONTH = rf"(?:(?P<month>{_NUM})月份?|(?P<shift>{_any(SHIFTS)})个?月)"
_WEEK = r"(?:周|星期|礼拜|週)"


def number(text: str) -> int:
    """A Chinese or Arabic number below 100, or a year read digit by digit. Raises ValueError ("二三十" is no number)."""
    if text.isdecimal():
        return int(text)
    try:
        if "十" in text:
            tens, _, ones = text.partition("十")
            return (DIGITS[tens] if tens else 1) * 10 + (DIGITS[ones] if ones else 0)
        return int("".join(str(DIGITS[char]) for char in text))
    except KeyError as error:
        raise ValueError(f"not a number: {text}") from error


def _year(m: re.Match[str], moment: Moment) -> int | None:
    if m["year"]:
        return number(m["year"])
    return moment.now.year + YEARS[m["relative"]] if m["relative"] else None


def _month(m: re.Match[str], moment: Moment) -> Bounds | None:
    if m["shift"]:
        return moment.month(SHIFTS[m["shift"]])
    of_year, of_month = _year(m, moment), number(m["month"])
    if not 1 <= of_month <= 12:
        return None
    span = spans.month(of_year, of_month) if of_year else moment.nearest_month(of_month)
    return spans.part(span, PARTS[m["part"]]) if m["part"] else span


def _month_day(m: re.Match[str], moment: Moment) -> Bounds | None:
    day, of_year = number(m["day"]), _year(m, moment)
    if m["shift"]:
        start = moment.month(SHIFTS[m["shift"]])[0]
        return spans.date(start.year, start.month, day)
    of_month = number(m["month"])
    return spans.date(of_year, of_month, day) if of_year else moment.nearest_date(day, of_month)


def _year_or_part(m: re.Match[str], moment: Moment) -> Bounds | None:
    span = spans.year(_year(m, moment) or moment.now.year)
    return spans.part(span, PARTS[m["part"]]) if m["part"] else span


def _season(m: re.Match[str], moment: Moment) -> Bounds:
    of_year, first = _year(m, moment), SEASONS[m["season"]]
    return spans.season(of_year, first) if of_year else moment.nearest_season(first, 0)


def _weekday(m: re.Match[str], moment: Moment) -> Bounds:
    day = WEEKDAYS[m["weekday"]]
    return moment.weekday(day, SHIFTS[m["shift"]]) if m["shift"] else moment.nearest_weekday(day)


def _moved(m: re.Match[str], moment: Moment) -> Bounds:
    by, unit = 0.5 if m["count"] == "半" else number(m["count"]), m["unit"]
    by = -by if m["way"] in ("前", "之前", "以前") else by
    if "小时" in unit:
        start = moment.now + timedelta(hours=by)
        return start, start + timedelta(hours=1), "hour"
    if "月" in unit:
        return moment.month(int(by)) if by % 1 == 0 else moment.week(int(by * 4))
    if "年" in unit:
        return moment.year(int(by)) if by % 1 == 0 else moment.month(int(by * 12))
    return moment.week(int(by)) if unit[-1] in "周期拜" else moment.day(int(by))


def _feast(m: re.Match[str], moment: Moment) -> Bounds | None:
    of_month, day = FEASTS[m["feast"]]
    of_year = _year(m, moment)
    return spans.date(of_year, of_month, day) if of_year else moment.nearest_date(day, of_month)


_PART = rf"(?P<part>{_any(PARTS)})"
TABLE: list[tuple[str, Callable[[re.Match[str], Moment], Bounds | None]]] = [
    (_any(DAYS), lambda m, t: t.day(DAYS[m[0]])),
    (rf"{_SOME_YEAR}?的?{_MONTH}(?P<day>{_NUM})(?:日|号|號)", _month_day),
    (
        rf"(?<![月\d一二三四五六七八九十])(?P<day>{_NUM})(?:号|號)(?=之?以?前|截止|到期)",
        lambda m, t: t.nearest_monthday(number(m["day"])),
    ),
    (rf"{_SOME_YEAR}?的?{_MONTH}{_PART}?(?!饼|亮|球|经)", _month),
    (rf"(?P<shift>{_any(SHIFTS)})?个?{_WEEK}(?P<weekday>[一二三四五六日天1-6])(?!个|次|天|点)", _weekday),
    (rf"(?P<shift>{_any(SHIFTS)})个?周末", lambda m, t: t.weekend(SHIFTS[m["shift"]])),
    (r"周末", lambda _, t: t.nearest_weekend()),
    (rf"(?P<shift>{_any(SHIFTS)})个?{_WEEK}(?![一二三四五六日天末])", lambda m, t: t.week(SHIFTS[m["shift"]])),
    (rf"{_SOME_YEAR}?的?(?P<season>[春夏秋冬])(?:天|季)", _season),
    (rf"{_SOME_YEAR}(?:年?{_PART})?", _year_or_part),
    (rf"(?P<year>)(?P<relative>)年{_PART}(?!纪)", _year_or_part),
    (rf"(?:这个|本)?月{_PART}", lambda m, t: spans.part(t.month(), PARTS[m["part"]])),
    (
        rf"(?P<count>{_NUM}|半)(?P<unit>天|个?{_WEEK}|个?月|年|个?半?小时)(?P<way>之前|以前|前|之后|以后|后)(?!的?每)",
        _moved,
    ),
    (rf"{_SOME_YEAR}?的?(?P<feast>{_any(FEASTS)})", _feast),
]
