"""Responses and messages as bytes: answers are heard however they are cut, and text is added without touching another byte."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from proxy.messages import MESSAGES
from proxy.responses import RESPONSES
from proxy.sessions import read
from proxy.splice import Append, CannotSplice, Edit, Lead, Prepend, without
from proxy.stream import Answer
from proxy.surface import Surface
from tests.fakes import message, message_events, response, response_events
from tests.linear import assert_linear
from tests.proxy.test_splice import Dice, is_subsequence


def hear(surface: Surface, *chunks: bytes, sse: bool = True, broken: bool = False) -> Answer:
    listener = surface.listener(sse=sse, encoding="")
    for chunk in chunks:
        listener.feed(chunk)
    return listener.answer(broken=broken)


STREAMS: dict[str, tuple[Surface, bytes]] = {
    "responses": (RESPONSES, b"".join(response_events("我的猫叫小花 and more"))),
    "messages": (MESSAGES, b"".join(message_events("我的猫叫小花 and more"))),
    "carriage returns": (MESSAGES, b"".join(message_events("我的猫叫小花 and more")).replace(b"\n", b"\r\n")),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_may_be_cut_anywhere(name: str) -> None:
    surface, stream = STREAMS[name]
    whole = hear(surface, stream)
    assert (whole.text.strip(), whole.complete, whole.final) == ("我的猫叫小花 and more", True, True)
    assert whole.usage is not None
    assert whole.usage["output_tokens"] in (1, 5)
    for at in range(0, len(stream), 7):
        assert hear(surface, stream[:at], stream[at:]) == whole
    assert not hear(surface, stream[: len(stream) // 2]).complete


@pytest.mark.parametrize("name", STREAMS)
def test_no_noise_raises(name: str) -> None:
    surface, stream = STREAMS[name]
    dice = random.Random(7)
    for _ in range(60):
        noise = bytearray(stream)
        for _ in range(5):
            noise[dice.randrange(len(noise))] = dice.randrange(256)
        hear(surface, bytes(noise), broken=True)
        hear(surface, bytes(noise), sse=False)
    for value in (
        "7",
        "[]",
        "null",
        '{"output": 7}',
        '{"content": [7, {"type": 3}]}',
        '{"output": [7, {"type": "message"}]}',
    ):
        hear(surface, value.encode(), sse=False)
        hear(surface, b"data: " + value.encode() + b"\n\n")


@pytest.mark.parametrize("name", STREAMS)
def test_the_last_event_waits_and_no_other(name: str) -> None:
    surface, stream = STREAMS[name]
    dice = random.Random(3)
    for _ in range(30):
        listener, out, held = surface.listener(sse=True, encoding=""), b"", b""
        at = 0
        while at < len(stream) and not listener.done:
            size = dice.randrange(1, 90)
            listener.feed(stream[at : at + size])
            shown, held = surface.split(held + stream[at : at + size], listener.done)
            out += shown
            at += size
        assert out + held + stream[at:] == stream
        last = b"message_stop" if surface is MESSAGES else b"response.completed"
        assert not any(
            line.startswith(b"data:") and last in line for line in out.splitlines(keepends=True) if line.endswith(b"\n")
        )


@pytest.mark.parametrize(
    ("body", "text", "complete", "final"),
    [
        (response("Yes."), "Yes.", True, True),
        (response("", output=[{"type": "function_call"}]), "", True, False),
        (response("", status="queued", output=[]), "", False, True),
        (response("half", status="incomplete"), "half", True, True),
        (response("", status="failed", output=[], error={"message": "sorry"}), "", False, True),
    ],
)
def test_what_a_response_says(body: dict[str, Any], text: str, complete: bool, final: bool) -> None:
    heard = hear(RESPONSES, json.dumps(body).encode(), sse=False)
    assert (heard.text, heard.complete, heard.final, heard.id) == (text, complete, final, body["id"])


@pytest.mark.parametrize(
    ("body", "text", "complete", "final"),
    [
        (message("Yes."), "Yes.", True, True),
        (
            message("", content=[{"type": "text", "text": "So"}, {"type": "tool_use"}], stop="tool_use"),
            "So",
            True,
            False,
        ),
        (message("", content=[{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "A"}]), "A", True, True),
        ({"type": "error", "error": {"message": "no"}}, "", False, True),
    ],
)
def test_what_a_message_says(body: dict[str, Any], text: str, complete: bool, final: bool) -> None:
    heard = hear(MESSAGES, json.dumps(body).encode(), sse=False)
    assert (heard.text, heard.complete, heard.final) == (text, complete, final)


# --- adding text --------------------------------------------------------------------------------------------------------------


def mix(dice: Dice, surface: Surface) -> str:
    """A random request, written as clients write it."""
    lead, field = ("instructions", "input") if surface is RESPONSES else ("system", "messages")
    kind = "input_text" if surface is RESPONSES else "text"
    part = dice.mapping([("type", f'"{kind}"'), ("text", dice.text()), ("content", dice.value())])
    image = dice.mapping([("type", '"image"'), ("text", dice.value())])
    contents = [dice.choice([dice.text(), dice.listed([dice.choice([part, image]) for _ in range(dice.randrange(4))])])
                for _ in range(dice.randrange(1, 4))]  # fmt: skip
    said = [dice.mapping([("role", '"user"'), ("content", content), ("extra", dice.value())]) for content in contents]
    given = dice.text() if surface is RESPONSES and dice.random() < 0.2 else dice.listed(said)
    leads = (
        [dice.text(), "null"]
        if surface is RESPONSES
        else [dice.text(), "null", dice.listed([part] * dice.randrange(3))]
    )
    entries = [("model", '"m"'), (field, given), ("tools", dice.value())]
    if dice.random() < 0.7:
        entries.insert(dice.randrange(3), (lead, dice.choice(leads)))
    return dice.space() + dice.mapping(entries) + dice.space()


def added(body: dict[str, Any], edit: Edit, surface: Surface) -> dict[str, Any]:
    """The same edit made to the parsed body, in the plainest way."""
    lead, field = ("instructions", "input") if surface is RESPONSES else ("system", "messages")
    kind = "input_text" if surface is RESPONSES else "text"
    leads = body.get(lead) is not None
    if isinstance(edit, Lead):
        return {**body, lead: joined(body[lead], edit.text, True, kind, late=False) if leads else edit.text}
    first = isinstance(edit, Prepend)
    if edit.index == 0 and leads:
        return {**body, lead: joined(body[lead], edit.text, first, kind, late=surface is MESSAGES)}
    if isinstance(body[field], str):
        return {**body, field: joined(body[field], edit.text, first, kind, late=False)}
    messages = list(body[field])
    at = edit.index - leads
    text = joined(messages[at]["content"], edit.text, first, kind, late=surface is MESSAGES)
    messages[at] = {**messages[at], "content": text}
    return {**body, field: messages}


def joined(content: Any, text: str, first: bool, kind: str, *, late: bool) -> Any:
    if isinstance(content, str):
        return "\n\n".join(filter(None, [text, content] if first else [content, text]))
    texts = [place for place, part in enumerate(content) if part["type"] == "text"]
    at = (texts[-1] if texts and late else 0) if first else len(content)
    return [*content[:at], {"type": kind, "text": text}, *content[at:]]


@pytest.mark.parametrize("surface", [RESPONSES, MESSAGES])
@pytest.mark.parametrize("seed", range(150))
def test_any_request_keeps_its_bytes_and_gains_the_text(surface: Surface, seed: int) -> None:
    dice = Dice(seed)
    raw = mix(dice, surface).encode()
    parsed = json.loads(raw)
    count = len(surface.as_chat(parsed)["messages"])
    edits: list[Edit] = [dice.choice([Append, Prepend])(i, f"Σ\n{i}") for i in range(count) if dice.random() < 0.6]
    edits += [Lead("x")] if dice.random() < 0.5 or not edits else []
    dice.shuffle(edits)
    wanted = parsed
    for edit in sorted(edits, key=lambda edit: isinstance(edit, Lead)):
        wanted = added(wanted, edit, surface)
    spliced = surface.edit(raw, edits)
    assert json.loads(spliced) == wanted
    lead = "instructions" if surface is RESPONSES else "system"
    if parsed.get(lead, "") is not None:  # a null gives way
        assert is_subsequence(raw, spliced)


def test_elements_of_a_list_can_be_left_out() -> None:
    raw = b'{"object": "list", "data" : [ {"id": 1.0} ,\n{"id": "]"}, 3 ], "more": false}'
    assert without(raw, "data", [1]) == b'{"object": "list", "data" : [{"id": 1.0},3], "more": false}'
    assert json.loads(without(raw, "data", [0, 1, 2]))["data"] == []
    with pytest.raises(CannotSplice):
        without(b'{"data": 7}', "data", [0])


# --- reading conversations ----------------------------------------------------------------------------------------------------


def test_what_is_said_before_a_call_is_no_answer() -> None:
    def said(role: str, text: str) -> dict[str, Any]:
        return {"type": "message", "role": role, "content": [{"type": "output_text", "text": text}]}

    call, result = {"type": "function_call", "call_id": "c"}, {"type": "function_call_output", "call_id": "c"}
    items = [
        said("user", "One?"),
        said("assistant", "1"),
        said("user", "Two?"),
        said("assistant", "Let me see."),
        call,
        result,
    ]
    found = read(RESPONSES.as_chat({"input": items})["messages"])
    assert found is not None
    assert (found.text, found.later_round, len(found.places)) == ("Two?", True, 1)


@pytest.mark.parametrize(
    "given", [[7, None, "x", {}, {"type": 3}, {"role": []}, {"type": "item_reference", "id": "x"}], "hi", None, 7]
)
def test_odd_input_is_read_without_a_fault(given: Any) -> None:
    read(RESPONSES.as_chat({"input": given, "instructions": given})["messages"])
    read(MESSAGES.as_chat({"messages": given, "system": given})["messages"])


def test_the_cost_of_an_edit_grows_with_the_length_only() -> None:
    def put(text: str) -> bytes:
        said = [{"role": "user", "content": [{"type": "text", "text": part}]} for part in text.split("|")]
        return MESSAGES.edit(json.dumps({"model": "m", "messages": said}).encode(), [Lead("x"), Prepend(0, "y")])

    assert_linear(put, 'lorem "ipsum" \\ dolor|' * 4_000)
