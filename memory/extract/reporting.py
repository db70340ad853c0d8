# ruff: noqa: E501  (a rule is one row of a table)
"""The words with which people say how a task goes: it failed, it is half done, it is put off, it has to be done again.

Goes in: a sentence of the user and the second it was said. Comes out: the changes that it may mean, most telling first; which task
is meant, if any, is for others to say. Pure; linear in the text.
"""

from __future__ import annotations

import re

from memory.extract.dates import find_dates
from memory.extract.spans import DateSpan
from memory.extract.text import has_cjk
from memory.types import Change

# what happens to a task that stays the same task; "settled" is "done!" alone: the one that was just spoken of
PLACES = ("moved", "progress", "failed", "reopened", "settled")


def _p(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_GUARD_EN = _p(
    r"\b(?:if|unless|would|might|may|maybe|perhaps|could|should I|wish|imagine|dream(?:ed|t)?|suppose|thinking (?:of|about)|considering|wonder(?:ing)?|"
    r"want to|hope to|used to|what happens|how (?:do|does|to|can)|usually|always|never|often)\b"
)
_GUARD_ZH = _p(
    r"如果|假如|要是|万一|的话|也许|可能|好像|听说|据说|打算|考虑|想不想|以前|曾经|通常|一般|是不是|要不要|怎么|[吗呢]$"
)
_ROWS_EN = (
    ("reopened", _p(r"\b(?:have|has|had|need|needs|got|must)\s+to\s+(?:be\s+)?(?P<verb>\w+)\b.{0,60}\b(?:again|once more|anew|back)\b|\b(?:re-?open(?:ed)?|re-?do(?:ne|ing)?|do-over)\b")),
    ("reopened", _p(r"\b(?:haven't|have not|hasn't|didn't|did not)\s+(?:actually\s+|really\s+)?(?P<verb>\w+)\b|\bnot (?:actually |really )?(?:done|finished|sent|paid) (?:yet|after all)\b")),
    ("failed", _p(r"\b(?:fail(?:ed|s)|(?:did|does)(?:n't| not) (?:work|go through|go well|succeed)|couldn't|could not|wasn't able|weren't able|unsuccessful|no luck|without success|"
                  r"(?:got|was|were|been) (?:rejected|refused|declined|turned down)|(?:keeps?|kept) (?:on )?(?:crashing|failing|breaking|bouncing)|bounced|(?:I'm|am|got|we're) stuck|on hold|hung up|voicemail|no answer|(?:nobody|no one) (?:answered|picked up))\b")),
    ("failed", _p(r"\b(?:tried|attempted)\b.{0,60}\b(?:but|no one|nobody|without)\b")),
    ("progress", _p(r"\b(?:half|partly|partially|mostly|almost|nearly|halfway)[- ](?:done|finished|written|through|there|ready|complete|packed|painted|read)\b|\bhalfway\b|\bhalf (?:of )?(?:my|the)\b|\b(?:one|two|three|a) (?:third|quarter)s? of\b|\b\d{1,3} ?% (?:done|through|of|finished|complete|ready|written)\b|\bhalf[- ]\w+ed\b")),
    ("progress", _p(r"\b(?:ma(?:de|king)) (?:some |good |great |a bit of |a lot of )?(?:progress|headway)\b|\b(?:is|are|'s) (?:coming along|well under way|under way|in progress|on track)\b|\b(?:I'm|I am|we're|been) (?:still )?working on\b|\bfirst draft\b")),
    ("progress", _p(r"^(?:\W*(?:so|and|also|today|finally|just|ok)\W+)*(?:I|we)(?:'ve| have)?\s+(?:\w+ly\s+|just\s+)?(?:started|begun|began|kicked off|got going)\b")),
)  # fmt: skip
_MOVED_EN = _p(
    r"(?:\b(?:postpon(?:e|ed|ing)|reschedul(?:e|ed|ing)|delay(?:ed|ing)?|defer(?:red|ring)?|extend(?:ed)?|put(?:ting)? off|bring(?:ing)? forward|brought forward)\b"
    r"|(?:\b(?:is|are|was|were|got|be|been)|'s)\s+(?:\w+ly\s+|just\s+|now\s+)?(?:moved|pushed|shifted)\b|\b(?:mov(?:e|ed|ing)|push(?:ed|ing)?|shift(?:ed|ing)?)\s+(?:back\s+)?(?:my|the|our|that|this|it)\b)"
    r".{0,60}\b(?:to|until|till|by|for)\b|\b(?:is|are|'s)\s+(?:now|only|not)?\s*(?:only\s+)?due\b|\bextension\b.{0,60}\b(?:until|to|till)\b|\b(?:can|will(?: have to)?|has to|have to) wait (?:until|till)\b"
    r"|\b(?:I'll|I will|we'll|let's)\b.{0,60}\binstead\b|\bdeadline\b.{0,40}\b(?:is now|now|changed)\b|\b(?:have|has|got) (?:time )?(?:until|till)\b"
)
_TO_EN = re.compile(r"\bto(?= (?-i:[A-Z][a-z]))")
_BY_EN = _p(r"\bby (?P<count>an?|one|two|three|four|\d{1,2}) (?P<unit>day|week|month)s?\b")
_ROWS_ZH = (
    ("reopened", _p(r"(?:退回|打回|驳回|被拒|失败|不行|坏了|过期|作废).{0,14}(?:重新|再|还得|还要)|(?:得|要|需要)(?:再|重新).{0,10}(?:一[次遍]|$)|其实还没|还没.{1,10}呢?$")),
    ("failed", _p(r"没(?:有)?(?:成功|成|办成|买到|订到|约到|约上|打通|交成|交上|通过|人接|接|写成|赶上|弄好|做成)|失败|被拒|被退|办不了|买不到|约不到|打不通|卡住|进不去")),
    ("progress", _p(r"一半|过半|大半|进展|进度|(?:写|做|学|办|看|准备|进行|完成|弄|复习)到|快(?:写|做|办|弄|看)?完了|差不多(?:写|做|办|弄)?[完好]|百分之|三分之|\d{1,3} ?%|(?:已经)?开始(?:写|做|准备|学|办|弄|复习|练)")),
)  # fmt: skip
_MOVED_ZH = _p(
    r"推迟|延期|延后|延长|宽限|改到|改在|改成|改约|改期|挪到|移到|提前到|拖到|延到|延至|截止(?:日期|时间)?(?:是|改|到|变)|可以.{0,10}再|不急.{0,10}再|再(?:交|做|办|去|写)(?:就行|也行|吧)"
)


_BARE_EN = _p(
    r"^(?:(?:yes|yep|yeah|ok|okay|finally|all|it's|it is|that's|that is|already|and|just|now|I've|I have|I|we|we've|got|is)[\s,!.]+)*"
    r"(?P<verb>done|finished|completed|sorted|settled|handled|(?:did|sent|paid|called|bought|booked|finished|completed|returned|submitted|renewed|mailed|ordered) (?:it|that|them|him|her)|taken care of|took care of (?:it|that))"
    r"(?:\s+(?:today|yesterday|now|already|too|just now|this morning|last night|by the way|at last|thanks|with (?:it|that)))*\W*$"
)
_BARE_ZH = re.compile(
    r"^(?:嗯|好的|是的|对|我|已经|都|刚才?|刚刚|终于|总算|昨天|今天|早就|，|,)*(?P<verb>搞定|办|做|完成|弄|处理|交|写|买|付|还|寄|订|打过?|续)[好完掉]?(?:了|过了|啦)[！!。~，, ]*$"
)


def find(sentence: str, said_at: float) -> list[Change]:
    """Changes with `how` in PLACES; a move has the new `due`. Nothing for questions, wishes and hypotheses."""
    chinese = has_cjk(sentence)
    if (_GUARD_ZH if chinese else _GUARD_EN).search(sentence):
        return []
    if bare := (_BARE_ZH if chinese else _BARE_EN).match(sentence):
        return [Change("settled", old=bare["verb"])]
    found = []
    moved = (_MOVED_ZH if chinese else _MOVED_EN).search(sentence)
    if moved and (moving := _new_due(sentence, moved.start(), said_at)):
        found.append(moving)
    for how, pattern in _ROWS_ZH if chinese else _ROWS_EN:
        match = pattern.search(sentence)
        if match and not any(one.how == how for one in found):
            verb = match.groupdict().get("verb") or ""
            found.append(Change(how, about=sentence, old=verb))
    return found


def due(span: DateSpan) -> float:
    """When the time of a task is up that is due at this date: at the hour, or at the end of the day, the week …"""
    return span.start if span.precision == "hour" else span.end


def _new_due(sentence: str, at: int, said_at: float) -> Change | None:
    plain = _TO_EN.sub("by", sentence)  # "to July" is a date here
    spans = [span for span in find_dates(plain, said_at, prefer="future") if due(span) > said_at]
    behind = [span for span in spans if span.at >= at] or spans
    if behind:
        return Change("moved", about=sentence, due=due(behind[-1]))
    by = _BY_EN.search(sentence)
    if not by:
        return None
    length = {"day": 1, "week": 7, "month": 30}[by["unit"].lower()]
    count = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4}.get(by["count"].lower())
    return Change("moved", about=sentence, later_s=86_400.0 * length * (count or int(by["count"])))
