"""Adding text to a body: what we add arrives, every other byte stays."""

from __future__ import annotations

import json
import random
import string
from typing import Any

import pytest

from proxy.splice import Append, CannotSplice, Edit, Lead, Prepend, splice
from tests.linear import assert_linear

ODD = ["", " ", '"', "\\", "\n", "\u0000", "é", "小花", "😀", '","content":"', "]}", "[{", "\\u0041", "/", "\u2028"]


class Dice(random.Random):
    """Random JSON, written as clients write it: any spacing, any escapes, any numbers."""

    def space(self) -> str:
        return self.choice(["", "", "", " ", "\n", "\t", " \r\n  "])

    def text(self) -> str:
        out = []
        for char in "".join(self.choice([*ODD, *string.ascii_letters]) for _ in range(self.randrange(8))):
            escaped = json.dumps(char, ensure_ascii=self.random() < 0.5)[1:-1]
            out.append(f"\\u{ord(char):04x}" if ord(char) < 0x10000 and self.random() < 0.2 else escaped)
        return '"' + "".join(out) + '"'

    def key(self, name: str) -> str:
        if self.random() < 0.2:  # an escaped name is the same name
            at = self.randrange(len(name))
            name = f"{name[:at]}\\u{ord(name[at]):04X}{name[at + 1 :]}"
        return f'"{name}"'

    def value(self, depth: int = 0) -> str:
        kind = self.randrange(4 if depth > 3 else 6)
        if kind == 0:
            return self.text()
        if kind == 1:
            return self.choice(
                ["0", "-1", "1.0", "1e400", "-0.0", "12345678901234567890123", "1E+2", "3.14159265358979323846"]
            )
        if kind == 2:
            return self.choice(["true", "false", "null"])
        if kind == 3:
            return self.choice(["[]", "{}", "[ ]", "{\n}"])
        if kind == 4:
            return self.listed([self.value(depth + 1) for _ in range(self.randrange(4))])
        names = [self.choice(["messages", "content", "role", "text", "x"]) for _ in range(self.randrange(4))]
        return self.mapping([(name, self.value(depth + 1)) for name in names])

    def listed(self, values: list[str]) -> str:
        return "[" + self.space() + f"{self.space()},{self.space()}".join(values) + self.space() + "]"

    def mapping(self, entries: list[tuple[str, str]]) -> str:
        written = [f"{self.key(name)}{self.space()}:{self.space()}{value}" for name, value in entries]
        return "{" + self.space() + f"{self.space()},{self.space()}".join(written) + self.space() + "}"

    def message(self) -> str:
        part = self.mapping([("type", '"text"'), ("text", self.text()), ("content", self.value())])
        content = self.choice([self.text(), self.text(), self.listed([part] * self.randrange(3)), "null", "7"])
        entries = [("role", '"user"'), ("content", content), ("extra", self.value())]
        if self.random() < 0.2:
            entries.insert(0, ("content", self.value()))  # of two equal keys the last one counts
        elif self.random() < 0.1:
            entries.pop(1)
        return self.mapping(entries)

    def body(self, messages: int) -> str:
        entries = [("model", '"m"'), ("messages", self.listed([self.message() for _ in range(messages)]))]
        entries.insert(self.randrange(2), ("before", self.value()))
        entries.append(("tools", self.value()))
        return self.space() + self.mapping(entries) + self.space()


def expected(messages: list[Any], edit: Edit) -> list[Any]:
    """The same edit made to parsed messages, in the plainest way."""
    if isinstance(edit, Lead):
        return [{"role": "system", "content": edit.text}, *messages]
    content = messages[edit.index]["content"]
    first = isinstance(edit, Prepend)
    if isinstance(content, str):
        whole = "\n\n".join(filter(None, [edit.text, content] if first else [content, edit.text]))
    else:
        part = [{"type": "text", "text": edit.text}]
        whole = part + content if first else content + part
    return [*messages[: edit.index], {**messages[edit.index], "content": whole}, *messages[edit.index + 1 :]]


def takes_text(message: Any) -> bool:
    return isinstance(message.get("content"), str | list)


def is_subsequence(small: bytes, large: bytes) -> bool:
    rest = iter(large)
    return all(byte in rest for byte in small)


@pytest.mark.parametrize("seed", range(300))
def test_any_body_keeps_its_bytes_and_gains_the_text(seed: int) -> None:
    dice = Dice(seed)
    raw = dice.body(dice.randrange(5)).encode()
    parsed = json.loads(raw)
    able = [i for i, message in enumerate(parsed["messages"]) if takes_text(message)]
    text = json.loads(dice.text()) + "Σ\n"
    edits: list[Edit] = [dice.choice([Append, Prepend])(i, text) for i in able if dice.random() < 0.6]
    edits += [Lead(text)] if dice.random() < 0.5 or not edits else []
    dice.shuffle(edits)
    spliced = splice(raw, edits)
    for edit in sorted(edits, key=lambda edit: isinstance(edit, Lead)):
        parsed["messages"] = expected(parsed["messages"], edit)
    assert json.loads(spliced) == parsed
    assert is_subsequence(raw, spliced)


@pytest.mark.parametrize("content", ['""', '"a"', "[]", "[ ]", '[{"type":"text","text":"a"}]'])
@pytest.mark.parametrize(
    "edits",
    [[Append(0, "x"), Append(0, "y")], [Prepend(0, "x"), Append(0, "y")], [Lead("x"), Lead("y"), Append(0, "z"), Prepend(0, "z")]],
)  # fmt: skip
def test_two_edits_of_one_message_are_made_one_after_the_other(content: str, edits: list[Edit]) -> None:
    raw = f'{{"messages":[{{"content":{content}}}]}}'.encode()
    wanted = json.loads(raw)["messages"]
    for edit in sorted(edits, key=lambda edit: isinstance(edit, Lead)):
        wanted = expected(wanted, edit)
    assert json.loads(splice(raw, edits))["messages"] == wanted


@pytest.mark.parametrize(
    ("body", "edit"),
    [
        (b'{"messages":[{"content":null}]}', Append(0, "x")),
        (b'{"messages":[{"content":7}]}', Append(0, "x")),
        (b'{"messages":[{"content":{"text":"a"}}]}', Prepend(0, "x")),
        (b'{"messages":[{"role":"user"}]}', Append(0, "x")),
        (b'{"messages":["content"]}', Append(0, "x")),
        (b'{"messages":[]}', Append(0, "x")),
        (b'{"messages":[{"content":"a"}]}', Append(-1, "x")),
        (b'{"messages":{"content":"a"}}', Lead("x")),
        (b'{"a":{"messages":[]}}', Lead("x")),
        (b"[]", Lead("x")),
        (b"", Lead("x")),
    ],
)
def test_where_text_has_no_place_it_says_so(body: bytes, edit: Edit) -> None:
    with pytest.raises(CannotSplice):
        splice(body, [edit])


def test_an_odd_key_is_stepped_over() -> None:
    assert splice(b'{"\\ud800":1,"messages":[]}', [Lead("x")]).startswith(b'{"\\ud800":1,"messages":[{"role"')


def test_a_large_image_is_left_alone() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 20_000_000}}
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": [image, {"type": "text", "text": "q"}]}]
    raw = json.dumps({"model": "m", "messages": messages}).encode()
    spliced = splice(raw, [Append(0, "x"), Prepend(1, "y")])
    assert len(spliced) == len(raw) + len('\\n\\nx{"type":"text","text":"y"},')


def test_the_cost_grows_with_the_length_only() -> None:
    def put(text: str) -> bytes:
        said = [{"role": "user", "content": part} for part in text.split("|")]
        return splice(json.dumps({"model": "m", "messages": said}).encode(), [Lead("x"), Prepend(0, "y")])

    assert_linear(put, 'lorem "ipsum" \\ dolor|' * 40_000)
    assert_linear(put, "A" * 20_000_000)


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_depth_is_no_danger(depth: int) -> None:
    raw = b'{"x":' + b"[" * depth + b"]" * depth + b',"messages":[{"content":"q"}]}'
    assert splice(raw, [Append(0, "x")]).endswith(b'"q\\n\\nx"}]}')
