# ruff: noqa: E501  (a topic is one row of a table)
"""English wishes on how to be answered."""

from __future__ import annotations

import re

from memory.extract.text import content_words
from memory.skills.wish import ALONE, LASTING, ONCE, Manner, Topic

_MACROS = {
    "ANSWERS": r"(?:(?:all |any |the |your |my |of |future )*+(?:answers|replies|responses|messages|explanations))",
    "LANG": r"(?P<lang>english|french|german|spanish|italian|portuguese|dutch|russian|polish|czech|greek|turkish|arabic|hebrew|persian|farsi|hindi|urdu|"
    r"bengali|tamil|telugu|punjabi|(?:simplified |traditional )?chinese|mandarin|cantonese|japanese|korean|vietnamese|thai|indonesian|malay|"
    r"tagalog|swahili|finnish|swedish|norwegian|danish|hungarian|romanian|bulgarian|ukrainian|serbian|croatian|catalan|welsh|irish|latin)",
    "UNIT": r"(?P<unit>metric|imperial|us customary|si)",
    "DEGREES": r"(?P<degrees>celsius|fahrenheit|kelvin)",
    "DISTANCE": r"(?P<distance>kilomet(?:re|er)s?|miles|km)",
    "SHORT": r"(?P<length>short(?:er)?|brief(?:er)?|concise|succinct|crisp|terse|compact|to the point|detailed|in[- ]depth|thorough|long(?:er)?|comprehensive|elaborate)",
    "TONE": r"(?P<tone>formal|informal|casual|friendly|polite|direct|blunt|honest|playful|professional|serious|chatty|enthusiastic|patronising|patronizing|harsh|gentle)",
    "THING": r"(?P<thing>emojis?|emoticons?|smileys|tables?|bullet ?points?|bullets|bulleted lists?|markdown|headings?|headers|bold(?: text)?|latex|jargon|slang|"
    r"exclamation (?:marks?|points?)|em[- ]?dashes|disclaimers?|filler(?: words)?|buzzwords|acronyms|abbreviations|hashtags|swear words|"
    r"profanity|flattery|small ?talk|preambles?|follow-up questions|caveats|footnotes|contractions|passive voice|sarcasm|metaphors|puns)",
    "IN": r"(?: (?:in|with|for|at|to) (?:{ANSWERS}|me|the end|all|everything|the start))*",
    "THE": r"(?:the |any |your |so many |all |these |those |a |an )*+",
    "QUALITY": r"(?: (?:and|but) (?:short|brief|concise|simple|sweet|clear|precise|to the point))?",
}
_MACRO = re.compile(r"\{([A-Z]+)\}")


def _p(pattern: str) -> re.Pattern[str]:
    taken: set[str] = set()
    while _MACRO.search(pattern):
        pattern = _MACRO.sub(lambda m: _MACROS[m[1]], pattern)

    def once(group: re.Match[str]) -> str:  # a name may stand once in a pattern
        if group[1] in taken:
            return "(?:"
        taken.add(group[1])
        return group[0]

    return re.compile(re.sub(r"\(\?P<(\w+)>", once, pattern), re.IGNORECASE)


def _topic(pattern: str, slot: str, then: str = "", scope: str = ALONE) -> Topic:
    return Topic(_p(pattern), slot, then, scope)


_MEASURES = r"(?:(?:all |the |your |my |any )*+(?:numbers?|values?|measurements?|units?|quantities|everything|distances?|weights?|temperatures?|recipes?))"
_AS = r"(?: (?:should|must|need to|have to) be| are)?(?: always)? (?:in|as|to|using|with) (?:the )?"
_OF_UNITS = r"(?: (?:units?|system|measurements?|degrees|values))*(?:,? (?:only|instead|not (?:the )?(?:imperial|metric|fahrenheit|celsius|miles|kilomet(?:re|er)s?)|for me|for everything|with me))*{IN}"
_USE = r"(?:use|stick to|stick with|switch to|convert (?:everything )?to|go with|work in|think in|i use|we use|i prefer|i need|i'm used to)"

_UNITS = tuple(
    topic
    for name, word, slot, then in (
        ("unit", "{UNIT}", "answer.units", "use {unit} units"),
        ("degrees", "{DEGREES}", "answer.temperature", "give temperatures in {degrees}"),
        ("distance", "{DISTANCE}", "answer.distance", "give distances in {distance}"),
    )
    for topic in (
        _topic(
            rf"(?:(?:give|show|put|write|keep|tell)(?: me)? )?(?:{{ANSWERS}}|{_MEASURES}){_AS}{word}{_OF_UNITS}",
            slot,
            then,
            LASTING,
        ),
        _topic(rf"{_USE} (?:the )?{word}{_OF_UNITS}", slot, then, ALONE),
        _topic(rf"(?:answer |reply |respond )?(?:in )?(?:the )?{word}{_OF_UNITS}", slot, then, ONCE),
    )
)
_TOPICS = (
    *_UNITS,
    _topic(r"(?:give me |keep |write )?{ANSWERS}(?: (?:should|must) be)?(?: only)? in {LANG}(?: only)?", "answer.language", "answer in {lang}", LASTING),
    _topic(r"(?:answer|reply|respond|speak|talk|write|communicate|chat)(?: to me| back| with me| me)*(?: only)? in(?: only)? {LANG}(?: only| instead| with me| to me)*", "answer.language", "answer in {lang}", ONCE),
    _topic(r"(?:(?:use|speak|stick to|stay in|in|only) )*{LANG}(?: only)?", "answer.language", "answer in {lang}", ONCE),
    _topic(r"(?:(?:let's )?(?:go|switch|change))? ?back to {LANG}", "answer.language", "answer in {lang}", ALONE),
    _topic(r"(?:(?:let's )?(?:go|switch|change))? ?back to {UNIT}(?: units)?", "answer.units", "use {unit} units", ALONE),
    _topic(r"keep (?:it|things|them|{ANSWERS})(?: very| more| as| nice and)? {SHORT}{QUALITY}(?: as possible)?{IN}", "answer.length", "keep answers {length}", ALONE),
    _topic(r"make {ANSWERS}(?: much| more| a bit)? {SHORT}{QUALITY}", "answer.length", "keep answers {length}", ONCE),
    _topic(r"(?:try to )?be (?:more |very |really |a bit more |much more |as )?{SHORT}{QUALITY}(?: as possible)?{IN}", "answer.length", "keep answers {length}", ALONE),
    _topic(r"(?:give me |i (?:prefer|like|love|want) |only |more |much |very )*{SHORT}{QUALITY} {ANSWERS}(?: only)?", "answer.length", "keep answers {length}", LASTING),
    _topic(r"(?:answer|reply|respond)(?: me)?(?: more| as| very)? (?P<length>briefly|concisely|shortly|in (?:detail|depth)|at length)(?: as possible)?", "answer.length", "answer {length}", ONCE),
    _topic(r"(?:keep|limit|restrict) {ANSWERS} (?P<limit>(?:to |under |below |within )?(?:at most |a maximum of |no more than |max )?(?:\d+|an?|one|two|three|four|five|six|ten) (?:words?|sentences?|lines?|paragraphs?))(?: or less| each| max)?", "answer.length", "keep answers {limit}", LASTING),
    _topic(r"(?:don't be|be less|stop being) (?:so |too )?(?P<length>verbose|wordy|long-winded|brief|terse|short|chatty)", "answer.length", "", ALONE),
    _topic(r"(?:don't|do not|avoid|no|no more|skip|drop|omit|leave out|stop(?: using| adding| with)?|lay off|enough with|enough|cut out|less) (?:ever )?(?:use |using |add |adding |include |including |give me |write |put |show )?{THE}{THING}{IN}", "answer.style.{thing}", "avoid {thing}", ALONE),
    _topic(r"without {THE}{THING}", "answer.style.{thing}", "avoid {thing}", ONCE),
    _topic(r"(?:use|add|include|format (?:answers )?with|give me) (?:more |some |lots of |a few )?{THE}{THING}{IN}", "answer.style.{thing}", "use {thing}", ONCE),
    _topic(r"(?:(?:stop|quit) (?:apologi[sz]ing|saying (?:you're |that you are )?sorry)|(?:don't|do not|no need to) (?:apologi[sz]e|say (?:you're )?sorry))(?: so much| so often| all the time| every time| constantly| to me| for everything| at the start.*)*", "answer.apology", "do not apologise", ALONE),
    _topic(r"(?:stop|quit) (?:repeating (?:yourself|my questions?|the questions?|me|what i)|asking (?:me )?(?:so many )?(?:follow-up |clarifying )?questions|calling me \w+|praising|flattering|thanking me|lecturing|moraliz|moralis|hedging|rambling|saying \S|adding \S|using \S|giving me \S|ending \S|starting \S|including \S|summari[sz]ing (?:everything|your)|being so|writing (?:so|such|in|with))(?!(?: the| my| a)\b)[^,;]{0,80}", "", "", ALONE),
    _topic(r"(?:you (?:can|may|should) )?(?:just |simply )?(?:call|address) me (?:as |by )?(?-i:(?P<name>(?:(?:Dr|Mr|Mrs|Ms|Prof|Mx)\.? )?[A-ZÀ-Þ][\w'’.-]{0,30}(?: [A-ZÀ-Þ][\w'’.-]{0,30}){0,2}))(?: instead| not .*)?", "user.address", "call the user {name}", ALONE),
    _topic(r"(?:try to )?(?:be|sound) (?:more |less |a bit (?:more |less )?|very )?{TONE}(?: (?:with|to|towards) me)?{IN}", "answer.tone", "", ALONE),
    _topic(r"(?:don't|do not|stop) (?:be|being|sound) (?:so |too |that )?{TONE}(?: (?:with|to) me)?", "answer.tone", "", ALONE),
    _topic(r"(?:use|keep) (?:a |an )?(?:more )?{TONE} (?:tone|style|language)(?: with me)?", "answer.tone", "use a {tone} tone", ONCE),
    _topic(r"(?:use|give|show|write|in|i use|i prefer)(?: me)?(?: the| times?(?: in)?| all times in)*(?: a| the)? (?P<clock>(?:24|12)[- ]?(?:hour|h)(?: clock| time| format)?)(?: clock| time| format)*", "answer.clock", "give times in {clock} format", ALONE),
    _topic(r"(?:(?:all |the |your )*(?:prices?|amounts?|costs?) in|use|prices? always in) (?P<currency>euros?|dollars?|us dollars|pounds sterling|yen|yuan|rmb|rupees|swiss francs|eur|usd|gbp|chf)", "answer.currency", "give prices in {currency}", ALONE),
    _topic(r"(?:use|write|give me)(?: all)?(?: dates (?:as|in))? (?P<dates>iso(?:[- ]8601)?|yyyy-mm-dd|dd[./]mm[./]yyyy|mm/dd/yyyy)(?: dates?| format)*", "answer.dates", "write dates as {dates}", ALONE),
)  # fmt: skip

_ABOUT = r"(?: (?:thing|rule|wish|request|instruction|preference|part|stuff|business|only))*"
_AGAIN = r"(?: (?:again|now|after all|too|by me|with me|any ?more))"
_SUBJECTS = tuple(
    (_p(pattern), slot, then)
    for pattern, slot, then in (
        (rf"(?:the )?(?:use )?{{UNIT}}(?: units| system)?{_ABOUT}", "answer.units", ""),
        (rf"(?:the )?(?:use )?{{DEGREES}}{_ABOUT}", "answer.temperature", ""),
        (rf"(?:the )?(?:use )?{{DISTANCE}}{_ABOUT}", "answer.distance", ""),
        (rf"(?:the )?(?:answer(?:ing)? in |answers in |use |speak |speaking )?{{LANG}}{_ABOUT}", "answer.language", ""),
        (rf"(?:the |keep(?:ing)? it |be )?{{SHORT}}(?: {{ANSWERS}})?{_ABOUT}", "answer.length", ""),
        (r"(?:more )?(?:detail|details|length)", "answer.length", ""),
        (
            rf"(?:the |no[- ]|use |using |add |adding |include |a few |some )*{{THING}}{_ABOUT}",
            "answer.style.{thing}",
            "",
        ),
        (r"apologi[sz](?:e|ing)|say(?:ing)? sorry|apologies", "answer.apology", ""),
        (r"call(?:ing)? me (?:\w+ ?){1,3}|address me .*", "user.address", ""),
        (rf"(?:be )?{{TONE}}(?: with me)?{_ABOUT}", "answer.tone", ""),
    )
)


def _key(instruction: str) -> str:
    """The words that an instruction is about, without its direction."""
    words = content_words(instruction) - {"don't", "never", "alway", "stop", "pleas", "use", "avoid", "show", "gi"}
    return "answer.rule." + ".".join(sorted(words))[:120]


ENGLISH = Manner(
    lead=_p(
        r"(?:(?:no(?=\s*[,.!:;–—-]|\s+(?:always|please|use|in|never|don't|i|it's)\b)|nope|wrong|not like that|that's (?:wrong|not right|too long|too short|too much)|actually|sorry|hey|hi|hello|ok(?:ay)?|thanks?(?: you)?|great|cool|nice|good|perfect|but|and|also|so|btw|by the way|"
        r"one more thing|another thing|please|pls|kindly|remember(?: that| to|,)|note(?: that)?|as i said|again|well|oh|ugh|"
        r"(?:can|could|would|will) you(?: please| pls| maybe)?(?= (?:always|stop|never|only|from now on)\b|.*\b(?:from now on|in (?:the )?future|any ?more|going forward|every time)\b)|"
        r"(?:i(?:'d| would) (?:like|prefer|love)|i (?:want|need)|i'd rather) you to|you (?:should|must)|make sure (?:to|that you|you)|"
        r"i(?:'m| am) (?-i:[A-Z])\w+, so|(?:my friends|everyone|people) calls? me \w+,? so|i'm (?:european|american|british|german|french|australian),? so)(?![\w'])[\s,.!:;–—-]*)+"
    ),
    wrong=_p(r"\b(?:no|nope|wrong|not like that|not right|actually|as i said|again|too (?:long|short|much))\b"),
    lasting=_p(
        r"\b(?:always|never|from (?:now|here|today) on(?:wards?| out)?|going forward|in (?:the )?future|in all (?:of )?(?:your )?(?:answers|replies|responses|chats|conversations)|"
        r"in (?:every|each) (?:answer|reply|response|chat|conversation)|every (?:single )?(?:time|answer|reply|response)|each time|any ?more|ever again|permanently|by default|"
        r"as a rule|at all times|for good|across all (?:chats|conversations))\b"
    ),
    courtesy=_p(r"\b(?:please|pls|thanks|thank you|ever)\b"),
    never=_p(r"never"),
    here=_p(
        r"\b(?:this|these|those)\b|\bthat\b(?!'s| you\b)|\b(?:just|only) (?:once|now)\b|\bfor (?:now|once|today)\b|\btoday\b|\bhere\b|\b(?:above|below|following)\b"
        r"|\b(?:the|my|an?|her|his|our|their) (?:\w+ )?(?:e-?mails?|letter|essay|paragraph|caption|table above|post|article|paper|poem|story|report|second|first (?:paragraph|sentence|draft)|last|next|summary of|text|draft|translation|slides?|presentation|homework|thesis)\b"
    ),
    guard=_p(
        r"\bif (?:i (?:told|said|asked|wanted|were)|someone|they|he|she|my)\b|\bsuppos|\bimagin|\bwhat if\b|\bpretend|\bhypothetical"
        r"|\b(?:said|says|told|tells|asked|asks|wants|wrote|writes|keeps|keep (?:telling|saying|asking)|thinks?|recommends|decided|according)\b|\bin my (?:novel|story|game|book)\b|\b(?:lyrics?|slogans?|taglines?)\b|\bnever say never\b"
        r"|^(?:\W*(?:should|do|does|did|is|are|was|what|why|how|which|who|when(?! (?:i|you)\b)|where|have|has)\b)|\bhow (?:do|can|should) i\b|\b(?:he|she|they|we) (?:never|always)\b|\byou (?:never|always)\b"
        r"|\balways (?:wanted|loved|been|thought|wondered|had)\b|\bi (?:always|never|don't)\b|\bi(?:'ll| will| am going to)\b|\bwe (?:no longer|don't)\b"
    ),
    asks=_p(
        r"\?|\b(?:write|draft|explain|tell me|give me|show me|make|create|translate|summari[sz]e|list|find|compare|calculate|convert|describe|suggest|recommend|help me|rewrite|generate|fix|check|look up|plan|compose|review|what|how|why|which)\b(?! of you\b)"
    ),
    condition=_p(
        r"(?P<when>(?:when(?:ever)?|if|(?:every|each) time) (?:i|you) (?:ask|send|share|paste|mention|answer|write|reply|give|show|explain|suggest|recommend|talk|post|upload|speak|quote|review|list|use|make)\b(?! (?:my|the|her|his)\b)[^,]{0,80}),\s*(?P<then>(?:please |always |then |never |don't |do not |you should )*{INSTRUCT}.{2,160})".replace(
            "{INSTRUCT}",
            r"(?:answer|reply|respond|write|use|give|keep|add|include|explain|show|format|provide|start|end|make|put|cite|translate|mention|ask|tell|list|avoid|convert|omit|skip|limit|repeat|review|check|summari[sz]e|call|be|quote|comment|point|highlight|read|test)\b",
        )
    ),
    topics=_TOPICS,
    instruct=_p(
        r"(?:(?:don't|do not|only|just|first|also) )*(?:answer|reply|respond|write|use|give|keep|add|include|explain|call me|address me|speak|show|format|provide|start|end|begin|put|cite|translate|mention|ask me|say|tell me|list|avoid|stick|quote|convert|omit|skip|assume|refer|limit|repeat|suggest|recommend|summari[sz]e|structure|number|highlight|round|link|comment|sign|spell|return|output|print|warn me|remind me of|check|double-check|praise|lecture|review|check|read|test|point out|rate)\b .{2,160}"
    ),
    not_instruct=_p(
        r"\b(?:i|we|he|they) (?:will|am|was|were|have|had)\b|\b(?:up|in) hope\b|\bgive up\b|\bgive (?:in|way)\b|\bkeep (?:the|my|a|an|calm|going|on|in mind|up)\b(?! (?:answers|replies|responses|code|tone|format))|\buse (?:the|my|a|an) (?:\w+ )?(?:bins?|car|bus|stairs|seat ?belt|handrail)\b"
    ),
    lifted=(
        _p(r"(?:(?:using|the) )?(?P<what>.{2,60}?) (?:is|are)(?: all| totally| perfectly)? (?:fine|ok(?:ay)?|good|allowed|welcome|alright)" + _AGAIN + "+"),
        _p(r"(?:now )?(?:you (?:can|may)|feel free to)(?: now)? (?P<what>.{2,80}?)" + _AGAIN + "+"),
        _p(r"(?:you )?(?:no longer (?:have|need) to|needn't) (?P<what>.{2,100}?)(?: any ?more| now)?"),
        _p(r"(?:you )?(?:don't|do not) (?:have|need) to (?P<what>.{2,100}?) (?:any ?more|any longer|now)"),
        _p(r"(?:there(?:'s| is) )?no (?:more |longer (?:a |any )?)?need to (?P<what>.{2,100}?) (?:any ?more|any longer|now)"),
        _p(r"(?:forget|ignore|drop|cancel|scrap|never ?mind)(?: about)?(?: what i said about| that i wanted| my wish for)?(?: the| my| that)? (?P<what>.{2,60}? (?:thing|rule|wish|request|instruction|preference))"),
        _p(r"(?:forget|ignore|drop|cancel|scrap|never ?mind)(?: about)? (?:what i said about|my wish for) (?P<what>.{2,60})"),
    ),
    subjects=_SUBJECTS,
    key=_key,
    dont="don't",
    slots={},
    values={
        "celsius": "Celsius", "fahrenheit": "Fahrenheit", "si": "SI", "us customary": "US customary", "kilometer": "kilometres", "km": "kilometres", "kilometers": "kilometres",
        "shorter": "short", "briefer": "brief", "longer": "longer", "emoji": "emojis", "table": "tables", "bullet points": "bullets", "bullet point": "bullets", "bulletpoints": "bullets",
        "bulleted list": "bullets", "bulleted lists": "bullets", "heading": "headings", "header": "headings", "headers": "headings", "disclaimer": "disclaimers", "emoticon": "emojis", "emoticons": "emojis", "smileys": "emojis",
    } | {name: name.title() for name in "english french german spanish italian portuguese dutch russian polish czech greek turkish arabic hebrew persian farsi hindi urdu bengali tamil telugu punjabi chinese mandarin cantonese japanese korean vietnamese thai indonesian malay tagalog swahili finnish swedish norwegian danish hungarian romanian bulgarian ukrainian serbian croatian catalan welsh irish latin".split()},
)  # fmt: skip
