"""Turns → candidates with a chat model: one call a batch, bounded attempts, everything it says checked against the turns."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memory.extract import prompt
from memory.extract.answers import Item
from memory.extract.ask import Asker, ExtractionFailed
from memory.extract.dates import find_dates
from memory.extract.grounding import Source
from memory.extract.spans import Prefer
from memory.extract.text import normalise
from memory.models import ChatModel
from memory.types import Candidate, Change, Kind, Trust, Turn
from memory.words import whole

__all__ = ["Extraction", "ExtractionFailed", "LlmExtractor", "checked", "extract"]
log = logging.getLogger(__name__)
LONGEST = 600  # characters of a candidate
CONFIDENCE = {Trust.USER: 0.85, Trust.ACCEPTED: 0.7, Trust.ASSISTANT: 0.4}
# only the user can know these
_ABOUT_USER = frozenset({Kind.IDENTITY, Kind.PREFERENCE, Kind.GOAL, Kind.EVENT, Kind.TASK})
_KINDS = {kind: Kind(kind) for kind in prompt.KINDS} | {
    "personal": Kind.IDENTITY, "person": Kind.IDENTITY, "profile": Kind.IDENTITY, "relationship": Kind.IDENTITY,
    "like": Kind.PREFERENCE, "dislike": Kind.PREFERENCE, "plan": Kind.GOAL, "intention": Kind.GOAL,
    "todo": Kind.TASK, "reminder": Kind.TASK, "appointment": Kind.EVENT, "instruction": Kind.SKILL, "rule": Kind.SKILL,
}  # fmt: skip
_ACCEPTS = re.compile(
    r"\W*(?:yes|yeah|yep|ok(?:ay)?|sure|sounds good|perfect|great|exactly|agreed|deal|right|correct|let's (?:do|go)|"
    r"i'll (?:do|take|go)|that works|good idea|好的?|可以|行|就这样|没问题|对|是的|嗯|同意|听你的|就这么)(?![a-z])",
    re.IGNORECASE,
)
_PAST = re.compile(r"\b(?:went|was|were|had|got|did|met|saw|took|bought|came|\w{3,}ed)\b|[了过](?!头)", re.IGNORECASE)
_SLOT = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+){0,3}")


@dataclass(frozen=True, slots=True)
class Extraction:
    """What one batch gave, and what it cost."""

    candidates: tuple[Candidate, ...]
    prompt_tokens: int
    completion_tokens: int
    attempts: int
    mode: str  # the way that worked: schema | tool | prompt | repair
    items: int = 0  # what the model proposed; the candidates are what the turns support
    cut: bool = False  # the answer broke off


async def extract(model: ChatModel, turns: Sequence[Turn], known: Sequence[str] = ()) -> Extraction:
    """One batch with a fresh `LlmExtractor`."""
    return await LlmExtractor(model).extract(turns, known)


class LlmExtractor:
    """Asks one model for notes; keeps in mind which way of asking it understands."""

    def __init__(self, model: ChatModel, options: Mapping[str, Any] | None = None) -> None:
        """`options` go into every body (temperature, max_tokens …): some providers refuse some of them."""
        self._asker = Asker(model, options)

    async def extract(self, turns: Sequence[Turn], known: Sequence[str] = ()) -> Extraction:
        """The candidates of `turns`, which stand in order. Raises ExtractionFailed."""
        if not turns:
            return Extraction((), 0, 0, 0, "")
        told = await self._asker.ask(
            lambda spell_out: prompt.messages(turns, known, spell_out=spell_out), prompt.SCHEMA
        )
        candidates = checked(told.items, turns, known)
        log.info(
            "extracted turns=%d items=%d kept=%d mode=%s attempts=%d",
            len(turns),
            len(told.items),
            len(candidates),
            told.mode,
            told.attempts,
        )
        return Extraction(
            candidates, told.prompt_tokens, told.completion_tokens, told.attempts, told.mode, len(told.items), told.cut
        )


def checked(items: Sequence[Item], turns: Sequence[Turn], known: Sequence[str] = ()) -> tuple[Candidate, ...]:
    """The items that cite turns which exist and are supported by them, as candidates; the same text once."""
    found: dict[tuple[Kind, str], Candidate] = {}
    for item in items:
        candidate = _candidate(item, turns, " ".join(known))
        if candidate:
            found.setdefault((candidate.kind, normalise(candidate.text)), candidate)
    return tuple(found.values())


def _candidate(item: Item, turns: Sequence[Turn], known: str) -> Candidate | None:
    text = " ".join(item["text"].split())[:LONGEST]
    kind = _KINDS.get(str(item.get("kind", "")).strip().lower(), Kind.FACT)
    cited = _cited(item.get("turns", item.get("turn")), turns)
    if not cited:
        return None
    aside = f"{known} {' '.join(turn.speaker for turn in cited)}"
    trust = _trust(text, kind, cited, turns, aside)
    if trust is None:
        return None
    side = "user" if trust is Trust.USER else "assistant"
    words = {turn.id: turn.user_text if side == "user" else turn.assistant_text for turn in cited}
    turn = max(reversed(cited), key=lambda turn: Source(words[turn.id]).share(text))
    source = Source(" ".join(words.values()), aside)
    start, end = _time(item, text, kind, turn)
    attributes = _attributes(item, text, kind, end)
    done = kind is Kind.TASK and side == "user" and attributes is not None and attributes["state"] == "done"
    return Candidate(
        kind=kind,
        text=text,
        turn=turn.id,
        role=side,
        slot=_slot(item.get("slot")),
        entities=tuple(name for name in _strings(item.get("entities"), 8) if source.names(name)),
        tags=tuple(tag.lower() for tag in _strings(item.get("tags"), 3)),
        event_time=start if kind is Kind.EVENT else None,
        event_end=end if kind is Kind.EVENT else None,
        trust=trust,
        confidence=CONFIDENCE[trust],
        importance=_unit(item.get("importance")),
        attributes=attributes,
        changes=(Change("done", about=attributes["about"]),) if done and attributes else (),
    )


def _cited(value: Any, turns: Sequence[Turn]) -> list[Turn]:
    """The cited turns that exist; a batch of one needs no citation."""
    if value in (None, [], "") and len(turns) == 1:
        return list(turns)
    entries = value if isinstance(value, list) else [value]
    wanted = {
        int(digits)
        for entry in entries
        for digits in re.findall(r"\d{1,6}", str(entry))[:1]
        if not isinstance(entry, bool)
    }
    return [turn for number, turn in enumerate(turns, start=1) if number in wanted]


def _trust(text: str, kind: Kind, cited: Sequence[Turn], turns: Sequence[Turn], aside: str) -> Trust | None:
    """Who vouches for the item, whatever the model claims; None when nobody does."""
    if Source(" ".join(turn.user_text for turn in cited), aside).supports(text):
        return Trust.USER
    if not Source(" ".join(f"{turn.user_text} {turn.assistant_text}" for turn in cited), aside).supports(text):
        return None
    after = [turn for turn in turns[turns.index(cited[-1]) + 1 :] if turn.session == cited[-1].session][:1]
    if any(_ACCEPTS.match(turn.user_text) for turn in after):
        return Trust.ACCEPTED
    return None if kind in _ABOUT_USER else Trust.ASSISTANT


def _time(item: Item, text: str, kind: Kind, turn: Turn) -> tuple[float | None, float | None]:
    """The time the item speaks of, resolved here against the message: models are bad at calendars."""
    prefer: Prefer = "future" if kind in (Kind.TASK, Kind.GOAL) else "past" if _PAST.search(text) else "near"
    when = item.get("when")
    for words in (str(when) if isinstance(when, str | int) and not isinstance(when, bool) else "", text):
        spans = find_dates(words, turn.said_at, prefer=prefer)
        if spans:
            return spans[0].start, spans[0].end
    return None, None


def _attributes(item: Item, text: str, kind: Kind, due: float | None) -> dict[str, Any] | None:
    if kind is Kind.TASK:
        done = str(item.get("state", "")).strip().lower() in ("done", "completed", "finished", "closed")
        given = {"state": "done" if done else "open", "due": None if done else due}
        return given | ({"feedback": text, "about": _about(item, text)} if done else {})
    if kind is Kind.SKILL:
        condition = item.get("condition")
        return {"when": condition.strip() if isinstance(condition, str) else "", "then": text}
    return None


def _about(item: Item, text: str) -> str:
    """Which task is done: in the model's words when the statement holds them, else the statement itself."""
    about = item.get("about")
    named = " ".join(whole(about).split())[:200] if isinstance(about, str) else ""
    return named if named and Source(text).share(named) >= 0.5 else text


def _slot(value: Any) -> str:
    name = value.strip().lower().replace(" ", "_") if isinstance(value, str) else ""
    return name if _SLOT.fullmatch(name) and name not in ("none", "null", "n_a") else ""


def _strings(value: Any, most: int) -> list[str]:
    entries = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [whole(entry).strip() for entry in entries if isinstance(entry, str) and entry.strip()][:most]


def _unit(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return 0.5
    return min(1.0, max(0.0, float(value)))
