"""Which headers travel on. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

# one hop only (RFC 9110 §7.6.1), or made anew by whoever sends the next message
_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_NOT_UPSTREAM = _HOP | {
    "host", "content-length", "content-encoding", "accept-encoding", "expect", "authorization", "x-api-key", "cookie",
    "x-upstream-authorization", "x-openwebui-user-jwt",
}  # fmt: skip
_NOT_CLIENT = _HOP | {"content-length", "date", "server", "set-cookie"}


OWN_KEY = "x-upstream-authorization"  # a client's own credential for the upstream


def to_upstream(headers: Iterable[tuple[bytes, bytes]], private: Collection[str] = ()) -> list[tuple[str, str]]:
    """A client's headers without our credentials, our own switches, hop-by-hop ones, and those that are `private` to us."""
    plain = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
    dropped = _NOT_UPSTREAM.union(private, _named(value for name, value in plain if name == "connection"))
    return [(name, value) for name, value in plain if name not in dropped and not name.startswith("x-memory")]


def to_client(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """An upstream's headers without hop-by-hop ones, its length, which the server sets, and what only we may say of memory."""
    plain = [(name.lower(), value) for name, value in headers]
    dropped = _NOT_CLIENT | _named(value for name, value in plain if name == "connection")
    return [
        (name.encode("latin-1", "replace"), value.encode("latin-1", "replace"))
        for name, value in plain
        if name not in dropped and not name.startswith("x-memory")
    ]


def _named(values: Iterable[str]) -> set[str]:
    """The headers that a Connection header declares to be for one hop only."""
    return {name.strip().lower() for value in values for name in value.split(",")}
