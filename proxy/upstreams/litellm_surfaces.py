"""Responses and Anthropic's messages as chat completions, and the answers back, by litellm's own adapters.

In: a request of such a surface. Out: a `Translation`: the chat completion to ask for, and functions that turn its answer, whole or
streamed, into the surface's. Knows no network; with litellm_adapter the only door to litellm.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy import fence
from proxy.errors import BadRequest
from proxy.upstreams import litellm_adapter
from proxy.upstreams.port import ToldAs, UpstreamBroken

log = logging.getLogger(__name__)
Events = AsyncIterator[Mapping[str, Any]]
_NOT_KEPT = ToldAs()
# what would need what an upstream keeps
_KEPT_ELSEWHERE = ("conversation", "prompt")
# litellm's own words in a request, which no server knows
_NOT_SENT = frozenset(
    {"custom_llm_provider", "extra_headers", "reasoning_summary", "context_management", "litellm_metadata"}
)


@dataclass(frozen=True, slots=True)
class Translation:
    """One request, and how its answer is told. `whole` raises UpstreamBroken, `stream` too, when an answer is none."""

    body: bytes
    whole: Callable[[bytes], bytes]
    stream: Callable[[Events], AsyncIterator[bytes]]
    error: Callable[[int, bytes], bytes]
    begun: bytes = b""  # of one that is to be made in the background: what is answered at once


def translate(
    path: str, body: bytes, *, to_openai: bool = False, to_litellm: bool = False, told_as: ToldAs = _NOT_KEPT
) -> Translation:
    """The translation of one request. `to_openai`: OpenAI's own servers, which refuse what they do not know. Imports litellm at
    the first call, which takes seconds. Raises BadRequest, UpstreamUnreachable (litellm is not installed)."""
    litellm_adapter.load()
    try:
        asked = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest("the body is not a JSON object", code="invalid_json") from error
    try:
        if path == "/responses":
            return _responses(asked, to_openai, to_litellm, told_as)
        return _messages(asked, to_openai, to_litellm)
    except BadRequest:
        raise
    except Exception as error:  # whatever litellm lets out: its message may repeat what was said
        log.info("a request for %s could not be translated: %s", path, type(error).__name__)
        raise BadRequest("this request cannot be translated for an upstream that speaks chat completions") from None


# --- responses --------------------------------------------------------------------------------------------------------------


def _responses(asked: dict[str, Any], to_openai: bool, to_litellm: bool, told_as: ToldAs) -> Translation:
    from litellm.responses.additional_tools import hoist_additional_tools
    from litellm.responses.litellm_completion_transformation.streaming_iterator import (
        LiteLLMCompletionStreamingIterator as Iterated,
    )
    from litellm.responses.litellm_completion_transformation.transformation import (
        LiteLLMCompletionResponsesConfig as Adapter,
    )

    _check(asked, told_as)
    hoisted = hoist_additional_tools(asked.get("input"), asked.get("tools"))
    request = {**asked, "tools": list(hoisted.tools)} if hoisted.hoisted else asked
    chat = Adapter.transform_responses_api_request_to_chat_completion_request(
        model=asked["model"], input=hoisted.input, responses_api_request=request, stream=bool(asked.get("stream"))
    )
    echo = {**request, "store": bool(told_as.name)}
    if isinstance(told := asked.get("instructions"), str):
        echo["instructions"] = fence.strip(told).rstrip() or None
    own = {"id": told_as.name or f"resp_{uuid.uuid4().hex}", "store": bool(told_as.name)}
    own |= {"previous_response_id": told_as.follows} if told_as.follows else {}
    own |= {"background": True} if asked.get("background") else {}

    def whole(answer: bytes) -> bytes:
        with _telling("the upstream's answer cannot be translated"):
            told = Adapter.transform_chat_completion_response_to_responses_api_response(
                request_input=hoisted.input, responses_api_request=echo, chat_completion_response=_completion(answer)
            )
            return msgspec.json.encode(_response(_plain(told), own))

    async def stream(chunks: Events) -> AsyncIterator[bytes]:
        iterated = Iterated(
            model=asked["model"],
            litellm_custom_stream_wrapper=_Chunks(chunks),
            request_input=hoisted.input,
            responses_api_request=echo,
        )
        number = 0
        async for event in iterated:
            said = _plain(event)
            if isinstance(said.get("response"), dict):
                _response(said["response"], own)
            said["sequence_number"] = number
            number += 1
            yield f"event: {said['type']}\n".encode() + b"data: " + msgspec.json.encode(said) + b"\n\n"

    begun = msgspec.json.encode(_begun(echo, own)) if asked.get("background") else b""
    return Translation(_encode(chat, to_openai, to_litellm), whole, stream, lambda status, answer: answer, begun)


def _check(asked: Mapping[str, Any], told_as: ToldAs) -> None:
    """Raises BadRequest for what cannot be had from an upstream that keeps nothing."""
    if before := asked.get("previous_response_id"):
        raise BadRequest(
            f"Previous response with id '{str(before)[:200]}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    for field in _KEPT_ELSEWHERE:
        if asked.get(field):
            raise BadRequest(f"{field}: the upstream of this model keeps none; send the whole input", param=field)
    if asked.get("background") and not told_as.name:
        raise BadRequest("background: a response that is not kept cannot be had later", param="background")
    if asked.get("background") and asked.get("stream"):
        raise BadRequest("background: with the upstream of this model it is not streamed", param="stream")


_ECHOED = ("instructions", "max_output_tokens", "metadata", "model", "parallel_tool_calls", "reasoning", "temperature",
           "text", "tool_choice", "tools", "top_p", "truncation", "user")  # fmt: skip


def _begun(echo: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A response that is still to be made."""
    usual = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    told = usual | {name: echo[name] for name in _ECHOED if echo.get(name) is not None}
    now = {"object": "response", "created_at": int(time.time()), "status": "queued", "output": []}
    return {"instructions": None, **told, **now, "error": None, "incomplete_details": None, "usage": None, **own}


def _response(told: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A response with an id of ours and the fields that clients look for."""
    told.update(own)
    usage = told.get("usage")
    if isinstance(usage, dict):
        usage.pop("cost", None)  # litellm's estimate from its own price list
        usage["input_tokens_details"] = usage.get("input_tokens_details") or {"cached_tokens": 0}
        usage["output_tokens_details"] = usage.get("output_tokens_details") or {"reasoning_tokens": 0}
    for item in told.get("output") or ():
        if item.get("type") == "reasoning" and "summary" not in item:
            parts = [{"type": "summary_text", "text": part.get("text", "")} for part in item.pop("content", None) or ()]
            item["summary"] = parts
            item.pop("role", None)
    return told


class _Chunks:
    """Chunks of a chat completion, as litellm's iterator wants them."""

    logging_obj = None

    def __init__(self, chunks: Events) -> None:
        from litellm.types.utils import ModelResponseStream

        self._make = ModelResponseStream
        self._chunks = chunks

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> Any:
        return self._make(**await anext(self._chunks))


# --- messages ---------------------------------------------------------------------------------------------------------------


def _messages(asked: dict[str, Any], to_openai: bool, to_litellm: bool) -> Translation:
    from litellm.llms.anthropic.pass_through.adapters.streaming_iterator import AnthropicStreamWrapper
    from litellm.llms.anthropic.pass_through.adapters.transformation import AnthropicAdapter

    model = asked["model"]
    adapter = AnthropicAdapter()
    chat, names = adapter.translate_completion_input_params_with_tool_mapping(dict(asked))
    if asked.get("stream"):
        chat["stream_options"] = {"include_usage": True}

    def whole(answer: bytes) -> bytes:
        with _telling("the upstream's answer cannot be translated"):
            told = adapter.translate_completion_output_params(_completion(answer), names)
            said = {**dict(told or {}), "id": f"msg_{uuid.uuid4().hex}"}
            for block in said.get("content") or ():
                if isinstance(block, dict) and block.get("type") == "thinking":
                    block["signature"] = block.get("signature") or ""
            return json.dumps(said, default=_plain, ensure_ascii=False).encode()

    async def stream(chunks: Events) -> AsyncIterator[bytes]:
        async for event in AnthropicStreamWrapper(_Chunks(chunks), model=model, tool_name_mapping=names):
            told = json.dumps(event, default=_plain, ensure_ascii=False)
            yield f"event: {event['type']}\ndata: {told}\n\n".encode()

    return Translation(_encode(chat, to_openai, to_litellm), whole, stream, _anthropic_error)


def _anthropic_error(status: int, answer: bytes) -> bytes:
    """An error of chat completions in Anthropic's shape."""
    kinds = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
             413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error"}  # fmt: skip
    try:
        said = msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = {}
    said = said.get("error", said) if isinstance(said, dict) else said
    message = (said.get("message") or said.get("detail")) if isinstance(said, dict) else said
    kind = kinds.get(status, "api_error" if status >= 500 else "invalid_request_error")
    told = {"type": kind, "message": message if isinstance(message, str) else f"the upstream answered {status}"}
    return msgspec.json.encode({"type": "error", "error": told})


# --- both -------------------------------------------------------------------------------------------------------------------


@contextmanager
def _telling(message: str) -> Iterator[None]:
    """What litellm lets out of itself becomes an UpstreamBroken without its words, which may be people's."""
    try:
        yield
    except UpstreamBroken:
        raise
    except Exception as error:
        raise UpstreamBroken(f"{message} ({type(error).__name__})") from None


def _completion(answer: bytes) -> Any:
    from litellm.types.utils import ModelResponse

    said = msgspec.json.decode(answer, type=dict[str, Any])
    if not said.get("choices"):
        raise UpstreamBroken("the upstream's answer holds no choice")
    said.setdefault("id", f"chatcmpl-{uuid.uuid4().hex}")
    said.setdefault("created", int(time.time()))
    said["usage"] = said.get("usage") or {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return ModelResponse(**said)


def _encode(chat: Mapping[str, Any], to_openai: bool, to_litellm: bool) -> bytes:
    """The chat completion's body, without what only litellm or only Anthropic understands."""
    sent = {name: value for name, value in chat.items() if value is not None and name not in _NOT_SENT}
    sent["messages"] = [_message(message, to_openai, to_litellm) for message in map(_plain, sent["messages"])]
    if not sent.get("stream"):
        sent.pop("stream", None)
        sent.pop("stream_options", None)
    if to_openai:
        sent.pop("top_k", None)
        if "max_tokens" in sent:
            sent["max_completion_tokens"] = sent.pop("max_tokens")
    return json.dumps(sent, default=_plain, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _message(message: Mapping[str, Any], to_openai: bool, to_litellm: bool) -> dict[str, Any]:
    out = dict(message)
    if not to_litellm:
        out.pop("thinking_blocks", None)
    if to_openai:
        out.pop("reasoning_content", None)
    for call in out.get("tool_calls") or ():
        if isinstance(call, dict):
            call.pop("index", None)
    return out


def _plain(value: Any) -> Any:
    """A dictionary of what may be a pydantic object."""
    return value.model_dump(mode="json", exclude_none=True) if hasattr(value, "model_dump") else value
