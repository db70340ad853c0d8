"""A stream with every odd thing in it, over each surface, cut and packed in every way: the bytes that went in come out."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import brotli
import httpx
import pytest
import zstandard

from tests.fakes import RecordingUpstream, Reply, events, message_events, response_events
from tests.live import LiveProxy

SAID = "Der Hamster heißt 小花 😀"
ASKED = "What is my hamster called?"
CHAT, RESPONSES, MESSAGES, LEGACY = "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions"
PATHS = [CHAT, RESPONSES, MESSAGES, LEGACY]
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}
_ERROR = b'event: error\ndata: {"type": "error", "error": {"message": "overloaded"}}\n\n'
CUT: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": lambda raw: [raw],
    "bytes": lambda raw: [raw[at : at + 1] for at in range(len(raw))],
    "thirteens": lambda raw: [raw[at : at + 13] for at in range(0, len(raw), 13)],
}


def chunk(*choices: dict[str, Any], **more: Any) -> bytes:
    body = {"id": "c1", "object": "chat.completion.chunk", "created": 1.0, "model": "m", "choices": choices, **more}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def usual(path: str) -> list[bytes]:
    made = {CHAT: events, RESPONSES: response_events, MESSAGES: message_events, LEGACY: events}
    return made[path](SAID)


def crowded() -> bytes:
    """Chat completions as vendors send them."""
    logprobs = {
        "content": [{"token": "小", "logprob": -0.10, "bytes": [229, 176, 143], "top_logprobs": []}],
        "refusal": None,
    }
    return b"".join(
        [
            b": OPENROUTER PROCESSING\n\n",
            b"retry: 3000\nid: 7\n\n",
            chunk({"index": 0, "delta": {"role": "assistant", "content": "", "refusal": None}, "finish_reason": None}),
            chunk({"index": 0, "delta": {}}, provider="x", x_vendor={"a": [1.0, None]}),
            chunk({"index": 0, "delta": {"reasoning_content": "hm", "reasoning": "hm", "content": None}}),
            chunk({"index": 1, "delta": {"content": "Anders"}}, obfuscation="aaaa"),
            *(chunk({"index": 0, "delta": {"content": word}, "logprobs": logprobs}) for word in (SAID[:9], SAID[9:])),
            chunk({"index": 0, "delta": {"audio": {"id": "a", "data": "UklGRg=="}}}),
            b": still here\n\n",
            chunk({"index": 1, "delta": {}, "finish_reason": "length"}, usage=None),
            chunk({"index": 0, "delta": {}, "finish_reason": "stop", "native_finish_reason": "STOP"}),
            chunk(usage={"prompt_tokens": 1, "completion_tokens": 2, "cost": 1e-05}),
            b"data: [DONE]\n\n",
        ]
    )


def odd(path: str) -> dict[str, bytes]:
    """The oddities of a stream of this surface, by name."""
    said = usual(path)
    whole = b"".join(said)
    found = {
        "as usual": whole,
        "CRLF": whole.replace(b"\n", b"\r\n"),
        "lone CR": whole.replace(b"\n", b"\r"),
        "comments": b": hello\n\n" + b": ping\n\n".join(said),
        "no spaces behind the colons": whole.replace(b"data: ", b"data:"),
        "a byte order mark": b"\xef\xbb\xbf" + whole,
        "no end": b"".join(said[:-1]),
        "no last line end": whole.rstrip(b"\n"),
        "something behind the end": whole + b": bye\n\n",
        "an error in the middle": b"".join(said[:3]) + _ERROR,
        "nothing at all": b"",
        "what is no JSON": b"".join(said[:2]) + b"data: {oops\n\ndata:\n\n" + b"".join(said[2:]),
    }
    return found | ({"all that vendors do": crowded()} if path in (CHAT, LEGACY) else {})


ODD = [(path, name) for path in PATHS for name in odd(path)]
UNDERSTOOD = (
    "as usual",
    "CRLF",
    "lone CR",
    "comments",
    "no spaces behind the colons",
    "no last line end",
    "all that vendors do",
)


@pytest.fixture(scope="module")
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, upstream: RecordingUpstream
) -> Iterator[LiveProxy]:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "models").symlink_to(models_dir)
    with LiveProxy(folder, upstreams=[{"name": "recording", "kind": "openai", "base_url": upstream.url}]) as running:
        yield running


def ask(live: LiveProxy, key: str, path: str) -> tuple[int, httpx.Headers, bytes]:
    """One streamed question; the answer's bytes as they came."""
    words = {LEGACY: {"prompt": ASKED}, RESPONSES: {"input": ASKED}}
    body = {"model": "m", "stream": True, **words.get(path, {"messages": [{"role": "user", "content": ASKED}]})}
    headers = {"authorization": f"Bearer {key}"}
    with httpx.stream("POST", f"{live.url}{path}", json=body, headers=headers, timeout=60) as response:
        return response.status_code, response.headers, b"".join(response.iter_raw())


@pytest.mark.parametrize("cut", CUT)
@pytest.mark.parametrize(("path", "name"), ODD)
def test_bytes_out_are_bytes_in(live: LiveProxy, upstream: RecordingUpstream, path: str, name: str, cut: str) -> None:
    raw = odd(path)[name]
    upstream.answer = lambda _: Reply(content_type="text/event-stream; charset=utf-8", chunks=CUT[cut](raw))
    key = live.key()
    status, headers, came = ask(live, key, path)
    assert (status, came) == (200, raw)
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    if path != LEGACY and name in UNDERSTOOD:
        assert [item["answer"].strip() for item in live.items(key, kind="episode")] == [SAID]


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("path", PATHS)
def test_a_packed_stream_stays_packed(live: LiveProxy, upstream: RecordingUpstream, path: str, packing: str) -> None:
    raw = PACK[packing](b"".join(usual(path)))
    upstream.answer = lambda _: Reply(
        content_type="text/event-stream", headers={"content-encoding": packing}, chunks=CUT["thirteens"](raw)
    )
    key = live.key()
    status, headers, came = ask(live, key, path)
    assert (status, headers["content-encoding"], came) == (200, packing, raw)
    if path != LEGACY:
        assert [item["answer"].strip() for item in live.items(key, kind="episode")] == [SAID]


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
def test_an_image_of_20_mb_passes_untouched(live: LiveProxy, upstream: RecordingUpstream, path: str) -> None:
    key = live.key()
    assert live.api(key, "POST", "/v1/memory/items", {"kind": "preference", "text": "I prefer metric units."})[0] < 300
    upstream.answer = lambda _: "Noted."
    data = "A" * 20_000_000
    parts: dict[str, list[dict[str, Any]]] = {
        CHAT: [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
            {"type": "text", "text": ASKED},
        ],
        RESPONSES: [
            {"type": "input_image", "image_url": f"data:image/png;base64,{data}"},
            {"type": "input_text", "text": ASKED},
        ],
        MESSAGES: [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
            {"type": "text", "text": ASKED},
        ],
    }
    field = "input" if path == RESPONSES else "messages"
    raw = json.dumps({"model": "m", field: [{"role": "user", "content": parts[path]}]}).encode()
    headers = {"authorization": f"Bearer {key}"}
    assert httpx.post(f"{live.url}{path}", content=raw, headers=headers, timeout=60).status_code == 200
    image = json.dumps(parts[path][0]).encode()
    assert image in upstream.last.raw
    assert b"<memrelay:" in upstream.last.raw


def test_what_is_said_by_voice_and_what_is_refused_passes(live: LiveProxy, upstream: RecordingUpstream) -> None:
    message = {
        "role": "assistant",
        "content": None,
        "refusal": "No.",
        "audio": {"id": "a1", "data": "UklGRg==", "transcript": "x"},
    }
    raw = json.dumps({"id": "c1", "choices": [{"index": n, "message": message, "x": 1.0} for n in range(3)]}).encode()
    upstream.answer = lambda _: Reply(chunks=[raw])
    body = {"model": "m", "n": 3, "modalities": ["text", "audio"], "audio": {"voice": "alloy"}}
    asked = {**body, "messages": [{"role": "user", "content": ASKED}]}
    headers = {"authorization": f"Bearer {live.key()}"}
    assert httpx.post(f"{live.url}{CHAT}", json=asked, headers=headers, timeout=60).content == raw
    assert upstream.last.body == asked


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v1/models"])
def test_head_and_options_are_answered(live: LiveProxy, path: str) -> None:
    headers = {"authorization": f"Bearer {live.key()}"}
    assert httpx.head(f"{live.url}{path}", headers=headers).status_code < 500
    assert httpx.options(f"{live.url}{path}", headers=headers).status_code < 500
