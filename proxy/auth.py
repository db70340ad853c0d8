"""Who is asking: a request's key, its principal, and the cube that its memory lives in.

The key names the principal; a client can choose an end user *within* its key, with the scope act_as_user, and by
`X-Memory-Cube` any cube that the principal owns or was granted. What is granted is asked of SQL at every request.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Protocol

from memory.grants import ACTIVE, ARCHIVED, CubeRefused, Grants, Level
from memory.sql import DatabaseError
from memory.types import stable_id
from proxy.config import Quota
from proxy.errors import ApiError, BadRequest, Conflict, Forbidden, ModelNotFound, NotFound, Unauthorized, Unavailable
from proxy.headers import OWN_KEY
from proxy.keys import PREFIX, Key, Keys, digest, well_formed
from proxy.tokens import BadToken, Verifier, unauthorized

log = logging.getLogger(__name__)
_CACHED = 10_000


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a key belongs to, with its scopes."""

    id: str
    key: str
    scopes: frozenset[str]
    models: tuple[str, ...] | None = None
    limits: Quota | None = None
    user: str = ""  # the end user within it, as a signed token says

    def has(self, scope: str) -> bool:
        """Whether the key has the scope (`admin` includes all but act_as_user)."""
        return scope in self.scopes or ("admin" in self.scopes and scope != "act_as_user")

    def require(self, scope: str) -> None:
        """Raises Forbidden without the scope."""
        if not self.has(scope):
            raise Forbidden(f"this key lacks the scope {scope}")

    def may_use(self, model: str) -> None:
        """Raises ModelNotFound for a model that is not on the key's list."""
        if self.models is not None and not any(fnmatchcase(model, pattern) for pattern in self.models):
            raise ModelNotFound(f"the model {model[:200]!r} does not exist or this key may not use it", param="model")


@dataclass(frozen=True, slots=True)
class Access:
    """The cube of a request, and what its principal may do there. `home`: it is made when it is first written to."""

    cube: str
    level: Level
    status: str
    home: bool

    def require(self, scope: str, method: str) -> None:
        """Raises Forbidden for writing with a grant to read, Conflict for anything but looking at an archived cube or
        erasing from it."""
        if scope == "memory:write" and self.level is Level.READ:
            raise Forbidden("this key was granted reading this cube, not writing", code="cube_read_only")
        if self.status == ARCHIVED and method not in ("GET", "DELETE"):
            raise refusal(CubeRefused("archived"))


class Auth:
    """Looks keys up on every request, so that a revoked one stops at once; when the database cannot answer, a key that
    was good a moment ago still is."""

    def __init__(
        self,
        keys: Keys,
        clock: Callable[[], float] = time.time,
        *,
        trust_s: float = 300.0,
        bearers: Verifier | None = None,
        users: Verifier | None = None,
    ) -> None:
        """`bearers`: whose tokens stand in place of a key; `users`: whose tokens name an end user within a key."""
        self._bearers = bearers
        self._users = users
        self.private = frozenset({users.config.header} if users is not None else ())  # headers for us alone
        self._keys = keys
        self._clock = clock
        self._trust_s = trust_s
        self._seen: OrderedDict[str, tuple[float, Key]] = OrderedDict()

    async def principal(self, headers: Mapping[str, str]) -> Principal:
        """Raises Unauthorized, Unavailable."""
        secret = presented(headers)
        if not secret:
            raise Unauthorized("no API key: send it as `Authorization: Bearer sk-mem-…`")
        if self._bearers is not None and not secret.startswith(PREFIX) and secret.count(".") == 2:
            return self._with_user(self._signed(self._bearers, secret), headers)
        if not well_formed(secret):
            raise Unauthorized("incorrect API key: not a memrelay key (they begin with sk-mem-)")
        key = await self._find(digest(secret))
        if key is None or not key.usable(self._clock()):
            raise Unauthorized("incorrect API key: unknown, revoked or expired")
        found = Principal(key.principal, key.id, frozenset(key.scopes), key.models, key.limits)
        return self._with_user(found, headers)

    @staticmethod
    def _signed(bearers: Verifier, token: str) -> Principal:
        """The principal that a token names: the same for the same issuer and claim."""
        try:
            subject = bearers.subject(token)
        except BadToken as error:
            raise unauthorized(error) from error
        named = stable_id("jwt", bearers.config.issuer, subject)
        return Principal(f"jwt_{named}", f"jwt_{named}", frozenset(bearers.config.scopes))

    def _with_user(self, principal: Principal, headers: Mapping[str, str]) -> Principal:
        """The end user whom a signed token names, where a key may act as its users; then no other header names one."""
        token = headers.get(self._users.config.header, "").strip() if self._users is not None else ""
        if self._users is None or not token or not principal.has("act_as_user"):
            return principal
        try:
            return replace(principal, user=self._users.subject(token))
        except BadToken as error:
            raise unauthorized(error) from error

    async def _find(self, hashed: str) -> Key | None:
        now = self._clock()
        try:
            key = await self._keys.find(hashed)
        except DatabaseError as error:
            known = self._seen.get(hashed)
            if known is None or now - known[0] > self._trust_s:
                raise Unavailable("keys cannot be checked at the moment", headers={"retry-after": "5"}) from error
            log.warning("key %s taken from memory: database %s", known[1].id, error)
            return known[1]
        if key is None:
            self._seen.pop(hashed, None)
        else:
            self._seen[hashed] = (now, key)
            self._seen.move_to_end(hashed)
            while len(self._seen) > _CACHED:
                self._seen.popitem(last=False)
        return key


def presented(headers: Mapping[str, str]) -> str:
    """The key that a request carries: a bearer token, or x-api-key as Anthropic's SDK sends it. Of both, the one that is ours."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    bearer = value.strip() if scheme.lower() == "bearer" else ""
    other = headers.get("x-api-key", "").strip()
    return other if not bearer or (other.startswith(PREFIX) and not bearer.startswith(PREFIX)) else bearer


class _Named(Protocol):
    kind: str
    name: str


def own_key(principal: Principal, headers: Mapping[str, str], upstream: _Named) -> str:
    """The client's own credential for the upstream, if it sends one. Raises Forbidden for a key that may not, BadRequest for an
    upstream that takes none."""
    credential = headers.get(OWN_KEY, "").strip()
    if credential:
        principal.require("upstream_key")
        if upstream.kind not in ("openai", "anthropic"):
            raise BadRequest(f"upstream {upstream.name} takes no key of yours", param="X-Upstream-Authorization")
    return credential


def cube_of(
    principal: Principal, headers: Mapping[str, str], body: Mapping[str, Any], user_headers: Sequence[str]
) -> str:
    """The cube of this request: the principal's own, or with act_as_user one per end user within it."""
    if not principal.has("act_as_user"):
        return home_cube(principal.id)
    if principal.user:
        return home_cube(principal.id, principal.user[:512])
    named = next((headers[name].strip() for name in user_headers if headers.get(name, "").strip()), "")
    if not named:
        named = next((str(body[name]) for name in ("user", "safety_identifier") if body.get(name)), "")
    if not named and isinstance(metadata := body.get("metadata"), Mapping):  # Anthropic's
        named = user if isinstance(user := metadata.get("user_id"), str) and "session" not in user else ""
    return home_cube(principal.id, named[:512])


def home_cube(principal: str, end_user: str = "") -> str:
    """The id of the cube that belongs to a principal, or to an end user within it."""
    return stable_id("cube", principal, end_user) if end_user else stable_id("cube", principal)


def named_cube(headers: Mapping[str, str]) -> str:
    """The cube that the client asks for; empty when it leaves it to us."""
    return headers.get("x-memory-cube", "").strip()


async def access(
    grants: Grants,
    principal: Principal,
    headers: Mapping[str, str],
    body: Mapping[str, Any],
    user_headers: Sequence[str],
) -> Access:
    """The cube of this request, when its principal may use it. Raises NotFound, the same for a cube that is not there and
    for one that is another's; DatabaseError."""
    home = cube_of(principal, headers, body, user_headers)
    cube = named_cube(headers) or home
    found = await grants.standing(cube, principal.id)
    if found is not None:
        return Access(cube, found.level, found.status, home=cube == home)
    if cube != home:
        raise refusal(CubeRefused("unknown"))
    return Access(cube, Level.OWNER, ACTIVE, home=True)


async def enter(
    auth: Auth, grants: Grants, headers: Mapping[str, str], method: str, scope: str, user_headers: Sequence[str]
) -> tuple[Principal, str]:
    """Who asks for which cube in a call of the Memory API, with everything checked that his key, its scopes and his grants
    allow. `headers` in lower case. Raises Unauthorized, Unavailable, Forbidden, NotFound, Conflict, DatabaseError."""
    principal = await auth.principal(headers)
    principal.require(scope)
    found = await access(grants, principal, headers, {}, user_headers)
    found.require(scope, method)
    return principal, found.cube


def refusal(error: CubeRefused, *, param: str = "X-Memory-Cube") -> ApiError:
    """What the client is told of a cube that it may not use."""
    if error.reason == "archived":
        return Conflict("this cube is archived; restore it first", param=param, code="cube_archived")
    return NotFound("there is no such cube, or it was not granted to this key", param=param, code="cube_not_found")
