"""Signed tokens through the front door: in place of a key, and for Open WebUI's users within one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import openai
import pytest

from tests.fakes import RecordingUpstream
from tests.live import LiveProxy

SECRET = "what operators have given to Open WebUI and to us"
SCOPES = ("chat", "memory:read", "memory:write", "act_as_user")
OTHER = "what the single sign-on signs its tokens with, say"


@pytest.fixture
def live(data: Path, upstream: RecordingUpstream) -> Iterator[LiveProxy]:
    entry = {"name": "recording", "kind": "openai", "base_url": upstream.url}
    tokens = {"bearer": {"secret": OTHER, "issuer": "sso"}, "user": {"secret": SECRET, "issuer": "open-webui"}}
    with LiveProxy(data, upstreams=[entry], tokens=tokens) as running:
        yield running


def signed(secret: str, subject: str, issuer: str, age_s: float = 0) -> str:
    now = time.time() - age_s
    return jwt.encode({"sub": subject, "iss": issuer, "iat": now, "exp": now + 300}, secret, "HS256")


def say(live: LiveProxy, key: str, text: str, **headers: str) -> None:
    asked: Any = [{"role": "user", "content": text}]
    live.client(key, **headers).chat.completions.create(model="m", messages=asked)


def test_open_webuis_signed_users_have_memories_of_their_own(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key(*SCOPES)
    ines, jonas = (signed(SECRET, name, "open-webui") for name in ("ines", "jonas"))
    say(live, key, "My dog is called Rex.", X_OpenWebUI_User_Jwt=ines)
    say(live, key, "What is my dog called?", X_OpenWebUI_User_Jwt=jonas, X_OpenWebUI_User_Id="ines")
    assert "Rex" not in upstream.last.prompt
    say(live, key, "What is my dog called?", X_OpenWebUI_User_Jwt=signed(SECRET, "ines", "open-webui"))
    assert "Rex" in upstream.last.prompt
    assert "x-openwebui-user-jwt" not in upstream.last.headers


def test_a_forged_user_is_refused_and_without_the_scope_nobody_looks(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    forged = signed("not the secret, though it is as long as that", "ines", "open-webui")
    with pytest.raises(openai.AuthenticationError):
        say(live, live.key("chat", "act_as_user"), "Hello", X_OpenWebUI_User_Jwt=forged)
    assert upstream.requests == []
    say(live, live.key("chat"), "Hello", X_OpenWebUI_User_Jwt=forged)


def test_a_token_stands_in_place_of_a_key(live: LiveProxy, upstream: RecordingUpstream) -> None:
    say(live, signed(OTHER, "ines", "sso"), "My dog is called Rex.")
    say(live, signed(OTHER, "jonas", "sso"), "What is my dog called?")
    assert "Rex" not in upstream.last.prompt
    say(live, signed(OTHER, "ines", "sso", age_s=60), "What is my dog called?")
    assert "Rex" in upstream.last.prompt
    assert "authorization" not in upstream.last.headers


@pytest.mark.parametrize("issuer", ["another", "sso"])
def test_a_token_that_does_not_hold_is_refused(live: LiveProxy, issuer: str) -> None:
    token = signed(OTHER, "ines", issuer, age_s=0 if issuer == "another" else 1000)
    with pytest.raises(openai.AuthenticationError) as refused:
        say(live, token, "Hello")
    assert refused.value.code == "invalid_token"
    assert token not in str(refused.value)


def test_a_users_token_is_for_us_alone_whatever_its_header(data: Path, upstream: RecordingUpstream) -> None:
    entry = {"name": "recording", "kind": "openai", "base_url": upstream.url}
    user = {"secret": SECRET, "issuer": "open-webui", "header": "X-Signed-User"}
    with LiveProxy(data, upstreams=[entry], tokens={"user": user}) as live:
        client = live.client(live.key(*SCOPES), X_Signed_User=signed(SECRET, "ines", "open-webui"))
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello"}])
        client.embeddings.create(model="m", input="Hello", encoding_format="float")
        assert client.get("/memory/items", cast_to=object)["data"][0]["text"] == "Hello"  # type: ignore[index]
    assert [received.path for received in upstream.requests] == ["/v1/chat/completions", "/v1/embeddings"]
    assert not any("x-signed-user" in received.headers for received in upstream.requests)


def test_a_token_that_may_act_as_its_users_proves_them_too(data: Path, upstream: RecordingUpstream) -> None:
    entry = {"name": "recording", "kind": "openai", "base_url": upstream.url}
    bearer = {"secret": OTHER, "issuer": "sso", "scopes": list(SCOPES)}
    tokens = {"bearer": bearer, "user": {"secret": SECRET, "issuer": "open-webui"}}
    with LiveProxy(data, upstreams=[entry], tokens=tokens) as live:
        frontend = signed(OTHER, "frontend", "sso")
        say(live, frontend, "My dog is called Rex.", X_OpenWebUI_User_Jwt=signed(SECRET, "ines", "open-webui"))
        jonas = signed(SECRET, "jonas", "open-webui")
        say(live, frontend, "What is my dog called?", X_OpenWebUI_User_Jwt=jonas, X_OpenWebUI_User_Id="ines")
        assert "Rex" not in upstream.last.prompt
        with pytest.raises(openai.AuthenticationError):
            say(live, frontend, "Hello", X_OpenWebUI_User_Jwt=signed(OTHER, "ines", "open-webui"))
