"""POST /v1/embeddings of the engine: OpenAI's shape over Engine.embed. Engine errors are raised as they are."""

from __future__ import annotations

import base64
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from memory.engine.engine import Engine
from memory.engine.errors import InvalidChat
from proxy.errors import BadRequest

MOST = 2048  # texts in one request


class Asked(msgspec.Struct, frozen=True):
    """What a client may say; other fields are ignored."""

    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


class EmbeddingsApi:
    """The route over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        """Where it is."""
        return [Route("/v1/embeddings", self.create, methods=["POST"])]

    async def create(self, request: Request) -> Response:
        """A vector for each text."""
        try:
            asked = msgspec.json.decode(await request.body(), type=Asked)
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"the body cannot be read: {error}", code="invalid_value") from error
        vectors, tokens = await self._engine.embed(_texts(asked.input))
        if asked.dimensions is not None and any(len(vector) != asked.dimensions for vector in vectors):
            raise InvalidChat(f"this model's embeddings have {len(vectors[0])} dimensions", param="dimensions")
        data = [
            {"object": "embedding", "index": at, "embedding": _encoded(vector, asked.encoding_format)}
            for at, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        body = {"object": "list", "data": data, "model": self._engine.settings.model_name, "usage": usage}
        return Response(msgspec.json.encode(body), media_type="application/json")


def _texts(given: str | list[str | int | list[int]]) -> list[str | list[int]]:
    if isinstance(given, str):
        return [given]
    texts = [one for one in given if not isinstance(one, int)]
    tokens = [one for one in given if isinstance(one, int)]
    if not given or (texts and tokens) or len(texts) > MOST:
        raise BadRequest(
            f"input must be a text, a list of at most {MOST} texts, or tokens", param="input", code="invalid_value"
        )
    return texts or [tokens]


def _encoded(vector: Any, form: str | None) -> Any:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if form == "base64" else vector.tolist()
