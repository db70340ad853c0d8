"""Listening to answers: whatever way the bytes are cut, the same answer is heard, and nothing an upstream sends raises."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from typing import Any

import brotli
import pytest
import zstandard

from proxy.stream import Answer, Gatherer, split_done
from tests.linear import assert_linear


def event(delta: Any = None, end: str = "\n\n", finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    body = {"model": "m", "choices": [choice], **more}
    return f"data: {json.dumps(body, ensure_ascii=False)}{end}".encode()


def hear(*chunks: bytes, sse: bool = True, broken: bool = False) -> Answer:
    gatherer = Gatherer(sse=sse)
    for chunk in chunks:
        gatherer.feed(chunk)
    return gatherer.answer(broken=broken)


DONE = b"data: [DONE]\n\n"
SAID = event({"role": "assistant", "content": ""}) + event({"content": "我的猫叫"}) + event({"content": "小花 😀"})
END = event(finish="stop") + event(choices=[], usage={"total_tokens": 3})
STREAMS = {
    "plain": SAID + END + DONE,
    "carriage returns and newlines": (SAID + END + DONE).replace(b"\n", b"\r\n"),
    "carriage returns": (SAID + END + DONE).replace(b"\n", b"\r"),
    "comments, names and ids": b": hello\n\n" + SAID.replace(b"data:", b"event: message\nid: 1\nretry: 5\ndata:") + END + DONE,
    "empty data": b"data:\n\ndata: \n\n" + SAID + b"data\n\n" + END + DONE,
    "a byte order mark": b"\xef\xbb\xbf" + event({"content": "我的猫叫"}) + event({"content": "小花 😀"}) + END + DONE,
    "no space": (SAID + END + DONE).replace(b"data: ", b"data:"),
    "single newlines": (SAID + END + DONE).replace(b"\n\n", b"\n"),
    "without an end": SAID + END,
    "without a last newline": (SAID + END + DONE).rstrip(),
    "more behind the end": SAID + END + DONE + DONE + event({"content": ""}),
    "data in several lines": (SAID + END + DONE).replace(b', "choices"', b',\r\ndata: "choices"'),
    "what is not JSON": b"data: {oops\n\n" + SAID + b"data: 7\n\ndata: []\n\ndata: {\"choices\": 7}\n\n" + END + DONE,
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_may_be_cut_anywhere(name: str) -> None:
    stream = STREAMS[name]
    whole = Answer("我的猫叫小花 😀", True, False, "stop", "m", {"total_tokens": 3})
    assert hear(stream) == whole
    for at in range(len(stream)):
        assert hear(stream[:at], stream[at:]) == whole
    assert hear(*(bytes([byte]) for byte in stream)) == whole


def test_no_cut_of_any_stream_raises() -> None:
    dice = random.Random(7)
    for stream in STREAMS.values():
        for _ in range(40):
            noise = bytearray(stream)
            for _ in range(5):
                noise[dice.randrange(len(noise))] = dice.randrange(256)
            hear(bytes(noise[: dice.randrange(len(noise))]), broken=True)
            hear(bytes(noise), sse=False)


@pytest.mark.parametrize(
    ("delta", "text", "final"),
    [
        ({"content": "a"}, "a", True),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image_url"}, 7]}, "a", True),
        ({"content": None, "refusal": "I can't."}, "I can't.", True),
        ({"audio": {"id": "x", "data": "AAAA", "transcript": "spoken"}}, "spoken", True),
        ({"reasoning_content": "hm"}, "", True),
        ({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}, "", False),
        ({"content": "Let me see.", "tool_calls": [{"index": 0}]}, "Let me see.", False),
        ({"function_call": {"name": "f"}}, "", False),
        ({"content": 7}, "", True),
        ([], "", True),
        ("text", "", True),
    ],
)
@pytest.mark.parametrize("sse", [True, False])
def test_what_counts_as_words(delta: Any, text: str, final: bool, sse: bool) -> None:
    whole = json.dumps({"choices": [{"index": 0, "message": delta, "finish_reason": "stop"}]}).encode()
    answer = hear(event(delta) + event(finish="stop"), sse=True) if sse else hear(whole, sse=False)
    assert (answer.text, answer.final, answer.complete) == (text, final, True)


def test_of_several_choices_the_first_is_heard() -> None:
    other = event({"content": "two"}).replace(b'"index": 0', b'"index": 1')
    ends = event(finish="length").replace(b'"index": 0', b'"index": 1')
    answer = hear(other, event({"content": "one"}), other, ends, DONE)
    assert (answer.text, answer.finish_reason) == ("one", "")


@pytest.mark.parametrize(
    ("chunks", "complete"),
    [
        ([SAID, DONE], True),
        ([SAID, END], True),
        ([SAID], False),
        ([SAID, event(error={"message": "overloaded"}), DONE], False),
        ([SAID, event(error=None), DONE], True),
        ([], False),
    ],
)
def test_an_answer_is_complete_when_the_upstream_says_so(chunks: list[bytes], complete: bool) -> None:
    assert hear(*chunks).complete is complete
    assert hear(*chunks, broken=True).complete is False


@pytest.mark.parametrize(
    ("body", "complete"),
    [
        (b'{"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}', True),
        (b'{"choices": [{"message": {"content": "a"}}], "error": null}', True),
        (b'{"error": {"message": "with status 200"}}', False),
        (b"<html>", False),
        (b"", False),
    ],
)
def test_a_whole_body_that_is_an_error_is_no_answer(body: bytes, complete: bool) -> None:
    assert hear(body, sse=False).complete is complete


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("", bytes),
        ("identity", bytes),
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("br", brotli.compress),
        ("zstd", zstandard.compress),
    ],
)
def test_packed_streams_are_understood_byte_by_byte(encoding: str, pack: Any) -> None:
    gatherer = Gatherer(sse=True, encoding=encoding)
    for byte in pack(SAID + END + DONE):
        gatherer.feed(bytes([byte]))
    assert gatherer.answer().text == "我的猫叫小花 😀"


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "unheard-of"])
def test_what_cannot_be_unpacked_gives_silence(encoding: str) -> None:
    gatherer = Gatherer(sse=True, encoding=encoding)
    gatherer.feed(SAID)
    assert gatherer.answer().text == ""


def test_an_image_in_one_line_is_taken_in_its_stride() -> None:
    line = event({"images": ["A" * 20_000_000], "content": "a picture"})
    assert hear(*(line[at : at + 16_384] for at in range(0, len(line), 16_384))).text == "a picture"
    assert (
        hear(json.dumps({"choices": [{"message": {"content": "b", "i": "A" * 20_000_000}}]}).encode(), sse=False).text
        == "b"
    )
    assert_linear(lambda image: hear(event({"images": [image]})), "A" * 20_000_000)


# --- the end that is held back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
def test_the_end_never_goes_out_before_it_was_heard_and_no_byte_is_lost(name: str) -> None:
    stream = STREAMS[name]
    for size in (1, 2, 3, 5, 7, 11, 13, 17, 1000, 10_000):
        gatherer, out, held = Gatherer(sse=True), b"", b""
        for at in range(0, len(stream), size):
            gatherer.feed(stream[at : at + size])
            shown, held = split_done(held + stream[at : at + size], gatherer.done)
            out += shown
            assert b"[DONE]" not in out
            if gatherer.done:
                held += stream[at + size :]
                break
        assert out + held == stream


@pytest.mark.parametrize(
    ("chunk", "done", "shown"),
    [
        (b"data: {}\n\ndata: [DONE]\n\n", True, b"data: {}\n\n"),
        (b"data: [DONE]\n\ndata: [DONE]\n\n", True, b""),
        (b'data: {"a": "data: [DONE]"}\n\n', False, b'data: {"a": "data: [DONE]"}\n\n'),
        (b"data: {}\n\ndat", False, b"data: {}\n\n"),
        (b"data: {}\n\ndate", False, b"data: {}\n\ndate"),
        (b"data: {}\r\rdata:  [DONE]\r\r", True, b"data: {}\r\r"),
        (b"\x1f\x8b packed", True, b"\x1f\x8b packed"),
        (b"", False, b""),
    ],
)
def test_what_may_go_out(chunk: bytes, done: bool, shown: bytes) -> None:
    assert split_done(chunk, done) == (shown, chunk[len(shown) :])
