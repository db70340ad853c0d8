"""Reading a model's answer: any shape in which JSON notes come back → a list of raw items, or None when unreadable.

Bears: thinking tags, code fences, words around the JSON, trailing commas, a lone object, a bare list, a tool call, an
answer cut off in the middle (the whole items before the cut are kept). An empty list is an answer; `{}` and "" are not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

Item = dict[str, Any]
LONGEST = 200_000
MOST = 60
_THOUGHT = re.compile(r"<(think|thinking|reasoning|thought)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_THOUGHT_END = re.compile(r"</(?:think|thinking|reasoning|thought)>", re.IGNORECASE)
_THOUGHT_OPEN = re.compile(r"<(?:think|thinking|reasoning|thought)>.*", re.DOTALL | re.IGNORECASE)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
_START = re.compile(r"[{\[]")
_NAMES = ("memories", "memory", "items", "notes", "facts", "results", "data")
_DECODER = json.JSONDecoder(strict=False)


def text_of(response: Mapping[str, Any]) -> str:
    """The words of an answer: the arguments of a tool call, else the content. "" when there are none."""
    choices = response.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    message = first.get("message") if isinstance(first, Mapping) else None
    if not isinstance(message, Mapping):
        return ""
    calls = message.get("tool_calls") or (
        [{"function": message["function_call"]}] if message.get("function_call") else []
    )
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, Mapping) else None
        arguments = function.get("arguments") if isinstance(function, Mapping) else None
        if arguments:
            return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""


def was_cut(response: Mapping[str, Any]) -> bool:
    """Whether the answer ended because it was too long."""
    choices = response.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    return isinstance(first, Mapping) and first.get("finish_reason") == "length"


def usage_of(response: Mapping[str, Any]) -> tuple[int, int]:
    """Prompt and completion tokens; zeros when the provider does not say."""
    usage = response.get("usage")
    counts = usage if isinstance(usage, Mapping) else {}
    prompt, completion = counts.get("prompt_tokens"), counts.get("completion_tokens")
    return (prompt if isinstance(prompt, int) else 0), (completion if isinstance(completion, int) else 0)


def items(text: str) -> list[Item] | None:
    """The raw items of an answer, or None when it holds none and does not say "none" either."""
    text = _THOUGHT.sub("", text[:LONGEST])
    text = _THOUGHT_END.split(text)[-1]  # the opening tag is often part of the prompt
    text = _THOUGHT_OPEN.sub("", text)
    for attempt in (text, _TRAILING_COMMA.sub(r"\1", text)):
        found = _whole(attempt)
        if found is not None:
            return found[:MOST]
    return _salvaged(_TRAILING_COMMA.sub(r"\1", text))[:MOST] or None


def _whole(text: str) -> list[Item] | None:
    start = _START.search(text)
    tries = 0
    while start and tries < 5:
        try:
            value, _ = _DECODER.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            tries += 1
            if text[start.start()] == "{" and '"' in text[start.start() : start.start() + 20]:
                return None  # a broken object: its inner parts are the business of _salvaged
            start = _START.search(text, start.end())
            continue
        return _listed(value)
    return None


def _listed(value: Any) -> list[Item] | None:
    if isinstance(value, list):
        usable = [item for item in (_item(entry) for entry in value) if item]
        return usable if usable or not value else None
    if not isinstance(value, dict):
        return None
    for name in _NAMES:
        if isinstance(value.get(name), list | dict):
            return _listed(value[name]) if value[name] != {} else None
    single = _item(value)
    if single:
        return [single]
    lists = [entry for entry in value.values() if isinstance(entry, list)]
    return _listed(lists[0]) if len(lists) == 1 else None


def _item(value: Any) -> Item | None:
    if isinstance(value, str) and value.strip():
        return {"text": value}
    if isinstance(value, dict) and isinstance(value.get("text"), str) and value["text"].strip():
        return value
    return None


def _salvaged(text: str) -> list[Item]:
    """The complete items of an answer that was cut off."""
    found: list[Item] = []
    at, tries = text.find("{"), 0
    while at >= 0 and tries < MOST * 2:
        tries += 1
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            item = _item(value)
            if item:
                found.append(item)
        at = text.find("{", end)
    return found
