"""What every upstream is to the rest of the program: bytes in, bytes out, and nothing about the provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

Headers = Sequence[tuple[str, str]]
CHAT_PATH = "/chat/completions"
KEEPS_STATES = ("llama", "llama_server")  # kinds whose engine can begin with a saved KV state, and proves it
KV_HEADERS = (
    "x-memory-kv",
    "x-memory-kv-source",
    "x-memory-adapter",
)  # what it began with: restored:<tokens> or cold; slot, ram or disk


@dataclass(frozen=True, slots=True)
class ToldAs:
    """How a response is told that the upstream cannot keep. `name`: the id under which it is kept for it, empty: it is not;
    `follows`: the id that the client asked it to follow, whose items stand in the body."""

    name: str = ""
    follows: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to an upstream: `path` without the /v1 prefix (e.g. "/chat/completions"), `body` as sent by the client or
    with our block added, or its pieces when it is passed on as it comes. `headers` are the client's, already without
    credentials, hop-by-hop and x-memory-* ones. `cube`: whose saved KV states the model's engine may go by, empty: nobody's;
    `session`: in whose name it may save what it has read, empty: it shall save nothing; `adapter`: weights of the
    cube that it shall answer with. `ours`: no client asks this, but we ourselves. Only engines of ours read these."""

    method: str
    path: str
    body: bytes | AsyncIterator[bytes]
    headers: Headers
    stream: bool = False
    query: str = ""
    cube: str = ""
    session: str = ""
    adapter: str = ""
    ours: bool = False
    told_as: ToldAs = ToldAs()
    credential: str = ""  # the client's own for this upstream, in place of the configured one; never logged, never kept


class Reply(Protocol):
    """An upstream's answer, opened but not read. Closing it early cancels the upstream's work."""

    status: int
    headers: Headers  # without hop-by-hop ones

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, byte for byte. Raises UpstreamBroken when it breaks off."""
        ...

    async def close(self) -> None:
        """Give the connection back, or cut it when the body was not read to its end. Never raises."""
        ...


def served_by(reply: Reply, asked: Upstream) -> Upstream:
    """Whose answer it is: that of the upstream that was asked, or of one that was asked in its stead."""
    found: Upstream = getattr(reply, "upstream", asked)
    return found


def later_of(reply: Reply) -> Callable[[], Awaitable[Reply]] | None:
    """What asks the upstream, of a reply that only says that it will be asked (`background`)."""
    found: Callable[[], Awaitable[Reply]] | None = getattr(reply, "later", None)
    return found


class UpstreamBroken(Exception):
    """The upstream's body ended before it was complete."""


class Upstream(Protocol):
    """One configured provider. Made once, closed at shutdown."""

    name: str
    kind: str

    async def send(self, call: Call) -> Reply:
        """Send and wait for the status line. Raises UpstreamUnreachable or UpstreamTimeout. Cancelling cancels the call."""
        ...

    async def models(self) -> list[dict[str, object]]:
        """The models it offers, as OpenAI model objects. Raises UpstreamUnreachable or UpstreamTimeout."""
        ...

    async def close(self) -> None:
        """Free connections."""
        ...
