"""The profile: who the user is, what they like and what they are after, in one memory. Pure; quotes, makes nothing up."""

from __future__ import annotations

from collections.abc import Sequence

from memory.extract.text import has_cjk
from memory.reflect.derived import Derived, derive
from memory.types import Kind, Memory
from memory.words import squeeze

TAG = "profile"
FEWEST = 3  # statements from which there is something to sum up
_PARTS = ((Kind.IDENTITY, 8), (Kind.PREFERENCE, 8), (Kind.GOAL, 4))
_NAMES = {
    False: {Kind.IDENTITY: "Who the user is", Kind.PREFERENCE: "What they like", Kind.GOAL: "What they want"},
    True: {Kind.IDENTITY: "用户情况", Kind.PREFERENCE: "用户偏好", Kind.GOAL: "用户目标"},
}


def compose(memories: Sequence[Memory], at: float) -> Derived | None:
    """The profile over the most important active statements; the same ones give the same text. None: too little is known."""
    chosen: dict[Kind, list[Memory]] = {}
    for kind, most in _PARTS:
        known = [m for m in memories if m.kind is kind and (m.attributes or {}).get("state", "open") == "open"]
        best = sorted(known, key=lambda m: (-round(m.importance * m.confidence, 2), -m.message_time, m.id))[:most]
        chosen[kind] = sorted(best, key=lambda m: (m.message_time, m.id))
    cited = [memory for part in chosen.values() for memory in part]
    if len(cited) < FEWEST:
        return None
    wide = sum(has_cjk(memory.text) for memory in cited) * 2 > len(cited)
    join, dot, colon = ("；", "。", "：") if wide else ("; ", ". ", ": ")
    parts = [
        _NAMES[wide][kind] + colon + join.join(_short(memory.text) for memory in part)
        for kind, part in chosen.items()
        if part
    ]
    text = dot.join(parts).rstrip() + ("。" if wide else ".")
    made = derive(
        Kind.INSIGHT, text, cited, at, name=TAG, tags=(TAG,), importance=0.6, attributes={"about": TAG, "by": "rules"}
    )
    return Derived(made, tuple(sorted(memory.id for memory in cited)))


def is_profile(memory: Memory) -> bool:
    """Whether a memory is a profile."""
    return memory.kind is Kind.INSIGHT and TAG in memory.tags


def _short(text: str) -> str:
    return squeeze(text)[:200].rstrip(" .。;；")
