"""Reading a model's answer: any shape in which JSON notes come back → a list of raw items, or None when unreadable.

Bears: thinking tags, code fences, words around the JSON, trailing commas, a lone object, a bare list, a tool call, an
answer cut off in the middle (the whole items before the cut are kept), several values one after the other, wrappers around the
list, JSON in a string, Python's quotes, curly quotes and full-width marks, keys without quotes, comments.
An empty list is an answer; `{}` and "" are not.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from memory.words import whole

Item = dict[str, Any]
LONGEST = 200_000
MOST = 60
_THOUGHT = re.compile(r"<(think|thinking|reasoning|thought)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_THOUGHT_END = re.compile(r"</(?:think|thinking|reasoning|thought)>", re.IGNORECASE)
_THOUGHT_OPEN = re.compile(r"<(?:think|thinking|reasoning|thought)>.*", re.DOTALL | re.IGNORECASE)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
_COMMENT = re.compile(r"(?m)^\s*//.*$|(?<=[\[{,}\]\s])//[^\n\"]*$|/\*[^*]{0,500}\*/")
_BARE_KEY = re.compile(r"([{,]\s*+)([A-Za-z_]\w*+)\s*+:")
_NARROW = str.maketrans("“”„｛｝［］：，", '"""{}[]:,')
_TEXTS = ("text", "content", "memory", "value", "statement", "note", "fact")  # what models call the words of an item
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
    said: list[str] = []
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, Mapping) else None
        arguments = function.get("arguments") if isinstance(function, Mapping) else None
        if arguments:
            said.append(arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False))
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    if isinstance(content, str):
        said.append(content)
    thought = message.get("reasoning_content")  # some servers take the whole answer for a thought
    if not any(part.strip() for part in said) and isinstance(thought, str):
        said.append(thought)
    return "\n".join(said)


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
    text = whole(text[:LONGEST]).replace("\ufeff", "")
    text = _THOUGHT.sub("", text)
    text = _THOUGHT_END.split(text)[-1]  # the opening tag is often part of the prompt
    text = _THOUGHT_OPEN.sub("", text)
    plain = _TRAILING_COMMA.sub(r"\1", _COMMENT.sub("", text))
    narrow = _TRAILING_COMMA.sub(r"\1", text.translate(_NARROW))
    for attempt in (text, plain, narrow, _BARE_KEY.sub(r'\1"\2":', narrow)):
        found = _read(attempt)
        if found is not None:
            return found[:MOST]
    return (_salvaged(plain) or _literal(text) or _salvaged(narrow))[:MOST] or None


def _read(text: str) -> list[Item] | None:
    """The items of all JSON values in the text, one after the other; None when one that matters is broken."""
    if inner := _quoted(text):
        return inner
    start, tries = _START.search(text), 0
    found: list[Item] | None = None
    broken = False
    while start and tries < 8:
        try:
            value, end = _DECODER.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            tries, broken = tries + 1, True
            if text[start.start()] == "{" and '"' in text[start.start() : start.start() + 20]:
                return found + _salvaged(text[start.start() :]) if found else None
            start = _START.search(text, start.end())
            continue
        listed = _listed(value)
        if listed or (listed is not None and not broken):  # an empty list inside of something broken says nothing
            found = [*(found or []), *listed]
        else:
            tries += 1
        if found is not None and len(found) >= MOST:
            break
        start = _START.search(text, end)
    return found


def _quoted(text: str) -> list[Item] | None:
    """JSON inside of a JSON string."""
    if not text.lstrip().startswith('"'):
        return None
    try:
        value, _ = _DECODER.raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return None
    return _read(value) if isinstance(value, str) and not value.lstrip().startswith('"') else None


def _literal(text: str) -> list[Item]:
    """What a model wrote as Python: single quotes, None, True."""
    start = _START.search(text)
    span = text[start.start() : max(text.rfind("}"), text.rfind("]")) + 1] if start else ""
    if not span or len(span) > 20_000 or span.count("{") + span.count("[") > 500 or "'" not in span:
        return []
    try:
        return _listed(ast.literal_eval(span)) or []
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return []


def _listed(value: Any, depth: int = 4) -> list[Item] | None:
    if isinstance(value, list):
        usable = [item for item in (_item(entry) for entry in value) if item]
        return usable if usable or not value else None
    if not isinstance(value, dict) or depth == 0:
        return None
    for name in _NAMES:
        if isinstance(value.get(name), list | dict):
            return _listed(value[name], depth - 1) if value[name] != {} else None
    single = _item(value)
    if single:
        return [single]
    lists = [entry for entry in value.values() if isinstance(entry, list)]
    if len(lists) == 1:
        return _listed(lists[0])
    inner = [entry for entry in value.values() if isinstance(entry, dict)]
    if len(inner) == 1:
        return _listed(inner[0], depth - 1)
    keyed = [item for item in (_item(entry) for entry in inner) if item]
    return keyed or None


def _item(value: Any) -> Item | None:
    if isinstance(value, str) and value.strip():
        return {"text": whole(value)}
    if not isinstance(value, dict):
        return None
    for name in _TEXTS:
        if isinstance(value.get(name), str) and value[name].strip():
            return {**value, "text": whole(value[name])}
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
            found += _listed(value) or []
        at = text.find("{", end)
    return found
