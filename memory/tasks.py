# ruff: noqa: E501  (lists of words stand together)
"""Which task a statement speaks of, and whether it says that it is done. Pure; no I/O, no model.

A task is taken apart into its verb ("send") and its objects ("tax form"), without dates and without the words that only say
that it is one ("remind me to", 我得). A statement speaks of it when it names most of its objects; that it is done is believed of the
user's own act in the past ("sent the tax form"), of a passive ("the form is sent"), and of words that say so ("done").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from memory.contradict import all_keys, may_replace
from memory.extract.changes import about_another
from memory.extract.dates import find_dates
from memory.extract.recurring import recurrence, without
from memory.extract.text import has_cjk
from memory.types import Change, Kind, Memory
from memory.words import fold

NAMED = 0.6  # share of a task's objects that must be named
_LEAD = re.compile(
    r"^(?:please\s+|also\s+|and\s+|can you\s+)*(?:remind me(?: (?:later|again|tomorrow|tonight|today|next \w+))?(?: (?:to|about|that I (?:need|have) to))?|don't let me forget(?: to| about)?|"
    r"don't forget to remind me(?: to| about)?|make sure I don't forget(?: to| about)?|my (?:\w+ ){0,3}?(?:goal|dream|plan|aim|to-?do)(?: list)?(?: for \w+)?(?: is| includes)?:?(?: to)?|"
    r"(?:I|we)(?:'ve|'d|'m| have| am)?(?: (?:\w+ly|also|still|yet|just|got|had|now))*(?: (?:need|have|must|should|want|like|would like|plan|planning|hope|hoping|ought|gotta|going|supposed|dream of|aim|haven't|have not))?(?: yet)?(?: to)?)\s+",
    re.IGNORECASE,
)
_IS_DUE = re.compile(r"^(?:my|our)\s+(.{2,60}?)\s+(?:is|are)\s+(?:\w+\s+)?due\b", re.IGNORECASE)
_LEAD_ZH = re.compile(
    r"提醒我|别让我忘了|不要让我忘了|别忘了|记得|帮我|麻烦|需要|必须|应该|一定要|还没有?|没有?|来得及|之前|以前|上去|一下|目标|梦想|愿望|希望|打算|计划|准备|今年|明年|每[天周月年]|想要?|学会|个|次|一"
)
_SAME = {  # verbs that finish one another: the first of each group stands for all
    verb: group.split()[0]
    for group in (
        "send submit hand turn mail post fil email deliver", "buy get order purchas grab pick", "book schedul arrang mak reserv",
        "pay transfer settl", "call ring phon speak talk", "bring drop tak return", "writ draft finish", "fix repair", "clean tidy",
    )
    for verb in group.split()
}  # fmt: skip
_COMPLETE = frozenset("don finish complet sort settl handl tick check".split())
_PAST = frozenset(
    "bought paid sent wrote written took taken made gave given met brought found sold told spoke read put cut built done saw seen ate drove driven "
    "ran run swam chose chosen got gotten did went left rang held drew drawn hung set shut".split()
)
_JUST = r"(?:(?:finally|just|already|also|now|then|yes|yep|ok|okay|successfully|actually|today|yesterday)[\s,]+)*"
_ACT = re.compile(
    rf"(?:^|[,;:—–-]\s*|\band\s+|(?=\b(?:I|we)\b)){_JUST}(?:(?:I|we)(?:'ve| have| had)?\s+)?{_JUST}(?P<verb>[a-z]+)"
    r"(?!\s+(?:too|more|less|some|another|enough|a lot)\b)",
    re.IGNORECASE,
)
_PASSIVE = re.compile(
    r"(?:\b(?:is|are|was|were|got|been)|'s|'re)\s+(?:(?:now|all|finally|already|just|officially|both|\w+ly)\s+)*(?P<verb>[a-z]+)",
    re.IGNORECASE,
)
_SETTLED = re.compile(
    r"\b(?:taken care of|out of the way|all set|ticked off|checked off|wrapped up|over and done)\b", re.IGNORECASE
)
_SAYS_DONE_ZH = re.compile(r"了|过|好了|搞定|[完好成掉](?:了|$)|已经")
_VERBS_ZH = frozenset("交写办买付缴寄订约打发背扫洗修取拿送接续退换填改搬倒跑学练还")
_COMPLETE_ZH = re.compile(r"搞定|办[好完成]|弄[好完]|做[好完]|完成|处理[好完]|解决|打勾|划掉")
_FOR_ME_ZH = re.compile(r"[给替帮跟对](?:我|咱)")
_LAST = re.compile(r"^(?P<head>.{3,60}?)[:,]?\s+(?P<verb>[a-z]+)\W*$", re.IGNORECASE)
_MASTERS = frozenset(("boss", "manager", "teacher", "doctor", "landlord", "老板", "领导", "老师", "房东", "医生"))
_REACHED = re.compile(
    r"\b(?:finally|at last|achieved|reached|accomplished|did it|made it|managed)\b|终于|总算|达成|实现", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What is to be done, and with what: `verb` is empty when it cannot be told (always in Chinese)."""

    verb: str
    objects: frozenset[str]


def parts(task: Memory) -> Parts:
    """The verb and the objects of a task or goal."""
    plain = without(task.text) if recurrence(task.text) else task.text
    for span in find_dates(plain, task.message_time):
        plain = plain.replace(span.text, " ")
    if has_cjk(plain):
        return Parts("", frozenset(all_keys(_LEAD_ZH.sub("", plain))))
    if due := _IS_DUE.match(plain):  # "my essay is due": it is to be handed in
        return Parts("send", frozenset(all_keys(due[1])))
    bare = _LEAD.sub("", plain, count=1) if _LEAD.match(plain) else plain
    first, _, rest = bare.partition(" ")
    if re.search(r"\b(?:about|of)\s$", _LEAD.match(plain)[0] if _LEAD.match(plain) else ""):  # type: ignore[index]
        first, rest = "", bare
    verbs = _verb(first)
    return Parts(verbs[0] if verbs else fold(first), frozenset(all_keys(rest)) or frozenset(verbs))


def speaks_of(text: str, task: Memory) -> float:
    """The share of the task's objects that a text names, 0 to 1; in Chinese at least two characters must be there."""
    objects = parts(task).objects
    shared = objects & all_keys(text)
    if not objects or (has_cjk(task.text) and len(shared) < 2):
        return 0.0
    return len(shared) / len(objects)


def is_done(said: Memory, task: Memory) -> bool:
    """Whether the statement says that this open task is done, or this goal reached."""
    text = said.text
    if speaks_of(text, task) < (0.7 if has_cjk(task.text) else NAMED):
        return False
    if task.kind is Kind.GOAL and not _REACHED.search(text):
        return False
    if has_cjk(text):
        return bool(_SAYS_DONE_ZH.search(text)) and not _FOR_ME_ZH.search(text) and _acts_zh(text, task)
    if task.kind is Kind.TASK and _SETTLED.search(text):
        return True
    wanted = parts(task).verb
    for verb in _past_acts(text):
        if _SAME.get(verb, verb) == _SAME.get(wanted, wanted) or (task.kind is Kind.TASK and verb in _COMPLETE):
            return True
    return False


def calls_off(task: Memory) -> bool:
    """Whether the task itself is to cancel something: "it is cancelled" says that this is done."""
    return parts(task).verb.startswith("cancel") or "取消" in task.text


def meant(changes: Change, said: Memory, known: list[Memory]) -> Memory | None:
    """The task that a report is about: the one whose objects are named best; None when there is none, or two are named alike."""
    text = said.text
    fits: list[tuple[float, bool, Memory]] = []
    for task in known:
        if task.message_time > said.message_time or not may_replace(said, task) or not _own(text, task):
            continue
        share = speaks_of(text, task)
        if share >= NAMED and (not changes.old or _negates(changes.old, task)):
            fits.append((share, parts(task).verb in _stems(text), task))
    fits.sort(key=lambda fit: (-fit[0], not fit[1], -fit[2].message_time))
    if len(fits) > 1 and fits[0][:2] == fits[1][:2] and parts(fits[0][2]) != parts(fits[1][2]):
        return None
    return fits[0][2] if fits else None


def settles(verb: str, task: Memory) -> bool:
    """Whether "sent it" can be said of this task: the verb is its own, or says that anything is done."""
    if has_cjk(verb):
        own = [char for char in parts(task).objects if char in _VERBS_ZH]
        return verb[0] not in _VERBS_ZH or verb[0] in "办做弄" or verb[0] in own
    stems, wanted = _stems(verb.split()[0]) or [verb.split()[0]], parts(task).verb
    return any(
        s in _COMPLETE or s in ("did", "took", "taken", "tak") or _SAME.get(s, s) == _SAME.get(wanted, wanted)
        for s in stems
    )


def restates(new: Memory, old: Memory) -> bool:
    """Whether two open tasks ask for the same, whatever the date."""
    if new.kind is not Kind.TASK or old.kind is not Kind.TASK or not may_replace(new, old):
        return False
    one, other = parts(new), parts(old)
    size = len(one.objects) + bool(one.verb)
    return one == other and size >= 2 and recurrence(new.text) == recurrence(old.text)


def _own(text: str, task: Memory) -> bool:
    """Whether it is the speaker's: what a friend does says nothing, but a boss may move a deadline."""
    who = about_another(text)
    if who in _MASTERS and re.search(r"extend|postpon|reschedul|推迟|延", text):
        return True
    return (
        not who or who in fold(task.text) or bool(re.search(r"deadline|due|extension|截止|期限", text, re.IGNORECASE))
    )


def _negates(verb: str, task: Memory) -> bool:
    """ "I haven't booked the dentist" speaks of booking, "I haven't seen my dentist" does not; "do it again" of anything."""
    wanted = parts(task).verb
    return verb.lower() in ("do", "go", "start", "done") or any(
        _SAME.get(stem, stem) in (_SAME.get(wanted, wanted), "done") or stem in _COMPLETE for stem in _verb(verb)
    )


def _past_acts(text: str) -> list[str]:
    """The stems of what the user did, or what is said to be done."""
    found: list[str] = []
    matches = [*_ACT.finditer(text), *_PASSIVE.finditer(text)]
    if len(text.split()) <= 6 and (last := _LAST.match(text)):
        matches.append(last)
    for match in matches:
        word = match["verb"].lower()
        if word.endswith("ed") or word in _PAST:
            found += _verb(word) or [word]
    return found


def _acts_zh(text: str, task: Memory) -> bool:
    """Whether the task's own verb, or a word that says that anything is done, stands in a Chinese text."""
    verbs = [char for char in parts(task).objects if char in _VERBS_ZH]
    return not verbs or any(verb in text for verb in verbs) or bool(_COMPLETE_ZH.search(text))


def _verb(word: str) -> list[str]:
    """The stem of a verb in any form: applied, applying, apply."""
    return _stems(f"{word[:-3]}y" if word.lower().endswith("ied") else word)


def _stems(text: str) -> list[str]:
    return sorted(all_keys(text))
