"""The upstream kinds `openai` and `anthropic`: a byte pipe to any server of theirs. What we do not need is not read.

One aiohttp session per upstream. No retries of our own, the client's SDK has them; only a kept connection that turns out
to have been closed by the server while it was idle is replaced.
"""

from __future__ import annotations

import asyncio
import io
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from proxy.errors import ApiError, NotFound, Unavailable, UpstreamTimeout, UpstreamUnreachable
from proxy.upstreams.port import CHAT_PATH, Call, Headers, UpstreamBroken

_HEADER_BYTES = 1 << 16  # of one header of an answer
_IN_ONE = 1 << 20  # bytes; a longer body is written piece by piece, so that it does not hold everything else up
_ANTHROPIC_VERSION = "2023-06-01"
_FOR_CLIENTS = (
    CHAT_PATH,
    "/models",
    "/embeddings",
)  # of the engine's routes; it knows no keys, so no other is passed on
_STALE_S = 1.0  # a connection that was closed while idle fails at once; later it is the server that failed


class WireReply:
    """An open HTTP response."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._read = False
        self.status = response.status
        self.headers: Headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers
        ]

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
            self._read = True
        except TimeoutError as error:
            raise UpstreamBroken("the upstream fell silent") from error
        except aiohttp.ClientError as error:
            raise UpstreamBroken(f"the upstream's answer broke off ({type(error).__name__})") from error

    async def close(self) -> None:
        """Give the connection back, or cut it."""
        if self._read:
            self._response.release()
        else:
            self._response.close()


def _reuse() -> aiohttp.TraceConfig:
    """Notes for a request whether it went over a kept connection."""

    async def note(_: aiohttp.ClientSession, context: Any, __: aiohttp.TraceConnectionReuseconnParams) -> None:
        context.trace_request_ctx["reused"] = True

    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(note)
    return config


class WireUpstream:
    """A server at `base_url` (with its /v1): OpenAI-compatible, or of Anthropic's kind, which wants its key elsewhere."""

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        api_key: str = "",
        headers: Mapping[str, str] | None = None,
        kind: str = "openai",
        connect_timeout_s: float = 10.0,
        timeout_s: float = 600.0,
        ca_file: str = "",
    ) -> None:
        self.name = name
        self.kind = kind
        self._base_url = base_url.rstrip("/")
        self._headers = dict(headers or {})
        self._usual: dict[str, str] = {}  # where the client sends none
        if kind == "anthropic":
            self._usual["anthropic-version"] = _ANTHROPIC_VERSION
        if api_key:
            named, value = ("x-api-key", api_key) if kind == "anthropic" else ("authorization", f"Bearer {api_key}")
            self._headers.setdefault(named, value)
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=None, sock_connect=connect_timeout_s, sock_read=timeout_s
        )
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = ssl.create_default_context(cafile=self._ca_file) if self._ca_file else True
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ssl=context),
                timeout=self._timeout,
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
                cookie_jar=aiohttp.DummyCookieJar(),
                max_line_size=_HEADER_BYTES,
                max_field_size=_HEADER_BYTES,
                trace_configs=[_reuse()],
            )
        return self._session

    async def send(self, call: Call) -> WireReply:
        """See Upstream.send."""
        headers: list[tuple[str, str]] = [(n, v) for n, v in call.headers if n.lower() not in self._headers]
        sent = {name.lower() for name, _ in call.headers}
        headers += [(name, value) for name, value in self._usual.items() if name not in sent]
        headers += list((self._headers | self._presented(call.credential)).items())
        headers.append(("accept-encoding", "identity"))  # the answer is read on its way through
        url = URL(f"{self._base_url}{call.path}" + (f"?{call.query}" if call.query else ""), encoded=True)
        try:
            response = await self._request(call.method, url, call.body, headers)
        except TimeoutError as error:
            raise UpstreamTimeout(f"upstream {self.name} did not answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._unreachable(error) from error
        return WireReply(response)

    def _presented(self, credential: str) -> dict[str, str]:
        """The header that carries a client's own credential, in place of the configured one."""
        if not credential:
            return {}
        scheme, _, key = credential.partition(" ")
        if self.kind == "anthropic":
            return {"x-api-key": key.strip() if scheme.lower() == "bearer" else credential}
        return {"authorization": credential if key else f"Bearer {credential}"}

    async def _request(
        self, method: str, url: URL, body: bytes | AsyncIterator[bytes], headers: list[tuple[str, str]]
    ) -> aiohttp.ClientResponse:
        while True:
            started, notes = time.monotonic(), {"reused": False}
            data: Any = body or None
            if isinstance(body, bytes) and len(body) > _IN_ONE:
                data = io.BytesIO(body)
            try:
                return await self._open().request(
                    method, url, data=data, headers=headers, allow_redirects=False, trace_request_ctx=notes
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not isinstance(body, bytes) or not notes["reused"] or time.monotonic() - started > _STALE_S:
                    raise

    def _unreachable(self, error: Exception) -> ApiError:
        return UpstreamUnreachable(f"upstream {self.name} cannot be reached ({type(error).__name__})")

    async def models(self) -> list[dict[str, Any]]:
        """See Upstream.models."""
        reply = await self.send(Call("GET", "/models", b"", [("accept", "application/json")]))
        try:
            async with asyncio.timeout(10):
                body = b"".join([chunk async for chunk in reply.chunks()])
            listed = msgspec.json.decode(body).get("data") if reply.status == 200 else None
        except TimeoutError as error:
            raise UpstreamTimeout(f"upstream {self.name} did not list its models in time") from error
        except (UpstreamBroken, msgspec.DecodeError, AttributeError) as error:
            raise UpstreamUnreachable(f"upstream {self.name} listed no models") from error
        finally:
            await reply.close()
        if not isinstance(listed, list):
            raise UpstreamUnreachable(f"upstream {self.name} listed no models (status {reply.status})")
        named = [model for model in listed if isinstance(model, dict) and isinstance(model.get("id"), str)]
        return [model if "object" in model else {**model, "object": "model"} for model in named]

    async def close(self) -> None:
        """See Upstream.close."""
        if self._session is not None:
            await self._session.close()


class LocalUpstream(WireUpstream):
    """The upstream kind `llama`: our own engine process on loopback, spoken to like any other server."""

    def __init__(self, name: str, base_url: str, **options: Any) -> None:
        super().__init__(name, base_url, kind="llama", **options)

    async def send(self, call: Call) -> WireReply:
        """See Upstream.send. The engine is told whose saved states it may go by. Raises NotFound for what it has for us only."""
        if not call.ours and call.path not in _FOR_CLIENTS:
            raise NotFound(f"upstream {self.name} does not serve {call.method} /v1{call.path[:100]}")
        mine = (call.session, call.adapter) if call.cube else ("", "")
        named = zip(("x-memory-cube", "x-memory-session", "x-memory-adapter"), (call.cube, *mine), strict=True)
        return await super().send(replace(call, headers=[*call.headers, *((n, v) for n, v in named if v)]))

    def _unreachable(self, error: Exception) -> ApiError:
        return Unavailable("the local model is starting; try again in a moment", headers={"retry-after": "1"})
