"""English date expressions: a table of patterns, each with what it means around a moment."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

from memory.extract import spans
from memory.extract.spans import SEASONS, Bounds, Moment

MONTHS = {
    name: number
    for number, names in enumerate(
        "january jan|february feb|march mar|april apr|may|june jun|july jul|august aug|september sept sep"
        "|october oct|november nov|december dec".split("|"),
        start=1,
    )
    for name in names.split()
}
WEEKDAYS = {
    name: number
    for number, names in enumerate(
        "monday mon|tuesday tues tue|wednesday wed|thursday thurs thur thu|friday fri|saturday sat|sunday sun".split(
            "|"
        )
    )
    for name in names.split()
}
COUNTS = {
    name: number
    for number, names in {
        1: "a an one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine",
        10: "ten", 11: "eleven", 12: "twelve", 14: "fourteen", 15: "fifteen", 20: "twenty", 30: "thirty",
    }.items()
    for name in names.split()
} | {"couple": 2, "a couple": 2, "a couple of": 2, "few": 3, "a few": 3}  # fmt: skip
FEASTS = {"christmas eve": (12, 24), "christmas": (12, 25), "new year's eve": (12, 31), "halloween": (10, 31)} | {
    "new year's day": (1, 1),
    "valentine's day": (2, 14),
}
PARTS = {
    "early": "early",
    "beginning": "early",
    "start": "early",
    "mid": "mid",
    "middle": "mid",
    "late": "late",
    "end": "late",
}
SHIFTS = {
    "last": -1,
    "past": -1,
    "previous": -1,
    "this": 0,
    "the current": 0,
    "next": 1,
    "the coming": 1,
    "this coming": 1,
}


def _any(*words: str) -> str:
    return "(?:" + "|".join(sorted((re.escape(word) for word in words), key=len, reverse=True)) + ")"


_M = rf"(?P<month>{_any(*MONTHS)})\b\.?"
_D = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_D_ONLY = (  # a day of the month alone: nothing that it could count may follow
    r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)\b"
    r"(?=\s*(?:$|[,.;:!?)]|(?:at|and|or|but|so|if|because|instead|please|in the|this|next|latest)\b))"
)
_Y = r"(?P<year>(?:19|20)\d\d)(?!\d)"
_W = rf"(?P<weekday>{_any(*WEEKDAYS)})\b"
_W_FULL = rf"(?P<weekday>{_any(*(name for name in WEEKDAYS if name.endswith('day')))})\b"
_N = rf"(?P<count>\d{{1,3}}|{_any(*COUNTS)})"
_UNIT = r"(?P<unit>day|week|weekend|month|year)s?\b"
_SHIFT = rf"(?P<shift>{_any(*SHIFTS)})"
_SEASON = rf"(?P<season>{_any(*SEASONS)})\b"
_LEAD = r"(?:in|during|since|until|till|by|before|after|from|around|throughout|between)"


def _year(m: re.Match[str]) -> int:
    return int(m["year"])


def count(text: str) -> int:
    """The number that a digit group or a number word says."""
    return int(text) if text.isdigit() else COUNTS[" ".join(text.lower().split())]


def moved(moment: Moment, unit: str, by: int) -> Bounds:
    """The day, week, month or year that lies `by` units from now."""
    made = {
        "day": moment.day,
        "week": moment.week,
        "month": moment.month,
        "year": moment.year,
        "weekend": moment.weekend,
    }
    return made[unit](by)


def _month_day(m: re.Match[str], moment: Moment) -> Bounds | None:
    if m["month"] == "may" and not (m["year"] or m.string[: m.start()].endswith(("on ", "by ")) or m[0][-1].isalpha()):
        return None  # "you may 5 times": the verb
    number = MONTHS[m["month"].lower()]
    return spans.date(_year(m), number, int(m["day"])) if m["year"] else moment.nearest_date(int(m["day"]), number)


def _month(m: re.Match[str], moment: Moment) -> Bounds:
    number = MONTHS[m["month"].lower()]
    return spans.month(_year(m), number) if m["year"] else moment.nearest_month(number)


def _month_part(m: re.Match[str], moment: Moment) -> Bounds:
    return spans.part(_month(m, moment), PARTS[m["part"].lower()])


def _shifted_month(m: re.Match[str], moment: Moment) -> Bounds:
    number, shift = MONTHS[m["month"].lower()], SHIFTS[m["shift"].lower()]
    this_year = spans.month(moment.now.year, number)
    if shift < 0 and this_year[1] > moment.now:
        return spans.month(moment.now.year - 1, number)
    if shift > 0 and this_year[0] <= moment.now:
        return spans.month(moment.now.year + 1, number)
    return this_year


def _weekday(m: re.Match[str], moment: Moment) -> Bounds:
    number = WEEKDAYS[m["weekday"].lower()]
    if not m["shift"]:
        return moment.nearest_weekday(number)
    shift = SHIFTS[m["shift"].lower()]
    if shift < 0:  # the latest one before today
        return moment.day(-((moment.today.weekday() - number) % 7 or 7))
    return moment.weekday(number, shift)


def _season(m: re.Match[str], moment: Moment) -> Bounds:
    first = SEASONS[m["season"].lower()]
    if m["year"]:
        return spans.season(_year(m), first)
    return moment.nearest_season(first, SHIFTS[m["shift"].lower()] if m["shift"] else 0)


def _numeric(m: re.Match[str], _moment: Moment) -> Bounds | None:
    first, second = int(m["first"]), int(m["second"])
    if first > 12 >= second or first == second:
        return spans.date(_year(m), second, first)
    return spans.date(_year(m), first, second) if second > 12 >= first else None  # 5/6/2023 could be either: left alone


def _feast(m: re.Match[str], moment: Moment) -> Bounds | None:
    of_month, day = FEASTS[m["feast"].lower()]
    return spans.date(_year(m), of_month, day) if m["year"] else moment.nearest_date(day, of_month)


def _hours(moment: Moment, by: int) -> Bounds:
    start = moment.now + timedelta(hours=by)
    return start, start + timedelta(hours=1), "hour"


def _part(m: re.Match[str], moment: Moment) -> Bounds:
    return spans.part(moved(moment, m["unit"].lower(), SHIFTS.get(m["shift"].lower(), 0)), PARTS[m["part"].lower()])


def _ending(m: re.Match[str], moment: Moment) -> Bounds:
    return spans.part(moved(moment, m["unit"].lower(), 0), "late")


def _years(m: re.Match[str], _moment: Moment) -> Bounds:
    return spans.year(_year(m))[0], spans.year(int(m["last"]))[1], "range"


NAMED_DAYS = {
    "the day before yesterday": -2, "the day after tomorrow": 2, "yesterday": -1, "last night": -1, "today": 0,
    "tonight": 0, "this morning": 0, "this afternoon": 0, "this evening": 0, "tomorrow": 1,
}  # fmt: skip

TABLE: list[tuple[str, Callable[[re.Match[str], Moment], Bounds | None]]] = [
    (rf"{_any(*NAMED_DAYS)}\b", lambda m, t: t.day(NAMED_DAYS[m[0].lower()])),
    (r"(?P<year>\d{4})[-/.](?P<m>\d\d?)[-/.](?P<d>\d\d?)(?!\d)", lambda m, _: spans.date(_year(m), int(m["m"]), int(m["d"]))),
    (rf"(?P<first>\d\d?)[/.](?P<second>\d\d?)[/.]{_Y}", _numeric),
    (rf"(?:the )?{_D}(?: of)? {_M}(?:,? (?:of )?{_Y})?", _month_day),
    (rf"{_M} (?:the )?{_D}\b(?!:)(?:,? {_Y})?", _month_day),
    (rf"{_M},? (?:of )?{_Y}", _month),
    (rf"{_SHIFT} {_M}", _shifted_month),
    (rf"{_LEAD} {_M}(?P<year>)(?! \d)", _month),
    (rf"(?:the )?(?P<part>{_any(*PARTS)})(?:-| of | ){_M}(?: {_Y})?", _month_part),
    (rf"(?:the )?(?P<part>{_any(*PARTS)}) of (?P<shift>the|this|last|next) (?P<unit>week|month|year)\b", _part),
    (r"(?:the )?(?P<unit>week|month|year)'s end\b", _ending),
    (r"(?:by|before|until|till) end of (?P<unit>week|month|year)\b", _ending),
    (rf"(?:by|before|until|till|due|due on|no later than) the {_D_ONLY}", lambda m, t: t.nearest_monthday(int(m["day"]))),
    (rf"{_SHIFT} {_W}", _weekday),
    (rf"(?P<shift>){_W_FULL}", _weekday),
    (rf"(?:on|by|until|before) (?P<shift>){_W}", _weekday),
    (rf"{_SHIFT} {_UNIT}", lambda m, t: moved(t, m["unit"].lower(), SHIFTS[m["shift"].lower()])),
    (r"(?:on|at|over|during|by|before) the weekend\b", lambda _, t: t.nearest_weekend()),
    (rf"(?:{_SHIFT} |(?:in |during )?(?:the )?){_SEASON}(?: of)? {_Y}", _season),
    (rf"{_SHIFT} {_SEASON}(?P<year>)", _season),
    (rf"(?:in|during|over|by|before|after|since|until) (?:the )?{_SEASON}(?P<year>)(?P<shift>)", _season),
    (rf"{_N} {_UNIT} (?:ago|earlier|back)\b", lambda m, t: moved(t, m["unit"].lower(), -count(m["count"]))),
    (rf"in {_N} {_UNIT}(?! of)", lambda m, t: moved(t, m["unit"].lower(), count(m["count"]))),
    (rf"{_N} {_UNIT} from (?:now|today)\b", lambda m, t: moved(t, m["unit"].lower(), count(m["count"]))),
    (rf"{_N} hours? ago\b", lambda m, t: _hours(t, -count(m["count"]))),
    (rf"in {_N} hours?\b", lambda m, t: _hours(t, count(m["count"]))),
    (rf"(?:between|from) {_Y} (?:and|to|until) (?P<last>(?:19|20)\d\d)\b", _years),
    (rf"(?:{_LEAD}|early|mid|late|back in) {_Y}(?![-/.]\d)", lambda m, _: spans.year(_year(m))),
    (rf"(?P<feast>{_any(*FEASTS)})(?:,? {_Y})?", _feast),
]  # fmt: skip
