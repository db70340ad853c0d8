"""A Generation's answer in the shapes of the chat-completions wire: plain dicts, ready to be JSON."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from memory.engine.chat import Chat
from memory.engine.generation import Delta, Generation, TokenLogprob


@dataclass(slots=True)
class Reply:
    """One answer; every shape of it carries the same id."""

    model: str
    chat: Chat
    generation: Generation
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, logprobs: Sequence[TokenLogprob], finish: str) -> dict[str, Any]:
        """The one object of an answer that is not streamed."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": self._logprobs(logprobs), "finish_reason": finish}
        return {**self._head("chat.completion"), "choices": [choice], "usage": self._usage()}

    def chunk(self, delta: dict[str, str], *, logprobs: Any = None, finish: str | None = None) -> dict[str, Any]:
        """One event of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        body = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return {**body, "usage": None} if self.chat.include_usage else body

    def chunks(self, delta: Delta) -> list[dict[str, Any]]:
        """The events for one piece of the answer: its text, then, with an empty delta, why it ended."""
        out = []
        if delta.text or delta.logprobs:
            out.append(self.chunk({"content": delta.text}, logprobs=self._logprobs(delta.logprobs)))
        if delta.finish:
            out.append(self.chunk({}, finish=delta.finish))
        return out

    def usage_chunk(self) -> dict[str, Any]:
        """The event after the last piece."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage()}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _usage(self) -> dict[str, Any]:
        prompt, completion = self.generation.prompt_tokens, self.generation.completion_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": self.generation.cached_tokens},
        }

    def _logprobs(self, tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if self.chat.sampling.top_logprobs is None:
            return None
        content = [{**_token(t), "top_logprobs": [_token(other) for other in t.top]} for t in tokens]
        return {"content": content, "refusal": None}


def _token(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "bytes": list(token.raw), "logprob": token.logprob}
