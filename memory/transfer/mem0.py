"""A mem0 dump: a list of memories, or an object with `results` or `memories`.

A memory counts as the user's word only when the dump says that the user said it (`role` or `actor_id`); what an agent
keeps about itself is the assistant's; anything else was drawn from the user's chats by a model, and its owner accepts it
by importing it. Expired and deleted entries are left out.
"""

from __future__ import annotations

from typing import Any

from memory.transfer.foreign import Found, Given, mapping, moment, plain, sequence
from memory.types import Trust

LONGEST = 100_000  # characters of a memory
_GONE = frozenset(("deleted", "archived"))


def entry(raw: Any, now: float) -> Found:
    """One memory."""
    told = mapping(raw)
    name, text = plain(str(told.get("id") or ""))[:200], _text(told)
    expires = moment(told.get("expiration_date"), float("inf"))
    if not name or not text or len(text) > LONGEST or told.get("state") in _GONE or (expires and expires < now):
        return Found(refused=1)
    about = mapping(told.get("metadata"))
    given = Given(
        id=name,
        text=text,
        trust=_trust(told, about),
        at=moment(told.get("created_at"), now) or moment(told.get("updated_at"), now),
        updated_at=moment(told.get("updated_at"), now),
        tags=_tags(told, about),
        user=plain(told.get("user_id"))[:200],
    )
    return Found(givens=[given])


def _text(told: dict[str, Any]) -> str:
    return next((text for key in ("memory", "text", "content", "data") if (text := plain(told.get(key)))), "")


def _trust(told: dict[str, Any], about: dict[str, Any]) -> Trust:
    role = told.get("role") or about.get("role")
    if role == "user":
        return Trust.USER
    if role == "assistant" or (told.get("agent_id") and not told.get("user_id")):
        return Trust.ASSISTANT
    return Trust.ACCEPTED


def _tags(told: dict[str, Any], about: dict[str, Any]) -> tuple[str, ...]:
    named = [*sequence(told.get("categories")), *sequence(about.get("categories")), about.get("category")]
    return tuple(dict.fromkeys(tag for each in named if (tag := plain(each)[:100])))
