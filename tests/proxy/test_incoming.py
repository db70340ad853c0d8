"""Reading what is passed on: the model of a form, and bodies that come in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from proxy.bodies import ClientGone
from proxy.errors import BadRequest, TooLarge
from proxy.incoming import Incoming, form_model
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
