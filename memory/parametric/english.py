"""English statements, as people make them about themselves, to questions that they answer and to the answer.

In: one clause ("My dog is called Milo"). Out: questions in the first person and one answer in the second ("Your dog is called
Milo."). Pure; a clause that fits no frame gives what `topical` makes of its names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SWAPS = {
    "i": "you", "i'm": "you are", "i am": "you are", "i was": "you were", "i've": "you have", "i'll": "you will",
    "i'd": "you would", "am i": "are you", "my": "your", "me": "you", "mine": "yours", "myself": "yourself",
    "we": "you", "we're": "you are", "we are": "you are", "our": "your", "us": "you", "ours": "yours",
}  # fmt: skip
_SWAP = re.compile(
    r"\b(?:I am|I was|am I|we are|we're|I'm|I've|I'll|I'd|I|myself|mine|my|me|ours|our|us|we)\b(?!')", re.I
)
_SLOTS = {
    "name": ("What is my name?", "Do you know who I am?", "What am I called?"),
    "home.city": ("Where do I live?", "Which city do I live in?", "Where is my home?"),
    "job": ("What is my job?", "What do I do for a living?", "What do I work as?"),
    "employer": ("Who do I work for?", "Where do I work?", "Who is my employer?"),
    "birthday": ("When is my birthday?", "On which day was I born?"),
}
_BE = {"is": "is", "are": "are", "was": "was", "were": "were", "'s": "is"}
_NAMED = re.compile(r"(?P<my>my|our) (?P<what>[^,.;]{2,60}?) (?P<be>is|are|was|were) (?:called|named) (?P<x>.+)", re.I)
_MY = re.compile(r"(?P<my>my|our) (?P<what>[^,.;]{2,60}?)(?: |(?='s))(?P<be>is|are|was|were|'s) (?P<x>.+)", re.I)
_MY_DOES = re.compile(
    r"(?P<my>my|our) (?P<what>[\w' -]{2,40}?) (?P<verb>[a-z]{2,12}s) (?P<prep>at |in |for |to )?(?P<x>.+)", re.I
)
_PLACE = re.compile(
    r"(?:I|we) (?P<verb>live|work|study|train|teach|stay|park) (?P<prep>in|at|near|for|on) (?P<x>.+)", re.I
)
_WORK_AS = re.compile(r"I(?:'m| am| work as) (?P<x>an? .+)", re.I)
_TO = re.compile(r"I(?:'m| am) (?P<what>(?!going)\w+) (?P<prep>to|of|about|with|in|at|from) (?P<x>.+)", re.I)
_DOING = re.compile(r"I(?:'m| am) (?:currently |now )?(?P<verb>(?!going|called|named)\w+ing) (?P<x>.+)", re.I)
_WISH = re.compile(r"I (?P<wish>want|plan|hope|need|would like|intend|have) to (?P<verb>\w+) (?P<x>.+)", re.I)
_DO = re.compile(r"(?:I|we) (?P<adverb>always |usually |really |often |never )?(?P<verb>[a-z]+) (?P<x>.+)", re.I)
_OTHER_PLACE = re.compile(
    r"(?P<who>[A-Z][\w'-]*(?: [A-Z][\w'-]*)?) (?P<verb>works|lives|studies|teaches) (?:at|in|for|near) .+"
)
_OTHER = re.compile(r"(?P<who>[A-Z][\w'-]*(?: [A-Z][\w'-]*)?) is (?P<x>.+)")
_BARE = {"works": "work", "lives": "live", "studies": "study", "teaches": "teach"}
_NO_VERBS = frozenset(
    "am was were had did got went made took said told bought saw came will would can could should may might".split()
)


def answer(clause: str) -> str:
    """The clause turned towards the one who asks, as a sentence: "I'm a nurse" → "You are a nurse."."""
    said = _SWAP.sub(lambda found: _SWAPS[found[0].lower()], clause.strip().rstrip(".!"))
    return f"{said[:1].upper()}{said[1:]}."


def questions(clause: str, slot: str = "") -> list[str]:
    """Questions that the clause answers, the plainest first; none where no frame fits."""
    said = clause.strip().rstrip(".!")
    found = list(_SLOTS.get(slot, ()))
    return list(dict.fromkeys(found + _framed(said)))


def _framed(said: str) -> list[str]:
    if m := _NAMED.fullmatch(said):
        what = m["what"]
        return [
            f"What {_be(m['be'])} my {what} called?",
            f"What is the name of my {what}?",
            f"Do you know my {what}'s name?",
        ]
    if m := _MY.fullmatch(said):
        what, be = m["what"], _be(m["be"])
        return [f"What {be} my {what}?", f"Tell me what my {what} {be}.", f"Do you remember my {what}?"]
    if m := _PLACE.fullmatch(said):
        return [f"Where do I {m['verb']}?", f"Do you know where I {m['verb']}?", f"Tell me where I {m['verb']}."]
    if m := _WORK_AS.fullmatch(said):
        return ["What do I do for a living?", "What is my profession?", "What am I?"]
    if m := _TO.fullmatch(said):
        return [f"What am I {m['what']} {m['prep']}?", f"Do you know what I am {m['what']} {m['prep']}?",
                f"Tell me what I'm {m['what']} {m['prep']}."]  # fmt: skip
    if m := _DOING.fullmatch(said):
        return [f"What am I {m['verb']}?", f"Do you know what I am {m['verb']}?"]
    if m := _WISH.fullmatch(said):
        wish = "want" if m["wish"].lower() == "would like" else m["wish"]
        return [f"What do I {wish} to {m['verb']}?", f"What is it that I {wish} to {m['verb']}?", "What are my plans?"]
    if (m := _DO.fullmatch(said)) and not m["verb"].endswith("ed") and m["verb"].lower() not in _NO_VERBS:
        return [f"What do I {m['verb']}?", f"Tell me what I {m['verb']}.", f"Do you know what I {m['verb']}?"]
    if (m := _MY_DOES.fullmatch(said)) and (m["prep"] or "").strip() in ("at", "in", "to"):
        return [f"Where does my {m['what']} {_bare(m['verb'])}?", f"Do you know where my {m['what']} {m['verb']}?"]
    if m:
        return [f"What does my {m['what']} {_bare(m['verb'])}?", f"Tell me what my {m['what']} {m['verb']}."]
    if m := _OTHER_PLACE.fullmatch(said):
        return [f"Where does {m['who']} {_BARE[m['verb']]}?", f"Do you know where {m['who']} {m['verb']}?"]
    if m := _OTHER.fullmatch(said):
        return [f"Who or what is {m['who']}?", f"Tell me about {m['who']}."]
    return []


def topical(clause: str, names: Sequence[str]) -> list[str]:
    """Questions by the names in a clause; without any, by how it begins."""
    if names:
        return [f"What did I tell you about {names[0]}?", f"What do you know about me and {names[0]}?"]
    words = clause.strip().rstrip(".!").split()
    opening = " ".join(words[: max(2, len(words) // 2)])
    return [f'I once told you something that began with "{opening}". How did it go on?']


def instructed(when: str) -> list[str]:
    """Questions that a standing wish answers; `when` is its condition, or empty."""
    if when:
        return [f"What should you do {_you(when)}?", f"What did I ask you to do {_you(when)}?"]
    return ["How should you answer me?", "What did I ask you always to do?"]


def _you(condition: str) -> str:
    return condition if re.match(r"(?:when|if|whenever|before|after|while)\b", condition, re.I) else f"when {condition}"


def _be(word: str) -> str:
    return _BE[word.lower()]


def _bare(verb: str) -> str:
    """The verb without its -s: plays → play, goes → go, studies → study."""
    if verb.endswith("ies"):
        return verb[:-3] + "y"
    return verb[:-2] if verb.endswith(("oes", "ches", "shes", "sses", "xes")) else verb[:-1]
