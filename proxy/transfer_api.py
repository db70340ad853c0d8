"""`GET /v1/memory/export` and `POST /v1/memory/import`: a cube as a file, and a file into a cube.

Bodies may be large: they go to and come from a nameless temporary file, a piece at a time. What is wrong with an import is
said as an error of the usual shape, and then nothing of it was written.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import BinaryIO

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from memory.grants import Grants
from memory.transfer import FORMATS, Refused
from proxy.auth import Auth, Principal, enter, named_cube
from proxy.config import Sessions
from proxy.errors import ApiError, BadRequest, TooLarge, Unavailable, UnsupportedEncoding
from proxy.mover import Mover

_CHUNK = 1 << 18
_YES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


class TransferApi:
    """Each method answers one route. Each raises ApiError, DatabaseError or CubeRefused, which the app answers."""

    def __init__(self, *, auth: Auth, grants: Grants, mover: Mover, settings: Sessions, most: int) -> None:
        self._auth = auth
        self._grants = grants
        self._mover = mover
        self._settings = settings
        self._most = most

    async def export(self, request: Request) -> Response:
        """The archive, or with `?format=markdown` (and `&turns=yes`) the document; `?vectors=no` leaves vectors out."""
        _, cube = await self._who(request, "memory:read")
        form = request.query_params.get("format", "memrelay")
        if form not in ("memrelay", "markdown"):
            raise BadRequest("format must be memrelay or markdown", param="format")
        turns, vectors = _flag(request, "turns", default=False), _flag(request, "vectors", default=True)
        file = self._mover.spool()
        try:
            if form == "markdown":
                await self._mover.document(cube, file, turns=turns)
            else:
                await self._mover.export(cube, file, vectors=vectors)
        except OSError as error:
            file.close()
            raise _no_room() from error
        except BaseException:
            file.close()
            raise
        ending, kind = ("md", "text/markdown; charset=utf-8") if form == "markdown" else ("zip", "application/zip")
        name = f"memrelay-{datetime.now(UTC):%Y-%m-%d}.{ending}"
        headers = {"content-length": str(file.tell()), "content-disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(_pieces(file), 200, headers, kind)

    async def take_in(self, request: Request) -> Response:
        """The body is the file. `?format=` names it when it is not to be recognised, `?user=` whose memories of a mem0 dump
        are meant, `?erased=keep` leaves out what was erased here."""
        principal, cube = await self._who(request, "memory:write")
        query = request.query_params
        form, erased = query.get("format", ""), query.get("erased", "restore")
        if form not in ("", "memrelay", *FORMATS):
            raise BadRequest(f"format must be memrelay, {', '.join(FORMATS)}, or left out", param="format")
        if erased not in ("restore", "keep"):
            raise BadRequest("erased must be restore or keep", param="erased")
        target = self._mover.target(
            cube, principal.id, make=not named_cube(request.headers), keep_erased=erased == "keep"
        )
        try:
            with self._mover.spool() as file:
                await self._receive(request, file)
                known, done = await self._mover.take_in(file, target, form=form, user=query.get("user", ""))
        except Refused as error:
            raise BadRequest(str(error), code="import_refused") from error
        except OSError as error:
            raise _no_room() from error
        body = {"object": "memory.import", "format": known, "cube": cube, **asdict(done)}
        return Response(json.dumps(body), media_type="application/json")

    async def _receive(self, request: Request, file: BinaryIO) -> None:
        """Write the body to the file. Raises TooLarge, BadRequest, UnsupportedEncoding."""
        if request.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise UnsupportedEncoding("send the file as it is, without a Content-Encoding")
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            raise UnsupportedEncoding("send the file itself as the body (curl --data-binary @file), not a form")
        length = request.headers.get("content-length", "")
        size = int(length) if length.isdecimal() and len(length) < 20 else 0
        while size <= self._most:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise BadRequest("the body broke off")
            part = message.get("body", b"")
            if file.tell() + len(part) > self._most:
                break
            await asyncio.to_thread(file.write, part)
            if not message.get("more_body", False):
                if not file.tell():
                    raise BadRequest("the body is empty; it must be the file to import")
                return
        raise TooLarge(f"the file is larger than {self._most} bytes (limits.import_bytes)")

    async def _who(self, request: Request, scope: str) -> tuple[Principal, str]:
        plain = {name.lower(): value for name, value in request.headers.items()}
        return await enter(self._auth, self._grants, plain, request.method, scope, self._settings.user_headers)


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        file.seek(0)
        while part := await asyncio.to_thread(file.read, _CHUNK):
            yield part


def _flag(request: Request, name: str, *, default: bool) -> bool:
    given = request.query_params.get(name)
    if given is None:
        return default
    if given.lower() not in _YES:
        raise BadRequest(f"{name} must be yes or no", param=name)
    return _YES[given.lower()]


def _no_room() -> ApiError:
    return Unavailable("the data folder cannot take the temporary file; is the disk full?")
