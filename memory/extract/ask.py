"""Asking a chat model for a list of items: as a JSON schema, as a forced tool call, in words, and one repair of those.

What worked is remembered per model name. Malformed output is never taken for "nothing to tell": it ends in ExtractionFailed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memory.extract import answers, prompt
from memory.extract.answers import Item
from memory.models import ChatModel, ChatModelError

MODES = ("schema", "tool", "prompt", "repair")
_LOCKED = re.compile(r"\b(?:401|402|403)\b|unauthori[sz]ed|api[ _-]?key|forbidden|quota|billing", re.IGNORECASE)
Messages = Sequence[dict[str, str]]


class ExtractionFailed(Exception):
    """No usable answer after all attempts; `retryable` says whether the same batch may succeed later. What it cost is told."""

    def __init__(
        self, message: str, *, retryable: bool, prompt_tokens: int = 0, completion_tokens: int = 0, attempts: int = 0
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = completion_tokens
        self.attempts = attempts


@dataclass(frozen=True, slots=True)
class Told:
    """The items of an answer, as they came, and what they cost."""

    items: tuple[Item, ...]
    prompt_tokens: int
    completion_tokens: int
    attempts: int
    mode: str  # the way that worked: schema | tool | prompt | repair
    cut: bool = False  # the answer broke off; the items before the break are here


class Asker:
    """Asks one model; keeps in mind which way of asking it understands."""

    def __init__(self, model: ChatModel, options: Mapping[str, Any] | None = None) -> None:
        """`options` go into every body (temperature, max_tokens …): some providers refuse some of them."""
        self._model = model
        self._options = dict(options or {})
        self._worked: dict[str, str] = {}

    async def ask(self, messages: Callable[[bool], Messages], schema: Mapping[str, Any]) -> Told:
        """The items of one answer. `messages(spell_out)` are the question; with True they describe the JSON in words.
        Raises ExtractionFailed."""
        asked = told = attempts = 0
        answer, failure = "", "no answer"
        for mode in self._modes():
            try:
                response = await self._model.complete(self._body(mode, messages, schema, answer))
            except ChatModelError as error:
                attempts += 1
                if error.retryable or _LOCKED.search(str(error)) or mode in ("prompt", "repair"):
                    raise ExtractionFailed(
                        f"{mode}: {error}",
                        retryable=error.retryable,
                        prompt_tokens=asked,
                        completion_tokens=told,
                        attempts=attempts,
                    ) from error
                failure = f"{mode} was refused"
                continue
            attempts += 1
            more_asked, more_told = answers.usage_of(response)
            asked, told = asked + more_asked, told + more_told
            answer = answers.text_of(response)
            items = answers.items(answer)
            if items is not None:
                self._worked[self._model.name] = "prompt" if mode == "repair" else mode
                return Told(tuple(items), asked, told, attempts, mode, answers.was_cut(response))
            failure = f"{mode} gave nothing readable"
        raise ExtractionFailed(
            f"{failure} after {attempts} attempts",
            retryable=True,
            prompt_tokens=asked,
            completion_tokens=told,
            attempts=attempts,
        )

    def _modes(self) -> tuple[str, ...]:
        return MODES[MODES.index(self._worked.get(self._model.name, MODES[0])) :]

    def _body(
        self, mode: str, messages: Callable[[bool], Messages], schema: Mapping[str, Any], answer: str
    ) -> dict[str, Any]:
        asked = list(messages(mode in ("prompt", "repair")))
        if mode == "repair":
            asked = prompt.repair(asked, answer)
        return self._options | prompt.shaped(mode, asked, schema)
