# ruff: noqa: E501  (a rule is one row of a table)
"""English: the words with which people take back, correct, finish or call off what they said before."""

from __future__ import annotations

import re

from memory.extract.change import Changes, Row

_MACROS = {
    # what the change is about: up to the next pause
    "O": r"(?P<o>[^,.;:!?\n—]{2,70}?)(?=\s*(?:$|[,.;:!?—–]|\b(?:and|but|because|since|so|after all|anymore|any more|any longer|for good|completely|altogether|last|this|yesterday|today|now|again)\b))",
    "NAME": r"(?-i:[A-ZÀ-Þ][\w'.&-]*(?:\s+[A-ZÀ-Þ0-9][\w'-]*){0,3})",
    "ANYMORE": r"(?:anymore|any more|any longer|after all)",
    "WE": r"(?:\b(?:I|we)(?:'ve|'m|'re|\s+have|\s+had to|\s+am|\s+are|\s+was|\s+were)?\s+(?:(?:just|finally|recently|already|now|completely|officially|sadly)\s+)*)",
    "THE": r"(?:my|our|the|that|this|those|these)\s+",
    "VALUE": r"[\w@+.'’&/:-]+(?:[ -][\w@+.'’&/:-]+){0,4}?",
    "STOP": r"(?=\s*(?:$|[,.;!?()—–]|\b(?:not|instead|rather|now|with|and|but|sorry|my bad)\b))",
}
_MACRO = re.compile(r"\{([A-Z]+)\}")


def _p(pattern: str) -> re.Pattern[str]:
    while _MACRO.search(pattern):
        pattern = _MACRO.sub(lambda m: _MACROS[m[1]], pattern)
    return re.compile(pattern, re.IGNORECASE)


_JOB = ("job", "employer")
_LOVE = ("marital", "partner.name")

_ROWS = (
    # corrections of a value
    Row("corrected", _p(r"\b(?:it's|it is|that's|is|should be|should read|should have been|I meant|meant to (?:say|write|type)|make that|rather)\s+(?:actually\s+|really\s+|spelled\s+)?(?P<new>{VALUE}),?\s+(?:and\s+)?not\s+(?P<old>{VALUE}){STOP}")),
    Row("corrected", _p(r"\bnot\s+(?P<old>{VALUE})(?:,\s*(?:but\s+|it's\s+)?|\s+but\s+)(?P<new>(?!(?:I|I'm|we|but|it's|you|he|she|they|so|and|the|just|please|my|any)\b){VALUE}){STOP}"), veto=_p(r"\bnot (?:only|just|sure|that|so|a|an|very|the|to|in)\b")),
    Row("corrected", _p(r"\b(?:I meant(?: to (?:say|write|type))?|I mean|make that|should (?:be|read|have been)|correct(?:ion)?(?: is|:)?)\s+(?:it's\s+|that's\s+|on\s+)?(?P<new>{VALUE}){STOP}"), veto=_p(r"\bI mean(?:t)? (?:it|that|well|to|what|you|the|like|really|no)\b")),
    Row("corrected", _p(r"\b(?:correction|typo|misspel+ed|misspelt|mistyped|mistake|wrong|oops|whoops|autocorrect|wait|sorry|actually)\b.{0,40}?\b(?:it's|it is|that's|should be|is spelled)\s+(?:actually\s+|spelled\s+|really\s+|on\s+)?(?P<new>{VALUE}){STOP}"), veto=_p(r"\b(?:it's|it is|that's) (?:not|a|an|the|my|so|too|very|ok|okay|fine|good|great|just|been|all|me|going|getting|really|late|been)\b")),
    # work
    Row("ended", _p(r"\b(?:quit|left|lost|resigned from|gave up)\s+(?:my|the)\s+(?:\w+\s+)?(?:job|position|company|firm|role)\b|{WE}(?:got\s+|been\s+|was\s+)?(?:laid off|fired|let go|made redundant)\b|{WE}(?:retired|resigned)\b|\bhanded in (?:my|our) (?:notice|resignation)\b|\b(?:got|landed|accepted|started|starting|have|begun)\s+(?:a|my)\s+(?:brand[- ]new\s+|new\s+)(?:job|position|role)\b|\b(?:changed|switched|changing|switching) (?:jobs|careers|employers)\b|\bI'm (?:unemployed|retired) now\b"), slots=_JOB),
    Row("ended", _p(r"{WE}(?:left|quit|leaving|resigned from)\s+(?P<o>{NAME}|(?:the|my)\s+\w+)")),
    Row("ended", _p(r"\b(?:last day|done|finished|history)\s+(?:at|with)\s+(?P<o>{NAME})")),
    # home
    Row("replaced", _p(r"{WE}(?:moved|relocated|settled)\s+(?:back\s+|over\s+|down\s+)?(?:to|in|into)\s+(?:the\s+)?{NAME}"), slots=("home.city",), veto=_p(r"\bmoved (?:to|in|into) (?:a|the) (?:team|department|project)\b")),
    Row("replaced", _p(r"\b{NAME}\s+(?:is|has become|became)\s+(?:now\s+)?(?:my|our)\s+(?:new\s+)?(?:home|home town|base)\b"), slots=("home.city",)),
    # people
    Row("ended", _p(r"\b(?:broke up|broken up|split up|splitting up|separated|parted ways|called off (?:the|our) (?:wedding|engagement))\b|\b(?:got|getting|am|'m|are|were) divorced\b|\bdivorce (?:was|is|got|went|came|has been)\b|\bdumped me\b|\bleft me\b|\bno longer (?:together|married|engaged|dating|a couple)\b|\bnot together anymore\b"), slots=_LOVE),
    Row("replaced", _p(r"\b(?:got|are|we're|'m|am) (?:married|engaged)\b|\btied the knot\b|\bsaid yes\b|\bI (?:finally |now |'ve got )?have a (?:new )?(?:girlfriend|boyfriend|partner)\b|\bin a relationship (?:now|again)\b|\bnot single anymore\b"), slots=("marital",)),
    # pets and things
    Row("ended", _p(r"(?P<o>(?:my|our)\s+[\w' -]{2,30}?|{NAME})\s+(?:(?:has|have|had|just|sadly|peacefully)\s+)*(?:passed away|died|was put (?:down|to sleep)|had to be put (?:down|to sleep)|ran away|is no longer with us|crossed the rainbow bridge)\b")),
    Row("ended", _p(r"{WE}(?:sold|traded in|gave away|got rid of|scrapped|donated|returned|crashed|totalled|lost|rehomed|traded)\s+{THE}{O}")),
    Row("replaced", _p(r"{WE}(?:replaced|swapped|exchanged|traded)\s+{THE}(?P<old>[^,.;!?]{2,30}?)\s+(?:with|for|by)\s+(?:an?\s+|the\s+)?{O}")),
    Row("replaced", _p(r"{WE}(?:upgraded|switched(?: over)?|changed|migrated|swapped)\s+(?:(?:from\s+|my\s+)(?P<old>[^,.;!?]{2,30}?)\s+)?(?:to|for)\s+(?:an?\s+|the\s+)?{O}")),
    Row("ended", _p(r"\b(?:eat|eating|ate)\s+(?:meat|fish|chicken|beef|dairy|cheese|eggs|carbs|bread|sugar|everything)\b.{0,20}\b(?:again|now)\b|\b(?:started|begun|began|back to|back on)\s+(?:eating\s+)?(?:meat|fish|chicken|dairy|cheese|eggs|carbs)\b"), slots=("diet",)),
    # contact
    Row("replaced", _p(r"\b(?:my|our|new)\s+(?:new\s+)?e-?mail(?:\s+address)?\s+(?:has\s+|is\s+|was\s+)?(?:changed|different|now)\b"), slots=("email",)),
    Row("replaced", _p(r"\b(?:my|our|new)\s+(?:new\s+)?(?:cell|mobile|phone|number)(?:\s+number)?\s+(?:has\s+|is\s+|was\s+)?(?:changed|different|now)\b"), slots=("phone.number",)),
    Row("replaced", _p(r"\b(?:my|our|new)\s+(?:new\s+)?(?:home\s+|postal\s+)?address\s+(?:has\s+|is\s+|was\s+)?(?:changed|different|now)\b"), slots=("address",)),
    # called off, or moved
    Row("replaced", _p(r"\b{THE}{O}\s+(?:(?:got|was|were|is|has|have|had|been|being)\s+)*(?:moved|postponed|rescheduled|pushed|brought forward|shifted|delayed|changed)(?:\s+back)?\s+(?:to|until|till|by)\b".replace("{O}", r"(?P<o>[^,.;:!?\n—]{2,60}?)"))),
    Row("replaced", _p(r"{WE}(?:moved|postponed|rescheduled|pushed|shifted|delayed)\s+{THE}(?P<o>[^,.;:!?\n—]{2,50}?)\s+(?:back\s+)?(?:to|until|till)\s+(?=\w)")),
    Row("cancelled", _p(r"\bcancel(?:l?ed|ling|ing|l)?\s+(?:{THE})?{O}")),
    Row("cancelled", _p(r"\b(?:{THE})?(?P<o>[^,.;:!?\n—]{2,60}?)\s*(?:'s|\b(?:is|was|were|are|got|has been|have been|had to be|been))\s+(?:(?:been|just|now|sadly|finally|already)\s+)*(?:cancel+ed|called off|scrapped|off(?=\s*(?:$|[,.;!]|for|again|now)))")),
    Row("cancelled", _p(r"(?:{THE})?(?P<o>[^,.;:!?\n—]{2,60}?)\s*(?:isn't|is not|won't be|will not be|not)\s+(?:happening|taking place|going ahead|going to happen)\b")),
    Row("cancelled", _p(r"\b(?:called off|scrapped|dropp(?:ed|ing)|ditch(?:ed|ing)|abandon(?:ed|ing))\s+{THE}{O}"), veto=_p(r"\bdropp(?:ed|ing)\b.{0,30}\boff\b")),
    Row("cancelled", _p(r"\b(?:gave|given|giving)\s+up\s+(?:on\s+)?(?:the idea of\s+)?(?:{THE})?{O}")),
    Row("cancelled", _p(r"\b(?:decided|chose)\s+(?:not\s+to|against)\s+(?:{THE})?{O}")),
    Row("cancelled", _p(r"(?:\bnot|n't)\s+(?:going|go|flying|fly|travel+ing|travel|coming|attending|attend|doing|visiting|visit|making|make|taking|take|having|have)\s+(?:(?:to|on|it to)\s+)?(?P<o>[^,.;:!?\n—]{2,60}?)\s+{ANYMORE}")),
    Row("cancelled", _p(r"\b(?:(?:don't|do not) need(?: to)?|no longer (?:need(?:ed)?|have)(?: to)?|no need (?:to|for))\s+(?:{THE})?{O}"), veto=_p(r"\bdon't need (?:you|any|a|an)\b")),
    Row("cancelled", _p(r"\b(?:forget|never ?mind|scratch|scrap|skip)\s+(?:about\s+)?{THE}{O}"), veto=_p(r"\b(?:don't|do not|let me|never|won't) (?:ever )?forget\b|\bforget (?:the )?(?:name|word)\b")),
    Row("ended", _p(r"\b(?:no longer|stopped being|quit being|gave up|given up|gave up on|not)\s+(?:an?\s+|on\s+(?:an?\s+)?|being\s+(?:an?\s+)?)?(?:strict(?:ly)?\s+)?(?:vegan|vegetarian|keto|paleo|pescatarian|gluten[- ]free|low[- ]carb)\b(?=.{0,12}\b(?:any ?more|any longer))|\b(?:no longer|stopped being|quit being|gave up|given up)\s+(?:an?\s+|on\s+(?:an?\s+)?|being\s+(?:an?\s+)?)?(?:strict(?:ly)?\s+)?(?:vegan|vegetarian|keto|paleo|pescatarian|gluten[- ]free|low[- ]carb)\b"), slots=("diet",)),
    # habits, likes, what one is
    Row("ended", _p(r"\bno longer\s+(?:(?:in|at|with|an?|the|on|am|be|do)\s+)*{O}")),
    Row("ended", _p(r"(?:\bnot|n't|\bnever|\bcannot)\s+(?:an?\s+)?(?P<o>[^,.;:!?\n—]{2,60}?)\s+(?:anymore|any more|any longer)\b")),
    Row("ended", _p(r"{WE}(?:stopped|quit|gave up|given up|giving up|gone off|went off|dropped|ditched|grew out of|grown out of|got tired of|lost interest in|kicked|done with|over|fed up with|sick of|tired of)\s+(?:being\s+|on\s+|doing\s+)?{O}")),
    Row("begun", _p(r"{WE}(?:started|began|begun|starting|gone back to|went back to|back to|back on)\s+(?:to\s+)?{O}")),
    Row("begun", _p(r"{WE}(?:come to|came to|grown to|learned to|learnt to|started to|begun to|began to)\s+(?P<o>(?:like|love|enjoy|appreciate|hate|dislike)\s+[^,.;:!?\n—]{2,50})")),
    Row("begun", _p(r"\b(?P<o>(?:eat|eating|drink|drinking|like|love|enjoy|hate|use|using|have|having)\s+[^,.;:!?\n—]{2,50}?)\s*(?:again|now)\b")),
)  # fmt: skip

ENGLISH = Changes(
    rows=_ROWS,
    # has not happened, or is not the speaker's
    guard=_p(
        r"\b(?:if|unless|haven't|hasn't|not yet|yet to|going to (?:cancel|quit|move|sell|stop)|want to|wants to|(?<!my )plan to|planning to|thinking (?:of|about)|consider|should I|would|could|might|maybe|perhaps|wish|"
        r"almost|nearly|dream|imagine|used to|about to|hope to|have to (?!cancel)|(?<!no )(?<!not )(?<!n't )(?<!no longer )need to|must)\b"
    ),
    other=re.compile(
        r"^\W*(?:(?:and|but|so|well|also|yesterday|today|now|then|sadly|by the way|btw|oh|ok|actually)\W+)*(?:(?:my|our)\s+(?:\w+\s+){0,2}?(?P<who>wife|husband|partner|girlfriend|boyfriend|fianc[ée]e?|spouse|"
        r"mother|father|mom|mum|dad|son|daughter|brother|sister|parents?|grandmother|grandfather|grandma|grandpa|aunt|uncle|cousin|niece|nephew|friends?|best friend|boss|manager|"
        r"colleagues?|coworker|co-worker|neighbou?rs?|roommate|flatmate|teacher|kids?|child|children|ex|landlord|doctor|teammate|classmate)\b(?!'s (?:name|birthday|number|email))(?!\s+(?:\w+\s+)?and I\b)|(?P<pronoun>he|she|they)\b)",
        re.IGNORECASE,
    ),
    done=_p(r"\b(?:done|finished|completed|sorted|ticked|tick|checked off|settled|handled|taken care of|all set|out of the way)\b|\b\w{2,}ed\b|\b(?:bought|paid|sent|wrote|written|took|taken|made|gave|given|met|did|went|brought|found|sold|told|spoke|read|put|cut|built|done|saw|seen|ate|drove|ran|swam|chosen|chose)\b"),
    undone=_p(r"\b(?:not|never|can't|couldn't|didn't|don't|haven't|hasn't|won't|still|yet|will|going to|need to|have to|must|should|remind|tomorrow|later|almost|nearly|half|cancel+ed|by (?:mon|tues|wednes|thurs|fri|satur|sun)day)\b|n't\b|'ll\b"),
)  # fmt: skip
