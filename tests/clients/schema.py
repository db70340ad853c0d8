"""Answers by schema: what a provider's OpenAPI document says that a route answers, made up but valid.

In: the document (OpenAPI 3, as parsed YAML) and a request as the recording upstream received it. Out: the first good answer that
the document names for it, with a value for every property; streamed where the request asks for it and the route can. The same
request always has the same answer. Knows no client and nothing of memory.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.fakes import Received, Reply

_DEEP = 12  # nested values; below, only what is required
_KEPT = {"date-time": "2026-01-02T03:04:05Z", "date": "2026-01-02", "uri": "https://example.org/x", "byte": "aGVsbG8="}


class OpenApi:
    """One document; `answer` is what a recording upstream can be given."""

    def __init__(self, document: dict[str, Any], *, base: str = "/v1") -> None:
        self._document = document
        paths = sorted(document["paths"], key=lambda path: (path.count("{"), -len(path)))
        self._paths = [(re.compile(re.sub(r"{[^}]+}", "[^/]+", base + path)), path) for path in paths]

    def answer(self, received: Received) -> Reply:
        """The route's first 2xx answer; 404 for a route that the document does not have."""
        operation = self._operation(received)
        if operation is None:
            return Reply(
                404, chunks=[b'{"error": {"message": "no such route", "type": "x", "param": null, "code": null}}']
            )
        status, told = next((int(code), told) for code, told in operation["responses"].items() if code.startswith("2"))
        content = self._resolved(told).get("content", {})
        wanted = "text/event-stream" if _streams(received) else "application/json"
        kind = wanted if wanted in content else next(iter(content), "")
        if not kind:
            return Reply(status, chunks=[b""])
        value = self.sample(content[kind].get("schema", {}))
        if kind == "application/json":
            return Reply(status, chunks=[json.dumps(value).encode()])
        if kind == "text/event-stream":
            name = f"event: {value['type']}\n" if isinstance(value, dict) and "type" in value else ""
            chunks = [f"{name}data: {json.dumps(value)}\n\n".encode(), b"data: [DONE]\n\n"]
            return Reply(status, content_type=kind, chunks=chunks)
        return Reply(status, content_type=kind, chunks=[b"\x00\xffbytes"])

    def sample(self, schema: dict[str, Any], deep: int = 0) -> Any:
        """A value that the schema allows."""
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        if "allOf" in schema:
            whole: dict[str, Any] = {}
            for part in schema["allOf"]:
                value = self.sample(part, deep)
                if not isinstance(value, dict):
                    return value
                whole |= value
            return whole | (self._object(schema, deep) if "properties" in schema else {})
        for choice in ("oneOf", "anyOf"):
            if choice in schema:
                chosen = next((one for one in schema[choice] if one.get("type") != "null"), schema[choice][0])
                picked = self.sample(chosen, deep + 1)
                return picked | self._object(schema, deep) if isinstance(picked, dict) else picked
        return self._plain(schema, deep)

    def _plain(self, schema: dict[str, Any], deep: int) -> Any:
        kind = schema.get("type")
        kind = next((one for one in kind if one != "null"), "null") if isinstance(kind, list) else kind
        if kind == "object" or "properties" in schema:
            return self._object(schema, deep)
        if kind == "array":
            count = max(schema.get("minItems", 1), 0 if deep > _DEEP else 1)
            return [self.sample(schema.get("items", {}), deep + 1) for _ in range(count)]
        if kind in ("integer", "number"):
            return schema.get("minimum", 1)
        if kind == "boolean":
            return True
        if kind == "null":
            return None
        return _KEPT.get(schema.get("format", ""), "string")

    def _object(self, schema: dict[str, Any], deep: int) -> dict[str, Any]:
        required = schema.get("required", ())
        given = {
            name: self.sample(inner, deep + 1)
            for name, inner in schema.get("properties", {}).items()
            if name in required or deep <= _DEEP // 2
        }
        more = schema.get("additionalProperties")
        if not given and isinstance(more, dict) and more:
            given["key"] = self.sample(more, deep + 1)
        return given

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            found: Any = self._document
            for step in schema["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            schema = found
        return schema

    def _operation(self, received: Received) -> dict[str, Any] | None:
        for pattern, path in self._paths:
            if pattern.fullmatch(received.path) and received.method.lower() in self._document["paths"][path]:
                operation: dict[str, Any] = self._document["paths"][path][received.method.lower()]
                return operation
        return None


def _streams(received: Received) -> bool:
    if "stream=true" in received.target:
        return True
    return received.raw.startswith(b"{") and received.body.get("stream") is True
