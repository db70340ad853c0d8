# ruff: noqa: E501  (alternatives of one pattern stand together)
"""Which sentences of a message are the user speaking for himself: quotes, code, pasted text, fiction and tasks on text go out.

Goes in: the raw text of a user message, any length. Comes out: a few sentences, verbatim. Linear in the text.
"""

from __future__ import annotations

import re

from memory.extract.text import has_cjk, sentences

LONG_LINE = 1200  # characters (Chinese: a third of it); a longer line is pasted text
MOST = 6000  # characters that are looked at: the head, and half as much of the tail
MANY = 40  # sentences; a message with more is a document
MASK = "\ufffc"

_FENCE = re.compile(r"^[ \t]*(```|~~~)")
_NOISE = re.compile(r"^(?:[ \t]*(?:>|\||#!|//|/\*|<\w|\$ |at \w+\.|Traceback|File \")|(?: {4}|\t)\S.*[;{}()=])")
_SPEAKER = re.compile(r"^[ \t]*[\w\u4e00-\u9fff]{1,12}(?: \w{1,12})?[ \t]?[:：][ \t]*\S")
_QUOTED = re.compile(
    r"\"[^\"\n]{1,600}\"|“[^“”\n]{1,600}”|「[^「」\n]{1,600}」|『[^『』\n]{1,600}』|‘[^‘’\n]{1,600}’(?!\w)"
    r"|(?<![\w'])'(?=\w)(?:[^'\n]|(?<=\w)'(?=\w)){1,200}'(?!\w)"
)
_SPEECH = re.compile(
    r"\b(?:I|I'm|my|we|our|me|you|your|is|are)\b|[我你他她们]|[.!?。！？]|(?:\S+\s+){4}", re.IGNORECASE
)

_VERBS = r"(?:translate|rewrite|re-?write|rephrase|reword|paraphrase|proof-?read|summari[sz]e|polish|edit|shorten|correct|transcribe|parse|classify|analy[sz]e|continue|complete|finish|fix|check|improve|repeat)"
_WHOLE = re.compile(
    rf"^(?:\W*(?:please|pls|can you|could you|would you|help me|kindly|now|hey|hi|ok|okay|then|and)\b)*\W*(?:to )?{_VERBS}\b(?! (?:up|out|with me)\b)"
    r"|\b(?:act|behave|respond|answer|reply|talk|speak) (?:as|like) (?:an?|my|the|if)\b|\bpretend\b|\brole-?play|\blet'?s play\b"
    r"|\bsimulate\b|^\W*(?:from now on,? )?(?:you are|you're|you will be|be) (?:an?|the|now|my|called|(?-i:[A-Z]))"
    r"|\b(?:just|only) (?:kidding|joking)\b|\bjk\b|\btranslat(?:e|ion) (?:this|that|the|it|of)\b|\bfill in the blank"
    r"|\b(?:following|this|below) (?:sentence|text|paragraph|passage|essay|letter|email|excerpt|story|poem)s?\b"
    r"|(?:^|请|帮我|帮忙|给我|麻烦|把|将|再)[^，。！？\n]{0,16}(?:翻译|译成|译为|润色|改写|修改|改得|改成|改为|缩写|扩写|总结|概括|续写|仿写|校对|纠正|仿照)"
    r"|^(?:翻译|润色|改写|修改|总结|概括|续写|仿写|校对|纠正|造句)"
    r"|扮演|假装|角色扮演|开个?玩笑|开玩笑的|逗你的|^[，,]?(?:现在)?你(?:现在|将|就|要|来)?(?:是|当|作为)(?!不是|否|谁|哪|怎|什么|说|我)"
    r"|错别字|(?<![打写])错字|一段(?:文字|文本|话|材料)|\b(?:lyrics|riddle)\b"
    r"|(?:下面|以下|下列|这)(?:这|的)?(?:段|句|篇|个|首)?(?:话|句子|文字|文章|段落|短文|课文|对话)",
    re.IGNORECASE,
)
_THING = (
    r"(?:story|tale|poem|haiku|song|lyrics|rap|essay|e-?mail|letter|message|post|tweet|dialogue|conversation|script|speech|bio|biography|"
    r"scene|novel|chapter|joke|review|reply|response|statement|toast|paragraph|summary|diary|entry|caption|monologue|sentences?|text|"
    r"resume|cv|profile|introduction|note|blog|article|narrative|prompt|riddle|limerick|report|memo|apology)"
)
_ONWARD = re.compile(
    rf"\b(?:write|compose|draft|generate|create|make up|tell|give|invent|craft|prepare|make)\b(?: \S+){{0,7}}? {_THING}\b"
    r"|\bsentences? (?:starting|with|using|that)\b|\bin which i\b|\bfrom the (?:perspective|point of view)\b"
    r"|(?:写|编|创作|起草|拟|生成|作|来)(?:一|个|篇|封|首|段|份|条|点|几|两|三|十|个)[^，。！？\n]{0,20}"
    r"(?:故事|诗|词|邮件|信|作文|文案|小说|日记|检讨|文章|演讲|对话|剧本|歌|短信|祝福|简历|介绍|假条|报告|总结|稿|评论|评价|笑话|段子|朋友圈|独白|句子|说明|简介|广告|口号)"
    r"|造[^，。]{0,6}句|为(?:题|主题)|第一人称",
    re.IGNORECASE,
)
_OWN_LEAD = re.compile(
    r"^\W*(?:(?:some |more |my )?(?:background|context)|about me|btw|by the way|fyi|p\.?s|update|(?:good|bad|big|great|other) news|news|note|also|reminder|"
    r"to-?do|confession|fun fact|(?:my |the )?(?:situation|profile)|(?:(?:quick|big|small|little|minor|short|brief|important) )?(?:intro|introduction|heads-?up|change of plans?|change|changes|fix)|(?:funny|weird|strange|odd) how [\w ]{1,40}|背景|补充(?:一下)?|另外|更新|好消息|坏消息|关于我|我的情况|情况|备注|自我介绍|待办|说明|通知(?:一下)?|顺便说一下)\W*$",
    re.IGNORECASE,
)
_FIX = re.compile(
    r"^\W*(?:(?:small|quick|little|minor|one) )?(?:correction|typo|fix|更正|纠正|笔误)(?:一下)?\W*$", re.IGNORECASE
)
_COLON = re.compile(r"[:：](?!\d|//)")


def spoken(text: str) -> list[str]:
    """The sentences in which the user may be speaking of himself. Quotations in them are masked with U+FFFC."""
    if len(text) > MOST * 2:
        text = text[:MOST].rpartition("\n")[0] + "\n" + text[-MOST // 2 :].partition("\n")[2]
    found = sentences(_QUOTED.sub(_mask, "\n".join(_own_lines(text)).replace("’", "'")))
    if len(found) > MANY:
        return []
    kept: list[str] = []
    for sentence in found:
        if _WHOLE.search(sentence):
            if MASK in sentence and sentence.rstrip()[-1:] not in ":：":
                continue  # the text to work on stands in the same sentence
            return []
        if _ONWARD.search(sentence):
            break
        head = _COLON.split(sentence, maxsplit=1)
        if len(head) == 2 and _FIX.match(head[0]) and head[1].strip():
            pass  # what it corrects is for others to say
        elif len(head) == 2 and not _OWN_LEAD.match(head[0]):
            if not head[1].strip():  # what follows on the next lines is somebody's text
                break
            sentence = head[0]
        elif len(head) == 2:
            sentence = head[1].strip()
        if MASK not in sentence and sentence:
            kept.append(sentence)
    return kept


def _own_lines(text: str) -> list[str]:
    kept, fenced, speakers = [], False, 0
    for line in text.split("\n"):
        if _FENCE.match(line):
            fenced = not fenced
        elif not (fenced or _NOISE.match(line) or len(line) > (LONG_LINE // 3 if has_cjk(line[:200]) else LONG_LINE)):
            kept.append(line)
            speakers += _SPEAKER.match(line) is not None
    return kept if speakers < 3 else [line for line in kept if not _SPEAKER.match(line)]


def _mask(quote: re.Match[str]) -> str:
    return MASK if _SPEECH.search(quote[0][1:-1]) else quote[0]
