"""The upstream kind `litellm`: providers that do not speak OpenAI's protocol (native Anthropic, Bedrock, Vertex, Gemini).

In: OpenAI bytes for `/chat/completions` or `/embeddings`. Out: OpenAI bytes, translated by litellm, imported on the first call.
With litellm_surfaces the only door to litellm. A client's field can never become one of litellm's own controls. Knows nothing
of memory.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import inspect
import logging
import os
import re
import struct
import threading
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec

from proxy.errors import ApiError, BadRequest, NotFound, UpstreamTimeout, UpstreamUnreachable
from proxy.upstreams.port import Call, Headers, Reply

log = logging.getLogger(__name__)

# OpenAI's own request fields: litellm translates them for the provider
_OPENAI = frozenset(
    "messages functions function_call temperature top_p n stream stream_options stop max_tokens max_completion_tokens "
    "modalities prediction audio presence_penalty frequency_penalty logit_bias user response_format seed tools "
    "tool_choice parallel_tool_calls logprobs top_logprobs reasoning_effort verbosity web_search_options service_tier "
    "safety_identifier prompt_cache_key prompt_cache_retention store metadata thinking input dimensions encoding_format".split()
)
# litellm never refuses these: it reads them itself
_NEVER_REFUSED = frozenset({"messages", "input", "encoding_format", "stream", "stream_options", "user", "metadata"})
_ASKED_FOR = {
    "/chat/completions": "messages",
    "/embeddings": "input",
}  # path → the field without which nothing is asked
# what many clients send with every request and what means nothing: dropped, since providers refuse fields they don't know
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,), "presence_penalty": (0,), "frequency_penalty": (0,), "logit_bias": ({},), "logprobs": (False,),
    "top_logprobs": (0,), "store": (False,), "service_tier": ("auto", "default"), "modalities": (["text"],),
}  # fmt: skip
# names that are credentials, addresses or controls of some litellm provider even where litellm does not list them
_CONTROL = re.compile(
    r"^(_|litellm|mock_|api_|model_|aws_|azure|vertex_|gemini_api|anthropic_|s3_|gcs_|oci_|watsonx|sap_|gigachat_|client_)"
    r"|(_key|_token|_secret|_credentials|_password|_url|_uri|_endpoint|_base|_host|_port|_path|_file|_profile)$"
    r"|^(base_url|host|port|token|project|region|extra_body|extra_headers|engine|organization|timeout|client)$"
)
_REQUEST = {"messages": "chat_completion", "input": "embeddings"}
_KEPT_HEADERS = re.compile(r"^(retry-after|x-ratelimit-|anthropic-ratelimit-|(x-)?request-id$|x-amzn-requestid$)")
_LITELLM_PREFIX = re.compile(r"^(litellm\.\w+: |\w+(Exception|Error) - )+")


@dataclass(slots=True)
class WholeReply:
    """An answer that is complete. Implements `Reply`."""

    status: int
    headers: Headers
    body: bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.body

    async def close(self) -> None:
        return None


@dataclass(slots=True)
class StreamReply:
    """A stream whose first chunk is there. Implements `Reply`; a failure midway becomes an error frame without [DONE]."""

    status: int
    headers: Headers
    first: Any
    stream: Any
    wire: Wire

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            if self.first is not None:
                yield _frame(self.first, self.stream)
                async for chunk in self.stream:
                    yield _frame(chunk, self.stream)
            yield b"data: [DONE]\n\n"
        except Exception as error:  # the status is sent, so whatever litellm lets out must become a frame
            log.warning("upstream stream broke: %s", type(error).__name__)
            yield b"data: " + _error_body(error, b"") + b"\n\n"
        finally:
            await self.close()

    async def close(self) -> None:
        await self.wire.close()
        if hasattr(self.stream, "aclose"):
            await self.stream.aclose()


@dataclass(slots=True)
class Wire:
    """What really went over the wire in one call: litellm changes statuses, and does not close Anthropic's stream."""

    response: Any = None  # httpx.Response
    refusal: bytes = b""

    async def saw(self, response: Any) -> None:
        self.response = response
        if response.is_error:
            self.refusal = await response.aread()

    async def close(self) -> None:
        """Cut the provider's stream when it was not read to its end. Never raises."""
        if self.response is not None:
            try:
                await self.response.aclose()
            except Exception as error:
                log.debug("closing the upstream's response failed: %s", type(error).__name__)

    @property
    def headers(self) -> list[tuple[str, str]]:
        return _kept(self.response.headers) if self.response is not None else []


_wire: ContextVar[Wire] = ContextVar("_wire")


@dataclass(slots=True, kw_only=True)
class LitellmUpstream:
    """One provider behind litellm. `extra` are further litellm arguments (aws_region_name, vertex_project …)."""

    name: str
    provider: str
    api_key: str | None = None
    base_url: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    model_names: Sequence[str] = ()
    timeout_s: float = 600.0
    kind: str = "litellm"
    _client: Any = None

    async def send(self, call: Call) -> Reply:
        """One attempt. Raises UpstreamUnreachable (also when litellm is not installed) or UpstreamTimeout."""
        if call.credential:
            raise BadRequest(f"upstream {self.name} takes no key of yours over this protocol")
        if call.path not in _ASKED_FOR or not isinstance(call.body, bytes):
            return _refused(NotFound(f"Upstream '{self.name}' offers only {' and '.join(_ASKED_FOR)}."))
        litellm = await asyncio.to_thread(load)
        try:
            arguments = self._arguments(litellm, call.body, _ASKED_FOR[call.path])
        except BadRequest as error:
            return _refused(error)
        wire = Wire()
        token = _wire.set(wire)
        try:
            if call.path == "/embeddings":
                packed = arguments.pop("encoding_format", "float") == "base64"
                vectors = await litellm.aembedding(**arguments)
                return WholeReply(200, [("content-type", "application/json"), *wire.headers], _vectors(vectors, packed))
            answer = await litellm.acompletion(**arguments)
            if not arguments.get("stream"):
                return WholeReply(200, [("content-type", "application/json"), *wire.headers], _whole(answer))
            first = await anext(aiter(answer), None)
            return StreamReply(200, [("content-type", "text/event-stream"), *wire.headers], first, answer, wire)
        except Exception as error:  # litellm lets out its own errors, openai's, and bare ValueErrors and KeyErrors
            await wire.close()
            return self._failed(litellm, error, wire)
        except asyncio.CancelledError:
            await wire.close()  # litellm may hold the opened stream while it waits for the first chunk
            raise
        finally:
            _wire.reset(token)

    async def models(self) -> list[dict[str, object]]:
        """The configured names."""
        names = [name for name in self.model_names if "*" not in name]
        return [{"id": name, "object": "model", "created": 0, "owned_by": self.provider} for name in names]

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _arguments(self, litellm: Any, body: bytes, needed: str) -> dict[str, Any]:
        """What litellm is called with; `needed` is the field without which there is nothing to ask. Raises BadRequest."""
        try:
            fields = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest("The body is not a JSON object.") from error
        model = fields.pop("model", None)
        kinds = (list,) if needed == "messages" else (list, str)
        if not isinstance(model, str) or not isinstance(fields.get(needed), kinds):
            raise BadRequest(f"`model` must be a string and `{needed}` an array.")
        model = model.removeprefix(f"{self.provider}/")
        sent = {name: value for name, value in fields.items() if value is not None and not _neutral(name, value)}
        for name in sent.keys() - _OPENAI:
            if name in _controls() or name in self.extra or _CONTROL.search(name):
                raise BadRequest(f"'{name}' cannot be set through upstream '{self.name}'.", param=name)
        if not sent.get("stream"):
            sent.pop("stream_options", None)
        if "metadata" in sent:  # litellm sends on nothing else of it, and takes the rest for its own
            sent["metadata"] = {"user_id": user} if (user := _user(sent["metadata"])) else {}
        supported = litellm.get_supported_openai_params(model, self.provider, _REQUEST[needed]) or ()
        ours = {
            "model": f"{self.provider}/{model}", "api_key": self.api_key, "api_base": self.base_url,
            "timeout": self.timeout_s, "max_retries": 0, "num_retries": 0, "drop_params": False,
            # sent as they are, for the provider to judge: litellm would refuse what its table does not know yet
            "allowed_openai_params": sorted((sent.keys() & _OPENAI) - _NEVER_REFUSED - {*supported}),
        }  # fmt: skip
        if needed == "messages":
            ours["_skip_mcp_handler"] = True  # else any request with tools imports `mcp`, which is not installed
        if not self._speaks_openai(litellm):
            ours["client"] = self._client = self._client or _client()
        return {**sent, **copy.deepcopy(dict(self.extra)), **ours}

    def _speaks_openai(self, litellm: Any) -> bool:
        """Whether litellm reaches this provider through the openai package, which brings its own client."""
        return self.provider in {"openai", "azure", "azure_text", "custom_openai", *litellm.openai_compatible_providers}

    def _failed(self, litellm: Any, error: Exception, wire: Wire) -> Reply:
        """The provider's refusal as a Reply. Raises UpstreamTimeout or UpstreamUnreachable when there was no answer."""
        error = getattr(error, "original_exception", None) or error
        status = getattr(error, "status_code", None) or 500
        if wire.response is not None and wire.response.is_error:
            status = wire.response.status_code  # litellm makes 500 of 529 and 400 of 413
        elif isinstance(error, litellm.Timeout):
            raise UpstreamTimeout(f"Upstream '{self.name}' did not answer in {self.timeout_s:g} s.") from None
        else:
            seen = wire.response is not None or self._speaks_openai(litellm)
            if isinstance(error, litellm.APIConnectionError) or status < 400 or (status >= 500 and not seen):
                # `from None`: litellm's error repeats what was said, and would stand in a logged traceback
                raise UpstreamUnreachable(f"Upstream '{self.name}' gave no answer ({_root(error)}).") from None
        headers = wire.headers or _kept(getattr(error, "litellm_response_headers", None) or {})
        return WholeReply(status, [("content-type", "application/json"), *headers], _error_body(error, wire.refusal))


def _client() -> Any:
    """litellm's HTTP client without its second attempt and without redirects, which would carry the key elsewhere."""
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

    class OneAttempt(AsyncHTTPHandler):  # type: ignore[misc]
        async def single_connection_post_request(self, *_: object, **__: object) -> None:
            raise  # litellm calls this in its `except`, to post again after a reset: let that error out

    async def saw(response: Any) -> None:
        if wire := _wire.get(None):
            await wire.saw(response)

    return OneAttempt(event_hooks={"response": [saw]}, follow_redirects=False)


_loading = threading.Lock()


def load() -> Any:
    """litellm, quiet. Takes seconds the first time, so never on the event loop. Raises UpstreamUnreachable."""
    with _loading:
        return _import()


@cache
def _import() -> Any:
    for name in ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router"):
        logging.getLogger(name).disabled = True  # they write what people said, some of it to standard output
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else the import fetches its price list
    os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"
    os.environ["LITELLM_MODE"] = "PRODUCTION"  # else it reads a .env file from the working directory
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import litellm
            from litellm.types.utils import Delta, ModelResponse, ModelResponseStream, Usage

            for first_use in (ModelResponse, ModelResponseStream, Delta, Usage, _controls):
                first_use()  # pydantic warns when it first builds these classes
    except ImportError as error:
        raise UpstreamUnreachable("litellm is not installed: pip install 'memrelay[providers]'") from error
    litellm.telemetry = litellm.drop_params = litellm.set_verbose = False
    litellm.suppress_debug_info = litellm.turn_off_message_logging = True
    for callbacks in ("callbacks", "input_callback", "success_callback", "failure_callback"):
        setattr(litellm, callbacks, [])
    return litellm


@cache
def _controls() -> frozenset[str]:
    """Arguments of litellm that are not fields of OpenAI's: keys, addresses, mocks, fallbacks, prices."""
    import litellm
    from litellm.constants import DEFAULT_CHAT_COMPLETION_PARAM_VALUES
    from litellm.types.router import GenericLiteLLMParams
    from litellm.types.utils import all_litellm_params

    named = {*inspect.signature(litellm.acompletion).parameters, *DEFAULT_CHAT_COMPLETION_PARAM_VALUES}
    passed_on = {"context_management", "cache_control", "speed", "top_k"}  # Anthropic's own fields
    return frozenset({*named, *all_litellm_params, *GenericLiteLLMParams.model_fields} - _OPENAI - passed_on)


def _user(metadata: object) -> str | None:
    user = metadata.get("user_id") if isinstance(metadata, dict) else None
    return user if isinstance(user, str) else None


def _neutral(name: str, value: object) -> bool:
    return value in _NEUTRAL.get(name, ())


def _kept(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in headers.items() if _KEPT_HEADERS.match(name.lower())]


def _refused(error: ApiError) -> Reply:
    return WholeReply(error.status, [("content-type", "application/json")], error.body())


def _whole(answer: Any) -> bytes:
    completion = answer.model_dump(mode="json", exclude_none=True)
    for choice in completion["choices"]:
        choice["message"].setdefault("content", None)
        _tidy(choice["message"])
    return msgspec.json.encode(completion)


def _vectors(answer: Any, packed: bool) -> bytes:
    """Embeddings in OpenAI's shape; `packed`, as its clients ask for unless told otherwise: base64 of little-endian float32."""
    made = answer.model_dump(mode="json", exclude_none=True)
    for entry in made["data"] if packed else ():
        if isinstance(vector := entry["embedding"], list):
            entry["embedding"] = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return msgspec.json.encode(made)


def _frame(chunk: Any, stream: Any) -> bytes:
    """One chunk as a server-sent event. Raises EOFError where litellm invents the end of a stream that was cut."""
    event = chunk.model_dump(mode="json", exclude_none=True)
    ended = getattr(stream, "received_finish_reason", True) or stream.intermittent_finish_reason
    for choice in event["choices"]:
        if choice.setdefault("finish_reason", None) and not ended:
            raise EOFError("The upstream's stream ended before the answer was complete.")
        _tidy(choice["delta"])
    if "usage" in event:
        event["choices"] = []
        event["usage"].pop("cost", None)  # litellm's estimate from its own price list
    return b"data: " + msgspec.json.encode(event) + b"\n\n"


def _tidy(message: dict[str, Any]) -> None:
    if not any((message.get("provider_specific_fields") or {}).values()):
        message.pop("provider_specific_fields", None)


def _root(error: BaseException) -> str:
    """The name of what went wrong first: litellm calls a missing module a connection error, too."""
    while earlier := error.__cause__ or error.__context__:
        error = earlier
    return type(error).__name__


def _error_body(error: Exception, refusal: bytes) -> bytes:
    """OpenAI's error shape, in the provider's own words where it said any (`error.message`, `message`)."""
    try:
        said = msgspec.json.decode(refusal)
    except msgspec.DecodeError:
        said = {}
    said = said[0] if isinstance(said, list) and said else said
    said = said if isinstance(said, dict) else {}
    said = said["error"] if isinstance(said.get("error"), dict) else said
    original = getattr(error, "original_exception", None) or error
    message = said.get("message") or said.get("Message") or _LITELLM_PREFIX.sub("", str(original)).partition("\n")[0]
    kind = said.get("type") or said.get("status") or "upstream_error"
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": None}})
