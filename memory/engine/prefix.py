"""Where the part of a prompt ends that does not depend on what the user asks.

The boundary is the longest common beginning, in tokens, of two prompts of the model's own template with the same messages and
different questions. Templates that move the system message elsewhere thus give a short prefix, never a wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memory.engine.chat import read
from memory.engine.llama import Model
from memory.engine.slots import shared
from memory.engine.template import ChatTemplate

_QUESTIONS = ("Why?", "42 apples")  # no first letter in common, nor a first token


def tokens(
    model: Model, template: ChatTemplate, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]
) -> list[int]:
    """The tokens with which every prompt begins that has these messages first. Raises InvalidChat."""
    prompts = []
    for question in _QUESTIONS:
        chat = read({"messages": [*messages, {"role": "user", "content": question}], "tools": list(tools)})
        prompts.append(model.tokenize(template.render(chat.messages, chat.tools)))
    return prompts[0][: shared(*prompts)]
