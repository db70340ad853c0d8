"""A model made of rules behind all three surfaces: it calls tools, fills schemas, streams, and otherwise says what it was asked.

In: a request as the recording upstream received it. Out: an answer with all that a client may look at (ids, usage, pieces of
arguments, events in their order). The same request has the same answer; our blocks count for nothing, so that what a client does
next does not hang on them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.clients.compare import BLOCK
from tests.clients.schema import OpenApi
from tests.fakes import Received, Reply

_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"")
_USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


@dataclass(slots=True)
class Asked:
    """A request, whatever its surface."""

    text: str = ""  # the last thing that the user said
    told: str = ""  # what a tool answered to it
    tools: dict[str, Any] = field(default_factory=dict)  # name → JSON schema
    must: str = ""  # "any", or the name of a tool
    schema: Any = None  # of a JSON answer; {} for any
    stop: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Made:
    """What the model has to say: words, or calls (name, arguments)."""

    text: str
    calls: tuple[tuple[str, str], ...] = ()


def answer(received: Received) -> Reply:
    """The answer to a request of any of the three surfaces; embeddings too."""
    body = received.body
    if received.path == "/v1/embeddings":
        given = body["input"] if isinstance(body["input"], list) else [body["input"]]
        data = [{"object": "embedding", "index": n, "embedding": [0.5, 1.0]} for n in range(len(given))]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return _json({"object": "list", "data": data, "model": body["model"], "usage": usage})
    surface = {"/v1/chat/completions": _Chat, "/v1/responses": _Responses, "/v1/messages": _Messages}[received.path]
    asked = surface(body, "").asked()
    speaker = surface(body, hashlib.sha256(repr((received.path, asked)).encode()).hexdigest()[:24])
    made = _made(asked)
    if body.get("stream") is True:
        return Reply(content_type="text/event-stream", chunks=list(speaker.events(made)))
    return _json(speaker.whole(made))


def _json(value: Any) -> Reply:
    return Reply(chunks=[json.dumps(value).encode()])


def _made(asked: Asked) -> Made:
    if asked.tools and not asked.told:
        named = [name for name in asked.tools if name in asked.text or name.removeprefix("get_") in asked.text.lower()]
        if asked.must or named or "tool" in asked.text.lower():
            chosen = [asked.must] if asked.must in asked.tools else named or list(asked.tools)[:1]
            return Made(
                "",
                tuple((name, json.dumps(_fill(asked.tools[name], asked.text), ensure_ascii=False)) for name in chosen),
            )
    if asked.schema is not None:
        wanted = asked.schema or {
            "properties": {key: {"type": "string"} for key, _ in _QUOTED.findall(asked.text) if key}
        }
        return Made(json.dumps(_fill(wanted, asked.text), ensure_ascii=False))
    text = f"The tool says: {asked.told}" if asked.told else f"You said: {asked.text} — 好的 👍"
    return Made(min((text.partition(stop)[0] for stop in asked.stop), key=len, default=text))


def _fill(schema: Any, text: str) -> Any:
    """A value for a schema: numbers and quoted words are taken from the text."""
    number = re.search(r"-?\d+", text)
    quoted = _QUOTED.search(text)
    value = OpenApi({"paths": {}, **schema}).sample(schema or {"type": "object"})
    return _put(value, int(number.group()) if number else 1, quoted.group().strip("'\"") if quoted else "Paris")


def _put(value: Any, number: int, word: str) -> Any:
    if isinstance(value, dict):
        return {name: _put(inner, number, word) for name, inner in value.items()}
    if isinstance(value, list):
        return [_put(inner, number, word) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return number
    return word if value == "string" else value


def _words(content: Any) -> str:
    """The text of a message: a string or parts."""
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") or part.get("refusal") or "" for part in parts if isinstance(part, dict)]
    return BLOCK.sub("", " ".join(text for text in texts if isinstance(text, str))).strip()


def _pieces(text: str) -> list[str]:
    return [text[at : at + 7] for at in range(0, len(text), 7)] or [""]


def _event(data: Any, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(data).encode() + b"\n\n"


class _Chat:
    def __init__(self, body: dict[str, Any], name: str) -> None:
        self._body, self._name = body, name

    def asked(self) -> Asked:
        body, asked = self._body, Asked()
        for message in body["messages"]:
            if message["role"] == "user":
                asked.text, asked.told = _words(message["content"]), ""
            elif message["role"] == "tool":
                asked.told = _words(message["content"]) or "nothing"
        asked.tools = {one["function"]["name"]: one["function"].get("parameters", {}) for one in body.get("tools", ())}
        choice = body.get("tool_choice", "auto")
        asked.must = choice["function"]["name"] if isinstance(choice, dict) else {"required": "any"}.get(choice, "")
        wanted = body.get("response_format", {}) or {}
        if wanted.get("type") in ("json_schema", "json_object"):
            asked.schema = wanted.get("json_schema", {}).get("schema", {})
        stop = body.get("stop") or []
        asked.stop = [stop] if isinstance(stop, str) else stop
        return asked

    def whole(self, made: Made) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": made.text or None, "refusal": None}
        if made.calls:
            message["tool_calls"] = [self._call(n, name, given) for n, (name, given) in enumerate(made.calls)]
        choices = [
            {
                "index": n,
                "message": message,
                "finish_reason": "tool_calls" if made.calls else "stop",
                "logprobs": self._logprobs(made.text),
            }
            for n in range(self._body.get("n") or 1)
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": _USAGE}

    def events(self, made: Made) -> Iterator[bytes]:
        for n in range(self._body.get("n") or 1):
            yield self._chunk(n, {"role": "assistant", "content": "", "reasoning_content": "hm"})
            for piece in _pieces(made.text) if made.text else ():
                yield self._chunk(n, {"content": piece}, logprobs=self._logprobs(piece))
            for place, (name, given) in enumerate(made.calls):
                yield self._chunk(n, {"tool_calls": [{"index": place, **self._call(place, name, "")}]})
                for piece in _pieces(given):
                    yield self._chunk(n, {"tool_calls": [{"index": place, "function": {"arguments": piece}}]})
            yield self._chunk(n, {}, "tool_calls" if made.calls else "stop")
        if (self._body.get("stream_options") or {}).get("include_usage"):
            yield _event({**self._head("chat.completion.chunk"), "choices": [], "usage": _USAGE})
        yield b"data: [DONE]\n\n"

    def _chunk(self, n: int, delta: Any, finish: str | None = None, logprobs: Any = None) -> bytes:
        choice = {"index": n, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        return _event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._name}",
            "object": kind,
            "created": 1,
            "model": self._body["model"],
            "x_vendor": {"kept": 1.0},
        }

    def _call(self, n: int, name: str, given: str) -> dict[str, Any]:
        call = {"id": f"call_{self._name[:8]}{n}", "type": "function", "function": {"name": name, "arguments": given}}
        return {**call, "extra_content": {"google": {"thought_signature": "c2ln"}}}

    def _logprobs(self, text: str) -> Any:
        one = {"token": text, "logprob": -0.5, "bytes": list(text.encode()), "top_logprobs": []}
        return {"content": [one], "refusal": None} if self._body.get("logprobs") else None


class _Responses:
    def __init__(self, body: dict[str, Any], name: str) -> None:
        self._body, self._name = body, name

    def asked(self) -> Asked:
        body, asked = self._body, Asked()
        given = body.get("input") or []
        for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
            if item.get("role") == "user":
                asked.text, asked.told = _words(item["content"]), ""
            elif item.get("type") == "function_call_output":
                asked.told = _words(item["output"]) or "nothing"
        asked.tools = {
            one["name"]: one.get("parameters", {}) for one in body.get("tools", ()) if one["type"] == "function"
        }
        choice = body.get("tool_choice", "auto")
        asked.must = choice.get("name", "") if isinstance(choice, dict) else {"required": "any"}.get(choice, "")
        wanted = (body.get("text") or {}).get("format") or {}
        if wanted.get("type") in ("json_schema", "json_object"):
            asked.schema = wanted.get("schema", {})
        return asked

    def whole(self, made: Made) -> dict[str, Any]:
        output = [item for item in (self._reasoning(), *self._items(made)) if item]
        usage = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
        more = {
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
        return {**self._begun(), "status": "completed", "output": output, "usage": {**usage, **more}}

    def events(self, made: Made) -> Iterator[bytes]:
        whole = self.whole(made)
        told: list[dict[str, Any]] = [
            {"type": f"response.{kind}", "response": self._begun()} for kind in ("created", "in_progress")
        ]
        for place, item in enumerate(whole["output"]):
            at = {"output_index": place, "item_id": item["id"]}
            began = {**item, "status": "in_progress"} | (
                {"arguments": ""} if "arguments" in item else {"content": []} if "content" in item else {}
            )
            told.append({"type": "response.output_item.added", "output_index": place, "item": began})
            if item["type"] == "message":
                part = item["content"][0]
                spot = {**at, "content_index": 0}
                told.append({"type": "response.content_part.added", **spot, "part": {**part, "text": ""}})
                told += [
                    {"type": "response.output_text.delta", **spot, "delta": piece, "logprobs": []}
                    for piece in _pieces(part["text"])
                ]
                told.append({"type": "response.output_text.done", **spot, "text": part["text"], "logprobs": []})
                told.append({"type": "response.content_part.done", **spot, "part": part})
            elif item["type"] == "function_call":
                kind = "response.function_call_arguments"
                told += [{"type": f"{kind}.delta", **at, "delta": piece} for piece in _pieces(item["arguments"])]
                told.append({"type": f"{kind}.done", **at, "name": item["name"], "arguments": item["arguments"]})
            told.append({"type": "response.output_item.done", "output_index": place, "item": item})
        told.append({"type": "response.completed", "response": whole})
        for number, event in enumerate(told):
            yield _event({**event, "sequence_number": number}, event["type"])

    def _begun(self) -> dict[str, Any]:
        given = {
            key: self._body[key]
            for key in ("tools", "tool_choice", "metadata", "previous_response_id", "text")
            if key in self._body
        }
        head = {
            "id": f"resp_{self._name}",
            "object": "response",
            "created_at": 1,
            "status": "in_progress",
            "model": self._body["model"],
        }
        return {
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            **head,
            **given,
            "output": [],
            "error": None,
        }

    def _reasoning(self) -> dict[str, Any] | None:
        if "reasoning.encrypted_content" not in (self._body.get("include") or ()):
            return None
        return {"type": "reasoning", "id": f"rs_{self._name}", "summary": [], "encrypted_content": "Z2VoZWlt"}

    def _items(self, made: Made) -> list[dict[str, Any]]:
        if made.calls:
            head = {"type": "function_call", "status": "completed"}
            return [
                {
                    **head,
                    "id": f"fc_{self._name}{n}",
                    "call_id": f"call_{self._name[:8]}{n}",
                    "name": name,
                    "arguments": given,
                }
                for n, (name, given) in enumerate(made.calls)
            ]
        part = {"type": "output_text", "text": made.text, "annotations": [], "logprobs": []}
        return [
            {
                "type": "message",
                "id": f"msg_{self._name}",
                "status": "completed",
                "role": "assistant",
                "content": [part],
            }
        ]


class _Messages:
    def __init__(self, body: dict[str, Any], name: str) -> None:
        self._body, self._name = body, name

    def asked(self) -> Asked:
        asked = Asked(stop=self._body.get("stop_sequences") or [])
        for message in self._body["messages"]:
            parts = message["content"] if isinstance(message["content"], list) else []
            results = [part for part in parts if part["type"] == "tool_result"]
            if results:
                asked.told = _words(results[-1].get("content")) or "nothing"
            elif message["role"] == "user":
                asked.text, asked.told = _words(message["content"]), ""
        asked.tools = {one["name"]: one["input_schema"] for one in self._body.get("tools", ()) if "input_schema" in one}
        choice = self._body.get("tool_choice") or {}
        asked.must = choice.get("name") or ("any" if choice.get("type") == "any" else "")
        return asked

    def whole(self, made: Made) -> dict[str, Any]:
        calls = [
            {"type": "tool_use", "id": f"toolu_{self._name}{n}", "name": name, "input": json.loads(given)}
            for n, (name, given) in enumerate(made.calls)
        ]
        thought = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
        content = ([thought] if self._body.get("thinking") else []) + (calls or [{"type": "text", "text": made.text}])
        return {**self._head("tool_use" if calls else "end_turn"), "content": content}

    def events(self, made: Made) -> Iterator[bytes]:
        whole = self.whole(made)
        told: list[dict[str, Any]] = [{"type": "message_start", "message": self._head(None)}, {"type": "ping"}]
        for place, block in enumerate(whole["content"]):
            empty = {"tool_use": {"input": {}}, "text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}}[
                block["type"]
            ]
            told.append({"type": "content_block_start", "index": place, "content_block": block | empty})
            told += [{"type": "content_block_delta", "index": place, "delta": delta} for delta in _deltas(block)]
            told.append({"type": "content_block_stop", "index": place})
        stop = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        told += [{"type": "message_delta", "delta": stop, "usage": {"output_tokens": 4}}, {"type": "message_stop"}]
        for event in told:
            yield _event(event, event["type"])

    def _head(self, stop: str | None) -> dict[str, Any]:
        head = {
            "id": f"msg_{self._name}",
            "type": "message",
            "role": "assistant",
            "model": self._body["model"],
            "content": [],
        }
        usage = {"input_tokens": 9, "output_tokens": 4, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 5}
        return {**head, "stop_reason": stop, "stop_sequence": None, "usage": usage}


def _deltas(block: dict[str, Any]) -> list[dict[str, str]]:
    if block["type"] == "thinking":
        return [
            {"type": "thinking_delta", "thinking": "hm"},
            {"type": "signature_delta", "signature": block["signature"]},
        ]
    if block["type"] == "tool_use":
        return [{"type": "input_json_delta", "partial_json": piece} for piece in _pieces(json.dumps(block["input"]))]
    return [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
