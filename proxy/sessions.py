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
from proxy.blocks import Link

# blocks of other memory systems and of frontends that are not the user's words
_FOREIGN = re.compile(
    r"</?(memory_context|user_memory|memories|attached_files|source_context|system-reminder|environment_context)\b"
    r"[^<>]*>",
    re.IGNORECASE,
)
# Codex tells as the user's words what it has read from a file
_AGENTS_FILE = re.compile(
    r"\A# AGENTS\.md instructions for [^\n]*\s*+<INSTRUCTIONS>.*?(?:</INSTRUCTIONS>|\Z)", re.DOTALL
)
# frontends fold thoughts and tool calls into <details type="…">; a plain one is the answer's own
_THOUGHT = re.compile(
    r"</?(think(?:ing)?(?=>)|(?<=/)details(?=>)|(?<=<)details(?=\s[^<>]*\btype=))[^<>]*>", re.IGNORECASE
)
_UNOPENED = re.compile(r"</think(?:ing)?>", re.IGNORECASE)  # some templates open the thought in the prompt
_QUERY_TAG = re.compile(r"</?user_query>", re.IGNORECASE)

# first look at explicit signals (headers); these texts mark background calls of frontends that send none
TASK_OPENINGS = (  # the only message starts with "### Task:" and has one of these in it
    "Generate a concise title summarizing",
    "Generate a concise, 3-5 word title",
    "Generate 1-3 broad tags",
    "Suggest 3-5 relevant follow-up",
    "Predict 3-5 useful messages",
    "determine the necessity of generating search queries",
    "Generate a detailed prompt for am image generation task",  # as it is spelled there
    "Generate a detailed prompt for an image generation task",
    "You are an autocompletion system",
    "Summarize the conversation history that will be compacted",
)
TASK_USER = (  # the only message starts with one of these
    "Provide a concise, 5-word-or-less title for the conversation",
    "Analyze this conversation and provide:\n1. The detected language",
    "Summarize what this phase of an agent run accomplished.",
    "Please write a 5-10 word title",
    "Your task is to reflect the speaker's likely facial expression",
    "You have been provided with a set of responses from various models to the latest user query:",
)
TASK_ANYWHERE = (  # the last user message or the system message has one of these in it
    "Use the `set_memory` tool to save important information about the user",
    "please reply with a short summary that is 4-12 words in length",
    "You are performing a CONTEXT CHECKPOINT COMPACTION.",
    "Your task is to create a detailed summary of the conversation so far, paying close attention to the user's explicit",
    "Analyze if this message indicates a new conversation topic. If it does, extract a 2-3 word title",
    "Summarize this coding conversation in under 50 characters",
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
)
TASK_SCHEMAS = frozenset({"topic_title", "InputCompletion", "follow_up_suggestions"})


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a request says about its conversation. `asks` is the index of the user message that takes the recall block, -1
    when the new turn has no words (an image); `anchors` pairs every user message with a hash of all that was said up to it,
    `places` are such hashes behind each answer, oldest first, and `here` is the one behind all messages."""

    text: str
    asks: int
    speaker: str
    position: str
    anchors: tuple[tuple[int, str], ...]
    places: tuple[str, ...]
    here: str
    seen: frozenset[str]
    later_round: bool  # a tool round, or a continuation, of a turn that was asked in an earlier request
    prefill: str
    session: str = ""  # known from the answer that it follows

    @property
    def anchor(self) -> str:
        """The hash up to and with the new turn's question."""
        return self.anchors[-1][1] if self.anchors else ""

    def tail(self, answer: str) -> str:
        """What the next request's `position` will be, when this answer comes back in its history."""
        return _roll(self.here, "assistant", answer)


def read(messages: Sequence[Any], before: Link | None = None) -> Conversation | None:
    """None when no user message has text. `before`: what stands before the messages, at the upstream."""
    said = [(i, str(m.get("role")), spoken(m)) for i, m in enumerate(messages) if isinstance(m, Mapping)]
    answers = [i for i, role, text in said if role == "assistant" and (text or messages[i].get("audio"))]
    answers = [i for i in answers if not messages[i].get("tool_calls") and not messages[i].get("function_call")]
    prefill = ""
    if answers and answers[-1] == len(messages) - 1:  # the client wants an answer continued
        prefill = _raw(messages[-1])
        answers.pop()
    since = answers[-1] if answers else -1
    rolled = before.here if before else ""
    places = [place for place in ((before.position if before.asked else before.here) if before else "",) if place]
    anchors: list[tuple[int, str]] = []
    asked = [before.asked] if before and before.asked and not answers else []
    seen = set(before.seen) if before else set()
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
            places.append(rolled)
    if not anchors and not asked:
        return None
    last = anchors[-1][0] if anchors else -1
    name = messages[last].get("name") if anchors else None
    return Conversation(
        text="\n".join(asked),
        asks=last if last > since else -1,
        speaker=name if isinstance(name, str) else "",
        position=places[-1] if places else "",
        anchors=tuple(anchors),
        places=tuple(places),
        here=rolled,
        seen=frozenset(seen),
        later_round=any(i > last and role in ("assistant", "tool", "function") for i, role, _ in said),
        prefill=prefill,
        session=before.session if before else "",
    )


def unknown(answer: str) -> Link:
    """What stands before a conversation that goes on from an answer that nobody here has heard."""
    return Link("", 0.0, "", _roll("", "answer", answer))


def spoken(message: Mapping[str, Any]) -> str:
    """A message's words, without fetched context, other systems' memory, our blocks, and thoughts."""
    text = fence.strip(_raw(message))
    if message.get("role") == "assistant":
        return _answered(text) or str(message.get("refusal") or "").strip()
    text = "".join(fence.outside(text, _FOREIGN))
    if text.lstrip().startswith("### Task:") and "</context>" in text:  # the question stands behind what was fetched
        text = text.rpartition("</context>")[2]
    return _AGENTS_FILE.sub("", _QUERY_TAG.sub("", text).strip()).strip()


def _answered(text: str) -> str:
    """An answer without its thoughts, also when one broke off in the middle."""
    text = "".join(fence.outside(text, _THOUGHT)).strip()
    if text.startswith(("<think>", "<thinking>")):
        return ""
    return _UNOPENED.split(text)[-1].strip() or text


_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})


def is_task(body: Mapping[str, Any], headers: Mapping[str, str], markers: Sequence[str] = ()) -> bool:
    """Whether a frontend makes this call for itself (title, tags, follow-ups …): memory stays out of it."""
    if headers.get("x-memory-task", "").strip():
        return True
    schema = body.get("response_format")
    named = schema.get("json_schema") if isinstance(schema, Mapping) else None
    if isinstance(named, Mapping) and str(named.get("name")) in TASK_SCHEMAS:
        return True
    messages = [message for message in body.get("messages") or () if isinstance(message, Mapping)]
    system = "\n".join(_raw(message) for message in messages if message.get("role") in ("system", "developer"))
    user = next((_raw(message) for message in reversed(messages) if message.get("role") == "user"), "")
    alone = not any(message.get("role") == "assistant" for message in messages)  # a conversation may quote such texts
    opened = user.lstrip().startswith("### Task:") and any(opening in user for opening in TASK_OPENINGS)
    return (
        (alone and (opened or user.lstrip().startswith(TASK_USER)))
        or any(text in system for text in TASK_SYSTEM)
        or any(text in user or text in system for text in (*TASK_ANYWHERE, *markers) if text)
    )


def _raw(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping) and str(part.get("type")) in _TEXT_PARTS]
        return "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    return ""


def _roll(so_far: str, role: str, text: str) -> str:
    return hashlib.sha256(f"{so_far}\x1f{role}\x1f{squeeze(text)}".encode("utf-8", "replace")).hexdigest()[:32]
