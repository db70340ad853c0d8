"""Listening to an answer while it passes by: bytes go on untouched, the text is gathered for the turn log.

Feed a Gatherer every chunk; it never raises on what an upstream sends. Only choice 0 is remembered.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import brotli
import msgspec
import zstandard

MOST = 2_000_000  # characters of an answer that are kept for memory
_MOST_BODY = 128 << 20  # bytes of a body that came in one piece (images in it are text too)
_DONE = re.compile(rb"(?:\A|[\r\n])(?=data:[ \t]*\[DONE\])")
_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the upstream said. `final` is False for a tool round (the turn goes on) and for an answer that broke off."""

    text: str
    complete: bool
    tool_calls: bool
    finish_reason: str
    model: str
    usage: dict[str, Any] | None
    id: str = ""
    response: dict[str, Any] | None = None  # of the surface of that name: the object that it ended with

    @property
    def final(self) -> bool:
        """The turn is over: words for the user, not calls for tools."""
        return not self.tool_calls and self.finish_reason not in ("tool_calls", "function_call", "pause_turn")


class Listener:
    """Collects the answer out of a response body, streamed (SSE) or not. What events and bodies mean is for those who derive
    from it: `_event` is given every event that is JSON, `_whole` a body that came in one piece."""

    def __init__(self, *, sse: bool, encoding: str = "") -> None:
        self._sse = sse
        self._decode = _decoder(encoding)
        self._line_parts: list[bytes] = []  # of a line that has not come to its end
        self._after_cr = False
        self._lines = b""  # data lines that are not JSON by themselves
        self._text: list[str] = []
        self._length = 0
        self._body: list[bytes] = []
        self._size = 0
        self._tool_calls = False
        self._finish = ""
        self._model = ""
        self._id = ""
        self._usage: dict[str, Any] | None = None
        self._failed = False
        self._response: dict[str, Any] | None = None
        self.done = False  # the upstream said that this is the end

    def feed(self, chunk: bytes) -> None:
        """Listen to one chunk."""
        chunk = self._decode(chunk)
        if not self._sse:
            if self._size < _MOST_BODY:
                self._body.append(chunk)
                self._size += len(chunk)
            return
        if not chunk:
            return
        if self._after_cr and chunk.startswith(b"\n"):  # the other half of a line end
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        self._line_parts.append(chunk)
        if b"\n" in chunk or b"\r" in chunk:
            *lines, rest = _LINE_END.split(b"".join(self._line_parts))
            self._line_parts = [rest]
            for line in lines:
                self._line(line)

    def answer(self, *, broken: bool = False) -> Answer:
        """What was gathered. `broken`: the body did not come to its end."""
        if not self._sse:
            body = _parse(b"".join(self._body))
            if body is None:
                self._failed = True
            else:
                self._note(body)
                self._whole(body)
        else:
            self._line(b"".join(self._line_parts))
            self._line_parts = []
        return Answer(
            text="".join(self._text),
            complete=not broken and not self._failed and (self.done or bool(self._finish) or not self._sse),
            tool_calls=self._tool_calls,
            finish_reason=self._finish,
            model=self._model,
            usage=self._usage,
            id=self._id,
            response=self._response,
        )

    def _event(self, event: dict[str, Any]) -> None:
        raise NotImplementedError

    def _whole(self, body: dict[str, Any]) -> None:
        raise NotImplementedError

    def _line(self, line: bytes) -> None:
        if not line:
            self._lines = b""
        line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data == b"[DONE]":
            self.done = True
            return
        event = _parse(data)
        if event is None:  # one event may be told in several lines
            self._lines = (self._lines + b"\n" + data)[:MOST]
            event = _parse(self._lines)
        if event is None:
            return
        self._lines = b""
        self._note(event)
        self._event(event)

    def _note(self, said: dict[str, Any]) -> None:
        """What a body, an event, or what one carries says of itself."""
        if said.get("error"):
            self._failed = True
        if isinstance(said.get("model"), str):
            self._model = said["model"]
        if isinstance(said.get("id"), str):
            self._id = said["id"]
        if isinstance(said.get("timings"), dict):  # llama.cpp's
            self._usage = {**(self._usage or {}), "timings": said["timings"]}
        if isinstance(said.get("usage"), dict):
            self._usage = {**(self._usage or {}), **said["usage"]}

    def _say(self, text: Any) -> None:
        if isinstance(text, str) and self._length < MOST:
            self._text.append(text)
            self._length += len(text)


class Gatherer(Listener):
    """Listens to chat completions."""

    def _event(self, event: dict[str, Any]) -> None:
        for choice in _choices(event):
            self._message(choice.get("delta"))
            self._finish = str(choice.get("finish_reason") or self._finish)

    def _whole(self, body: dict[str, Any]) -> None:
        for choice in _choices(body):
            self._message(choice.get("message"))
            self._finish = str(choice.get("finish_reason") or "")

    def _message(self, message: Any) -> None:
        if not isinstance(message, dict):
            return
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        self._say(content or _otherwise(message))
        if message.get("tool_calls") or message.get("function_call"):
            self._tool_calls = True


def split_done(chunk: bytes, done: bool) -> tuple[bytes, bytes]:
    """What of a chunk may go out, and what must wait: the line `data: [DONE]` with all behind it when the upstream is
    `done`, else a last line that may become one."""
    if done:
        mark = _DONE.search(chunk)
        at = mark.end() if mark else len(chunk)
    else:
        at = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
        if not b"data:[DONE]".startswith(chunk[at : at + 100].translate(None, b" \t")):
            at = len(chunk)
    return chunk[:at], chunk[at:]


def split_last(chunk: bytes, mark: re.Pattern[bytes], done: bool) -> tuple[bytes, bytes]:
    """The same for streams whose last event carries more than its name: with `done`, the event that `mark` finds waits, or
    the chunk that completes it. Without its line end no client takes it for said."""
    if not done:
        return chunk, b""
    found = mark.search(chunk)
    at = found.start() if found else 0
    return chunk[:at], chunk[at:]


def _otherwise(message: dict[str, Any]) -> Any:
    """What was said by other means than content: refused, or spoken aloud."""
    audio = message.get("audio")
    return message.get("refusal") or (audio.get("transcript") if isinstance(audio, dict) else None)


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
