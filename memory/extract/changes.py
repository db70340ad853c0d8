"""What a turn takes back, corrects, finishes or calls off: candidates that mean something only beside what was said before.

Goes in: a turn. Comes out: candidates with a `change`, one a sentence at most. Whether there is anything to change is for
the organiser to say. Works beside the rules and beside a model. Pure; linear in the text.
"""

from __future__ import annotations

import re

from memory.extract import reporting
from memory.extract.change import Changes
from memory.extract.changes_en import ENGLISH
from memory.extract.changes_zh import CHINESE
from memory.extract.dates import find_dates
from memory.extract.frames import spoken
from memory.extract.rules import CONFIDENCE
from memory.extract.rules_en import ENGLISH as RULES_EN
from memory.extract.rules_zh import CHINESE as RULES_ZH
from memory.extract.text import has_cjk
from memory.types import Candidate, Change, Kind, Turn

LONGEST = 240  # characters of a sentence that is kept as it is
_ENDS = " \t\n,;:.!，；：。！、~…"
_ASKS = re.compile(r"[?？]\W*$")


def find(turn: Turn) -> list[Candidate]:
    """The changes in what the user wrote, in order. Never raises."""
    found: list[Candidate] = []
    for sentence in spoken(turn.user_text):
        text = sentence.strip(_ENDS)
        if len(text) <= LONGEST and not _ASKS.search(sentence):
            found += _of_sentence(text, turn)
    return found


def _of_sentence(sentence: str, turn: Turn) -> list[Candidate]:
    chinese = has_cjk(sentence)
    language, rules = (CHINESE, RULES_ZH) if chinese else (ENGLISH, RULES_EN)
    filler = rules.filler.match(sentence)
    text = sentence[filler.end() :].strip(_ENDS) if filler else sentence
    if text.lower().startswith(("longer", "need to", "need for")):  # "No longer in Leeds": that no is no filler
        text = sentence
    if not text or rules.guard.search(text):
        return []
    changes = reporting.find(text, turn.said_at)
    if language.guard.search(text):
        return [_candidate(text, turn, changes)] if changes else []
    changes += _rows(sentence, language)
    if not changes and language.done.search(text) and not language.undone.search(text):
        changes = [Change("done", about=text)]
    if not changes:
        return []
    return [_candidate(text, turn, changes)]


def _candidate(text: str, turn: Turn, changes: list[Change]) -> Candidate:
    spans = find_dates(text, turn.said_at, prefer="future")
    return Candidate(
        kind=Kind.FACT,  # of what it changes, when that is found
        text=text,
        turn=turn.id,
        event_time=spans[0].start if spans else None,
        event_end=spans[0].end if spans else None,
        confidence=CONFIDENCE,
        changes=tuple(changes),
    )


def _rows(sentence: str, language: Changes) -> list[Change]:
    found: list[Change] = []
    for row in language.rows:
        match = row.pattern.search(sentence)
        if match is None or (row.veto and row.veto.search(sentence)):
            continue
        groups = {name: (words or "").strip(_ENDS) for name, words in match.groupdict().items()}
        about, old, new = (groups.get(name, "") for name in ("o", "old", "new"))
        found.append(Change(row.how, about=about, slots=row.slots, old=old, new=new))
        if row.how == "corrected":
            break
    return found


def about_another(sentence: str) -> str:
    """Whom a sentence is about when not about the speaker: "brother", "朋友", or "he" when it only says that; else ""."""
    match = (CHINESE if has_cjk(sentence) else ENGLISH).other.search(sentence)
    if not match:
        return ""
    return (match["who"] or match["pronoun"] or "").lower()
