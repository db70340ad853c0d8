"""The same for Chinese: 我的狗叫豆豆 → 我的狗叫什么？, 你的狗叫豆豆。"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SLOTS = {
    "name": ("我叫什么名字？", "你知道我是谁吗？"),
    "home.city": ("我住在哪里？", "我家在哪个城市？"),
    "job": ("我是做什么工作的？", "我的职业是什么？"),
    "employer": ("我在哪里工作？", "我的公司是哪家？"),
    "birthday": ("我的生日是什么时候？", "我是哪天出生的？"),
}
_NAME = re.compile(r"我(?:叫|的名字[是叫])(?P<x>.+)")
_LIVE = re.compile(r"我(?:现在|目前)?住在?(?P<x>.+)")
_WORK = re.compile(r"我(?:现在|目前)?在(?P<x>.+?)(?P<verb>工作|上班|上学|读书|学习|教书)")
_ALLERGIC = re.compile(r"我对(?P<x>.+?)(?P<what>过敏|感兴趣)")
_MY = re.compile(r"我的?(?P<what>[^，。是叫]{1,12}?)(?P<be>是|叫)(?P<x>.+)")
_AM = re.compile(r"我是(?:一[名个位])?(?P<x>.+)")
_DO = re.compile(
    r"我(?P<adverb>最|很|也|一直|每天|经常|总是)*"
    r"(?P<verb>不喜欢|喜欢|讨厌|想要|想|打算|计划|希望|正在学|在学|养了|养着|养|开着|开|爱|有|用|吃|喝|学)(?P<x>.+)"
)


def answer(clause: str) -> str:
    """The clause turned towards the one who asks: 我住在上海 → 你住在上海。"""
    return clause.strip().rstrip("。！.!").replace("我们", "你们").replace("我", "你") + "。"


def questions(clause: str, slot: str = "") -> list[str]:
    """Questions that the clause answers, the plainest first; none where no frame fits."""
    said = clause.strip().rstrip("。！.!")
    return list(dict.fromkeys([*_SLOTS.get(slot, ()), *_framed(said)]))


def _framed(said: str) -> list[str]:
    if _NAME.fullmatch(said):
        return ["我叫什么名字？", "你知道我的名字吗？"]
    if _LIVE.fullmatch(said):
        return ["我住在哪里？", "你知道我住哪儿吗？"]
    if m := _WORK.fullmatch(said):
        return [f"我在哪里{m['verb']}？", f"你记得我在哪儿{m['verb']}吗？"]
    if m := _ALLERGIC.fullmatch(said):
        return [f"我对什么{m['what']}？", f"你记得我对什么{m['what']}吗？"]
    if _AM.fullmatch(said):
        return ["我是做什么的？", "你知道我是什么人吗？"]
    if m := _MY.fullmatch(said):
        return [f"我的{m['what']}{m['be']}什么？", f"你记得我的{m['what']}{m['be']}什么吗？"]
    if m := _DO.fullmatch(said):
        return [f"我{m['verb']}什么？", f"你知道我{m['verb']}什么吗？"]
    return []


def topical(clause: str, names: Sequence[str]) -> list[str]:
    """Questions by the names in a clause; without any, by how it begins."""
    if names:
        return [f"关于{names[0]}，我说过什么？", f"你知道我和{names[0]}的什么事？"]
    said = clause.strip().rstrip("。！.!")
    return [f"我说过一句话，开头是“{said[: max(2, len(said) // 2)]}”，后面是什么？"]


def instructed(when: str) -> list[str]:
    """Questions that a standing wish answers; `when` is its condition, or empty."""
    return [f"{when}，你应该怎么做？"] if when else ["你应该怎样回答我？", "我要你一直怎么做？"]
