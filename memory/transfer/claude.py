"""Claude's data export: `conversations.json` with flat lists of messages, and, when there are, `memories.json` and
`projects.json`.

Newer exports name each message's parent; then only the branch that leads to the current (else the newest) message counts.
Thoughts, tool calls, their results and attached files are no words of the conversation. What Claude wrote into its memory
becomes memories that the user accepted; a project's description is the user's own.
"""

from __future__ import annotations

import re
from typing import Any

from memory.transfer.foreign import Conversation, Found, Given, exchanges, mapping, moment, plain, sequence
from memory.types import Trust, stable_id

_ROLES = {"human": "user", "user": "user", "assistant": "assistant"}
_HEADING = re.compile(r"(?:#{1,6}\s+(.{1,80})|\*\*(.{1,80})\*\*:?)")
_BULLET = re.compile(r"^\s*[-*•]\s+")
LONGEST = 100_000  # characters of a memory


def entry(raw: Any, now: float) -> Found:
    """One conversation."""
    told = mapping(raw)
    name = plain(told.get("uuid") or told.get("id"))[:200]
    start = moment(told.get("created_at"), now) or moment(told.get("updated_at"), now) or 0.0
    messages = []
    for number, message in enumerate(_line([mapping(m) for m in sequence(told.get("chat_messages"))], told, now)):
        role, text = _ROLES.get(str(message.get("sender"))), _text(message)
        if role and text:
            own = plain(message.get("uuid"))[:200] or str(number)
            messages.append((own, role, text, moment(message.get("created_at"), now), plain(told.get("model"))[:200]))
    made = exchanges(messages, start)
    return Found([Conversation(name, made)]) if name and made else Found(refused=1)


def memory_entry(raw: Any, now: float) -> Found:
    """What Claude remembered: one text over all conversations, and one for each project."""
    told = mapping(raw)
    texts = [("", told.get("conversations_memory")), *mapping(told.get("project_memories")).items()]
    found = Found()
    for project, text in texts:
        tag = "claude" if not project else f"project {project[:36]}"
        for heading, line in _statements(plain(text)):
            given = Given(
                stable_id("claude", "memory", project, line),
                line,
                Trust.ACCEPTED,
                tags=(tag, *([heading] if heading else [])),
            )
            found.givens.append(given)
    return found


def project_entry(raw: Any, now: float) -> Found:
    """A project that the user described."""
    told = mapping(raw)
    name, about = plain(told.get("name"))[:200], plain(told.get("description"))
    if not name or not about or told.get("is_starter_project") is True:
        return Found()
    text = f"Project {name}: {about}"[:LONGEST]
    at, updated = moment(told.get("created_at"), now), moment(told.get("updated_at"), now)
    given = Given(
        stable_id("claude", "project", plain(told.get("uuid"))), text, Trust.USER, at, updated, tags=("project",)
    )
    return Found(givens=[given])


def _line(messages: list[dict[str, Any]], told: dict[str, Any], now: float) -> list[dict[str, Any]]:
    """The messages of the branch that counts, first to last."""
    by_id = {message["uuid"]: message for message in messages if isinstance(message.get("uuid"), str)}
    parents = {message.get("parent_message_uuid") for message in messages}
    if not parents & by_id.keys():  # no tree: the order of the list
        return messages
    leaves = [name for name in by_id if name not in parents]
    newest = max(leaves, key=lambda leaf: moment(by_id[leaf].get("created_at"), now) or 0.0, default=None)
    at = told.get("current_leaf_message_uuid")
    at = at if at in by_id else newest
    out: list[dict[str, Any]] = []
    seen: set[str] = set()
    while isinstance(at, str) and at in by_id and at not in seen:
        seen.add(at)
        out.append(by_id[at])
        at = by_id[at].get("parent_message_uuid")
    return out[::-1]


def _text(message: dict[str, Any]) -> str:
    blocks = [mapping(block) for block in sequence(message.get("content"))]
    texts = [plain(block.get("text")) for block in blocks if block.get("type") == "text"]
    spoken = "\n\n".join(text for text in texts if text)
    return spoken or ("" if blocks else plain(message.get("text")))


def _statements(text: str) -> list[tuple[str, str]]:
    """(heading, statement) of a text in Markdown, a paragraph or a bullet each."""
    out: list[tuple[str, str]] = []
    heading = ""
    for line in text.splitlines():
        line = line.strip()
        if match := _HEADING.fullmatch(line):
            heading = (match.group(1) or match.group(2)).strip(" *:")
        elif line:
            out.append((heading, _BULLET.sub("", line)[:LONGEST]))
    return out
