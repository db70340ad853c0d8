"""One small tree of errors, each with the shape OpenAI clients understand: {"error": {message, type, param, code}}."""

from __future__ import annotations

import msgspec


class ApiError(Exception):
    """An answer we give ourselves. `status` is the HTTP status; the other fields stand in the body."""

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.headers = headers or {}

    def body(self) -> bytes:
        """The JSON body."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


class BadRequest(ApiError):
    """The request cannot be understood."""

    status, type = 400, "invalid_request_error"


class Unauthorized(ApiError):
    """No key, or one we do not accept."""

    status, type, code = 401, "authentication_error", "invalid_api_key"


class Forbidden(ApiError):
    """A good key that may not do this."""

    status, type, code = 403, "permission_error", "insufficient_scope"


class NotFound(ApiError):
    """There is no such thing, or it is not yours."""

    status, type, code = 404, "invalid_request_error", "not_found"


class ModelNotFound(NotFound):
    """No upstream serves this model name."""

    code = "model_not_found"


class MethodNotAllowed(ApiError):
    """The route exists, the method does not."""

    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class Conflict(ApiError):
    """The thing changed meanwhile, or already exists."""

    status, type, code = 409, "invalid_request_error", "conflict"


class TooLarge(ApiError):
    """The body is larger than `limits.body_bytes`."""

    status, type, code = 413, "invalid_request_error", "body_too_large"


class UnsupportedEncoding(ApiError):
    """A Content-Encoding or Content-Type we do not read."""

    status, type, code = 415, "invalid_request_error", "unsupported_encoding"


class RateLimited(ApiError):
    """A key's limit is reached; `retry-after` says when to come back."""

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class UpgradeRequired(ApiError):
    """A protocol that is not served here was asked for."""

    status, type, code = 426, "invalid_request_error", "websocket_not_supported"


class UpstreamUnreachable(ApiError):
    """The upstream could not be reached, or broke the protocol, before it answered."""

    status, type, code = 502, "upstream_error", "upstream_unreachable"


class Unavailable(ApiError):
    """We cannot do this now; trying later makes sense."""

    status, type, code = 503, "server_error", "unavailable"


class UpstreamTimeout(ApiError):
    """The upstream did not answer in time."""

    status, type, code = 504, "upstream_error", "upstream_timeout"
