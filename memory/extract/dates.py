"""Dates in a text, English and Chinese, relative ones resolved against a moment. Table-driven; no I/O, nothing raised.

`find_dates("I moved last Friday", now)` gives half-open spans of UTC epoch seconds with the words that said them. The
same function reads messages (`prefer` says in which direction a date without a year lies) and questions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

from memory.extract import dates_en, dates_zh, spans
from memory.extract.spans import Bounds, DateSpan, Moment, Prefer
from memory.extract.text import has_cjk

__all__ = ["DateSpan", "find_dates"]
LONGEST = 4000  # characters that are looked at; a date further on says nothing about the sentence
_Resolve = Callable[[re.Match[str], Moment], Bounds | None]
_Found = tuple[int, int, Bounds]

_ENGLISH: list[tuple[re.Pattern[str], _Resolve]] = [
    (re.compile(rf"(?<![\w./-]){pattern}", re.IGNORECASE), resolve) for pattern, resolve in dates_en.TABLE
]
_CHINESE: list[tuple[re.Pattern[str], _Resolve]] = [
    (re.compile(pattern), resolve) for pattern, resolve in dates_zh.TABLE
]
_HINT_EN = re.compile(
    r"\d|day|night|tomorrow|tonight|morning|afternoon|evening|week|month|year|spring|summer|autumn|fall|winter|hour|christmas"
    r"|halloween|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mon|tue|wed|thu|fri|sat|sun",
    re.IGNORECASE,
)
_HINT_ZH = re.compile(r"[\d年月日号天周晚早季前后後旦诞夜末]|星期|礼拜|昨|劳动节|情人节|国庆|儿童节|小时")
_ANCHOR = re.compile(
    rf"(?:the |(?P<count>\d{{1,3}}|{'|'.join(sorted(dates_en.COUNTS, key=len, reverse=True))}) )?"
    rf"(?P<unit>days?|weekends?|weeks?|months?|years?|night|{'|'.join(name for name in dates_en.WEEKDAYS if len(name) > 5)}) "
    r"(?P<way>before|prior to|preceding|after|following|of) (?:the )?$",
    re.IGNORECASE,
)
_LEADING = re.compile(r"(?:before|after) ", re.IGNORECASE)
_JOIN = re.compile(r"\s*(?:to|until|till|and|through|-|–|—|到|至|~)\s*", re.IGNORECASE)
_OPENS = re.compile(r"(?:from|between|从|在)\s*$", re.IGNORECASE)
_CLOCK = re.compile(
    r",?\s*(?:at |around |about |by )?(?:(?P<h>\d\d?)(?::(?P<m>[0-5]\d))?\s*(?P<half>am|pm|a\.m\.|p\.m\.)?(?!\d)"
    r"|(?P<zone>morning|noon|afternoon|evening|night)\b)",
    re.IGNORECASE,
)
_CLOCK_BEFORE = re.compile(r"(?P<h>\d\d?)(?::(?P<m>[0-5]\d))?\s*(?P<half>am|pm)(?: on)? $", re.IGNORECASE)
_CLOCK_ZH = re.compile(
    r"的?(?P<zone>早上|早晨|上午|中午|下午|傍晚|晚上)?(?:(?P<h>\d\d?|[一二两三四五六七八九十]{1,3})(?:[点點时](?:(?P<m>[0-5]\d)分?|(?P<quarter>半))?"
    r"|:(?P<m2>[0-5]\d)))?"
)
_ZONES = {"morning": (6, 12), "noon": (11, 14), "afternoon": (12, 18), "evening": (18, 24), "night": (18, 24)} | {
    "早上": (6, 12), "早晨": (6, 10), "上午": (6, 12), "中午": (11, 14), "下午": (12, 18), "傍晚": (17, 20), "晚上": (18, 24),
}  # fmt: skip


def find_dates(text: str, now: float, *, prefer: Prefer = "near") -> list[DateSpan]:
    """The dates in `text` in order of appearance, without overlaps; `now` is the epoch second it was said.

    `prefer` decides what "on 5 May" or "on Friday" mean: the nearest (default), the latest past or the next future one.
    Weeks begin on Monday, seasons are northern, "next Friday" is the Friday of the next week.
    """
    text = text[:LONGEST].replace("’", "'")
    chinese = has_cjk(text)
    if not (_HINT_EN.search(text) or (chinese and _HINT_ZH.search(text))):
        return []
    moment = Moment.of(now, prefer)
    found = _matches(text, moment, _CHINESE) if chinese else []
    if not chinese or re.search(r"[A-Za-z]{3}|\d-\d|\d/\d", text):
        found += _matches(text, moment, _ENGLISH)
    found = _longest([_placed(text, one) for one in _longest(found)])
    return [
        DateSpan(start.timestamp(), end.timestamp(), text[at:to], precision, at)
        for at, to, (start, end, precision) in _joined(text, found)
    ]


def _matches(text: str, moment: Moment, table: list[tuple[re.Pattern[str], _Resolve]]) -> list[_Found]:
    found = []
    for pattern, resolve in table:
        for match in pattern.finditer(text):
            try:
                bounds = resolve(match, moment)
            except (ValueError, OverflowError):  # 31 February, the year 12000
                continue
            if bounds:
                found.append((match.start(), match.end(), bounds))
    return found


def _longest(found: list[_Found]) -> list[_Found]:
    kept: list[_Found] = []
    for one in sorted(found, key=lambda one: (one[0], -one[1])):
        if not kept or one[0] >= kept[-1][1]:
            kept.append(one)
        elif one[1] - one[0] > kept[-1][1] - kept[-1][0]:
            kept[-1] = one
    return kept


def _placed(text: str, one: _Found) -> _Found:
    try:
        return _anchored(text, _timed(text, one))
    except (ValueError, OverflowError):  # no such hour, or beyond the calendar
        return one


def _timed(text: str, one: _Found) -> _Found:
    """Narrow a day by the clock time or the part of the day that stands beside it."""
    at, to, (start, end, precision) = one
    if precision != "day":
        return one
    after = (_CLOCK_ZH if has_cjk(text[at:to]) else _CLOCK).match(text, to)
    before = None if after and after[0] else _CLOCK_BEFORE.search(text[max(0, at - 12) : at])
    match = before or after
    zone, hour, minute = _clock(match) if match else (None, None, 0)
    if hour is not None and hour < 24:
        start = start + timedelta(hours=hour, minutes=minute)
        return (at - len(before[0]) if before else at), (to if before else match.end()) if match else to, (
            start, start + timedelta(hours=1), "hour")  # fmt: skip
    if zone and match:
        return at, match.end(), (start + timedelta(hours=zone[0]), start + timedelta(hours=zone[1]), "range")
    return at, to, (start, end, precision)


def _clock(match: re.Match[str]) -> tuple[tuple[int, int] | None, int | None, int]:
    groups = match.groupdict()
    zone = _ZONES.get((groups.get("zone") or "").lower())
    half, minutes = (groups.get("half") or "").lower(), groups.get("m") or groups.get("m2")
    chinese = "quarter" in groups
    if not groups["h"] or not (half or minutes or chinese):
        return zone, None, 0
    hour = dates_zh.number(groups["h"])
    afternoon = half.startswith("p") or (zone is not None and zone[0] >= 12)
    if afternoon and hour < 12:
        hour += 12
    if half.startswith("a") and hour == 12:
        hour = 0
    return zone, hour, int(minutes or (30 if groups.get("quarter") else 0))


def _anchored(text: str, one: _Found) -> _Found:
    """ "The week before 9 June", "two days after Christmas": a span that hangs on another."""
    at, to, bounds = one
    leading = _LEADING.match(text, at)
    cut = leading.end() if leading else at
    head = text[max(0, at - 40) : cut]
    match = _ANCHOR.search(head)
    if not match:
        return one
    unit, way = match["unit"].lower().removesuffix("s"), match["way"].lower()
    begin = max(0, at - 40) + match.start()
    shifted = _hang(unit, dates_en.count(match["count"]) if match["count"] else None, way, bounds)
    return (begin, to, shifted) if shifted else one


def _hang(unit: str, count: int | None, way: str, bounds: Bounds) -> Bounds | None:
    start, end, precision = bounds
    sign = 0 if way == "of" else 1 if way in ("after", "following") else -1
    length = {"day": 1, "night": 1, "week": 7}.get(unit)
    if unit in dates_en.WEEKDAYS:
        number, base = dates_en.WEEKDAYS[unit], start if sign <= 0 else end
        gap = (base.weekday() - number - 1) % 7 + 1 if sign < 0 else (number - base.weekday()) % 7
        return spans.days(base + sign * gap * spans.DAY)
    if not sign:
        return Moment(start).week() if unit == "week" else None if unit != "weekend" else Moment(start).weekend()
    if count and length:
        day = spans.days(start + sign * count * length * spans.DAY)
        return day if length == 1 else (day[0], day[1], "day")
    if length:
        low = start - length * spans.DAY if sign < 0 else end
        return low, low + length * spans.DAY, "day" if length == 1 else "week"
    anchor = Moment(start)
    if unit == "weekend":
        saturday = (
            start - ((start.weekday() - 5) % 7 or 7) * spans.DAY
            if sign < 0
            else end + (5 - end.weekday()) % 7 * spans.DAY
        )
        return saturday, saturday + 2 * spans.DAY, "weekend"
    by = sign * (count or 1)
    return anchor.month(by) if unit == "month" else anchor.year(by) if precision != "range" or unit == "year" else None


def _joined(text: str, found: list[_Found]) -> list[_Found]:
    """ "From A to B" and "between A and B" are one span."""
    out: list[_Found] = []
    for one in found:
        if out:
            at, to, (start, end, _) = out[-1]
            link = _JOIN.fullmatch(text, to, one[0])
            opened = _OPENS.search(text[max(0, at - 10) : at]) or _OPENS.match(text[at : at + 8].split(" ")[0])
            if link and one[2][1] > end and (opened or link[0].strip() not in ("and", "")):
                out[-1] = (at, one[1], (start, one[2][1], "range"))
                continue
        out.append(one)
    return out
