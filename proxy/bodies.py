"""Reading a request body from the socket: bounded, decompressed under the same bound, parsed once."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import brotli
import msgspec
import zstandard
from starlette.types import Receive

from proxy.errors import BadRequest, TooLarge, UnsupportedEncoding


class ClientGone(Exception):
    """The client hung up while it was sending."""


async def read(receive: Receive, most: int, content_length: str | None = None) -> bytes:
    """The body as it came. Raises TooLarge, ClientGone."""
    if content_length and content_length.isdigit() and int(content_length) > most:
        raise _too_large(most)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise _too_large(most)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def decode(body: bytes, encoding: str, most: int) -> bytes:
    """The body without its Content-Encoding(s). Raises TooLarge, BadRequest, UnsupportedEncoding."""
    names = [name.strip().lower() for name in encoding.split(",") if name.strip()]
    for name in reversed(names):
        if name == "identity":
            continue
        if name not in _DECODERS:
            raise UnsupportedEncoding(f"Content-Encoding {name[:40]!r} is not supported; use gzip, deflate, br or zstd")
        try:
            body = _bounded(_DECODERS[name](body), most)
        except (zlib.error, brotli.error, zstandard.ZstdError, EOFError) as error:
            raise BadRequest(f"the body is not valid {name}", code="invalid_encoding") from error
    return body


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in the body. Raises BadRequest."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = _parse_leniently(body)
    if not isinstance(value, dict):
        raise BadRequest("the body must be a JSON object", code="invalid_json")
    return value


def _parse_leniently(body: bytes) -> Any:
    """What the standard library takes besides (NaN, lone surrogates), so that it is the upstream who decides on it."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        where = f" at position {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise BadRequest(f"the body is not valid JSON{where}", code="invalid_json") from error


def _bounded(parts: Iterator[bytes], most: int) -> bytes:
    out: list[bytes] = []
    size = 0
    for part in parts:
        size += len(part)
        if size > most:
            raise _too_large(most)
        out.append(part)
    return b"".join(out)


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the body is larger than {most} bytes")


def _inflate(window: int) -> Callable[[bytes], Iterator[bytes]]:
    def run(body: bytes) -> Iterator[bytes]:
        decoder = zlib.decompressobj(window)
        rest = body
        while not decoder.eof:
            part = decoder.decompress(rest, 1 << 20)
            rest = decoder.unconsumed_tail
            if not part and not rest:
                raise zlib.error("truncated")
            yield part

    return run


def _deflate(body: bytes) -> Iterator[bytes]:
    zlib_header = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    return _inflate(15 if zlib_header else -15)(body)


def _brotli(body: bytes) -> Iterator[bytes]:
    decoder = brotli.Decompressor()
    yield decoder.process(body, output_buffer_limit=1 << 20)
    while not decoder.is_finished():
        part = decoder.process(b"", output_buffer_limit=1 << 20)
        if not part and decoder.can_accept_more_data():
            raise brotli.error("truncated")
        yield part


def _zstd(body: bytes) -> Iterator[bytes]:
    with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(body, read_across_frames=True) as reader:
        while part := reader.read(1 << 20):
            yield part


_DECODERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "gzip": _inflate(31),
    "x-gzip": _inflate(31),
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
