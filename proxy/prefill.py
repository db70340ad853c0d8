"""The hand-over to KV prefill: when a session is about to begin, a local model is given what its prompt will begin with, so that
the first question waits for its own words only.

What that is, is guessed from the cube's last chat: the same model and system message, with the stable block as it is now. A
guess that is wrong costs the engine's idle time and nothing else: it compares every prompt token by token with what it has.
Held in memory only, at most KEPT cubes.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.errors import ApiError
from proxy.upstreams.port import Call, UpstreamBroken
from proxy.upstreams.routing import Routes

log = logging.getLogger(__name__)
KEPT = 64
LONGEST = 20_000  # characters of a system message that is held
_JSON = [("content-type", "application/json")]


class Prefill(Protocol):
    """Has the beginning of a prompt computed ahead, where the model's engine is ours."""

    def heard(self, cube: str, model: str, messages: Sequence[Any]) -> None:
        """A chat of this cube was sent with these messages, as the client wrote them."""
        ...

    async def __call__(self, cube: str, block: str) -> bool:
        """Compute what the cube's next session begins with, `block` being its stable block; False: not here, or nothing to go
        by. Never raises."""
        ...

    def let_go(self, cube: str) -> None:
        """Hold nothing of a cube."""
        ...


@dataclass(frozen=True, slots=True)
class _Head:
    model: str
    system: str


class EnginePrefill:
    """Prefill by the local engine, which keeps the state of what it has read: it is asked for one token behind the prompt."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._heads: OrderedDict[str, _Head] = OrderedDict()

    def heard(self, cube: str, model: str, messages: Sequence[Any]) -> None:
        """See Prefill."""
        if not self._is_ours(model):
            return
        first = messages[0] if messages else None
        leads = isinstance(first, Mapping) and first.get("role") == "system" and isinstance(first.get("content"), str)
        system = str(first["content"]) if leads and isinstance(first, Mapping) else ""
        if len(system) <= LONGEST:
            self._heads[cube] = _Head(model, system)
            self._heads.move_to_end(cube)
            while len(self._heads) > KEPT:
                self._heads.popitem(last=False)

    async def __call__(self, cube: str, block: str) -> bool:
        """See Prefill."""
        head = self._heads.get(cube)
        said = "\n\n".join(part for part in (head.system if head else "", block) if part)
        if head is None or not said:
            return False
        messages = [{"role": "system", "content": said}, {"role": "user", "content": "."}]
        body = json.dumps({"model": head.model, "messages": messages, "max_tokens": 1}, ensure_ascii=False).encode()
        try:
            reply = await self._routes.of(head.model).send(Call("POST", "/chat/completions", body, _JSON))
            try:
                async for _ in reply.chunks():
                    pass
            finally:
                await reply.close()
        except (ApiError, UpstreamBroken) as error:
            log.info("nothing was prefilled: %s", type(error).__name__)
            return False
        return reply.status == 200

    def let_go(self, cube: str) -> None:
        """See Prefill."""
        self._heads.pop(cube, None)

    def _is_ours(self, model: str) -> bool:
        try:
            return self._routes.of(model).kind == "llama"
        except ApiError:
            return False
