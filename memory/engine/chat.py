"""A chat-completions body as one frozen value. Fields we do not know are ignored; what we cannot do raises InvalidChat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memory.engine.errors import InvalidChat
from memory.engine.sampler import Sampling

Body = Mapping[str, Any]

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
         "function": "tool"}  # templates know nothing of "developer"  # fmt: skip
MAX_STOPS = 16
MAX_REPEATS = 1000  # the grammar spells a repetition out, so a schema of 40 bytes could fill the memory


@dataclass(frozen=True, slots=True)
class Chat:
    """What is asked of the model."""

    messages: tuple[Body, ...]
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None  # None: until the context is full
    stops: tuple[str, ...] = ()
    tools: tuple[Body, ...] = ()
    schema: Body | None = None  # the answer is JSON of this schema; {} means any object
    stream: bool = False
    include_usage: bool = False


def read(body: Any) -> Chat:
    """A decoded JSON body as a Chat."""
    if not isinstance(body, Mapping):
        raise InvalidChat("the body must be a JSON object")
    if (_integer(body, "n", 1, 128) or 1) != 1:
        raise InvalidChat("this model answers with one choice: n must be 1", param="n")
    options = body.get("stream_options")
    return Chat(
        messages=_messages(body),
        sampling=_sampling(body),
        max_tokens=_integer(body, "max_completion_tokens", 1) or _integer(body, "max_tokens", 1),
        stops=_stops(body),
        tools=_tools(body),
        schema=_schema(body),
        stream=body.get("stream") is True,
        include_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
    )


def _messages(body: Body) -> tuple[Body, ...]:
    messages = body.get("messages")
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InvalidChat("messages must be a list with at least one message", param="messages")
    return tuple(_message(m, f"messages.[{i}]") for i, m in enumerate(messages))


def _message(message: Any, at: str) -> Body:
    role = message.get("role") if isinstance(message, Mapping) else None
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidChat(f"{at}.role must be one of {', '.join(ROLES)}", param=f"{at}.role")
    return {**message, "role": ROLES[role], "content": _text(message.get("content"), f"{at}.content")}


def _text(content: Any, at: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, Sequence):
        raise InvalidChat(f"{at} must be a string or a list of parts", param=at)
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get(kind) if kind in ("text", "refusal") else None
        if not isinstance(text, str):
            raise InvalidChat(f"this model reads text only, not a part of type {kind!r}", param=at)
        texts.append(text)
    return "\n".join(texts)


def _sampling(body: Body) -> Sampling:
    top = _integer(body, "top_logprobs", 0, 20)
    logprobs = body.get("logprobs")
    if top is not None and logprobs is not True:
        raise InvalidChat("top_logprobs needs logprobs: true", param="top_logprobs")
    seed = _integer(body, "seed")
    # where the client says nothing: what suits small models, which ramble at the wire's own default of 1.0
    return Sampling(
        temperature=_number(body, "temperature", 0, 2, 0.7),
        top_p=_number(body, "top_p", 0, 1, 1.0),
        top_k=40 if body.get("top_k") is None else max(0, _integer(body, "top_k", -1) or 0),
        min_p=_number(body, "min_p", 0, 1, 0.05),
        seed=None if seed is None else seed % 2**64,
        frequency_penalty=_number(body, "frequency_penalty", -2, 2, 0.0),
        presence_penalty=_number(body, "presence_penalty", -2, 2, 0.0),
        logit_bias=_bias(body),
        top_logprobs=(top or 0) if logprobs is True else None,
    )


def _bias(body: Body) -> dict[int, float]:
    bias = body.get("logit_bias") or {}
    try:
        out = {int(token): float(value) for token, value in bias.items()}
    except (AttributeError, TypeError, ValueError):
        out = {0: float("nan")}
    if not all(-100 <= value <= 100 for value in out.values()):
        raise InvalidChat("logit_bias must map token ids to numbers from -100 to 100", param="logit_bias")
    return out


def _stops(body: Body) -> tuple[str, ...]:
    stop = body.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(s, str) for s in stops):
        raise InvalidChat(f"stop must be a string or a list of at most {MAX_STOPS} strings", param="stop")
    return tuple(s for s in stops if s)


def _tools(body: Body) -> tuple[Body, ...]:
    choice = body.get("tool_choice")
    if choice == "required" or isinstance(choice, Mapping):
        raise InvalidChat("this model cannot be made to call a tool: use tool_choice auto or none", param="tool_choice")
    tools = body.get("tools") or ()
    if not isinstance(tools, Sequence) or not all(isinstance(t, Mapping) for t in tools):
        raise InvalidChat("tools must be a list of objects", param="tools")
    return () if choice == "none" else tuple(tools)


def _schema(body: Body) -> Body | None:
    form = body.get("response_format")
    kind = form.get("type") if isinstance(form, Mapping) else None
    if form is None or kind == "text":
        return None
    if kind == "json_object":
        return {}
    named = form.get("json_schema") if kind == "json_schema" else None
    schema = named.get("schema") if isinstance(named, Mapping) else None
    if not isinstance(schema, Mapping):
        raise InvalidChat("response_format must be text, json_object or json_schema", param="response_format")
    _refuse_long_repeats(schema)
    return schema


def _refuse_long_repeats(schema: Any) -> None:
    todo = [schema]
    while todo:
        value = todo.pop()
        if isinstance(value, Mapping):
            sizes = [value.get(name) for name in ("minItems", "maxItems", "minLength", "maxLength")]
            if any(isinstance(size, int) and not 0 <= size <= MAX_REPEATS for size in sizes):
                raise InvalidChat(f"sizes in a schema may be at most {MAX_REPEATS}", param="response_format")
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)


def _number(body: Body, name: str, low: float, high: float, default: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidChat(f"{name} must be a number from {low} to {high}", param=name)
    return float(value)


def _integer(body: Body, name: str, low: int | None = None, high: int | None = None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    fits = isinstance(value, int) and not isinstance(value, bool)
    if not fits or (low is not None and value < low) or (high is not None and value > high):
        bounds = f" from {low}" if high is None else f" from {low} to {high}"
        raise InvalidChat(f"{name} must be a whole number{bounds if low is not None else ''}", param=name)
    return int(value)
