"""What comes again: "every Monday", "on the 1st of every month", 每周三. A text → the rhythm in it, and the days it falls on.

Pure; days are UTC. Only rhythms that the calendar can count are read: "often" and "from time to time" are none.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from memory.extract import dates_en, dates_zh
from memory.extract.text import has_cjk

Unit = Literal["day", "week", "month", "year"]
_DAY_S = 86_400.0
_AHEAD = 800  # days that are looked at: a yearly rhythm comes within them
_WEEKDAY = "|".join(name for name in dates_en.WEEKDAYS if name.endswith("day"))
_EVERY_EN = re.compile(
    rf"\b(?:every|each)\s+(?:(?P<other>other|second)\s+|(?P<count>\d{{1,2}}|two|three|four|six)\s+)?"
    rf"(?:(?P<weekday>{_WEEKDAY})s?|(?P<unit>day|week|month|year)s?|(?P<daily>morning|evening|night|weekday))\b"
    rf"|\bon (?P<plural>{_WEEKDAY})s\b|\b(?P<word>daily|weekly|monthly|yearly|annually)\b",
    re.IGNORECASE,
)
_ON_EN = re.compile(r"\bon the (?P<day>[0-3]?\d)(?:st|nd|rd|th)\b", re.IGNORECASE)
_EVERY_ZH = re.compile(
    r"每隔?(?P<count>\d{1,2}|两|三|四|六)?个?(?:(?P<week>周|星期|礼拜)(?P<weekday>[一二三四五六日天])?|(?P<unit>[天日晚早月年]))"
    r"(?P<day>\d{1,2}|[一二三四五六七八九十]{1,3})?(?P<number>号|日)?"
)
_WORDS: dict[str, Unit] = {
    "daily": "day", "weekly": "week", "monthly": "month", "yearly": "year", "annually": "year",
}  # fmt: skip
_UNITS_ZH: dict[str, Unit] = {"天": "day", "日": "day", "晚": "day", "早": "day", "月": "month", "年": "year"}


@dataclass(frozen=True, slots=True)
class Every:
    """Every `count` units; `on` is the weekday (Monday is 0) of a weekly, the day of the month of a monthly one. Without it
    the last day of the week, the month or the year is meant."""

    unit: Unit
    count: int = 1
    on: int | None = None

    def words(self) -> str:
        """In plain words: "every week on Monday", "every 2 days", "every month on day 1"."""
        often = f"every {self.unit}" if self.count == 1 else f"every {self.count} {self.unit}s"
        if self.on is None:
            return often
        return f"{often} on {calendar.day_name[self.on]}" if self.unit == "week" else f"{often} on day {self.on}"

    def following(self, begun: float, after: float) -> float | None:
        """The end (UTC seconds) of the first day it falls on that ends after `after`, counted from the day of `begun`."""
        first = _day(begun)
        day = max(first, _day(after))
        for _ in range(_AHEAD * self.count):
            end = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() + _DAY_S
            if end > after and self._falls_on(day, first):
                return end
            day += timedelta(days=1)
        return None

    def _falls_on(self, day: date, first: date) -> bool:
        if self.unit == "day":
            return (day - first).days % self.count == 0
        if self.unit == "week":
            weeks = (day - timedelta(days=day.weekday()) - (first - timedelta(days=first.weekday()))).days // 7
            return day.weekday() == (6 if self.on is None else self.on) and weeks % self.count == 0
        last = calendar.monthrange(day.year, day.month)[1]
        if self.unit == "month":
            months = (day.year - first.year) * 12 + day.month - first.month
            return day.day == min(self.on or last, last) and months % self.count == 0
        return (day.month, day.day) == (12, 31) and (day.year - first.year) % self.count == 0


def recurrence(text: str) -> Every | None:
    """The rhythm that a text names, or None."""
    if has_cjk(text):
        match = _EVERY_ZH.search(text)
        return _chinese(match) if match else None
    match = _EVERY_EN.search(text)
    if not match:
        return None
    count = 2 if match["other"] else dates_en.count(match["count"]) if match["count"] else 1
    if weekday := match["weekday"] or match["plural"]:
        return Every("week", count, dates_en.WEEKDAYS[weekday.lower()])
    if match["word"]:
        return Every(_WORDS[match["word"].lower()])
    unit: Unit = "day" if match["daily"] else match["unit"].lower()  # type: ignore[assignment]
    on = _ON_EN.search(text) if unit == "month" else None
    return Every(unit, count, int(on["day"]) if on and 1 <= int(on["day"]) <= 31 else None) if count else None


def without(text: str) -> str:
    """The text without the words that name its rhythm."""
    return _EVERY_ZH.sub(" ", text) if has_cjk(text) else _ON_EN.sub(" ", _EVERY_EN.sub(" ", text))


def _chinese(match: re.Match[str]) -> Every | None:
    count = dates_zh.number(match["count"]) if match["count"] else 1
    if not count:
        return None
    if match["week"]:
        return Every("week", count, dates_zh.WEEKDAYS[match["weekday"]] if match["weekday"] else None)
    unit = _UNITS_ZH[match["unit"]]
    on = None
    if unit == "month" and match["day"] and match["number"]:
        try:
            on = dates_zh.number(match["day"])
        except ValueError:
            return None
    return Every(unit, count, on if on and 1 <= on <= 31 else None)


def _day(at: float) -> date:
    return datetime.fromtimestamp(at, UTC).date()
