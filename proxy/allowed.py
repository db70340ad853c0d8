"""What a key that may use some models only may ask for: none but those, in whichever place or spelling an upstream may read them.
Pure. A request that two readers could read differently is refused; keys that may use every model are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.requests import Request

from proxy import bodies
from proxy.auth import Principal
from proxy.errors import BadRequest, Forbidden
from proxy.forms import sole_model
from proxy.splice import CannotSplice, names

_ELSEWHERE = re.compile(
    r".*/(batches|runs)/*", re.IGNORECASE
)  # their models stand in lists, in files, in what was made before
_BESIDE = ("models", "fallbacks")  # what some upstreams take when they cannot serve `model`


def check(principal: Principal, raw: bytes, body: Mapping[str, Any]) -> None:
    """A body and what it was parsed to, but for its `model`. Raises ModelNotFound, BadRequest."""
    if principal.models is None:
        return
    try:
        spelled = [name for name in names(raw) if name.casefold() == "model"]
    except CannotSplice as error:
        raise BadRequest("the body must be a JSON object in UTF-8", code="invalid_json") from error
    if spelled not in ([], ["model"]):  # of several, upstreams take the first or the last, and some any case
        raise BadRequest("the body names its model more than once", param="model", code="ambiguous_model")
    for name in _beside(body):
        principal.may_use(name)


def check_passed_on(principal: Principal, request: Request, held: bytes, *, owned: bool) -> None:
    """A request that is passed through, with its whole body. `owned`: its path names what the principal has made. Raises
    ModelNotFound, BadRequest, Forbidden."""
    if principal.models is None:
        return
    asked = request.query_params.getlist("model")
    kind, *more = request.headers.getlist("content-type") or [""]
    if more:
        raise BadRequest("the body has several types", code="invalid_type")
    if not held:
        named = asked
    elif "multipart/" in kind.lower():
        named = [model] if (model := sole_model(held, kind)) else []
    else:
        named = _in_json(principal, held)
    for model in (*asked, *named):
        principal.may_use(model)
    hidden = _ELSEWHERE.fullmatch(request.scope["path"]) is not None
    if request.method not in ("GET", "HEAD") and (hidden or not (named or owned)):
        raise Forbidden("this key may use some models only, and this request names none", code="model_not_named")


def _in_json(principal: Principal, held: bytes) -> list[str]:
    try:
        body = bodies.parse(held)
    except BadRequest:
        return []
    check(principal, held, body)
    return [model] if isinstance(model := body.get("model"), str) and model else []


def _beside(body: Mapping[str, Any]) -> Iterator[str]:
    for field in _BESIDE:
        listed = body.get(field)
        for entry in listed if isinstance(listed, list) else ():
            name = entry.get("model") if isinstance(entry, Mapping) else entry
            if isinstance(name, str):
                yield name
