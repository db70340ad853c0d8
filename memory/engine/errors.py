"""What can go wrong in the engine. Callers map these to answers; `code` is the word OpenAI clients know."""

from __future__ import annotations


class EngineError(Exception):
    """The root; raised as such when the model itself failed."""

    code = "engine_failed"


class NoModel(EngineError):
    """There is no model file, or llama.cpp cannot load it."""

    code = "no_model"


class NotReady(EngineError):
    """The model is still loading, failed to load, or the engine was closed."""

    code = "model_loading"


class Busy(EngineError):
    """More requests wait than `EngineSettings.max_waiting`."""

    code = "engine_busy"


class InvalidChat(EngineError):
    """The request cannot be done as asked. `param` names the field."""

    code = "invalid_value"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code or self.code


class ContextTooLong(InvalidChat):
    """The prompt does not fit into one slot's context."""

    code = "context_length_exceeded"
