"""What every imported row goes through before it is stored: secrets out, trust not above what it cites. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from memory.redact import redact
from memory.transfer.format import MemoryRow, NodeRow, TurnRow
from memory.types import Trust

_ORDER = list(Trust)  # most trusted first


def turn(row: TurnRow) -> TurnRow:
    """A turn fit to be stored."""
    return msgspec.structs.replace(
        row,
        user_text=redact(row.user_text),
        assistant_text=redact(row.assistant_text),
        speaker=redact(row.speaker),
        model=redact(row.model),
    )


def memory(row: MemoryRow) -> MemoryRow:
    """A memory fit to be stored. One that cites only what the assistant said is not the user's word."""
    changes = {name: redacted(getattr(row, name)) for name in ("text", "answer", "speaker", "entities", "tags", "slot")}
    trust = row.trust
    if row.sources and all(source.role != "user" for source in row.sources):
        trust = less_trusted(trust, Trust.ACCEPTED)
    history = [
        msgspec.structs.replace(change, before=_before(change.before)) if change.before else change
        for change in row.history
    ]
    attributes = redacted(row.attributes)
    return msgspec.structs.replace(row, **changes, trust=trust, history=history, attributes=attributes)


def node(row: NodeRow) -> NodeRow:
    """A node fit to be stored."""
    return msgspec.structs.replace(row, name=redact(row.name), attributes=redacted(row.attributes))


def less_trusted(a: Trust, b: Trust) -> Trust:
    """The lower of two trusts."""
    return max(a, b, key=_ORDER.index)


def redacted(value: Any) -> Any:
    """A JSON value without secrets in its texts."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [redacted(entry) for entry in value]
    if isinstance(value, dict):
        return {redact(key): redacted(entry) for key, entry in value.items()}
    return value


def _before(before: Any) -> Any:
    texts = {name: redacted(getattr(before, name)) for name in ("text", "answer", "entities", "tags", "attributes")}
    return msgspec.structs.replace(before, **texts)
