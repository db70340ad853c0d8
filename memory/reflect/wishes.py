"""Wishes that were made once each, but again and again: the same correction in two conversations is a skill. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from memory import skills
from memory.reflect.derived import Derived, derive
from memory.skills import Wish
from memory.types import Kind, Memory

LONGEST = 400  # characters of a message that is looked at
SESSIONS = 2


def repeated(episodes: Sequence[Memory], settled: Mapping[str, float], at: float) -> list[Derived]:
    """Skills for wishes made in SESSIONS conversations. `settled`: when a skill with that slot was last given or taken back;
    what was asked before is overtaken by it."""
    asked: dict[tuple[str, str], list[tuple[Wish, Memory]]] = defaultdict(list)
    for memory in sorted(episodes, key=lambda m: (m.message_time, m.id)):
        if len(memory.text) <= LONGEST:
            for wish in skills.read(memory.text):
                if not wish.lasting and memory.message_time > settled.get(wish.slot, 0.0):
                    asked[wish.slot, wish.then.lower()].append((wish, memory))
    latest: dict[str, Derived] = {}
    for (slot, then), said in sorted(asked.items(), key=lambda entry: entry[1][-1][1].message_time):
        if len({source.session for _, memory in said for source in memory.sources}) >= SESSIONS:
            wish, cited = said[-1][0], [memory for _, memory in said]
            made = derive(
                Kind.SKILL,
                wish.text,
                cited,
                at,
                name=f"wish {slot} {then}",
                confidence=0.8,
                importance=0.7,
                attributes=skills.attributes(wish),
            )
            latest[slot] = Derived(made, tuple(sorted(memory.id for memory in cited)), slot)
    return list(latest.values())
