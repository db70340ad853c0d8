"""Which memories say the same as another and can be merged into it. Pure but for the embedder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from memory.memories import digest
from memory.models import Embedder
from memory.organise import NEAR_DUPLICATE, says_the_same
from memory.types import Kind, Memory, Status, Trust
from memory.words import terms

LONG = 8  # terms from which one more or less may stand in a text that says the same
MOST_LONG = 200  # long texts that are compared with each other, the latest
_ORDER = list(Trust)
_PLAIN = (Kind.FACT,)  # the same words as a fact and as something more telling: the fact goes


def keeper(memories: Sequence[Memory]) -> Memory:
    """Of several that say the same, the one that stays: pinned, most trusted, most telling, most used, oldest."""
    return min(
        memories,
        key=lambda m: (not m.pinned, _ORDER.index(m.trust), m.kind in _PLAIN, -m.uses, m.message_time, m.id),
    )


def merged(memories: Sequence[Memory], changed: set[str], embedder: Embedder) -> list[tuple[Memory, list[Memory]]]:
    """Groups with at least one of `changed`: (the one that stays, with the sources of all; those that go)."""
    done: list[tuple[Memory, list[Memory]]] = []
    taken: set[str] = set()
    for group in _groups(memories):
        rest = [memory for memory in group if memory.id not in taken]
        while len(rest) > 1:
            first = keeper(rest)
            rest.remove(first)
            same = [other for other in rest if _same(first, other)]
            same = [other for other in same if changed & {first.id, other.id}]
            same = _near(first, same, embedder)
            if same:
                done.append((_uniting(first, same), same))
                taken |= {first.id, *(other.id for other in same)}
                rest = [other for other in rest if other not in same]
    return done


def _groups(memories: Sequence[Memory]) -> list[list[Memory]]:
    """Memories that may say the same: with the same words, or both long."""
    alike: dict[object, list[Memory]] = defaultdict(list)
    for memory in memories:
        words = tuple(sorted(terms(memory.text)))
        alike[words or digest(memory.text)].append(memory)
        if len(set(words)) >= LONG:
            alike[memory.kind].append(memory)
    for kind in Kind:
        alike[kind] = sorted(alike[kind], key=lambda m: (-m.message_time, m.id))[:MOST_LONG]
    return [group for group in alike.values() if len(group) > 1]


def _same(one: Memory, two: Memory) -> bool:
    if (one.attributes or {}) != (two.attributes or {}) or one.event_time != two.event_time:
        return False
    if one.kind is not two.kind:
        return Kind.FACT in (one.kind, two.kind) and digest(one.text) == digest(two.text)
    return one.speaker == two.speaker and says_the_same(one.text, two.text)


def _near(first: Memory, others: list[Memory], embedder: Embedder) -> list[Memory]:
    unsure = [other for other in others if digest(other.text) != digest(first.text)]
    if not unsure:
        return others
    vectors = embedder.embed([first.text, *(other.text for other in unsure)])
    far = {o.id for o, vector in zip(unsure, vectors[1:], strict=True) if float(vector @ vectors[0]) < NEAR_DUPLICATE}
    return [other for other in others if other.id not in far]


def _uniting(first: Memory, others: Sequence[Memory]) -> Memory:
    every = [first, *others]
    used = [memory.last_used_at for memory in every if memory.last_used_at is not None]
    return first.evolve(
        sources=tuple(dict.fromkeys(source for memory in every for source in memory.sources)),
        entities=tuple(dict.fromkeys(name for memory in every for name in memory.entities))[:8],
        tags=tuple(dict.fromkeys(tag for memory in every for tag in memory.tags))[:8],
        confidence=max(memory.confidence for memory in every),
        importance=max(memory.importance for memory in every),
        uses=sum(memory.uses for memory in every),
        last_used_at=max(used) if used else None,
    )


def going(memory: Memory, kept: Memory) -> Memory:
    """The memory as merged into `kept`."""
    return memory.evolve(status=Status.MERGED, supersedes=kept.id)
