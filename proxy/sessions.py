"""Reading a conversation off the messages that a client resends: which turn is new, what the user wrote, what stands where.

Pure; knows the message shape of chat completions and the wrappers that frontends put around what people write. Nothing is
changed here: the cleaned texts are for searching and recording only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memory.memories import digest
from memory.words import squeeze
from proxy import fence

# blocks of other memory systems and of frontends that are not the user's words
_FOREIGN = re.compile(
    r"<(memory_context|user_memory|memories|attached_files|source_context)\b[^>]*>.*?</\1>", re.DOTALL | re.IGNORECASE
)
_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>|<details\b[^>]*>.*?</details>", re.DOTALL | re.IGNORECASE)
_QUERY_TAG = re.compile(r"</?user_query>", re.IGNORECASE)

# first look at explicit signals (headers); these texts mark background calls of frontends that send none
TASK_OPENINGS = (  # the last user message starts with "### Task:" and has one of these in it
    "Generate a concise title",
    "Generate 1-3 broad tags",
    "Suggest 3-5 relevant follow-up",
    "Predict 3-5 useful messages",
    "determine the necessity of generating search queries",
    "Generate a detailed prompt for a",  # "… for am image generation task" in some versions
    "You are an autocompletion system",
    "Summarize the conversation history that will be compacted",
)
TASK_USER = (  # the last user message has one of these in it
    "Provide a concise, 5-word-or-less title for the conversation",
    "Analyze this conversation and provide:\n1. The detected language",
    "Summarize what this phase of an agent run accomplished.",
    "Use the `set_memory` tool to save important information about the user",
    "Your task is to reflect the speaker's likely facial expression",
    "You have been provided with a set of responses from various models to the latest user query:",
    "please reply with a short summary that is 4-12 words in length",
)
TASK_SYSTEM = (  # the system message has one of these in it
    "You are a professional conversation summarizer",
    "You are a conversation summarizer. Your task is to create a concise summary",
    "You are an autocomplete engine for a chat input box",
    "You are a sidecar that extracts 0-4 quick-reply suggestions",
    "You are a professional translator. Translate the input text to",
    "You are an AI conversation titles assistant",
    "You are Open WebUI's private memory reviewer",
    "You are a sub-agent working on a specific task assigned by the lead agent",
    "Use the `set_memory` tool to save important information about the user",
)
TASK_SCHEMAS = frozenset({"topic_title", "InputCompletion", "follow_up_suggestions"})


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a request says about its conversation. `asks` is the index of the user message that takes the recall block, -1
    when there is none; `anchors` pairs every user message with a hash of all that was said up to it."""

    text: str
    asks: int
    speaker: str
    position: str
    anchors: tuple[tuple[int, str], ...]
    seen: frozenset[str]
    later_round: bool  # a tool round, or a continuation, of a turn that was asked in an earlier request
    prefill: str

    @property
    def anchor(self) -> str:
        """The hash up to and with the new turn's question."""
        return self.anchors[-1][1] if self.anchors else ""

    def tail(self, answer: str) -> str:
        """What the next request's `position` will be, when this answer comes back in its history."""
        return _roll(self.anchor, "assistant", answer)


def read(messages: Sequence[Any]) -> Conversation | None:
    """None when nobody asks anything (no user message with text)."""
    said = [(i, str(m.get("role")), spoken(m)) for i, m in enumerate(messages) if isinstance(m, Mapping)]
    answers = [i for i, role, text in said if role == "assistant" and text and not messages[i].get("tool_calls")]
    prefill = ""
    if answers and answers[-1] == len(messages) - 1:  # the client wants an answer continued
        prefill = spoken(messages[-1])
        answers.pop()
    since = answers[-1] if answers else -1
    rolled, position = "", ""
    anchors: list[tuple[int, str]] = []
    asked: list[str] = []
    seen: set[str] = set()
    for i, role, text in said:
        if role == "user" and text:
            rolled = _roll(rolled, role, text)
            anchors.append((i, rolled))
            if i > since:
                asked.append(text)
            else:
                seen.add(digest(text))
        elif i in answers:
            rolled = _roll(rolled, role, text)
        if i == since:
            position = rolled
    if not asked:
        return None
    last = anchors[-1][0]
    name = messages[last].get("name")
    return Conversation(
        text="\n".join(asked),
        asks=last,
        speaker=name if isinstance(name, str) else "",
        position=position,
        anchors=tuple(anchors),
        seen=frozenset(seen),
        later_round=last < len(messages) - 1,
        prefill=prefill,
    )


def spoken(message: Mapping[str, Any]) -> str:
    """A message's words, without fetched context, other systems' memory, our blocks, and thoughts."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS]
        content = "\n".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str):
        return ""
    text = fence.strip(content)
    if message.get("role") == "assistant":
        return _THOUGHT.sub("", text).strip()
    text = _FOREIGN.sub("", text)
    if text.lstrip().startswith("### Task:") and "</context>" in text:  # the question stands behind what was fetched
        text = text.rpartition("</context>")[2]
    return _QUERY_TAG.sub("", text).strip()


_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})


def is_task(body: Mapping[str, Any], headers: Mapping[str, str], markers: Sequence[str] = ()) -> bool:
    """Whether a frontend makes this call for itself (title, tags, follow-ups …): memory stays out of it."""
    if headers.get("x-memory-task", "").strip():
        return True
    schema = body.get("response_format")
    named = schema.get("json_schema") if isinstance(schema, Mapping) else None
    if isinstance(named, Mapping) and named.get("name") in TASK_SCHEMAS:
        return True
    messages = [message for message in body.get("messages") or () if isinstance(message, Mapping)]
    system = "\n".join(_raw(message) for message in messages if message.get("role") in ("system", "developer"))
    user = next((_raw(message) for message in reversed(messages) if message.get("role") == "user"), "")
    opened = user.lstrip().startswith("### Task:") and any(opening in user for opening in TASK_OPENINGS)
    return (
        opened
        or any(text in user for text in TASK_USER)
        or any(text in system for text in TASK_SYSTEM)
        or any(text in user or text in system for text in markers if text)
    )


def _raw(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return ""


def _roll(so_far: str, role: str, text: str) -> str:
    return hashlib.sha256(f"{so_far}\x1f{role}\x1f{squeeze(text)}".encode("utf-8", "replace")).hexdigest()[:32]
