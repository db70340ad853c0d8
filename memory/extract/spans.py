"""Spans of the calendar around a moment: days, weeks, months, seasons. Half-open [start, end), UTC epoch seconds.

A `Moment` is the reference ("now") with the direction in which a date without a year is sought. Knows no language.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

Precision = Literal["hour", "day", "weekend", "week", "month", "season", "year", "range"]
Prefer = Literal["near", "past", "future"]
Bounds = tuple[datetime, datetime, Precision]
DAY = timedelta(days=1)
SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}


@dataclass(frozen=True, slots=True)
class DateSpan:
    """A date found in a text: start ≤ t < end in epoch seconds, the words that said it, and where they stand."""

    start: float
    end: float
    text: str
    precision: Precision
    at: int = 0  # offset of `text`


@dataclass(frozen=True, slots=True)
class Moment:
    """The reference for relative dates."""

    now: datetime
    prefer: Prefer = "near"

    @classmethod
    def of(cls, epoch: float, prefer: Prefer = "near") -> Moment:
        return cls(datetime.fromtimestamp(epoch, UTC), prefer)

    @property
    def today(self) -> datetime:
        return self.now.replace(hour=0, minute=0, second=0, microsecond=0)

    def day(self, offset: int = 0) -> Bounds:
        """The day `offset` days from today."""
        return days(self.today + offset * DAY)

    def week(self, offset: int = 0) -> Bounds:
        """Monday to Sunday, `offset` weeks from this one."""
        start = self.today + (7 * offset - self.today.weekday()) * DAY
        return start, start + 7 * DAY, "week"

    def weekend(self, offset: int = 0) -> Bounds:
        """Saturday and Sunday of the week `offset` weeks from this one."""
        start = self.week(offset)[0] + 5 * DAY
        return start, start + 2 * DAY, "weekend"

    def weekday(self, number: int, offset: int) -> Bounds:
        """Day `number` (Monday is 0) of the week `offset` weeks from this one."""
        return days(self.week(offset)[0] + number * DAY)

    def month(self, offset: int = 0) -> Bounds:
        """The calendar month `offset` months from this one."""
        index = self.now.year * 12 + self.now.month - 1 + offset
        return month(index // 12, index % 12 + 1)

    def year(self, offset: int = 0) -> Bounds:
        """The calendar year `offset` years from this one."""
        return year(self.now.year + offset)

    def pick(self, spans: list[Bounds]) -> Bounds:
        """Of several readings, the nearest in the preferred direction (today counts for both)."""
        allowed = [s for s in spans if self._fits(s)] or spans
        return min(allowed, key=lambda s: (abs(s[0] - self.today), -s[0].timestamp()))

    def nearest_weekday(self, number: int) -> Bounds:
        """A bare weekday: the last, this or the next one; a plain "on Friday" looks forward when nothing else is known."""
        ahead = (number - self.today.weekday()) % 7
        if self.prefer == "past":
            return self.day(ahead - 7 if ahead else 0)
        return self.day(ahead)

    def nearest_weekend(self) -> Bounds:
        """A bare "at the weekend"."""
        return self.weekend(-1 if self.prefer == "past" and self.today.weekday() < 5 else 0)

    def nearest_month(self, number: int) -> Bounds:
        """A month without a year."""
        return self.pick([month(self.now.year + shift, number) for shift in (-1, 0, 1)])

    def nearest_date(self, number: int, of_month: int) -> Bounds | None:
        """A day and month without a year."""
        found = [date(self.now.year + shift, of_month, number) for shift in (-1, 0, 1)]
        spans = [span for span in found if span]
        return self.pick(spans) if spans else None

    def nearest_monthday(self, number: int) -> Bounds | None:
        """A day of the month without its month ("by the 15th")."""
        begins = [self.month(shift)[0] for shift in (-1, 0, 1, 2)]
        found = [date(begin.year, begin.month, number) for begin in begins]
        spans = [span for span in found if span]
        return self.pick(spans) if spans else None

    def nearest_season(self, first_month: int, offset: int) -> Bounds:
        """A season: the latest that is over (-1), the one of this year (0), the first that is to come (1)."""
        spans = [season(self.now.year + shift, first_month) for shift in (-2, -1, 0, 1, 2)]
        if offset < 0:
            return [s for s in spans if s[1] <= self.now][-1]
        if offset > 0:
            return next(s for s in spans if s[0] > self.now)
        return self.pick(spans)

    def _fits(self, span: Bounds) -> bool:
        if self.prefer == "past":
            return span[0] <= self.now
        return self.prefer == "near" or span[1] > self.now


def days(start: datetime, count: int = 1) -> Bounds:
    """`count` whole days from `start`."""
    return start, start + count * DAY, "day" if count == 1 else "range"


def date(year_: int, month_: int, day_: int) -> Bounds | None:
    """One day, or None when the calendar has no such day."""
    try:
        return days(datetime(year_, month_, day_, tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def month(year_: int, month_: int) -> Bounds:
    """One calendar month."""
    index = year_ * 12 + month_
    return datetime(year_, month_, 1, tzinfo=UTC), datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC), "month"


def year(year_: int) -> Bounds:
    """One calendar year."""
    return datetime(year_, 1, 1, tzinfo=UTC), datetime(year_ + 1, 1, 1, tzinfo=UTC), "year"


def season(year_: int, first_month: int) -> Bounds:
    """Three months of the northern hemisphere; winter belongs to the year in which it begins."""
    start = month(year_, first_month)[0]
    index = year_ * 12 + first_month + 2
    return start, datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC), "season"


def part(span: Bounds, which: str) -> Bounds:
    """The early, mid or late part of a month, a year or a week; other spans stay whole."""
    start, end, precision = span
    if precision == "month":
        tenth, twentieth = start + 10 * DAY, start + 20 * DAY
        return {"early": (start, tenth), "mid": (tenth, twentieth), "late": (twentieth, end)}[which] + ("range",)
    if precision == "year":
        first, last = {"early": (1, 3), "mid": (5, 8), "late": (11, 12)}[which]
        return month(start.year, first)[0], month(start.year, last)[1], "range"
    if precision == "week":
        first, last = {"early": (0, 2), "mid": (2, 4), "late": (4, 7)}[which]
        return start + first * DAY, start + last * DAY, "range"
    return span
