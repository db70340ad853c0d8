"""Files into talks: LoCoMo, MemoryBank, and our own format for chats of a user with an assistant (docs/BENCHMARKS.md).

Evidence that names no turn is dropped, and with it a question that has no other; only unanswerable ones stay without.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proxy.evaluation.talk import ADVERSARIAL, UNANSWERABLE, Asked, BadData, Said, Talk

LOCOMO_CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: ADVERSARIAL}
_DIALOGUE_ID = re.compile(r"D?(\d+):(\d+)")
_MINUTE = 60.0


def read(path: Path, how: Callable[[Any], Iterator[Talk]]) -> list[Talk]:
    """The talks of a file. Raises BadData."""
    try:
        found = list(how(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"cannot read {path}: {type(error).__name__}") from error
    except json.JSONDecodeError as error:
        raise BadData(f"{path} is not JSON: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise BadData(f"{path} is not in this format: {type(error).__name__}: {error}") from error
    if not found:
        raise BadData(f"{path} holds no conversation")
    return found


def locomo(data: Any) -> Iterator[Talk]:
    """One talk per conversation, a turn per line that somebody says: key = its dia_id, second by second from the session's
    time on. A shared photo is told by its caption."""
    for number, sample in enumerate(data):
        talk = sample["conversation"]
        turns: list[Said] = []
        for name in _sessions(talk):
            began = _clock(talk[f"{name}_date_time"])
            for position, line in enumerate(talk[name]):
                photo = f" [shares photo: {line['blip_caption']}]" if line.get("blip_caption") else ""
                text = f"{line['text']}{photo}".strip()
                turns.append(Said(line["dia_id"], name, began + position, text, speaker=line["speaker"]))
        known = {turn.key for turn in turns}
        asked = []
        for entry in sample["qa"]:
            told = " ".join(map(str, entry.get("evidence") or []))
            evidence = {f"D{session}:{line}" for session, line in _DIALOGUE_ID.findall(told)} & known
            if evidence:
                category = LOCOMO_CATEGORIES.get(entry["category"], str(entry["category"]))
                asked.append(Asked(str(entry["question"]), frozenset(evidence), category))
        yield Talk(str(sample.get("sample_id", number)), tuple(turns), tuple(asked))


def locomo_pairs(data: Any) -> Iterator[Talk]:
    """The same as chats of a user with an assistant: speaker a is the user, speaker b the assistant, and a turn is what the
    one says with what the other answers. What b says before a has said anything goes with a's first words."""
    for sample, talk in zip(data, locomo(data), strict=True):
        user = sample["conversation"]["speaker_a"]
        rounds: list[Said] = []
        belongs: dict[str, str] = {}
        for line in talk.turns:
            last = rounds[-1] if rounds and rounds[-1].session == line.session else None
            mine = line.speaker == user
            if last is None or (mine and last.answer and last.text):
                rounds.append(
                    replace(line, text=line.text if mine else "", answer="" if mine else line.text, speaker=user)
                )
            elif mine:
                rounds[-1] = replace(last, text=_joined(last.text, line.text))
            else:
                rounds[-1] = replace(last, answer=_joined(last.answer, line.text))
            belongs[line.key] = rounds[-1].key
        asked = tuple(replace(q, evidence=frozenset(belongs[key] for key in q.evidence)) for q in talk.questions)
        yield Talk(talk.name, tuple(rounds), asked)


def memorybank(data: Any) -> Iterator[Talk]:
    """One talk per user, a turn per round, a session per date; evidence is "MM-DD:round", counted from 0."""
    for person in data:
        turns = [
            Said(f"{date[-5:]}:{number}", date, _noon(date) + number * _MINUTE, line["query"], line["response"])
            for date, lines in sorted(person["history"].items())
            for number, line in enumerate(lines)
        ]
        yield _checked(str(person["user"]), turns, person["questions"])


def chats(data: Any) -> Iterator[Talk]:
    """One talk per chat, a turn per round; evidence is "session:round", both counted from 0."""
    for number, chat in enumerate(data["chats"]):
        turns = [
            Said(f"{s}:{r}", str(s), _noon(session["date"]) + r * _MINUTE, line["user"], line["assistant"])
            for s, session in enumerate(chat["sessions"])
            for r, line in enumerate(session["rounds"])
        ]
        yield _checked(str(chat.get("name", number)), turns, chat["questions"])


def _checked(name: str, turns: list[Said], questions: Any) -> Talk:
    known = {turn.key for turn in turns}
    if len(known) != len(turns):
        raise ValueError(f"{name}: two rounds have the same key")
    asked = []
    for entry in questions:
        evidence = frozenset(entry["evidence"]) & known
        category = str(entry.get("category", "all"))
        if evidence or category == UNANSWERABLE:
            asked.append(Asked(entry["question"], evidence, category))
    return Talk(name, tuple(sorted(turns, key=lambda turn: turn.at)), tuple(asked))


def _sessions(talk: dict[str, Any]) -> list[str]:
    named = [name for name, lines in talk.items() if re.fullmatch(r"session_\d+", name) and isinstance(lines, list)]
    return sorted(named, key=lambda name: int(name.partition("_")[2]))


def _clock(told: str) -> float:
    """`1:56 pm on 8 May, 2023` as seconds since the epoch."""
    return datetime.strptime(told.strip(), "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC).timestamp()


def _noon(date: str) -> float:
    """A date at noon; a date with a time at that time."""
    moment = datetime.fromisoformat(date)
    moment = moment.replace(hour=12) if len(date) == len("2026-01-31") else moment
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _joined(first: str, second: str) -> str:
    return f"{first}\n{second}" if first else second
