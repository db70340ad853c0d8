"""Which headers travel on, in both directions."""

from __future__ import annotations

import pytest

from proxy.headers import to_client, to_upstream

HOP = ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authorization"]


@pytest.mark.parametrize(
    "name", [*HOP, "host", "content-length", "content-encoding", "accept-encoding", "expect", "authorization", "x-api-key",
             "cookie", "x-memory", "x-memory-user", "X-Memory-Session", "Authorization"]
)  # fmt: skip
def test_what_is_ours_or_one_hops_does_not_go_to_the_upstream(name: str) -> None:
    assert to_upstream([(name.encode(), b"x")]) == []


@pytest.mark.parametrize(
    "name", ["user-agent", "openai-beta", "x-stainless-lang", "accept", "content-type", "x-custom"]
)
def test_all_else_does(name: str) -> None:
    assert to_upstream([(name.title().encode(), b"a, b"), (name.encode(), b"c")]) == [(name, "a, b"), (name, "c")]


@pytest.mark.parametrize("name", [*HOP, "content-length", "date", "server", "set-cookie", "Server"])
def test_what_the_server_sets_itself_does_not_go_to_the_client(name: str) -> None:
    assert to_client([(name, "x")]) == []


def test_the_rest_of_an_answers_headers_arrives() -> None:
    named = [("X-RateLimit-Remaining", "7"), ("retry-after", "1"), ("x-a", "1"), ("x-a", "2"), ("x-odd", "é€")]
    assert to_client(named) == [
        (b"x-ratelimit-remaining", b"7"), (b"retry-after", b"1"), (b"x-a", b"1"), (b"x-a", b"2"), (b"x-odd", b"\xe9?")
    ]  # fmt: skip


def test_what_a_connection_header_names_is_for_one_hop() -> None:
    assert to_upstream([(b"Connection", b"close, X-Secret"), (b"x-secret", b"1"), (b"x-other", b"2")]) == [
        ("x-other", "2")
    ]
    assert to_client([("Connection", "X-Hop"), ("x-hop", "1"), ("x-other", "2")]) == [(b"x-other", b"2")]
