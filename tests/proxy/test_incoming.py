"""Reading what is passed on: the model of a form, and bodies that come in pieces."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.bodies import ClientGone
from proxy.errors import BadRequest, TooLarge
from proxy.forms import Ids, form_model, put_model, sole_model
from proxy.incoming import Incoming
from tests.linear import assert_linear

KIND = 'multipart/form-data; boundary="b-1"'


def part(head: str, value: str) -> bytes:
    return f"--b-1\r\n{head}\r\n\r\n{value}\r\n".encode()


MODEL = part('Content-Disposition: form-data; name="model"', "whisper-1")
FILE = part('content-disposition: form-data; name="file"; filename="model"\r\ncontent-type: audio/wav', "name=model")


@pytest.mark.parametrize(
    ("held", "model"),
    [
        (MODEL + FILE + b"--b-1--\r\n", "whisper-1"),
        (FILE + MODEL + b"--b-1--\r\n", "whisper-1"),
        (part("CONTENT-DISPOSITION: form-data;name=model", "m") + FILE, "m"),
        (part('content-type: text/plain\r\ncontent-disposition: form-data; name="model"; x=1', "m"), "m"),
        (FILE, ""),
        (b"--other\r\n\r\n", ""),
        (b"", ""),
        (MODEL[:20], ""),
    ],
)
def test_the_model_of_a_form_is_found(held: bytes, model: str) -> None:
    assert form_model(held, KIND) == model


def test_two_models_are_refused() -> None:
    with pytest.raises(BadRequest):
        form_model(MODEL + FILE + MODEL, KIND)


def test_without_a_boundary_there_is_no_form() -> None:
    assert form_model(MODEL, "multipart/form-data") == ""


def test_the_cost_of_a_form_grows_with_its_length_only() -> None:
    def look(text: str) -> str:
        return form_model(text.encode(), KIND)

    assert_linear(look, "\r\n--b-1\r\ncontent-disposition: form-data; name=x\r\n\r\ny" * 40_000)
    assert_linear(look, "content-disposition:; name=mode;" * 100_000)

    assert_linear(lambda text: Ids().feed(text.encode()), "\n" * 1_000_000)
    assert_linear(lambda text: Ids().feed(text.encode()), "\n\n                " * 50_000)

    def read(text: str) -> None:
        with contextlib.suppress(BadRequest):
            sole_model(text.encode(), KIND)

    assert_linear(read, "--b-1" + "\r\ncontent-type: x" * 100_000 + "\r\n\r\n\r\n--b-1--")
    assert_linear(read, "--b-1\r\ncontent-disposition: form-data; name=" + "x" * 1_000_000 + "\r\n\r\n\r\n--b-1--")


END = b"--b-1--\r\n"


@pytest.mark.parametrize(
    ("held", "model"),
    [
        (MODEL + FILE + END, "whisper-1"),
        (FILE + END, ""),
        (part("CONTENT-DISPOSITION: form-data;name=model", "m") + FILE + END, "m"),
        (
            part('content-type: text/plain\r\ncontent-disposition: form-data; name="model"\r\ncontent-length: 1', "m")
            + END,
            "m",
        ),
        (
            part("content-disposition: form-data; name=f; filename=\"ü\"; filename*=utf-8''%C3%BC", "m") + MODEL + END,
            "whisper-1",
        ),
    ],
)
def test_a_plain_form_is_read(held: bytes, model: str) -> None:
    assert sole_model(held, KIND) == model


@pytest.mark.parametrize(
    ("held", "kind"),
    [
        (MODEL + FILE, KIND),  # without its end
        (MODEL + END + MODEL, KIND),
        (MODEL + part('content-disposition: form-data; name="MODEL"', "m") + END, KIND),
        (MODEL + part('content-disposition: form-data; name = "model"', "m") + END, KIND),
        (MODEL + part("content-disposition: form-data; name*=utf-8''model", "m") + END, KIND),
        (MODEL + part('content-disposition: form-data; name="x"; name="model"', "m") + END, KIND),
        (MODEL + part('content-disposition: form-data;\r\n name="model"', "m") + END, KIND),
        (MODEL + part('content-disposition: form-data; name="x\\"; name="model"', "m") + END, KIND),
        (part('content-transfer-encoding: base64\r\ncontent-disposition: form-data; name="model"', "bQ==") + END, KIND),
        (b"\r\n" + MODEL + END, KIND),
        (MODEL + END, KIND + "; boundary=c"),
        (MODEL + END, "multipart/form-data; xboundary=c; boundary=b-1"),
        (MODEL + END, "multipart/form-data"),
        (b'{"model": "m"}', KIND),
    ],
)
def test_a_form_that_can_be_read_otherwise_is_refused(held: bytes, kind: str) -> None:
    with pytest.raises(BadRequest):
        sole_model(held, kind)


@pytest.mark.parametrize(
    ("held", "put"),
    [
        (MODEL + FILE + END, None),
        (MODEL + FILE[:9], None),  # the rest has not come
        (FILE + MODEL + END, None),
        (
            part('content-length: 9\r\ncontent-disposition: form-data; name="model"', "whisper-1") + END,
            part('content-length: 6\r\ncontent-disposition: form-data; name="model"', "ears-2") + END,
        ),
    ],
)
def test_another_model_is_put_into_a_form(held: bytes, put: bytes | None) -> None:
    wanted = put or held.replace(b"whisper-1", b"ears-2")
    assert wanted != held
    assert put_model(held, KIND, "ears-2") == wanted


@pytest.mark.parametrize(
    ("held", "kind"),
    [
        (MODEL[:-2], KIND),  # its end has not come
        (FILE + END, KIND),
        (b"preamble\r\n" + MODEL + END, KIND),
        (part("content-disposition: form-data; name*=utf-8''model", "m") + MODEL + END, KIND),
        (MODEL + b"--b-1x" + END, KIND),
        (MODEL + END, KIND + "; boundary=c"),
        (b"", KIND),
    ],
)
def test_a_form_that_can_be_read_in_two_ways_stays_as_it_is(held: bytes, kind: str) -> None:
    assert put_model(held, kind, "ears-2") == held


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_ids_in_a_form_are_found_however_it_is_cut(size: int) -> None:
    field = part('content-disposition: form-data; name="file_id"', "file-mine0001")
    bare = part("content-disposition: form-data; name=other", " 497f6eca-6276-4993").replace(b"\r\n", b"\n")
    text = part('content-disposition: form-data; name="prompt"', "what is in file-mine0002 there")
    ids, sent = Ids(), FILE + field + text + bare + END
    found = set().union(*(ids.feed(sent[at : at + size]) for at in range(0, len(sent), size)))
    assert found == {"file-mine0001", "497f6eca-6276-4993"}


class Socket:
    """ASGI messages, one after the other."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages: Iterator[dict[str, Any]] = iter(messages)

    async def __call__(self) -> dict[str, Any]:
        return next(self._messages)


def piece(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


GONE = {"type": "http.disconnect"}


async def test_what_was_looked_at_is_passed_on_too() -> None:
    body = Incoming(Socket(piece(b"ab"), piece(b"cd"), piece(b"", more=False), GONE), 100)
    assert await body.peek(3) == b"abcd"
    assert not body.ended.is_set()
    assert [chunk async for chunk in body.chunks()] == [b"ab", b"cd"]
    assert (await body.watch())["type"] == "http.disconnect"


async def test_a_short_body_is_seen_whole() -> None:
    body = Incoming(Socket(piece(b"ab", more=False)), 100)
    assert (await body.peek(3), body.ended.is_set()) == (b"ab", True)


async def test_a_body_that_grows_too_large_says_so_to_both_sides() -> None:
    body = Incoming(Socket(piece(b"ab"), piece(b"cde")), 4)
    with pytest.raises(TooLarge):
        [chunk async for chunk in body.chunks()]
    assert isinstance(body.failure, TooLarge)


async def test_a_client_that_leaves_in_the_middle_is_noticed() -> None:
    body = Incoming(Socket(piece(b"ab"), GONE), 100)
    with pytest.raises(ClientGone):
        [chunk async for chunk in body.chunks()]
    assert isinstance(body.failure, ClientGone)
