"""Turns → candidates without a model: high-precision rules for what users say of themselves, in English and Chinese.

Goes in: a turn. Comes out: candidates in the user's own words, one clause each; nothing when in doubt. The assistant's
side is not read. Pure, linear in the text, well under a millisecond for a usual message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from memory.extract.dates import DateSpan, find_dates
from memory.extract.frames import spoken
from memory.extract.reporting import due
from memory.extract.rule import Language, Rule
from memory.extract.rules_en import ENGLISH
from memory.extract.rules_zh import CHINESE
from memory.extract.text import has_cjk, normalise
from memory.types import Candidate, Kind, Turn

LONGEST = 400  # characters of a clause; a longer one is no plain statement
CONFIDENCE = 0.9
_PLACE = re.compile(r"\{(\w+)\}")
_ORDER = re.compile(  # "can you remind me to …?" is an order in the shape of a question
    r"^(.{0,20}?)(?:can|could|would|will) you (?:please |pls )?(?=remind me (?:to|about)\b)"
    r"|^(.{0,8}?)(?:能不能|可不可以|可以|能)(?:帮我)?(?=提醒我)",
    re.IGNORECASE,
)
_ENDS = " \t\n,;:.!，；：。！、~…"


@dataclass(frozen=True, slots=True)
class _Clause:
    """A clause without fillers (`text`), and without the date that opens it (`core`)."""

    text: str
    core: str
    said_at: float

    def dates(self, rule: Rule) -> list[DateSpan]:
        return find_dates(self.text, self.said_at, prefer="past" if rule.when == "past" else "future")


def extract(turn: Turn) -> list[Candidate]:
    """The candidates in what the user wrote. Never raises."""
    found: dict[tuple[Kind, str], Candidate] = {}
    for sentence in spoken(turn.user_text):
        language = CHINESE if has_cjk(sentence) else ENGLISH
        for candidate in _of_sentence(sentence, language, turn):
            found.setdefault((candidate.kind, normalise(candidate.text)), candidate)
    return list(found.values())


def _of_sentence(sentence: str, language: Language, turn: Turn) -> list[Candidate]:
    if language.guard.search(sentence):
        return []
    if order := _ORDER.match(sentence):
        sentence = (
            sentence[: order.end(1) if order[1] is not None else order.end(2)] + sentence[order.end() :]
        ).rstrip("?？吗 ")
    standing = _standing(sentence, language, turn)
    if standing:
        return [standing]
    if not language.first_person.search(sentence):
        return []
    found = []
    pieces = language.clauses(sentence)
    asks = sentence.rstrip("\"'”’ )）")[-1:] in "?？"
    for number, piece in enumerate(pieces):
        text = language.filler.sub("", piece, count=1).strip() if language.filler.match(piece) else piece
        asked = (asks and number == len(pieces) - 1) or language.question.search(text)
        if asked and number == 0:  # "Should I say I am a manager or I'm a leader?"
            break
        if not asked and len(text) <= LONGEST:
            found += _of_clause(text.strip(_ENDS), language, turn)
    return found


def _standing(sentence: str, language: Language, turn: Turn) -> Candidate | None:
    text = sentence.strip()
    if text[-1:] in "?？" or len(text) > LONGEST:
        return None
    core = language.filler.sub("", text, count=1) if language.filler.match(text) else text
    for rule in language.standing:
        for form in (text, core):
            match = rule.pattern.match(form)
            if match and not (rule.veto and rule.veto.search(form)):
                condition = language.condition.search(form)
                then = form.replace(condition[0], "", 1) if condition else form
                attributes = {"when": condition[1].strip() if condition else "", "then": then.strip(_ENDS)}
                return _candidate(rule, match, text.strip(_ENDS), language, turn, attributes=attributes)
    return None


def _of_clause(text: str, language: Language, turn: Turn) -> list[Candidate]:
    clause = _Clause(text, _without_date(text, language, turn.said_at), turn.said_at)
    for rule in language.rules:
        match = rule.pattern.match(clause.core) or (clause.core != text and rule.pattern.match(text)) or None
        if not match or (rule.veto and rule.veto.search(text)):
            continue
        dates = clause.dates(rule) if rule.when else []
        if rule.when in ("past", "future") and not _fits(rule, dates, turn.said_at):
            continue
        return [_candidate(rule, match, text, language, turn, dates=dates)]
    return []


def _fits(rule: Rule, dates: list[DateSpan], said_at: float) -> bool:
    if not dates:
        return False
    return dates[0].start <= said_at if rule.when == "past" else dates[0].end > said_at


def _without_date(text: str, language: Language, said_at: float) -> str:
    """The clause without the date it opens with: "On 5 May I have …" → "I have …"."""
    if language.first_person.match(text):
        return text
    dates = find_dates(text[:60], said_at)
    if dates and dates[0].at <= 6:
        return text[dates[0].at + len(dates[0].text) :].lstrip(" ,，的-")
    return text


def _candidate(
    rule: Rule,
    match: re.Match[str],
    text: str,
    language: Language,
    turn: Turn,
    *,
    dates: list[DateSpan] | None = None,
    attributes: dict[str, Any] | None = None,
) -> Candidate:
    groups = match.groupdict()
    span = dates[0] if dates and rule.kind is Kind.EVENT else None
    if rule.kind is Kind.TASK:
        attributes = {"state": rule.state, "due": due(dates[0]) if dates and rule.state == "open" else None}
    return Candidate(
        kind=rule.kind,
        text=text,
        turn=turn.id,
        slot=_slot(rule.slot, groups, language),
        entities=_entities(text, groups.get("e"), language),
        tags=tuple(tag for tag, words in language.tags if words.search(text)),
        event_time=span.start if span else None,
        event_end=span.end if span else None,
        confidence=CONFIDENCE,
        importance=rule.importance,
        attributes=attributes,
    )


def _slot(template: str, groups: dict[str, str | None], language: Language) -> str:
    def filled(place: re.Match[str]) -> str:
        word = (groups.get(place[1]) or "").lower().strip()
        return (
            language.slots.get(word)
            or language.slots.get(word.removesuffix("s"))
            or word.removesuffix("s").replace(" ", ".")
        )

    return _PLACE.sub(filled, template)


def _entities(text: str, named: str | None, language: Language) -> tuple[str, ...]:
    names = [named.strip(_ENDS)] if named else []
    names += [next(group for group in match.groups() if group).strip(_ENDS) for match in language.names.finditer(text)]
    kept: list[str] = []
    for name in names:
        if len(name) > 1 and not name.startswith(("I'", "I ")) and not any(name in other for other in kept):
            kept.append(name)
    return tuple(kept[:8])
