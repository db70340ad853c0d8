"""What an upstream received from a client directly, beside what it received from the same client through memrelay.

In: two recordings of the same run. Out: the differences, as sentences; none when both are the same. What is random by its
nature is made alike first, and only that: the boundary of a form, ids that a client makes up (`random`), and the headers that
belong to a connection or to whom one asks (`APART`). With `blocks`, our blocks are taken out of what came through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tests.fakes import Received

# of a connection, or of whom one asks: these two differ by what a proxy is
APART = {
    "host",
    "authorization",
    "x-api-key",
    "connection",
    "keep-alive",
    "accept-encoding",
    "content-length",
    "transfer-encoding",
}
BLOCK = re.compile(r'<memrelay:(stable|recall) n="([0-9a-f]{8})">\n.*?\n</memrelay:\1 n="\2">', re.DOTALL)
_OURS = re.compile(r"/v1/models(/.*)?")  # answered from a list of all upstreams' models
_GAP = re.compile(r"^\n\n|\n\n$")


def differences(
    direct: Sequence[Received], relayed: Sequence[Received], *, blocks: bool = False, random: str = "", apart: int = 0
) -> list[str]:
    """Empty when the second recording is the first again. `random`: a pattern of what differs from run to run anyway; `apart`:
    so many places a request may have moved, of clients that ask several things at once."""
    direct, relayed = ([one for one in them if not _OURS.fullmatch(one.path)] for them in (direct, relayed))
    found = [] if len(direct) == len(relayed) else [f"{len(direct)} requests directly, {len(relayed)} through memrelay"]
    waiting = list(direct)
    for number, ours in enumerate(relayed):
        told = [_different(theirs, ours, blocks, random) for theirs in waiting[: apart + 1]]
        same = next((place for place, said in enumerate(told) if not said), 0)
        if told and told[same]:
            found.append(f"request {number} ({ours.method} {ours.target}): {told[same]}")
        del waiting[same : same + 1]
    return found


def _different(theirs: Received, ours: Received, blocks: bool, random: str) -> str:
    """What sets the two apart; empty when nothing does."""
    if (theirs.method, theirs.target) != (ours.method, ours.target):
        return f"was {theirs.method} {theirs.target}"
    headed, came_with = _headers(theirs, random), _headers(ours, random)
    if headed != came_with:
        return f"headers {set(headed.items()) ^ set(came_with.items())}"
    sent, came = _alike(theirs, random), _alike(ours, random)
    if sent == came or (blocks and sent.startswith(b"{") and _without(json.loads(sent), json.loads(came))):
        return ""
    return f"sent {sent[:2000]!r}, came {came[:2000]!r}"


def bare(value: Any) -> Any:
    """The value without our blocks, wherever text holds one: a server may repeat in its answer what it was told."""
    if isinstance(value, dict):
        return {name: bare(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [bare(inner) for inner in value]
    return _GAP.sub("", BLOCK.sub("", value)) if isinstance(value, str) and "<memrelay:" in value else value


def with_blocks(received: Sequence[Received]) -> int:
    """How many of the requests carry a block of ours."""
    return sum(b"<memrelay:" in one.raw for one in received)


def _headers(received: Received, random: str) -> dict[str, str]:
    kept = {name: value for name, value in received.headers.items() if name not in APART and "x-memory" not in name}
    if "boundary=" in kept.get("content-type", ""):
        kept["content-type"] = kept["content-type"].partition("boundary=")[0]
    return {name: re.sub(random, "-random-", value) for name, value in kept.items()} if random else kept


def _alike(received: Received, random: str) -> bytes:
    raw = received.raw
    kind = received.headers.get("content-type", "")
    if "boundary=" in kind:
        raw = raw.replace(kind.partition("boundary=")[2].strip('"').encode(), b"-boundary-")
    return re.sub(random.encode(), b"-random-", raw) if random else raw


def _without(sent: Any, came: Any) -> bool:
    """Whether `came` is `sent` and our blocks: in a string, as one more part or message, or as a field that leads."""
    if isinstance(sent, str) and isinstance(came, str):
        return sent == came or sent == _GAP.sub("", BLOCK.sub("", came))
    if isinstance(sent, str) and isinstance(came, list):  # a string of input that had to become items
        said = [one for one in came if not _only_block(one)]
        return len(said) == 1 and said[0] == {"role": "user", "content": sent}
    if isinstance(sent, dict) and isinstance(came, dict):
        added = {name for name in came if name not in sent}
        return all(name in came and _without(sent[name], came[name]) for name in sent) and all(
            _only_block(came[name]) for name in added
        )
    if isinstance(sent, list) and isinstance(came, list):
        kept = [one for one in came if not _only_block(one)] if len(came) != len(sent) else came
        return len(kept) == len(sent) and all(_without(*pair) for pair in zip(sent, kept, strict=True))
    return type(sent) is type(came) and sent == came


def _only_block(value: Any) -> bool:
    if isinstance(value, dict):
        words = value.get("content", value.get("text"))
        return set(value) in ({"role", "content"}, {"type", "text"}) and _only_block(words)
    return isinstance(value, str) and bool(BLOCK.fullmatch(value))
