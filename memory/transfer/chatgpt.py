"""ChatGPT's data export: `conversations.json`, a list of conversations, each a tree of messages.

The line from `current_node` up to the root is what the user sees; answers generated again and questions edited away lie
beside it and are left out. System, tool and hidden messages, thoughts and code for tools are no words of the conversation.
What ChatGPT wrote into its own memory (messages to `bio`) becomes memories that the user accepted; custom instructions
are the user's own words. Conversations that ChatGPT was told not to remember are not remembered here either.
"""

from __future__ import annotations

import re
from typing import Any

from memory.transfer.foreign import Conversation, Exchange, Found, Given, exchanges, mapping, moment, plain, sequence
from memory.types import Kind, Trust, stable_id

_CITATION = re.compile("[ \t]*\ue200[^\ue201]{0,2000}\ue201")  # private-use marks around source numbers
_NOT_SPOKEN = frozenset(
    (
        "thoughts",
        "reasoning_recap",
        "execution_output",
        "code",
        "system_error",
        "tether_quote",
        "tether_browsing_display",
    )
)
_INSTRUCTIONS = (("user_profile", Kind.IDENTITY), ("user_instructions", Kind.PREFERENCE))
_FENCE = re.compile(r"```(.*?)```", re.DOTALL)
LONGEST = 100_000  # characters of a memory


def entry(raw: Any, now: float) -> Found:
    """One conversation."""
    told = mapping(raw)
    nodes, name = mapping(told.get("mapping")), plain(told.get("conversation_id") or told.get("id"))[:200]
    if not nodes or not name or told.get("is_do_not_remember") is True:
        return Found(refused=1)
    start = moment(told.get("create_time"), now) or moment(told.get("update_time"), now)
    found = Found()
    messages: list[tuple[str, str, str, float | None, str]] = []
    for node, message in _line(nodes, told.get("current_node")):
        at = moment(message.get("create_time"), now)
        content = mapping(message.get("content"))
        kind = content.get("content_type")
        role = mapping(message.get("author")).get("role")
        hidden = mapping(message.get("metadata")).get("is_visually_hidden_from_conversation") is True
        start = start or at
        if kind == "user_editable_context":
            found.givens += _instructions(content, start)
        elif role == "assistant" and message.get("recipient") == "bio":
            found.givens += _noted(_text(content), at or start)
        elif role in ("user", "assistant") and not hidden and message.get("recipient", "all") in ("all", None):
            text = "" if kind in _NOT_SPOKEN else _text(content)
            model = plain(mapping(message.get("metadata")).get("model_slug"))[:200]
            if text:
                messages.append((node, role, text, at, model))
    made: tuple[Exchange, ...] = exchanges(messages, start or 0.0)
    if made:
        found.conversations.append(Conversation(name, made))
    elif not found.givens:
        found.refused = 1
    return found


def memory_entry(raw: Any, now: float) -> Found:
    """One entry of a `memories.json`, as some exports have it."""
    told = {"content": raw} if isinstance(raw, str) else mapping(raw)
    text = plain(told.get("content") or told.get("memory") or told.get("text"))
    if not text:
        return Found(refused=1)
    at = moment(told.get("created_at") or told.get("create_time") or told.get("updated_at"), now)
    return Found(givens=_noted(text, at))


def _line(nodes: dict[str, Any], current: Any) -> list[tuple[str, dict[str, Any]]]:
    """(id, message) from the first to the one at which the user is; without a pointer the newest leaf."""
    at = current if isinstance(current, str) and current in nodes else _newest_leaf(nodes)
    out: list[tuple[str, dict[str, Any]]] = []
    seen: set[str] = set()
    while isinstance(at, str) and at in nodes and at not in seen:
        seen.add(at)
        node = mapping(nodes[at])
        if isinstance(node.get("message"), dict):
            out.append((at, node["message"]))
        at = node.get("parent")
    return out[::-1]


def _newest_leaf(nodes: dict[str, Any]) -> str | None:
    parents = {mapping(node).get("parent") for node in nodes.values()}

    def made(name: str) -> float:
        time = mapping(mapping(nodes[name]).get("message")).get("create_time")
        return float(time) if isinstance(time, int | float) else 0.0

    return max((name for name in nodes if name not in parents), key=made, default=None)


def _text(content: dict[str, Any]) -> str:
    """The words of a message: texts, and what was said in audio; pictures and files have none."""
    parts = []
    for part in sequence(content.get("parts")):
        text = part if isinstance(part, str) else plain(mapping(part).get("text"))
        if text.strip():
            parts.append(text)
    if not parts and isinstance(content.get("text"), str):
        parts = [content["text"]]
    return plain(_CITATION.sub("", "\n".join(parts)))


def _noted(text: str, at: float | None) -> list[Given]:
    lines = [plain(line) for line in text.splitlines()]
    return [
        Given(stable_id("chatgpt", "bio", line), line, Trust.ACCEPTED, at)
        for line in lines
        if line and len(line) <= LONGEST
    ]


def _instructions(content: dict[str, Any], at: float | None) -> list[Given]:
    """Custom instructions stand in every conversation, wrapped in ChatGPT's own words; the user's are inside the fence."""
    out = []
    for name, kind in _INSTRUCTIONS:
        text = plain(content.get(name))
        fenced = _FENCE.search(text)
        text = plain(fenced.group(1)) if fenced else text
        if text and len(text) <= LONGEST:
            out.append(Given(stable_id("chatgpt", name, text), text, Trust.USER, at, kind=kind, tags=("instructions",)))
    return out
