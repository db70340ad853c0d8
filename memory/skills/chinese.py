# ruff: noqa: E501  (a topic is one row of a table)
"""Chinese wishes on how to be answered."""

from __future__ import annotations

import re

from memory.extract.text import content_words
from memory.skills.wish import ALONE, LASTING, ONCE, Manner, Topic

_MACROS = {
    "LANG": r"(?P<lang>简体中文|繁体中文|中文|普通话|汉语|英语|英文|日语|日文|韩语|韩文|法语|法文|德语|德文|俄语|西班牙语|葡萄牙语|意大利语|阿拉伯语|泰语|越南语|粤语|广东话|荷兰语)",
    "UNIT": r"(?P<unit>公制|英制|国际单位)",
    "DEGREES": r"(?P<degrees>摄氏度?|华氏度?)",
    "DISTANCE": r"(?P<distance>公里|千米|英里)",
    "SHORT": r"(?P<length>简短|简洁|精简|简明扼要|简明|简单|言简意赅|短|详细|具体|全面|深入|长)",
    "MORE": r"(?:一?点儿?|一?些|一下)?",
    "THING": r"(?P<thing>表情符号|表情包|表情|emoji|表格|markdown|标题|加粗|粗体|感叹号|项目符号|列表符号|专业术语|术语|套话|废话|敬语|成语|网络用语|缩写|客套话|客套|免责声明|比喻)",
    "ANSWER": r"(?:(?:你的|所有的?|全部)?(?:回答|回复|答复|答案|说话|内容|解释)(?:我|我的问题|问题)?(?:的时候|时|里面?|中)?)",
    "DO": r"(?:请|都|要|应该|尽量|能|可以|再|给我|务必|最好|帮我)*+",
}
_MACRO = re.compile(r"\{([A-Z]+)\}")


def _p(pattern: str) -> re.Pattern[str]:
    while _MACRO.search(pattern):
        pattern = _MACRO.sub(lambda m: _MACROS[m[1]], pattern)
    return re.compile(pattern, re.IGNORECASE)


def _topic(pattern: str, slot: str, then: str = "", scope: str = ALONE) -> Topic:
    return Topic(_p(pattern), slot, then, scope)


_OK = r"(?:就行了?|就好了?|就可以了?|即可|吧|呗|哦|啊|了)*"
_BY = r"(?:用|使用|改用|换成|换回|改成|按照?|以|统一用|写成)"
_UNITS = tuple(
    topic
    for word, slot, then in (
        ("{UNIT}", "answer.units", "用{unit}"),
        ("{DEGREES}", "answer.temperature", "温度用{degrees}"),
        ("{DISTANCE}", "answer.distance", "距离用{distance}"),
    )
    for topic in (
        _topic(
            rf"(?:{{ANSWER}}|(?:所有的?)?(?:数字|温度|气温|距离|单位|数据|长度|重量|身高体重)){{DO}}{_BY}{word}(?:单位|制)?(?:来)?(?:表示|计算|显示|回答)?{_OK}",
            slot,
            then,
            LASTING,
        ),
        _topic(
            rf"{{DO}}{_BY}{word}(?:单位|制)?(?:来)?(?:表示|计算|显示|回答)?(?:[，,]?不要用?\w{{2,4}})?{_OK}",
            slot,
            then,
            ALONE,
        ),
    )
)
_TOPICS = (
    *_UNITS,
    _topic(rf"(?:{{ANSWER}}){{DO}}(?:只|一定)?(?:用|使用|以|说|讲){{LANG}}{_OK}", "answer.language", "用{lang}回答", ONCE),
    _topic(rf"{{DO}}(?:只)?(?:改|换|恢复)?(?:用|使用|以|说|讲|成){{LANG}}(?:来)?(?:回答|回复|答复|(?:跟|和|与|同)我(?:说话?|聊天?|交流|对话|沟通)?|交流|对话|聊天|沟通)?(?:我)?(?:的?问题)?{_OK}", "answer.language", "用{lang}回答", ONCE),
    _topic(rf"{{DO}}{{ANSWER}}{{DO}}(?:得|保持)?(?:更|再|尽可能|尽量|稍微)?{{SHORT}}{{MORE}}{_OK}", "answer.length", "回答{length}", ALONE),
    _topic(rf"{{DO}}{{ANSWER}}?(?:我)?{{DO}}(?:得|保持)?(?:更|再|尽可能|尽量|稍微)?{{SHORT}}{{MORE}}{_OK}", "answer.length", "回答{length}", ONCE),
    _topic(rf"{{DO}}保持{{SHORT}}{_OK}", "answer.length", "回答{length}", ALONE),
    _topic(rf"{{DO}}{{ANSWER}}?{{DO}}(?:控制在|不要?超过|限制在)(?P<limit>(?:\d+|[一二两三四五六七八九十百]+)(?:个?字|句话?|行|段))(?:以内|之内|内)?{_OK}", "answer.length", "回答不超过{limit}", ALONE),
    _topic(rf"{{DO}}(?:{{ANSWER}})?{{DO}}(?:别|不要|禁止|勿|少|不许)(?:再|总是?|老是?)*(?:用|使用|加|带|出现|发|写|放|给我|说|讲)?(?:任何|那么多|这么多|太多|这些)?{{THING}}(?:符号|格式|来?回答|形式)*{_OK}", "answer.style.{thing}", "不用{thing}", ALONE),
    _topic(rf"{{DO}}(?:{{ANSWER}})?{{DO}}(?:多)?(?:用|使用|加|加上|带){{THING}}(?:符号|格式|来?回答|形式)*{_OK}", "answer.style.{thing}", "用{thing}", ONCE),
    _topic(rf"{{DO}}(?:别|不要|不用)(?:再|总是?|老是?|一直|动不动就|跟我|向我|给我)*(?:道歉|说(?:对不起|抱歉|不好意思)){_OK}", "answer.apology", "不要道歉", ALONE),
    _topic(rf"{{DO}}(?:别|不要)(?:再|总是?|老是?|一直)*(?:重复我的(?:话|问题)|反问我?|夸我|说教|恭维我?|讲大道理|问我问题|追问我?){_OK}", "", "", ALONE),
    _topic(rf"(?:你)?(?:可以|以后)?{{DO}}(?:就)?(?:叫我|称呼我(?:为)?|喊我)(?P<name>(?!(?:去|来|吃|做|起床|怎么|一声|帮|回|别|不|干|等|给|把|多|少|早|快|如何|什么|好好|妹|弟|哥|姐|爸|妈|老婆|老公|儿子|女儿|同事|朋友|们|在|写|学|说|看|还|用))(?:[\u4e00-\u9fff]{{1,4}}?|[A-Za-z][A-Za-z. ]{{0,20}}?)){_OK}".replace("{{", "{").replace("}}", "}"), "user.address", "称呼用户为{name}", ALONE),
    _topic(rf"{{DO}}(?:{{ANSWER}})?{{DO}}(?:语气|说话|态度|用词)?(?:得|要|可以)?(?:更|别那么|不要那么|不要太|别太|再)?(?P<tone>正式|随意|轻松|直接|幽默|严肃|礼貌|客气|口语化){{MORE}}{_OK}", "answer.tone", "", ALONE),
    _topic(rf"{{DO}}(?:时间)?{{DO}}{_BY}(?P<clock>24小时制|12小时制)(?:的?时间)?{_OK}", "answer.clock", "时间用{clock}", ALONE),
    _topic(rf"(?:价格|金额|费用|钱)?{{DO}}{_BY}(?P<currency>人民币|美元|欧元|日元|港币|英镑)(?:来)?(?:表示|计算|报价)?{_OK}", "answer.currency", "价格用{currency}", ALONE),
)  # fmt: skip

_SUBJECTS = tuple(
    (_p(pattern), slot, then)
    for pattern, slot, then in (
        (rf"(?:用|使用|按|说)?{{UNIT}}(?:单位|制)?(?:的(?:要求|规则|事))?{_OK}", "answer.units", ""),
        (rf"(?:用|使用|按)?{{DEGREES}}(?:的(?:要求|规则|事))?{_OK}", "answer.temperature", ""),
        (
            rf"(?:用|使用|说|讲)?{{LANG}}(?:来)?(?:回答|回复|交流)?(?:我)?(?:的(?:要求|规则|事))?{_OK}",
            "answer.language",
            "",
        ),
        (rf"(?:用|使用|加|带|发)?{{THING}}(?:符号|格式)?(?:的(?:要求|规则|事))?{_OK}", "answer.style.{thing}", ""),
        (rf"{{ANSWER}}?{{DO}}{{SHORT}}{{MORE}}(?:的?{{ANSWER}})?(?:的(?:要求|规则))?{_OK}", "answer.length", ""),
        (rf"(?:叫我|称呼我).{{1,6}}?{_OK}", "user.address", ""),
    )
)


def _key(instruction: str) -> str:
    words = content_words(re.sub(r"不用|不要|别|先|都|要|请|再|了|每次|以后", " ", instruction))
    return "answer.rule." + ".".join(sorted(words))[:120]


CHINESE = Manner(
    lead=re.compile(r"(?:(?:不对|不是|错了|不行|no|太[长短啰嗦]+了|好的?|谢谢|另外|还有|对了|顺便|拜托|麻烦你?|请你?|你|希望你|我希望你|我想让你|记住|记得|能不能请?你?(?=以后|别再|不要再|每次|从现在)|可以请你(?=以后|别再|每次)|你能不能(?=以后|别再|不要再|每次))[，,。！! ]*)+", re.IGNORECASE),
    wrong=re.compile(r"不对|不是|错了|不行|no|太[长短啰]", re.IGNORECASE),
    lasting=re.compile(r"以后|今后|往后|从现在(?:起|开始)?|从今以后|从此|之后都|接下来都|每次(?:都)?|每回|永远|始终|一律|总是(?=用|先|给)|一直(?=用|以)|默认|统一(?=用|使用)|别再|不要再|不许再"),
    courtesy=re.compile(r"请|麻烦|谢谢|[，,]|(?<![a-zA-Z])please(?![a-zA-Z])"),
    never=re.compile(r"别再|不要再|不许再"),
    here=re.compile(r"这[次个段篇封里道句份首张条件一些种样本]|本次|此次|上面|下面|以下|上述|刚才|今天|那[个段篇封句次]|一会儿|暂时|先这样|这[^样]?$"),
    guard=re.compile(
        r"如果|假如|假设|要是|倘若|想象|万一|据说|听说|(?:老师|老板|领导|经理|朋友|同事|同学|妈妈?|爸爸?|医生|客户|别人|有人|他们?|她们?|人家|孩子|老婆|老公|面试官)(?:总是?|经常|常|都|就|叫|让|要求|跟我|对我|从来)*(?:说|觉得|认为|告诉|要|叫|让|不|建议)"
        r"|怎么|如何|什么|为什么|哪|吗$|呢$|是不是|有没有|会不会|该不该|我(?:都|以后|想|要|会|打算|准备|每次|一般|总是?|经常|从来|从不|自己)|^我(?!希望你|想让你)|(?:写|编|讲)(?:一|个|篇|封|首)"
    ),
    asks=re.compile(r"[？?]|写|翻译|总结|解释|介绍|推荐|帮我|告诉我|列出|比较|怎么|如何|什么|为什么|计算|多少|^给我|哪"),
    condition=re.compile(r"(?P<when>(?:当我?|我)?(?:问|发|贴|让你|推荐|写|给|解释|回答|引用|介绍)[^，,。的]{1,14}(?:的时候|时|之后|完))[，, ]*(?P<then>(?:请|都|你|先|就|要|记得|必须|直接|不要|别|只)*\S{2,60})"),
    topics=_TOPICS,
    instruct=re.compile(
        r"(?:你|在|跟我|给我|对我|回答|回复|推荐|解释|写|提到|介绍|引用|问|发|贴|聊|说到|列|给出|不要|别|请|都|要|先|直接|只|尽量|用|加|附|标|举例|输出|翻译|称呼|展示|显示|保持|务必|必须|少|多|控制)[^。]{2,80}"
    ),
    not_instruct=re.compile(r"再说|我(?:们)?(?:想|要|会|打算|准备|都|自己)|(?:会|能)取代|人工智能|自己|再也不|以后的|多吃|早点|好好|多喝|少喝|先这样"),
    lifted=tuple(
        re.compile(pattern, re.IGNORECASE)
        for pattern in (
            r"(?:现在|你|又|已经|以后)*(?:可以|能|允许)(?:重新|再|又|继续|随便)*(?P<what>(?:用|使用|加|带|发|说|讲|按|叫我|回答)[^，。]{1,20})了",
            r"(?:现在|又|重新)+(?:可以|能)(?:再|继续)?(?P<what>[^，。]{2,20})了",
            r"(?:以后|现在|你)*(?:不用|不必|不需要|无需)(?:再|每次都?|总是|都|一直)*(?P<what>[^，。]{2,30}?)了",
            r"(?:改回|恢复|换回|恢复成|变回)(?:用|使用|成)?(?P<what>[^，。]{2,20}?)(?:吧|了|就行)*",
            r"(?P<what>[^，。]{2,12}?)(?:又|也)?(?:可以|没关系|没问题|无所谓)了",
            r"(?:忘掉|忘了|取消|忽略|不用管)(?:我?(?:之前|刚才)?(?:说的|关于))?(?P<what>[^，。]{2,20}?(?:的要求|的规则|的事|规则|要求))(?:吧|了)*",
        )
    ),
    subjects=_SUBJECTS,
    key=_key,
    dont="不要",
    slots={"表情符号": "emojis", "表格": "tables", "标题": "headings", "加粗": "bold", "感叹号": "exclamation-marks", "项目符号": "bullets", "术语": "jargon", "缩写": "abbreviations", "网络用语": "slang", "免责声明": "disclaimers", "比喻": "metaphors"},
    values={"表情": "表情符号", "表情包": "表情符号", "emoji": "表情符号", "摄氏": "摄氏度", "华氏": "华氏度", "粗体": "加粗", "客套": "客套话", "专业术语": "术语", "列表符号": "项目符号"},
)  # fmt: skip
