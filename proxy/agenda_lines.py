"""The agenda in a prompt: the open tasks as lines of the recall block, and the reminder at the beginning of a session. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from memory.agenda import Item, pressing
from memory.agenda_questions import Asked
from memory.pieces import day
from memory.types import Memory
from memory.words import squeeze, tokens

Line = tuple[str, str]  # a memory's id (empty: none) and what is said of it
REMINDER_TOKENS = 80
_TEXT = 400  # characters of a task that are shown
_REPORT = 120


def answer(asked: Asked, items: Sequence[Item], now: float, budget: int) -> list[Line]:
    """The open ones that the question asks for, by due date, within `budget` tokens; how many there are besides."""
    wanted = [one for one in items if _is_wanted(asked, one)]
    others = len(items) - len(wanted)
    if not items:
        return []
    until = f" due by {day(asked.until - 1)}" if asked.until is not None else ""
    heading = f"open now ({day(now)}){until}, by due date; this list is complete:"
    if not wanted:
        heading = f"nothing known is open{until} (today is {day(now)})"
    lines, used, shown = [("", heading)], tokens(heading) + 16, 0
    for one in wanted:
        line = _line(one)
        if used + tokens(line) > budget:
            break
        lines.append((one.memory.id, line))
        used += tokens(line)
        shown += 1
    if shown < len(wanted):
        lines[0] = ("", lines[0][1].replace("; this list is complete", ""))
        lines.append(("", f"and {len(wanted) - shown} more"))
    if others:
        lines.append(("", f"besides, {others} open without a date or due at another time"))
    return lines


def reminder(standing: Sequence[Memory], now: float, budget: int = REMINDER_TOKENS) -> list[Line]:
    """What is overdue, or due today or tomorrow, the most urgent first; empty when nothing presses."""
    heading = f"still to be done (reminder, today is {day(now)}):"
    lines, used = [("", heading)], tokens(heading)
    for one in pressing(standing, now):
        line = _line(one)
        if used + tokens(line) <= budget:
            lines.append((one.memory.id, line))
            used += tokens(line)
    return lines if len(lines) > 1 else []


def _is_wanted(asked: Asked, one: Item) -> bool:
    if one.due is None:
        return asked.until is None and not asked.dated
    if asked.until is None:
        return True
    return one.due <= asked.until and (asked.since is None or one.due > asked.since or one.overdue)


def _line(one: Item) -> str:
    memory = one.memory
    when = f"due {day(one.due - 1)}" if one.due is not None else "no due date"
    state = {"overdue": " (overdue)", "today": " (today)"}.get(one.when, "")
    again = f", {one.repeats.words()}" if one.repeats else ""
    moved = " (the date in the words is an earlier one)" if any(told.how == "moved" for told in one.feedback) else ""
    line = f"{memory.kind.value}, {when}{state}{again}: {squeeze(memory.text)[:_TEXT]}{moved}"
    told = [report for report in one.feedback if report.how in ("progress", "failed", "reopened")]
    return f"{line} [{told[-1].how}: {squeeze(told[-1].text)[:_REPORT]}]" if told else line
