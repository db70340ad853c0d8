"""Signed tokens (JWT) as proof of who asks: a bearer token in place of a key, and the end user that Open WebUI signs within a key.

Which algorithms count is said by the configured key, never by the token: a secret means HS256; a JWKS file RS256 and ES256, each
for keys of its own kind. Nothing is fetched; the file is read at the start. A token without `exp` is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from proxy.config import ConfigError, JwtConfig
from proxy.errors import Unauthorized

_KINDS = {"RSA": "RS256", "EC": "ES256"}
_LONGEST = 16_384  # characters of a token
_SECRET_BYTES = 32


class BadToken(Exception):
    """A token that is not accepted; the message says why, without any of it."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """One issuer's tokens. `keys`: (key id or empty, algorithm, key)."""

    config: JwtConfig
    keys: Sequence[tuple[str, str, Any]]

    def claims(self, token: str) -> Mapping[str, Any]:
        """What a token says, once it is verified. Raises BadToken."""
        try:
            head = jwt.get_unverified_header(token[: _LONGEST + 1])
        except jwt.PyJWTError as error:
            raise BadToken("it is not a JWT") from error
        wanted = head.get("kid")
        named = [key for key in self.keys if not wanted or not key[0] or key[0] == wanted]
        for _, algorithm, key in named:
            if algorithm != head.get("alg"):
                continue
            try:
                return self._decoded(token, algorithm, key)
            except jwt.InvalidSignatureError:
                continue
            except jwt.ExpiredSignatureError as error:
                raise BadToken("it has expired") from error
            except jwt.PyJWTError as error:
                raise BadToken(f"{type(error).__name__}") from error
        raise BadToken("no key of ours has signed it")

    def _decoded(self, token: str, algorithm: str, key: Any) -> Mapping[str, Any]:
        config = self.config
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=config.issuer or None,
            audience=config.audience or None,
            leeway=config.leeway_s,
            options={"require": ["exp"], "verify_aud": bool(config.audience), "verify_iss": bool(config.issuer)},
        )
        return claims

    def subject(self, token: str) -> str:
        """Who is meant: the configured claim. Raises BadToken."""
        subject = self.claims(token).get(self.config.claim)
        if not isinstance(subject, str) or not subject.strip():
            raise BadToken(f"it has no claim {self.config.claim}")
        return subject.strip()


def verifier(config: JwtConfig, where: str) -> Verifier | None:
    """None when nothing is configured. Raises ConfigError."""
    if bool(config.secret) == bool(config.jwks_file):
        if config.secret:
            raise ConfigError(f"{where}: a secret or a jwks_file, not both")
        return None
    if config.secret:
        if len(config.secret.encode()) < _SECRET_BYTES:
            raise ConfigError(f"{where}.secret: at least {_SECRET_BYTES} bytes are needed")
        return Verifier(config, [("", "HS256", config.secret)])
    return Verifier(config, _jwks(config.jwks_file, where))


def _jwks(path: str, where: str) -> list[tuple[str, str, Any]]:
    try:
        entries = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))["keys"]
        listed = [entry for entry in entries if entry.get("kty") in _KINDS and entry.get("use", "sig") == "sig"]
        keys = [
            (str(entry.get("kid", "")), _KINDS[entry["kty"]], jwt.PyJWK(entry, algorithm=_KINDS[entry["kty"]]).key)
            for entry in listed
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise ConfigError(f"{where}.jwks_file: no keys can be read from it ({type(error).__name__})") from error
    if not keys:
        raise ConfigError(f"{where}.jwks_file: it holds no RSA or EC key for signatures")
    return keys


def unauthorized(error: BadToken) -> Unauthorized:
    """What the client is told."""
    return Unauthorized(f"the token was not accepted: {error}", code="invalid_token")
