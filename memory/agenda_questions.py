# ruff: noqa: E501  (alternatives of one pattern stand together)
"""Questions about what is open: "what's on my plate?", "anything due this week?", 还有什么没做. Text → what is asked for, or None.

Made for precision: a whole sentence must be such a question, so that "what is open source?" and "what do I have to do to get a
visa?" are none. Pure; linear in the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from memory.agenda import KINDS
from memory.extract.dates import find_dates
from memory.extract.text import has_cjk, sentences
from memory.types import Kind

LONGEST = 300  # characters of a message; a longer one is no such question
_TIME = (
    r"(?:today|tonight|tomorrow|(?:later )?this (?:week|weekend|month|year|morning|afternoon|evening|quarter)|(?:the )?next (?:week|weekend|month|year|few days|\d+ days)|"
    r"(?:by|before|until|on) (?:\w+day|tomorrow|tonight|the weekend|the end of (?:the|this|next) (?:week|month|year|day))|over the weekend|at the weekend|in (?:january|february|march|april|may|june|july|august|september|october|november|december)|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day)"
)
_WHEN = rf"(?:(?:\s+for)?\s+{_TIME})"
_END = r"(?:\s+(?:again|exactly|at the moment|right now|now|currently|so far|please|then|anyway|btw))*\s*[?!. ]*$"
_LEAD = re.compile(
    r"^(?:(?:hi|hey|hello|hiya|ok|okay|so|well|good (?:morning|evening|afternoon)|morning|please|pls|and|btw|by the way|now|right|alright|thanks|quick question|remind me|tell me|just tell me|"
    r"show me|(?:can|could|would) you (?:please )?(?:tell|remind|show) me(?: again)?|do you (?:know|remember))\b[\s,!.:;—-]*)+(?=\w)",
    re.IGNORECASE,
)
_LIST = r"(?:plate|(?:to-?do|task)(?: list)?s?|agenda|list)"
_OPEN = r"(?:open|pending|outstanding|overdue|unfinished|due|undone)"
_THINGS = r"(?:tasks?|to-?dos?|to-?do list|to do list|task list|todo items|open items|deadlines|goals?(?: and tasks)?|tasks and goals|agenda|errands)"
_ENGLISH = tuple(
    re.compile(pattern + _END, re.IGNORECASE)
    for pattern in (
        rf"^what(?:'s| is) (?:(?:still )?open|still (?:open|pending|outstanding)|pending|outstanding|unfinished|overdue)(?: for me| on my {_LIST})?",
        rf"^what(?:'s| is) (?:still )?(?:open|pending|outstanding|overdue|due)(?: for me| on my {_LIST}){_WHEN}?",
        rf"^what(?:'s| is) (?:still (?:open|pending|outstanding|due|to be done|to do)|(?:over)?due|left to do|left to be done){_WHEN}?",
        rf"^what(?:'s| is| else is| all is|'s still| is still|'s left| is left|'s next| is next)(?: there)? on my {_LIST}{_WHEN}?",
        rf"^what do I (?:still )?have on my {_LIST}{_WHEN}?",
        rf"^what (?:else |all |exactly )?(?:do|must) (?:I|we) (?:still|yet) (?:have|need|got)(?: left)? to (?:do|get done|finish|take care of){_WHEN}?",
        rf"^what (?:else |all |exactly )?do (?:I|we) (?:have|need|got) (?:left )?to (?:do|get done|finish|take care of){_WHEN}",
        rf"^what (?:must|have|do) I (?:still )?(?:got |have )?(?:left )?(?:to do|to get done|due|{_OPEN}){_WHEN}",
        rf"^what (?:do|have) I (?:still |got |have )+(?:left |open |due |pending |outstanding )(?:to do)?{_WHEN}?",
        r"^what have I (?:still )?got left(?: to do)?",
        rf"^(?:do I (?:still )?have|have I (?:still )?got|is there|are there|is|are|got)? ?any(?:thing|\s+(?:tasks?|deadlines?|to-?dos?))(?: (?:of mine|for me|else|still|that(?:'s| is)))* (?:{_OPEN}|left to do|urgent to do|coming due){_WHEN}?",
        rf"^(?:do I (?:still )?have|have I got|are there) any (?:open |overdue |pending |outstanding |unfinished |upcoming |urgent )+(?:tasks?|deadlines?|to-?dos?|goals?){_WHEN}?",
        rf"^(?:do I (?:still )?have|have I (?:still )?got) (?:anything|something|any tasks|any deadlines|any to-?dos) (?:left )?(?:to do|on my {_LIST}){_WHEN}?",
        rf"^(?:are|is) any of my (?:tasks|to-?dos|deadlines|goals) (?:still )?{_OPEN}{_WHEN}?",
        rf"^(?:what|which)(?:'s| is| are| were)? (?:all |of )*my (?:open |current |remaining |pending |unfinished |outstanding |upcoming |next |overdue )*{_THINGS}(?: (?:are|do I have|is|again|left))?(?: {_OPEN}| left)?{_WHEN}?",
        rf"^(?:list|show|show me|give me|name) (?:me )?(?:all )?(?:of )?my (?:open |current |remaining |pending |unfinished |outstanding |upcoming )*{_THINGS}{_WHEN}?",
        rf"^(?:which|what|how many) (?:open |of my )?(?:tasks|to-?dos|deadlines|goals)(?: of mine)? (?:are (?:still )?(?:{_OPEN}|left)|do I (?:still )?have(?: left| open)?|have I got(?: left)?|am I (?:still )?working (?:on|towards)){_WHEN}?",
        rf"^my (?:open )?(?:tasks|to-?dos|to-?do list|deadlines|goals|agenda){_WHEN}?",
        r"^what(?:'s| is) my next (?:deadline|task|to-?do)",
        rf"^what (?:did|have) I (?:forget|forgotten) to do{_WHEN}?",
        rf"^what (?:was|am) I (?:supposed|meant) to (?:do|get done|finish){_WHEN}",
        rf"^(?:is|are) there (?:still )?(?:anything|something|things)(?: else| still)? (?:that )?(?:I|we) (?:still |yet )?(?:have|need|got) (?:left )?to (?:do|get done|finish|take care of){_WHEN}?",
        rf"^what(?:'s| is) the next (?:thing|task) (?:that )?I (?:have|need|ought) to (?:do|get done|finish|take care of){_WHEN}?",
        rf"^(?:(?:give me|I need|I'd like|(?:can|may|could) I (?:have|see|get)) )?(?:an? |the )?(?:quick |short |complete )*(?:overview|list|summary|rundown) of (?:all )?(?:of )?my (?:open |current |remaining |pending |unfinished |outstanding |upcoming )*{_THINGS}{_WHEN}?",
        rf"^(?:which|what)(?: things| tasks| stuff)? (?:have I (?:not|still not)|haven't I) (?:yet )?(?:finished|done|completed|got done)(?: yet)?{_WHEN}?",
        rf"^(?:(?:(?:can|could|would) you )?(?:list|show me|tell me|give me|name) )?(?:everything|all|all the things|the things|what) (?:that )?I (?:still |yet )(?:have|need|got) (?:left )?to (?:do|get done|finish|take care of){_WHEN}?",
        rf"^any (?:tasks?|to-?dos?|deadlines?|errands) (?:left|coming up|remaining|still open)(?: for me)?{_WHEN}?",
        rf"^what(?:'s| is)(?: still| left)? on the to-?do list{_WHEN}?",
        rf"^what are the (?:goals|tasks) (?:that )?I (?:have )?(?:set|gave|given)(?: myself)?{_WHEN}?",
        r"^is my (?:to-?do |task )?list empty",
        rf"^what do I have (?:coming up )?(?:that(?:'s| is) )?(?:still )?due{_WHEN}?",
        r"^what goals (?:do I have|have I set(?: myself)?|did I set(?: myself)?)",
    )
)
_TIME_ZH = r"(?:今天|今晚|明天|后天|这周|本周|这个?星期|这个?礼拜|下周|下个?星期|这个?月|本月|下个?月|周末|这个?周末|今年|月底之?前|周[一二三四五六日天]之?前|最近|近期|接下来|这几天)"
_NOW_ZH = r"(?:现在|目前|到现在|一共|总共)"
_END_ZH = r"(?:呢|吗|呀|啊|来着|了)?[?？。!！ ]*$"
_THINGS_ZH = r"(?:待办(?:事项|清单|任务)?|任务(?:清单|列表)?|未完成的(?:事|事情|任务)|截止日期|ddl|DDL|目标)"
_CHINESE = tuple(
    re.compile(pattern + _END_ZH)
    for pattern in (
        rf"^(?:我)?{_NOW_ZH}?{_TIME_ZH}?(?:我)?(?:都)?还有(?:什么|哪些|啥|多少)(?:事|事情|任务|东西|活儿?)?(?:是)?(?:我)?(?:还)?没有?(?:做|完成|办|弄|搞|干)(?:完)?的?(?:事|事情|任务)?",
        rf"^(?:我)?{_NOW_ZH}?{_TIME_ZH}?(?:我)?(?:都)?还有(?:什么|哪些|啥)(?:事|事情|任务)?(?:要|需要|得)(?:做|办|完成|干|处理)的?(?:事|事情|任务)?",
        rf"^(?:我)?{_TIME_ZH}(?:我)?(?:都|还)?(?:要|得|需要|该|必须)(?:做|办|干|完成|处理)(?:什么|哪些|啥)(?:事|事情|任务)?",
        rf"^(?:我)?{_NOW_ZH}?(?:我)?还(?:要|得|需要|该)(?:做|办|干|完成|处理)(?:什么|哪些|啥)(?:事|事情|任务)?",
        rf"^(?:我)?{_TIME_ZH}?(?:我)?有(?:什么|哪些|啥)(?:事|事情|任务|安排|待办(?:事项)?)(?:要|需要|得)(?:做|办|完成|干|处理)的?",
        rf"^(?:我)?{_NOW_ZH}?{_TIME_ZH}?(?:我)?(?:还)?有(?:什么|哪些|多少)(?:待办(?:事项|任务)?|未完成的?(?:事|事情|任务|目标)?|没完成的?(?:事|事情|任务|目标)|任务|截止日期|ddl|DDL)",
        rf"^我(?:的|{_TIME_ZH}的?){_THINGS_ZH}(?:是什么|是啥|有哪些|有什么|有啥|还有哪些|还有什么|都有什么|都有哪些|都是什么|里有什么|上有什么)?",
        rf"^(?:我)?{_TIME_ZH}?(?:我)?(?:有没有|有什么|有哪些|哪些|什么)(?:事|事情|任务|东西)?(?:是)?(?:快要?|要|已经)?(?:到期|逾期|截止)(?:的|了)?(?:任务|事|事情)?",
        rf"^(?:列出?|列一下|看看|看一下|告诉我|给我看看?|显示)(?:一下)?我(?:的|所有的?|全部的?)*{_THINGS_ZH}",
        rf"^(?:我)?{_TIME_ZH}的?(?:任务|待办(?:事项)?)(?:是什么|是啥|有哪些|有什么|有啥|还有哪些|还有什么)",
        rf"^(?:我)?{_TIME_ZH}?(?:我)?(?:是不是|是否)?还有(?:事|事情|任务)(?:还)?没有?(?:做|完成|办|弄)完?",
        rf"^(?:我)?{_NOW_ZH}?{_TIME_ZH}?(?:我)?(?:还)?有(?:什么|哪些|啥|多少)(?:任务|事|事情|目标)(?:是)?(?:我)?(?:还)?没有?(?:完成|做|办|弄)完?的?",
        rf"^我{_NOW_ZH}?有(?:什么|哪些|啥)(?:事|事情|任务)(?:快要?|要|已经)?(?:到期|逾期|截止|到截止日期|到期限)(?:的|了)?",
        r"^我给自己定(?:的|了)(?:什么|哪些)?目标(?:是什么|有哪些)?",
    )
)
_LEAD_ZH = re.compile(
    r"^(?:(?:你好|您好|早|早上好|嗨|对了|那|那么|请问|请|帮我(?:看看|看一下|列一下)?|麻烦|告诉我|提醒我一下|再说一下)[，,。！!：: ]*)+"
)
_GOALS = re.compile(r"\bgoals?\b|目标", re.IGNORECASE)
_TASKS = re.compile(
    r"\b(?:tasks?|to-?dos?|to-?do list|deadlines?|due|overdue|errands|have to do|need to do|to do)\b|任务|待办|到期|逾期|截止|要做|得做|没做",
    re.IGNORECASE,
)
_DATED = re.compile(r"\b(?:due|overdue|deadlines?)\b|到期|逾期|截止|ddl", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question about the agenda asks for: the kinds; the time it names (half-open, UTC seconds), if it names one; and
    whether only what has a due date (`dated`) is meant."""

    kinds: tuple[Kind, ...] = KINDS
    since: float | None = None
    until: float | None = None
    dated: bool = False


def asked(text: str, now: float) -> Asked | None:
    """What is asked for, when one sentence of the message is a question about what is open."""
    if len(text) > LONGEST:
        return None
    for sentence in sentences(text):
        plain = sentence.replace("’", "'").strip()
        if not _is_one(plain):
            continue
        spans = find_dates(plain, now, prefer="future")
        goals, tasks = _GOALS.search(plain), _TASKS.search(plain)
        kinds = KINDS if bool(goals) == bool(tasks) else (Kind.GOAL,) if goals else (Kind.TASK,)
        until = spans[0].end if spans else None
        since = (
            spans[0].start
            if spans and spans[0].start > now and not re.search(r"\b(?:by|before|until)\b|之?前", plain)
            else None
        )
        return Asked(kinds, since, until, bool(_DATED.search(plain)))
    return None


def _is_one(sentence: str) -> bool:
    if has_cjk(sentence):
        bare = _LEAD_ZH.sub("", sentence)
        return any(pattern.search(form) for form in (sentence, bare) for pattern in _CHINESE)
    bare = _LEAD.sub("", sentence)
    return any(pattern.search(form) for form in (sentence, bare) for pattern in _ENGLISH)
