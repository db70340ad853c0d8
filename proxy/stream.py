"""Listening to an answer while it passes by: bytes go on untouched, the text is gathered for the turn log.

Feed a Gatherer every chunk; it never raises on what an upstream sends. Only choice 0 is remembered.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import brotli
import msgspec
import zstandard

MOST = 2_000_000  # characters of an answer that are kept for memory


@dataclass(frozen=True, slots=True)
class Answer:
    """What the upstream said. `final` is False for a tool round (the turn goes on) and for an answer that broke off."""

    text: str
    complete: bool
    tool_calls: bool
    finish_reason: str
    model: str
    usage: dict[str, Any] | None

    @property
    def final(self) -> bool:
        """The turn is over: words for the user, not calls for tools."""
        return not self.tool_calls and self.finish_reason not in ("tool_calls", "function_call")


class Gatherer:
    """Collects the answer out of a chat-completions response body, streamed (SSE) or not."""

    def __init__(self, *, sse: bool, encoding: str = "") -> None:
        self._sse = sse
        self._decode = _decoder(encoding)
        self._rest = b""
        self._text: list[str] = []
        self._length = 0
        self._body: list[bytes] = []
        self._size = 0
        self._tool_calls = False
        self._finish = ""
        self._model = ""
        self._usage: dict[str, Any] | None = None
        self._failed = False
        self.done = False  # the upstream said [DONE]

    def feed(self, chunk: bytes) -> None:
        """Listen to one chunk."""
        chunk = self._decode(chunk)
        if not self._sse:
            if self._size < 4 * MOST:
                self._body.append(chunk)
                self._size += len(chunk)
            return
        lines = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            self._line(line)

    def answer(self, *, broken: bool = False) -> Answer:
        """What was gathered. `broken`: the body did not come to its end."""
        if not self._sse:
            self._whole(b"".join(self._body))
        elif self._rest:
            self._line(self._rest)
        return Answer(
            text="".join(self._text),
            complete=not broken and not self._failed and (self.done or bool(self._finish) or not self._sse),
            tool_calls=self._tool_calls,
            finish_reason=self._finish,
            model=self._model,
            usage=self._usage,
        )

    def _line(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data == b"[DONE]":
            self.done = True
            return
        event = _parse(data)
        if event is None:
            return
        if "error" in event:
            self._failed = True
        self._note(event)
        for choice in _choices(event):
            self._message(choice.get("delta"))
            self._finish = str(choice.get("finish_reason") or self._finish)

    def _whole(self, body: bytes) -> None:
        event = _parse(body)
        if event is None:
            self._failed = True
            return
        self._note(event)
        for choice in _choices(event):
            self._message(choice.get("message"))
            self._finish = str(choice.get("finish_reason") or "")

    def _note(self, event: dict[str, Any]) -> None:
        if isinstance(event.get("model"), str):
            self._model = event["model"]
        if isinstance(event.get("usage"), dict):
            self._usage = event["usage"]

    def _message(self, message: Any) -> None:
        if not isinstance(message, dict):
            return
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if isinstance(content, str) and self._length < MOST:
            self._text.append(content)
            self._length += len(content)
        if message.get("tool_calls") or message.get("function_call"):
            self._tool_calls = True


def split_done(chunk: bytes) -> tuple[bytes, bytes]:
    """The chunk before its `data: [DONE]` line, and the rest (empty when there is none)."""
    for mark in (b"data: [DONE]", b"data:[DONE]"):
        at = chunk.rfind(mark)
        if at == 0 or (at > 0 and chunk[at - 1 : at] == b"\n"):
            return chunk[:at], chunk[at:]
    return chunk, b""


def _parse(data: bytes) -> dict[str, Any] | None:
    try:
        event = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return event if isinstance(event, dict) else None


def _choices(event: dict[str, Any]) -> list[dict[str, Any]]:
    choices = event.get("choices")
    if not isinstance(choices, list):
        return []
    return [choice for choice in choices if isinstance(choice, dict) and choice.get("index", 0) == 0]


def _decoder(encoding: str) -> Callable[[bytes], bytes]:
    """Decoding step by step, for an upstream that compresses though it was asked not to; a fault gives silence."""
    decoders: dict[str, Callable[[], Callable[[bytes], bytes]]] = {
        "gzip": lambda: zlib.decompressobj(31).decompress,
        "deflate": lambda: zlib.decompressobj().decompress,
        "br": lambda: brotli.Decompressor().process,
        "zstd": lambda: zstandard.ZstdDecompressor().decompressobj().decompress,
    }
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return lambda chunk: chunk
    if name not in decoders:
        return lambda chunk: b""
    decode = decoders[name]()

    def step(chunk: bytes) -> bytes:
        try:
            return decode(chunk)
        except (zlib.error, brotli.error, zstandard.ZstdError):
            return b""

    return step
