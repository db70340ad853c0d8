"""Signed tokens: whose are believed, and every known way of cheating."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from proxy.auth import Principal, cube_of, home_cube
from proxy.config import ConfigError, JwtConfig
from proxy.tokens import BadToken, Verifier, verifier

SECRET = "a secret of this test, of more than 32 bytes"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


def claims(**changed: Any) -> dict[str, Any]:
    whole = {"sub": "ines", "iss": "open-webui", "aud": "memrelay", "exp": time.time() + 300, **changed}
    return {name: value for name, value in whole.items() if value is not None}


def secret(**more: Any) -> Verifier:
    made = verifier(JwtConfig(secret=SECRET, issuer="open-webui", audience="memrelay", **more), "tokens.user")
    assert made is not None
    return made


@pytest.fixture
def public(tmp_path: Path) -> Verifier:
    keys = [json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key())) | {"kid": "r", "use": "sig"}]
    keys.append(json.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC.public_key())) | {"kid": "e"})
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": keys}))
    made = verifier(JwtConfig(jwks_file=str(path), issuer="open-webui", audience="memrelay"), "tokens.bearer")
    assert made is not None
    return made


def test_a_token_signed_with_the_secret_names_its_subject() -> None:
    assert secret().subject(jwt.encode(claims(), SECRET, "HS256")) == "ines"
    assert secret(claim="email").subject(jwt.encode(claims(email="i@x"), SECRET, "HS256")) == "i@x"


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(RSA, "RS256", "r"), (EC, "ES256", "e"), (RSA, "RS256", None)])
def test_a_token_signed_for_a_public_key_names_its_subject(
    public: Verifier, key: Any, algorithm: str, kid: Any
) -> None:
    token = jwt.encode(claims(), key, algorithm, headers={"kid": kid} if kid else None)
    assert public.subject(token) == "ines"


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": 1_700_000_000},
        {"exp": None},
        {"nbf": 4_000_000_000},
        {"aud": "another"},
        {"aud": None},
        {"iss": "another"},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
    ],
)
def test_what_does_not_hold_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(BadToken):
        secret().subject(jwt.encode({**claims(**changed)}, SECRET, "HS256"))


def test_clocks_may_be_a_little_apart() -> None:
    late = jwt.encode(claims(exp=time.time() - 10), SECRET, "HS256")
    assert secret(leeway_s=30).subject(late) == "ines"
    with pytest.raises(BadToken, match="expired"):
        secret(leeway_s=1).subject(late)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["none", "None", "HS384", "RS256"])
def test_the_token_does_not_choose_how_it_is_verified(algorithm: str) -> None:
    for signature in ("", "AAAA"):
        with pytest.raises(BadToken):
            secret().subject(f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims())}.{signature}")


def test_a_public_key_is_no_secret(public: Verifier) -> None:
    import hashlib
    import hmac

    pem = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = f"{part({'alg': 'HS256', 'kid': 'r'})}.{part(claims())}"
    mark = base64.urlsafe_b64encode(hmac.new(pem, signed.encode(), hashlib.sha256).digest()).rstrip(b"=").decode()
    with pytest.raises(BadToken):
        public.subject(f"{signed}.{mark}")


def test_another_secret_another_key_and_nonsense_are_refused(public: Verifier) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for token in (jwt.encode(claims(), other, "RS256", headers={"kid": "r"}), "a.b.c", "", "x" * 100_000):
        with pytest.raises(BadToken):
            public.subject(token)
    with pytest.raises(BadToken):
        secret().subject(jwt.encode(claims(), SECRET + "!", "HS256"))


@pytest.mark.parametrize(
    "given",
    [
        {"secret": "short"},
        {"jwks_file": "/nowhere.json"},
        {"secret": SECRET, "jwks_file": "/nowhere.json"},
    ],
)
def test_what_cannot_verify_anything_is_said_at_the_start(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        verifier(JwtConfig(**given), "tokens.user")
    assert verifier(JwtConfig(), "tokens.user") is None


def test_a_verified_user_decides_alone() -> None:
    principal = Principal("p", "k", frozenset({"act_as_user"}), user="ines")
    assert cube_of(principal, {"x-memory-user": "another"}, {}, ("x-memory-user",)) == home_cube("p", "ines")
