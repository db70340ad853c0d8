"""Reading wishes out of a message: each sentence is freed of courtesy and of words such as "always", then tried on topics.

What a sentence is about becomes its slot, so that "shorter answers" is replaced by "more detail from now on", and
"imperial is fine again" takes back "always metric".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from memory.extract.frames import spoken
from memory.extract.grounding import Source
from memory.extract.text import has_cjk, normalise, sentences
from memory.redact import redact
from memory.skills.chinese import CHINESE
from memory.skills.english import ENGLISH
from memory.skills.wish import ALONE, LASTING, Manner, Wish
from memory.types import Candidate, Kind, Trust, Turn

LONGEST = 300  # characters of a sentence; a longer one is no plain wish
WORDS = 25  # other words beside a wish that does not say that it lasts
CONFIDENCE = 0.9
_ENDS = " \t\n,;:.!?，；：。！？、~…\"'“”"
_PIECES = re.compile(r"(?<!\d)[,;，；]\s*|\s+[–—-]\s+")
_GAP = re.compile(r"(?<=[\u4e00-\u9fff]) (?=[\u4e00-\u9fff])")
_ONWARD = re.compile(r"(?i)\b(from now on|going forward|in future)\s*[:：]\s*|(以后|从现在起|从现在开始)[:：]\s*")


def candidates(turn: Turn) -> list[Candidate]:
    """The skills that a turn teaches, as candidates for organising. Never more than what the user wrote in it."""
    return [
        Candidate(
            kind=Kind.SKILL,
            text=wish.text,
            turn=turn.id,
            slot=wish.slot,
            confidence=CONFIDENCE,
            importance=0.8,
            attributes=attributes(wish),
        )
        for wish in read(turn.user_text)
        if wish.lasting
    ]


def joined(found: Sequence[Candidate], turns: Sequence[Turn]) -> list[Candidate]:
    """What extraction found in `turns`, with the skills in them; what says the same once more, as another kind, is left out,
    and so is a wish, of whatever kind, that the user did not speak: a model may take a pasted "always …" for one."""
    taught = [skill for turn in turns for skill in candidates(turn)]
    by_id = {turn.id: turn for turn in turns}
    kept = [one for one in found if not any(_says(skill, one) for skill in taught)]
    return [*(one for one in kept if not _wishes(one) or _spoken(one, by_id.get(one.turn))), *taught]


def _wishes(candidate: Candidate) -> bool:
    return candidate.kind is Kind.SKILL or bool(read(candidate.text))


def _spoken(candidate: Candidate, turn: Turn | None) -> bool:
    if turn is None or candidate.trust is not Trust.USER:
        return False
    return Source(" ".join(spoken(turn.user_text))).supports(candidate.text)


def _says(skill: Candidate, other: Candidate) -> bool:
    if skill.turn != other.turn or other.kind not in (Kind.SKILL, Kind.PREFERENCE, Kind.FACT):
        return False
    one, two = normalise(skill.text), normalise(other.text)
    return one in two or two in one or (skill.slot == other.slot and other.kind is Kind.SKILL)


def attributes(wish: Wish) -> dict[str, str]:
    """What a memory of kind `skill` holds besides its text."""
    return {"when": wish.when, "then": wish.then} | ({"state": "lifted"} if wish.lifts else {})


def read(text: str) -> list[Wish]:
    """The wishes in a message, in their order, one a slot (the last holds)."""
    text = _ONWARD.sub(lambda match: f"{match[1] or match[2]} ", text)
    said = [sentence for sentence in spoken(text) if len(sentence) <= LONGEST]
    found: dict[str, Wish] = {}
    for sentence in said:
        manner = CHINESE if has_cjk(sentence) else ENGLISH
        wish = _of_sentence(redact(sentence), manner, _stands_alone(text, sentence))
        if wish is not None:
            found.pop(wish.slot, None)
            found[wish.slot] = wish
    return list(found.values())


def _stands_alone(text: str, sentence: str) -> bool:
    """Whether nothing else is wanted in the message."""
    others = [other for other in sentences(text) if other.strip() != sentence.strip()]
    if sum(len(other.split()) + len(other) // 8 * has_cjk(other) for other in others) > WORDS:
        return False
    return not any((CHINESE if has_cjk(other) else ENGLISH).asks.search(other) for other in others)


def _of_sentence(sentence: str, manner: Manner, alone: bool) -> Wish | None:
    polite = manner.lead.sub("", sentence, count=1) if manner.lead.match(sentence) else sentence
    if manner.guard.search(polite) or manner.here.search(polite):
        return None
    if sentence.rstrip("\"'”’ )）")[-1:] in "?？" and polite == sentence:
        return None
    pieces = [piece for piece in _PIECES.split(sentence) if piece.strip()]
    whys = pieces[:-1]  # "that's too long, keep it short": what comes before only says why
    corrects = bool(manner.wrong.search(sentence)) and len(pieces) > 1
    wish = _of_core(sentence, manner, alone, topics_only=len(pieces) > 1)
    if wish is None and len(pieces) > 1:
        if not any(manner.asks.search(why) for why in whys):
            wish = _of_core(pieces[-1], manner, alone, corrects=corrects, topics_only=True)
        wish = wish or _of_core(pieces[0], manner, alone, topics_only=True) or _of_core(sentence, manner, alone)
    return replace(wish, text=sentence.strip(_ENDS)) if wish else None


def _of_core(
    sentence: str, manner: Manner, alone: bool, *, corrects: bool = False, topics_only: bool = False
) -> Wish | None:
    lead = manner.lead.match(sentence)
    core = sentence[lead.end() :] if lead else sentence
    corrects = corrects or bool(lead and manner.wrong.search(lead[0]))
    core = core.strip(_ENDS)
    lifted = _lifted(core, manner)
    if lifted is not None:
        return lifted
    when = ""
    condition = manner.condition.match(core)
    if condition:
        when, core = condition["when"].strip(_ENDS), condition["then"].strip(_ENDS)
    lasting = bool(condition) or bool(manner.lasting.search(core))
    plain = _bare(core, manner)
    wish = _on_topic(plain, manner, lasting=lasting, corrects=corrects, alone=alone)
    told = lasting and not topics_only and manner.instruct.match(plain) and not manner.not_instruct.search(plain)
    if wish is None and told:
        wish = Wish(plain, manner.key(plain), plain)
    if wish is None:
        return None
    slot = f"{wish.slot}@{manner.key(when)}" if when else wish.slot
    return replace(wish, slot=slot[:200], when=when)


def _bare(core: str, manner: Manner) -> str:
    """A sentence without the words that make it last; "never" becomes "don't"."""
    plain = manner.lasting.sub(lambda found: f" {manner.dont} " if manner.never.fullmatch(found[0]) else " ", core)
    plain = manner.courtesy.sub(" ", plain)
    plain = _GAP.sub("", " ".join(plain.split())).strip(_ENDS)
    lead = manner.lead.match(plain)
    return plain[lead.end() :].strip(_ENDS) if lead else plain


def _on_topic(plain: str, manner: Manner, *, lasting: bool, corrects: bool, alone: bool) -> Wish | None:
    for topic in manner.topics:
        match = topic.pattern.fullmatch(plain)
        if match:
            named = {name: _value(value or "", manner) for name, value in match.groupdict().items()}
            holds = lasting or topic.scope == LASTING or (topic.scope == ALONE and alone) or (corrects and alone)
            then = topic.then.format(**named) if topic.then else plain
            slot = _slot(topic.slot, named, manner) if topic.slot else manner.key(plain)
            return Wish(plain, slot, " ".join(then.split()), lasting=holds)
    return None


def _lifted(core: str, manner: Manner) -> Wish | None:
    for pattern in manner.lifted:
        match = pattern.fullmatch(core)
        if not match:
            continue
        what = _bare(match["what"], manner)
        for subject, slot, then in manner.subjects:
            found = subject.fullmatch(what)
            if found:
                named = {name: _value(value or "", manner) for name, value in found.groupdict().items()}
                return Wish(core, _slot(slot, named, manner), then.format(**named) or core, lifts=True)
        wish = _on_topic(what, manner, lasting=True, corrects=False, alone=True)
        if wish is not None:
            return replace(wish, text=core, then=core, lifts=True)
        if manner.instruct.match(what):
            return Wish(core, manner.key(what), core, lifts=True)
    return None


def _value(word: str, manner: Manner) -> str:
    return manner.values.get(word.lower(), word)


def _slot(template: str, named: dict[str, str], manner: Manner) -> str:
    return template.format(
        **{name: manner.slots.get(value, value.lower().replace(" ", "-")) for name, value in named.items()}
    )
