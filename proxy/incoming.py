"""Request bodies that are passed on piece by piece: what stands at their beginning, how much may come, and who hung up."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

from starlette.types import Receive

from proxy.bodies import ClientGone
from proxy.errors import ApiError, BadRequest, TooLarge

_BOUNDARY = re.compile(r'boundary=(?:"([^"]+)"|([^";,\s]+))', re.IGNORECASE)
_SOLE_BOUNDARY = re.compile(r'multipart/form-data;[ \t]*boundary=(?:"([^"\\]+)"|([^\s";,=\\]+))[ \t]*', re.IGNORECASE)
# a part's head that no two readers take for different things
_PLAIN_HEAD = re.compile(
    rb"(?:\r\ncontent-(?:type:[^\r\n]*+|length:[ \t]*\d+|transfer-encoding:[ \t]*(?:7bit|8bit|binary)))*+"
    rb'\r\ncontent-disposition:[ \t]*form-data;[ \t]*name=("[^"\\\r\n]*+"|[^\s";,=\\*]++)'
    rb'(?:;[ \t]*filename=(?:"[^"\\\r\n]*+"|[^\s";,=\\]++))?(?:;[ \t]*filename\*=[^\s";,=\\]++)?[ \t]*'
    rb"(?:\r\ncontent-(?:type:[^\r\n]*+|length:[ \t]*\d+|transfer-encoding:[ \t]*(?:7bit|8bit|binary)))*+",
    re.IGNORECASE,
)
_MODEL_FIELD = re.compile(rb'\bname="?model"?[ \t]*(?:[;\r\n]|$)', re.IGNORECASE)


class Incoming:
    """A request body that is passed on piece by piece."""

    def __init__(self, receive: Receive, most: int, *, ended: bool = False) -> None:
        self._receive = receive
        self._most = most
        self._size = 0
        self._held: list[bytes] = []
        self.ended = asyncio.Event()
        self.failure: ApiError | ClientGone | None = None
        if ended:
            self.ended.set()

    async def peek(self, enough: int) -> bytes:
        """Its beginning, or all of a short one (then it has ended, and `chunks` is not needed). Raises TooLarge, ClientGone."""
        while not self.ended.is_set() and self._size < enough:
            self._held.append(await self._next())
        return b"".join(self._held)

    async def chunks(self) -> AsyncIterator[bytes]:
        """All of it. Raises TooLarge, ClientGone."""
        for chunk in self._held:
            yield chunk
        self._held.clear()
        while not self.ended.is_set():
            if chunk := await self._next():
                yield chunk

    async def watch(self) -> dict[str, Any]:
        """As `receive`, but only for the hang-up: until the body has ended, it is somebody else's."""
        await self.ended.wait()
        return dict(await self._receive())

    async def _next(self) -> bytes:
        message = await self._receive()
        chunk: bytes = message.get("body", b"")
        self._size += len(chunk)
        if message["type"] == "http.disconnect":
            self.failure = ClientGone()
        elif self._size > self._most:
            self.failure = TooLarge(f"the body is larger than {self._most} bytes")
        if self.failure is not None:
            raise self.failure
        if not message.get("more_body", False):
            self.ended.set()
        return chunk


def form_model(held: bytes, kind: str) -> str:
    """The field `model` of a multipart body, of which the end may be missing. Raises BadRequest when there are several."""
    boundary = _BOUNDARY.search(kind)
    if boundary is None:
        return ""
    mark = b"\r\n--" + (boundary.group(1) or boundary.group(2)).encode("latin-1", "replace")
    named = ""
    for part in (b"\r\n" + held).split(mark)[1:]:
        head, gap, value = part.partition(b"\r\n\r\n")
        if gap and _MODEL_FIELD.search(head[:1000]):
            if named:
                raise BadRequest("the body names several models", param="model")
            named = value.decode("utf-8", "replace").strip()
    return named


def sole_model(held: bytes, kind: str) -> str:
    """The same of a whole body that is written so plainly that every reader finds the same fields in it; empty when it has no such
    field. Raises BadRequest for any other."""
    boundary = _SOLE_BOUNDARY.fullmatch(kind.strip())
    if boundary is None:
        raise _unplain()
    mark = b"\r\n--" + (boundary[1] or boundary[2]).encode("latin-1", "replace")
    first, *parts = (b"\r\n" + held).split(mark)
    if first or not parts or parts.pop().rstrip(b" \t\r\n") != b"--":
        raise _unplain()
    models = []
    for part in parts:
        head, gap, value = part.partition(b"\r\n\r\n")
        told = _PLAIN_HEAD.fullmatch(head)
        if not gap or told is None:
            raise _unplain()
        if told[1].strip(b'"').strip().lower() == b"model":
            models.append(value.decode("utf-8", "replace").strip())
    if len(models) > 1:
        raise BadRequest("the body names several models", param="model")
    return models[0] if models else ""


def _unplain() -> BadRequest:
    return BadRequest("this form cannot be read with certainty; name each field plainly", code="invalid_form")
