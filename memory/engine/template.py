"""Messages to the one text that a model reads, through the chat template that came with it.

The template is a stranger's program, so it runs sandboxed. What people wrote can never become a turn mark: the texts of
control tokens are broken up inside contents. Raises InvalidChat when the template refuses the messages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from memory.engine.errors import InvalidChat

Message = Mapping[str, Any]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)  # for files that carry none
BREAK = "\u200b"  # a zero-width space: people see the same text, the tokenizer no longer sees a control token


class ChatTemplate:
    """One model's template, parsed once. Rendering may happen in any thread."""

    def __init__(
        self,
        source: str | None,
        *,
        bos: str = "",
        eos: str = "",
        controls: Sequence[str] = (),
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        env = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        env.filters["tojson"] = _to_json
        env.globals.update(
            raise_exception=_refuse, strftime_now=lambda form: now().strftime(form), bos_token=bos, eos_token=eos
        )
        self.source = source or CHATML
        self._template = env.from_string(self.source)
        self.has_tools = "tools" in meta.find_undeclared_variables(env.parse(self.source))
        longest_first = sorted((c for c in controls if len(c) > 1), key=len, reverse=True)
        self._controls = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The prompt up to where the answer begins. `tools` are left out if the template has no place for them; if it refuses
        system messages, those at the beginning stand in the first question."""
        plain = [self._plain(m) for m in messages]
        try:
            return self._rendered(plain, tools)
        except InvalidChat:
            if (folded := _folded(plain)) is None:
                raise
            return self._rendered(folded, tools)

    def _rendered(self, plain: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str:
        try:
            return self._template.render(
                messages=list(plain),
                tools=list(tools) if tools and self.has_tools else None,
                add_generation_prompt=True,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise InvalidChat(f"the model's chat template refuses these messages: {error}", param="messages") from error

    def _plain(self, message: Message) -> dict[str, Any]:
        out = dict(message)
        out["content"] = self._broken_up(out.get("content") or "")
        if calls := out.get("tool_calls"):
            out["tool_calls"] = [_with_parsed_arguments(call) for call in calls]
        return out

    def _broken_up(self, text: str) -> str:
        if self._controls is None:
            return text
        return self._controls.sub(lambda found: found[0][0] + BREAK + found[0][1:], text)


def _folded(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The leading system messages put in front of the user's first words; None when there are none of either."""
    first = next((at for at, message in enumerate(messages) if message.get("role") != "system"), len(messages))
    if first == 0 or first == len(messages) or messages[first].get("role") != "user":
        return None
    text = "\n\n".join(message["content"] for message in messages[: first + 1] if message["content"])
    return [{**messages[first], "content": text}, *messages[first + 1 :]]


def _with_parsed_arguments(call: Any) -> Any:
    """Templates print the arguments as JSON themselves, so they must not be a JSON string already."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)  # jinja's own would escape for HTML


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
