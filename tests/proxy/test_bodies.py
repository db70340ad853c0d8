"""Request bodies: bounded, unpacked under the same bound, parsed as leniently as upstreams parse."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import pytest
import zstandard

from proxy import bodies
from proxy.bodies import ClientGone
from proxy.errors import BadRequest, TooLarge, UnsupportedEncoding


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(body) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "deflate with a header": ("deflate", zlib.compress),
    "deflate without": ("deflate", raw_deflate),
    "brotli": ("br", lambda body: brotli.compress(body, quality=4)),
    "zstd": ("zstd", zstandard.compress),
}


def receiver(*messages: dict[str, Any]) -> Callable[[], Any]:
    rest = list(messages)

    async def receive() -> dict[str, Any]:
        return rest.pop(0)

    return receive


def piece(body: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_is_put_together() -> None:
    assert await bodies.read(receiver(piece(b"ab", True), piece(b"", True), piece(b"c", False)), 3) == b"abc"


@pytest.mark.parametrize("length", ["4", None, "nonsense"])
async def test_a_body_over_the_bound_is_refused(length: str | None) -> None:
    with pytest.raises(TooLarge):
        await bodies.read(receiver(piece(b"ab", True), piece(b"cd", False)), 3, length)


async def test_a_client_that_leaves_while_sending_is_gone() -> None:
    with pytest.raises(ClientGone):
        await bodies.read(receiver(piece(b"ab", True), {"type": "http.disconnect"}), 3)


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("beyond", [*range(0, 300, 23), 1, 2, 3])
def test_every_length_around_a_buffers_end_is_unpacked(name: str, beyond: int) -> None:
    encoding, pack = PACKERS[name]
    body = b"x" * ((1 << 20) + beyond)
    assert bodies.decode(pack(body), encoding, len(body)) == body
    with pytest.raises(TooLarge):
        bodies.decode(pack(body), encoding, len(body) - 1)


@pytest.mark.parametrize("name", [name for name in PACKERS if name != "zstd"])
def test_a_packed_body_that_was_cut_is_refused(name: str) -> None:
    encoding, pack = PACKERS[name]
    with pytest.raises(BadRequest):
        bodies.decode(pack(b"hello " * 1000)[:-3], encoding, 10_000)


def test_encodings_are_taken_off_in_their_order() -> None:
    packed = gzip.compress(brotli.compress(b"hello"))
    assert bodies.decode(packed, "br, identity, X-GZIP", 100) == b"hello"
    with pytest.raises(UnsupportedEncoding, match="snappy"):
        bodies.decode(packed, "br, snappy", 100)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": NaN, "b": Infinity}',
        b'{"a": "\\ud800"}',
        b'{"a": 1e999}',
        b'{"a": 123456789012345678901234567890}',
        b'{"a": 1, "a": 2}',
        b'\xef\xbb\xbf{"a": 1}',
        b' \r\n\t{"a": {}}\n',
    ],
)
def test_what_some_upstream_may_understand_is_let_through(body: bytes) -> None:
    assert "a" in bodies.parse(body)


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'"a"', b"{", b"{'a': 1}", b'{"a": 1} x', b'{"a": "\xff"}', b"[" * 10**6, b'{"a": "\n"}']
)  # fmt: skip
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest) as raised:
        bodies.parse(body)
    assert raised.value.code == "invalid_json"
