# ruff: noqa: E501  (lists of words stand together)
"""Which earlier memories a statement changes, and which two say the same or more of the same. Pure; no I/O, no model.

Sentences are compared by their keys: stems of the words that carry meaning (Chinese: characters), verbs of the commonest
sort left out. All is done for a handful of memories that the organiser has looked up.
"""

from __future__ import annotations

import re

from memory.extract.changes import about_another
from memory.extract.dates import find_dates
from memory.extract.reporting import PLACES
from memory.extract.text import has_cjk
from memory.types import Change, Kind, Memory, Trust
from memory.words import fold, terms

_LATIN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_IRREGULAR = {
    "bought": "buy", "paid": "pay", "sent": "send", "wrote": "writ", "written": "writ", "took": "tak", "taken": "tak", "made": "mak",
    "gave": "giv", "given": "giv", "met": "meet", "brought": "bring", "found": "find", "sold": "sell", "told": "tell", "spoke": "speak",
    "built": "build", "seen": "see", "saw": "see", "drove": "driv", "ran": "run", "chose": "choos", "chosen": "choos", "booked": "book",
    "flew": "fly", "flown": "fly", "went": "go", "going": "go", "gone": "go", "children": "child", "kids": "child", "kid": "child",
}  # fmt: skip
_WEAK = frozenset(
    "remind forget need want plan still yet also let please must should might hav get got go com mak tak giv know think thing like lov "
    "enjoy hate dislik stand bear eat drink play watch read use work liv drive own start stop quit new old really just now currently "
    "finally already today tomorrow yesterday week month year day time last next weekend morning afternoon evening night one two lot "
    "bit again anymore longer any more away back good bad ok okay bee done finish complet sure make take give come have live love use "
    "drive hate fan into person around up off ll ve don doesn didn isn sorr".split()
)
_GENERIC = frozenset(
    "trip appoint appointment meet meeting plan book booking reservation visit call party date event flight holiday vacation journey "
    "session class lesson schedul thing travel".split()
)
_WEAK_ZH = frozenset(
    "的了是在和与也都就我你他她它们这那个有很把被给去要还吧呢吗啊着过得地到上下会能想说对再已经现不没用从为以之前后好完起来"
)
_TASK_ZH = re.compile(
    r"提醒我|别让我忘了|不要让我忘了|别忘了|记得|帮我|麻烦|需要|必须|应该|一定要|还没有?|来得及|之前|以前|上去|一下"
)
_NEGATIVE = re.compile(
    r"\b(?:not|no|never|cannot|hate|dislike|detest|loathe|despise|avoid|without)\b|n['’]t\b|不(?!错)|没|讨厌|厌恶|反感|受不了|忌"
)
_LIKES = re.compile(
    r"\b(?:love|like|enjoy|adore|hate|dislike|detest|loathe|despise|can['’]t stand|cannot stand|can['’]t bear|fan of|fond of|keen on|"
    r"passionate about|obsessed with|into)\s+(?:to\s+)?(?P<en>[^,.;!?]{2,50})$"
    r"|(?:喜欢|喜爱|热爱|爱|讨厌|厌恶|反感|受不了)(?:吃|喝|看|听|玩|打|去)?(?P<zh>[^，。；！？]{1,12})$",
    re.IGNORECASE,
)
_MORE = re.compile(r"\b(?:another|second|third|also|too|other|as well|besides)\b|又|还|也|另|第[二三]")
_KINDS = {
    "dog": "labrador retriever poodle beagle husky terrier corgi dachshund bulldog shepherd pupp puppy dalmatian spaniel collie pug".split(),
    "cat": "kitten tabb tabby siamese".split(),
}  # fmt: skip
_OF = {breed: kind for kind, breeds in _KINDS.items() for breed in breeds}
_PETS_ZH = {
    "dog": "狗",
    "cat": "猫",
    "rabbit": "兔子",
    "hamster": "仓鼠",
    "parrot": "鹦鹉",
    "turtle": "乌龟",
    "goldfish": "金鱼",
}
_NUMBER = re.compile(r"\d+")
_RANK = {Trust.USER: 3, Trust.ACCEPTED: 2, Trust.ASSISTANT: 1, Trust.OUTSIDE: 0}
_STANDING = frozenset({Kind.IDENTITY, Kind.FACT, Kind.PREFERENCE, Kind.GOAL})


def keys(text: str) -> set[str]:
    """What a text is about: stems without the commonest verbs and without function words; Chinese characters."""
    found = {c for c in text if _LATIN.match(c)} - _WEAK_ZH
    for term in terms(_LATIN.sub(" ", text)):
        found.add(_IRREGULAR.get(term, term))
    return {key for key in found if key not in _WEAK}


def all_keys(text: str) -> set[str]:
    """The same with the common verbs."""
    found = {c for c in text if _LATIN.match(c)} - _WEAK_ZH
    return found | {_IRREGULAR.get(term, term) for term in terms(_LATIN.sub(" ", text))}


def negative(text: str) -> bool:
    """Whether a statement denies: an odd number of words that do."""
    return len(_NEGATIVE.findall(fold(text))) % 2 == 1


def denies(memory: Memory) -> bool:
    """The same for a memory: one that ended another denies what that one said, in whatever words."""
    told = (memory.attributes or {}).get("denies")
    return told if isinstance(told, bool) else negative(memory.text)


def with_noun(text: str, slot: str) -> str:
    """A sentence that names an animal only ("Rex died"), with what it is: nobody would find it else."""
    what = slot.split(".")[1] if slot.startswith("pet.") and slot.count(".") == 2 else ""
    if not what or what in fold(text) or _PETS_ZH.get(what, what) in text:
        return text
    return f"{text}（我的{_PETS_ZH[what]}）" if has_cjk(text) and what in _PETS_ZH else f"{text} (my {what})"


def like_slot(memory: Memory) -> str:
    """The slot of a like or dislike: what is liked, so that the opposite finds it; empty for other memories."""
    match = _LIKES.search(memory.text) if memory.kind is Kind.PREFERENCE else None
    if not match:
        return ""
    what = sorted(keys(match["en"] or match["zh"] or ""))
    return f"like.{'-'.join(what)}"[:80] if what and len(what) <= 8 else ""


def may_replace(new: Memory, old: Memory) -> bool:
    """Whether the one who says the new vouches at least as much as who said the old: an assistant corrects no user."""
    return _RANK[new.trust] >= _RANK[old.trust] and new.speaker == old.speaker


def adds_to(new: Memory, old: Memory) -> int:
    """1: the new says all that the old says, and more; -1: the old does; 0: neither, or it cannot be told."""
    if new.kind is not old.kind or new.kind not in (Kind.IDENTITY, Kind.FACT) or new.speaker != old.speaker:
        return 0
    if negative(new.text) != negative(old.text) or about_another(new.text) != about_another(old.text):
        return 0
    if _MORE.search(fold(new.text)):
        return 0
    one, other = _widened(new.text), _widened(old.text)
    if has_cjk(new.text):  # a character is too little to go by
        one_text, other_text = _bare(new.text), _bare(old.text)
        return (
            1
            if other_text and other_text in one_text and one_text != other_text
            else -1
            if one_text and one_text in other_text
            else 0
        )
    if one > other and set(_NUMBER.findall(old.text)) <= set(_NUMBER.findall(new.text)):
        return 1 if other else 0
    return -1 if one and one < other else 0


def _widened(text: str) -> set[str]:
    found = all_keys(text)
    return found | {_OF[key] for key in found if key in _OF}


def _bare(text: str) -> str:
    return re.sub(r"[\s，,。]|现在|目前", "", fold(text))


def is_hit(change: Change, said: Memory, old: Memory, slot: str) -> bool:
    """Whether `change`, as told in `said`, changes the memory `old` with its `slot`."""
    if old.id == said.id or not may_replace(said, old) or fold(old.text) == fold(said.text):
        return False
    if not _same_subject(change, said, old):
        return False
    if slot and slot in change.slots:
        return True
    if change.how in PLACES:
        return False  # the task stays what it is (memory.tending)
    if change.how == "done":
        return True  # of what, memory.tasks says
    if not change.about:
        return False
    about, there = keys(change.about), all_keys(old.text)
    if change.how == "cancelled" or (change.how == "replaced" and old.kind is Kind.EVENT):
        return _is_planned(old, said) and _names(about, there, change.about)
    if old.kind not in _STANDING:
        return False
    if change.how == "replaced":
        if change.old and (gone := keys(change.old)):
            return gone.issubset(there)
        return bool(about) and len(about & there) * 2 >= len(about) and slot not in ("", "name")
    if not about or len(about & there) < max(1, (len(about) + 1) // 2):
        return False
    return (negative(change.about) == denies(old)) is (change.how == "ended")


def _same_subject(change: Change, said: Memory, old: Memory) -> bool:
    who, whose = about_another(said.text), about_another(old.text)
    if who == whose or not (who or whose):
        return True
    if who:
        return who in fold(old.text)
    if any(fold(name) in fold(said.text) for name in old.entities):
        return True
    return bool(change.slots) and not change.about


def _is_planned(old: Memory, said: Memory) -> bool:
    if old.kind is Kind.TASK:
        return bool((old.attributes or {}).get("state", "open") == "open")
    if old.kind is Kind.EVENT:
        return old.event_end is None or old.event_end > said.message_time - 86400
    return old.kind is Kind.GOAL


def _names(about: set[str], there: set[str], words: str) -> bool:
    """Whether what is called off is this: all that sets it apart is named there."""
    about = about | {key for key in all_keys(words) if key in _GENERIC}
    special = about - _GENERIC
    if special:
        return len(special & there) >= 0.6 * len(special)
    return bool(about & there)


def shares_words(text: str, task: Memory) -> bool:
    """Whether a statement that somebody vouches for as an ending (a model) has most words of this open task."""
    if task.kind is not Kind.TASK or (task.attributes or {}).get("state", "open") != "open":
        return False
    plain = _TASK_ZH.sub("", task.text)
    for span in find_dates(plain, task.message_time):
        plain = plain.replace(span.text, " ")
    core, said = all_keys(plain) - {"remind", "forget", "need", "still", "let", "want", "plan", "must"}, all_keys(text)
    if not keys(plain) & said:
        return False
    shared = len(core & said)
    if has_cjk(task.text):
        return shared >= 0.7 * len(core) and shared >= 2
    return shared >= 0.6 * len(core) and shared >= min(2, len(core))
