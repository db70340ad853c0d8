# ruff: noqa: E501  (lists of words stand together)
"""Names in a text: people, places, organisations, products, titles; English and Chinese. Rules only; pure, linear in the text.

English: capitalised words, where a sentence does not merely begin with them; what stands in quotes as a title does. Chinese:
titles in 《》, names with a surname after the words that introduce one, well-known places, organisations by their ending.
Dates, months, weekdays and languages of their own are no names.
"""

from __future__ import annotations

import re

from memory.extract.text import has_cjk
from memory.words import fold

LONGEST = 6000  # characters that are looked at
MOST = 24  # names of one text
_NAME = re.compile(
    r"[A-ZÀ-ÞŠŽ][\w’'&-]*(?:\.[A-Z]\.?)*(?:\s+(?:(?:of|the|de|la|van|von|der|da|di|del|al)\s+){0,2}[A-ZÀ-ÞŠŽ0-9][\w’'&-]*){0,3}"
)
_TITLE = re.compile(
    r"\"([^\"\n]{2,60})\"|“([^”\n]{2,60})”|《([^《》\n]{1,40})》|「([^「」\n]{1,30})」|『([^『』\n]{1,30})』"
)
_SENTENCE = re.compile(r"(?:^|[.!?:;\n]\s*|[-•*]\s+|[\"“(]\s*)$")
_NOT = frozenset(
    """i i'm i've i'd i'll im ok okay yes no hi hello hey thanks thank please sorry well so and but or the a an this that these those my your our his her its
    their it we you he she they is are was were do does did can could will would should what which who when where why how if then there here also just
    monday tuesday wednesday thursday friday saturday sunday mondays tuesdays wednesdays thursdays fridays saturdays sundays mon tue wed thu fri sat sun january february march april may june july august september october
    november december jan feb mar apr jun jul aug sep sept oct nov dec christmas easter today tomorrow yesterday am pm user assistant note update ps fyi btw
    lol omg tbh idk asap faq etc mr mrs ms dr english god mom mum dad mother father grandma grandpa""".split()
)
_AFTER_NAME = re.compile(
    r"(?:['’]s\b|\s+(?:and I|is my|was my|has|says|said|called|lives|works|moved|passed|died|loves|likes|hates)\b)"
)
_SURNAME = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文章"
_PERSON_ZH = re.compile(
    rf"(?:叫做?|名叫|和|跟|找|给|见了?|约了?|陪|是|帮|问|等|遇到|认识|朋友|同事|老师|同学|老板|医生|女儿|儿子|男友|女友|朋友叫)(?P<name>[{_SURNAME}](?!家|天|年|月|里|上|下|国|府|的|先后|方|是|好|了|时|说|明天|店|山|海|水)[\u4e00-\u9fff]{{1,2}}?|[小老阿][{_SURNAME}\u4e00-\u9fff])(?=$|[，。！？、；\s,.]|的|了|和|跟|去|在|说|是|吃|见|一起|聊|打|把|给|最|也|都|昨|今|明|上|结|分|搬|来|住|喜)"
)
_PLACE_ZH = re.compile(
    r"北京|上海|天津|重庆|广州|深圳|杭州|南京|苏州|成都|武汉|西安|长沙|青岛|大连|厦门|宁波|无锡|郑州|沈阳|哈尔滨|济南|福州|昆明|合肥|南昌|温州|珠海|佛山|东莞|兰州|贵阳|南宁|海口|三亚|拉萨|乌鲁木齐|呼和浩特|银川|西宁|太原|石家庄|长春|烟台|大理|丽江|桂林|泉州|常州|绍兴|嘉兴|扬州|洛阳"
    r"|香港|澳门|台北|台湾|东京|大阪|京都|首尔|曼谷|新加坡|巴黎|伦敦|纽约|洛杉矶|旧金山|西雅图|多伦多|温哥华|悉尼|墨尔本|柏林|慕尼黑|罗马|米兰|马德里|莫斯科|中国|美国|英国|法国|德国|日本|韩国|泰国|越南|加拿大|澳大利亚|意大利|西班牙|俄罗斯|冰岛"
)
_ORG_ZH = re.compile(
    r"(?<![\u4e00-\u9fff])?(?:在|去|从|到|于|进|入职|加入|离开|就读于|考上|毕业于)(?P<name>[\u4e00-\u9fffA-Za-z]{2,8}?(?:公司|大学|学院|医院|银行|集团|中学|小学|研究所|研究院|出版社|事务所))"
    r"|(?P<firm>华为|腾讯|阿里巴巴|百度|京东|美团|字节跳动|小米|网易|滴滴|拼多多|比亚迪|苹果公司|微软|谷歌)"
)
_LATIN = re.compile(r"(?<![A-Za-z0-9])[A-Z][A-Za-z0-9]+(?: [A-Z0-9][A-Za-z0-9]+){0,3}")


def names(text: str) -> list[str]:
    """The names in a text as written there, in order of appearance, each once."""
    text = text[:LONGEST]
    titles = [next(filter(None, match.groups())).strip() for match in _TITLE.finditer(text)]
    found = [title for title in titles if not _is_speech(title)]
    found += _chinese(text) if has_cjk(text) else _english(text)[0]
    found = [name for name in found if not any(name != title and name in title for title in titles)]
    kept: dict[str, str] = {}
    for name in found:
        plain = name.strip(" .,'’-")
        if plain and fold(plain) not in _NOT and not plain.isdigit():
            kept.setdefault(fold(plain), plain)
    return list(kept.values())[:MOST]


def perhaps(text: str) -> list[str]:
    """Words that a sentence begins with and that are names if somebody knows them as such: "Vienna was cold"."""
    return [] if has_cjk(text) else _english(text[:LONGEST])[1][:MOST]


def _english(text: str) -> tuple[list[str], list[str]]:
    """(names, words that may be names)"""
    sure: list[str] = []
    doubtful: list[str] = []
    for match in _NAME.finditer(text):
        words = match[0].split()
        begins = bool(_SENTENCE.search(text[max(0, match.start() - 4) : match.start()]))
        while words and fold(words[0]).replace("’", "'") in _NOT:  # "My Rex", "When Anna": the name is what follows
            words, begins = words[1:], False
        if not words:
            continue
        name = re.sub(r"['’]s$", "", " ".join(words))
        lone = len(words) == 1 and not (name.isupper() and len(name) > 1)
        if begins and lone and not _AFTER_NAME.match(text, match.start() + len(name)):
            doubtful.append(name)
        elif len(name) > 1:
            sure.append(name)
    elsewhere = {fold(name) for name in sure}
    sure += [name for name in doubtful if fold(name) in elsewhere]
    return sure, [name for name in doubtful if fold(name) not in elsewhere]


def _chinese(text: str) -> list[str]:
    found = [match["name"] for match in _PERSON_ZH.finditer(text)]
    found += [match[0] for match in _PLACE_ZH.finditer(text)]
    found += [match["name"] or match["firm"] for match in _ORG_ZH.finditer(text)]
    return found + [match[0] for match in _LATIN.finditer(text)]


def _is_speech(title: str) -> bool:
    """Whether what stands in quotes is said rather than named."""
    if has_cjk(title):
        return len(title) > 12 or re.search(r"[，。！？我你他她]", title) is not None
    return (
        len(title.split()) > 6 or not title[:1].isupper() or re.search(r"[.!?]$|\b(?:I|you|we|my)\b", title) is not None
    )
