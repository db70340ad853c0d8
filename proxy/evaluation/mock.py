"""A model server that costs next to nothing, to measure what stands in front of it: `python -m proxy.evaluation.mock PORT`.

Speaks `POST /v1/chat/completions` with a Content-Length, as raw as can be. The model named `quick` answers at once (as JSON, or
eleven events in one go); `paced` streams FRAMES events, one every PACE_S, each with its number.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

import uvloop

FRAMES = 100
PACE_S = 0.03
ANSWER = "I see, thank you for telling me. I will keep it in mind."
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_STREAMS = re.compile(rb'"stream"\s*:\s*true')
_PACED = re.compile(rb'"model"\s*:\s*"paced"')
_USAGE = '"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}'
_JSON = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1760000000,"model":"quick","choices":[{"index":0,"message":'
    f'{{"role":"assistant","content":"{ANSWER}"}},"finish_reason":"stop"}}],{_USAGE}}}'
).encode()
_WHOLE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: mock\r\ncontent-length: %d\r\n\r\n"
    % len(_JSON)
    + _JSON
)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LAST = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def _event(delta: str, finish: str = "null") -> bytes:
    said = (
        '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1760000000,"model":"quick","choices":[{"index":0,'
        f'"delta":{delta},"finish_reason":{finish}}}]}}'
    )
    event = f"data: {said}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(event), event)


_QUICK = b"".join([*(_event(f'{{"content":"{word} "}}') for word in ANSWER.split()), _event("{}", '"stop"'), _LAST])


class Model(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._held = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of no class of asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._held += data
        while (head := self._held.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._held, 0, head + 2)
            end = head + 4 + (int(length.group(1)) if length else 0)
            if len(self._held) < end:
                return
            body, self._held = self._held[head + 4 : end], self._held[end:]
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        assert self._transport is not None
        if not _STREAMS.search(body):
            self._transport.write(_WHOLE)
        elif _PACED.search(body):
            self._transport.write(_HEAD)
            self._pace(0, asyncio.get_running_loop().time())
        else:
            self._transport.write(_HEAD + _QUICK)

    def _pace(self, number: int, began: float) -> None:
        if self._transport is None:
            return
        if number == FRAMES:
            self._transport.write(_event("{}", '"stop"') + _LAST)
            return
        self._transport.write(_event(f'{{"content":"<{number}>"}}'))
        asyncio.get_running_loop().call_at(began + (number + 1) * PACE_S, self._pace, number + 1, began)


async def serve(port: int) -> None:
    """Until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Model, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
