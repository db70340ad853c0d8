# ruff: noqa: E501  (a rule is one row of a table)
"""English rules: what a first-person clause says of its speaker. Patterns are compiled once; {NAME}-like words are macros."""

from __future__ import annotations

import re

from memory.extract.rule import Language, Rule
from memory.types import Kind

_MACROS = {
    "ADV": r"(?:(?:also|really|currently|just|still|now|always|absolutely|totally|actually|usually|generally|personally|recently|already|"
    r"finally|truly|mostly|mainly|quite|very much|very|severely|highly|deathly|strictly|officially|originally|only|both|so|do|normally|"
    r"typically|basically|kind of|mildly|super|pretty|living proof|about to be|almost|nearly|a bit|slightly|violently|partially|fully)\s+)*",
    "IAM": r"(?:I'm|I am|im)\s+",
    "WE": r"(?:I|we)(?:'ve| have)?\s+",
    "HAVE": r"(?:(?:I|we)\s+(?:\w+ly\s+|also\s+|now\s+|still\s+)?(?:have|own|got|adopted)|(?:I've|we've|I have|we have)\s+(?:got|adopted))\s+",
    "ADJ": r"(?!(?:that|of|about|for|with|in|on|and|to|where|whose|other|my|the)\b)[\w-]+\s+",
    "NAME": r"(?-i:[A-ZÀ-ÞŠŽ][\w'.-]*(?:\s+[A-ZÀ-ÞŠŽ][\w'-]*){0,3})",
    "NUM": r"(?:\d{1,3}|an?|one|two|three|four|five|six|seven|eight|nine|ten|twin)",
    "END": r"(?=\s*(?:$|[,.;!(–-]|and\b|but\b|from\b|who\b|that\b|so\b|because\b|at\b|with\b|in\b|for\b|now\b|by\b|based\b|living\b|working\b|here\b))",
    "CHILD": r"(?:kids?|child(?:ren)?|sons?|daughters?|brothers?|sisters?|siblings?|twins?|grandkids?|grandchild(?:ren)?|stepsons?|stepdaughters?|"
    r"nieces?|nephews?|bab(?:y|ies)|toddlers?|teenagers?|boys?|girls?)",
    "PARTNER": r"(?P<partner>wife|husband|partner|girlfriend|boyfriend|fianc[ée]e?|spouse)",
    "KIN": r"(?P<kin>wife|husband|partner|girlfriend|boyfriend|fianc[ée]e?|spouse|mother|father|mom|mum|dad|son|daughter|brother|sister|"
    r"grandmother|grandfather|grandma|grandpa|aunt|uncle|cousin|niece|nephew|parents|kids|children|sons|daughters|brothers|sisters|twins|"
    r"(?:two|three|four) (?:kids|children|sons|daughters|boys|girls|brothers|sisters)|baby|best friend|roommate|flatmate)",
    "PET": r"(?P<pet>dogs?|cats?|pupp(?:y|ies)|kittens?|(?:golden |labrador )?retrievers?|labradors?|poodles?|beagles?|husky|huskies|terriers?|corgis?|"
    r"dachshunds?|bulldogs?|shepherds?|tabby|parrots?|rabbits?|bunny|bunnies|hamsters?|guinea pigs?|turtles?|tortoises?|goldfish|"
    r"horses?|pony|ponies|ferrets?|budgies?|parakeets?|geckos?|snakes?|chickens?)",
    "LANG": r"(?:english|french|german|spanish|italian|portuguese|dutch|russian|polish|czech|greek|turkish|arabic|hebrew|persian|farsi|hindi|urdu|bengali|"
    r"tamil|telugu|punjabi|chinese|mandarin|cantonese|japanese|korean|vietnamese|thai|indonesian|malay|tagalog|swahili|finnish|"
    r"swedish|norwegian|danish|hungarian|romanian|bulgarian|ukrainian|serbian|croatian|catalan|welsh|irish|latin|esperanto)",
    "PEOPLE": r"(?:american|british|english|scottish|welsh|irish|canadian|australian|german|french|spanish|italian|portuguese|dutch|belgian|swiss|austrian|"
    r"polish|czech|slovak|hungarian|romanian|bulgarian|greek|turkish|russian|ukrainian|finnish|swedish|norwegian|danish|icelandic|"
    r"indian|pakistani|bangladeshi|chinese|taiwanese|japanese|korean|vietnamese|thai|filipino|filipina|indonesian|malaysian|"
    r"singaporean|mexican|brazilian|argentinian|chilean|colombian|peruvian|cuban|egyptian|nigerian|kenyan|ghanaian|ethiopian|"
    r"moroccan|south african|israeli|iranian|iraqi|lebanese|syrian|saudi|kiwi)",
    "JOB": r"(?:\w+ (?:engineer|developer|manager|designer|analyst|scientist|teacher|nurse|doctor|driver|assistant|officer|technician|therapist|instructor|specialist|coordinator|operator|adviser|advisor|trainee|lead)|engineer|"
    r"developer|programmer|designer|architect|teacher|lecturer|professor|tutor|nurse|doctor|physician|surgeon|dentist|pharmacist|"
    r"vet|veterinarian|paramedic|midwife|psychologist|psychiatrist|therapist|counsell?or|physiotherapist|lawyer|attorney|solicitor|paralegal|judge|"
    r"accountant|auditor|banker|economist|analyst|consultant|manager|director|ceo|cto|founder|entrepreneur|freelancer|contractor|"
    r"writer|author|journalist|editor|translator|interpreter|copywriter|blogger|photographer|filmmaker|musician|composer|singer|"
    r"dj|actor|actress|dancer|painter|artist|illustrator|sculptor|chef|cook|baker|barista|bartender|waiter|waitress|farmer|"
    r"gardener|florist|carpenter|electrician|plumber|mechanic|welder|builder|driver|pilot|flight attendant|sailor|"
    r"soldier|veteran|firefighter|policeman|policewoman|police officer|detective|librarian|scientist|biologist|chemist|physicist|mathematician|"
    r"geologist|historian|archaeologist|researcher|postdoc|student|undergraduate|undergrad|freshman|sophomore|intern|apprentice|secretary|"
    r"receptionist|administrator|clerk|cashier|salesperson|salesman|realtor|recruiter|marketer|social worker|coach|personal trainer|"
    r"hairdresser|tailor|cleaner|nanny|babysitter|housewife|homemaker|stay-at-home (?:mom|mum|dad)|pastor|priest|monk|diplomat|politician)",
    "CONDITION": r"(?:(?:type (?:1|2|one|two) )?diabetes|asthma|adhd|add|autism|dyslexia|hypertension|high blood pressure|low blood pressure|arthritis|migraines?|"
    r"epilepsy|celiac(?: disease)?|coeliac disease|crohn's(?: disease)?|ibs|eczema|psoriasis|depression|anxiety|ptsd|ocd|"
    r"insomnia|hay fever|sleep apnea|tinnitus|scoliosis|anemia|pcos|endometriosis|lupus|bad knees|a bad (?:back|knee)|a peanut allergy|"
    r"(?:a |an )?(?:\w+ ){1,2}(?:allergy|allergies|intolerance))",
    "SELF": r"(?:left-handed|right-handed|colou?r[- ]?blind|deaf|hard of hearing|blind|dyslexic|autistic|diabetic|asthmatic|near-?sighted|short-?sighted|"
    r"epileptic|an introvert|an extrovert|introverted|a morning person|an early bird|an early riser|a night owl|a non-smoker|a smoker|a minimalist|"
    r"a light sleeper|a heavy sleeper|a beginner at \w+)",
    "OBJ": r"(?!(?:it|this|that|these|those|them|him|her|you|your|yours|how|when|where|what|why|if|one|both|neither|to (?:ask|know|see|say|have you|thank|"
    r"understand|hear|get|be able)|being able)\b|the\b(?! (?:ocean|sea|beach|mountains?|outdoors|rain|cold|heat|snow|city|countryside|colou?r|smell|"
    r"sound|taste|feeling|theat(?:re|er)|cinema|gym|forest|woods|water|sun|summer|winter|spring|autumn|fall|idea of|(?-i:[A-Z])))|to\s*$)",
    "PAST": r"(?:went|visited|saw|met|bought|attended|watched|moved|started|began|got|broke|ran|flew|drove|hiked|climbed|had|became|gave|won|lost|adopted|"
    r"graduated|quit|joined|left|returned|came|took|tried|celebrated|hosted|cooked|baked|ate|read|passed|failed|signed|sold|"
    r"fell|twisted|sprained|was (?:promoted|hired|fired|laid off|in|at)|were (?:in|at)|swam|cycled|biked|spent|presented|performed|"
    r"travel+ed|camped|stayed|proposed|divorced|gave birth|applied|interviewed|injured|hurt|received|turned|retired)",
    "COMING": r"(?:flying|going|travel+ing|moving|visiting|meeting|getting|having|starting|seeing|attending|hosting|leaving|driving|taking|running|"
    r"presenting|giving|interviewing|marrying|hiking|celebrating)",
    "DATE_NOUN": r"(?:appointment|meeting|interview|exam|test|flight|surgery|operation|wedding|concert|party|date|call|presentation|trip|reservation|game|match|"
    r"deadline|class|recital|conference|check-?up|birthday|holiday|vacation|dinner|lunch|visit|race|marathon|tournament|audition|hearing|session|"
    r"ceremony|reunion|workshop|webinar|festival|scan|viva|defen[cs]e|anniversary|graduation|due date)",
    "DONE": r"(?:finished|completed|submitted|handed in|turned in|sent (?:off|in|out)|paid(?: off)?|booked|mailed|cancel+ed|renewed|returned|wrapped up|filed|"
    r"picked up|got (?:done|through) with|ordered|delivered|fixed|repaired|cleaned|watered|scheduled)",
    "INSTRUCT": r"(?:answer|reply|respond|write|use|give|keep|add|include|explain|call me|address me|speak|talk|show|format|provide|start|end|make|be|put|cite|"
    r"translate|mention|ask|say|tell|list|avoid|remember|stick|stay|list|quote|convert|omit|skip|assume|apologi[sz]e|refer|limit|repeat)",
    "UNITS": r"(?:metric|imperial|celsius|fahrenheit|kilomet(?:re|er)s?|miles|kilos|kilograms|kg|pounds|met(?:re|er)s|feet|lit(?:re|er)s|gallons|si)",
}  # fmt: skip
_MACRO = re.compile(r"\{([A-Z_]+)\}")


def _p(pattern: str) -> re.Pattern[str]:
    while _MACRO.search(pattern):
        pattern = _MACRO.sub(lambda m: _MACROS[m[1]], pattern)
    return re.compile(pattern, re.IGNORECASE)


def _rule(kind: Kind, pattern: str, slot: str = "", *, veto: re.Pattern[str] | None = None, when: str = "", state: str = "",
          importance: float = 0.5) -> Rule:  # fmt: skip
    return Rule(kind, _p(pattern), slot, when, state, veto, importance)  # type: ignore[arg-type]


def _identity(pattern: str, slot: str = "", veto: re.Pattern[str] | None = None) -> Rule:
    return _rule(Kind.IDENTITY, pattern, slot, veto=veto, importance=0.8)


_TECH = _p(
    r"\b(?:errors?|exceptions?|bugs?|code|scripts?|functions?|quer(?:y|ies)|server|database|npm|pip|docker|json|csv|dataframe|array|strings?|python|"
    r"javascript|typescript|java|sql|html|css|regex|api|git|repo|commit|method|class|variable|loop|prompt|chatgpt|response|website|app|"
    r"spreadsheet|excel|column|file(?! (?:the|a|an|my|our)\b)|files|module|package|compiler|stack ?trace|localhost|dataset|list of|trouble|problems?|issues?|questions?|doubts?)\b"
)
_VAGUE = _p(r"\b(?:used to|anymore|no longer|a lot of fun|this (?:one|answer|response|version)|your)\b")
_NOT_LIKED = _p(
    rf"{_TECH.pattern}|\b(?:it|him|his|her|them|their|this|that|these|those|there|such|someone)\b"
    r"|\byour?\b|\b(?:more|better) than (?:the|this|that) (?:first|second|last|other)|\b(?:paragraph|draft|version)\b"
)
_NOT_GOAL = _p(rf"{_TECH.pattern}|\b(?:you|prompting)\b")
_TROUBLE = _p(
    r"\b(?:broken|slow|dead|stuck|not working|lost|crash|frozen|overheating|making|acting|full|wrong|invalid)"
)
_KNOW = _p(
    rf"\b(?:know|understand|ask|find out|figure|decide if|admit|say|be honest|confess|your|you|help|it|this (?!morning|week|year|month|afternoon|evening|friday|monday|tuesday|wednesday|thursday|saturday|sunday)\w+|that|these|those)\b|{_TECH.pattern}"
)

_STANDING = (
    _rule(Kind.SKILL, r"(?:no|nope|wrong|not that|actually|sorry)\b[\s,.!:-]+(?:please\s+)?(?:(?:I|we) (?:use|need)|use|in|stick to|switch to)\s+{UNITS}\b", "answer.units", importance=0.8),
    _rule(Kind.SKILL, r"(?:please\s+)?(?:always\s+)?(?:use|stick to|switch to)\s+(?:the\s+)?{UNITS}(?:\s+(?:units?|system|degrees))?(?:\s+(?:please|from now on|in future|always|instead))*\W*$", "answer.units", importance=0.8),
    _rule(Kind.SKILL, r"(?:please\s+|always\s+|from now on,?\s+|in (?:the )?future,?\s+|going forward,?\s+|for future answers,?\s+)*(?:always|from now on|only)\s*,?\s+(?:please\s+)?(?:answer|reply|respond|write|speak|talk)(?: to)?(?: me)?\s+(?:only\s+)?in\s+{LANG}\b", "answer.language", importance=0.8),
    _rule(Kind.SKILL, r"(?:please\s+)?(?:answer|reply|respond|write|speak|talk)(?: to)?(?: me)?\s+(?:only\s+)?in\s+{LANG}\s+(?:from now on|always|in (?:the )?future|every time|going forward)", "answer.language", importance=0.8),
    _rule(Kind.SKILL, r"(?:please,?\s+|always\s+|also,?\s+)*(?:from now on|from here on(?: out)?|in (?:the )?future|going forward|whenever (?:I|you)\b[^,]{2,80}|(?:every|each) time (?:I|you)\b[^,]{2,80}|when (?:I ask|I send|I share|I paste|I mention|you answer|you write|you reply|answering|replying|writing)\b[^,]{0,80}|when giving [^,]{2,60})\s*,?\s+(?:please\s+)?(?:always\s+|only\s+|never\s+|don't\s+|do not\s+|you should\s+|you can\s+)*{INSTRUCT}\b", importance=0.8),
    _rule(Kind.SKILL, r"(?:please\s+)?(?:always|never)\s+(?:answer|reply|respond|write|use|give me|give (?!up|in|way|a|to)\w+|keep (?:your|the|it|answers|replies)|add|include|explain|call me|address me|show|format|provide|cite|translate|mention|tell me|list|quote|convert|omit|skip|assume|apologi[sz]e|refer|repeat)\b", importance=0.8, veto=_p(r"\bsaid\b|\b(?:song|quote|lyrics?)\b")),
    _rule(Kind.SKILL, r"(?:please\s+)?(?:don't|do not)\s+(?:ever\s+)?{INSTRUCT}\b.{0,80}\b(?:anymore|any more|ever again|again|in (?:the )?future|from now on|ever)\W*$", importance=0.8),
    _rule(Kind.SKILL, r"(?:please\s+)?(?:stop|quit)\s+(?:using|adding|apologi[sz]ing|calling me|saying|writing|repeating|giving me|asking|including|ending|starting)\b", importance=0.8),
    _rule(Kind.SKILL, r"(?:please\s+)?{INSTRUCT}\b.{0,80}\b(?:from now on|going forward|in all (?:your )?(?:answers|replies|responses)|in every (?:answer|reply|response))\W*$", importance=0.8),
)  # fmt: skip

_RULES = (
    # tasks
    _rule(Kind.TASK, r"(?:please\s+|can you\s+)?(?:remind me|don't let me forget|don't forget to remind me|make sure I don't forget)\s+(?:(?:later|again|tomorrow|tonight|today|next \w+|(?:on|in|at|by|every|each) [\w ]{1,20}?)\s+)?(?:to|about|that I (?:need|have) to)\s+\w+", when="due", state="open", importance=0.7, veto=_p(r"remind me (?:to )?(?:how|what|why|again what)")),
    _rule(Kind.TASK, r"(?:I|we)(?:'ve|\s+have)?\s*{ADV}{DONE}\s+(?:(?:my|our|the|that|those|these|an?|all)\s+\w|(?-i:[A-Z]))", when="due", state="done", importance=0.6, veto=_p(rf"{_TECH.pattern}|\bfor you\b|\b(?:installation|setup|steps?|level|section|part|attention|respects|it|this)\b")),
    _rule(Kind.TASK, r"(?:I|we)\s+{ADV}(?:still|yet)\s+(?:have|need|ought|got|must)\s+(?:to\s+)?\w+", when="due", state="open", importance=0.7, veto=_KNOW),
    _rule(Kind.TASK, r"(?:I|we)\s+{ADV}still\s+(?:haven't|have not)\s+\w+", when="due", state="open", importance=0.7, veto=_KNOW),
    _rule(Kind.TASK, r"(?:I|we)(?:'ve got| {ADV}have| {ADV}need| must| should| gotta|'ll have|'ve)\s+(?:to\s+)?(?!(?:an?|the|some|been|had)\b)\w+\s+.{2,120}?\b(?:by|before|until|due|no later than|tomorrow|tonight|today|this|next|on)\b", when="future", state="open", importance=0.7, veto=_KNOW),
    _rule(Kind.TASK, r"(?:I|we)(?:'ve got| {ADV}have| {ADV}need| must| gotta)\s+to\s+\w+\s+.{2,80}?\b(?:every|each)\s+(?:other\s+|second\s+|two\s+)?(?:\w+day|week|month|year)s?\b", when="due", state="open", importance=0.7, veto=_p(rf"{_KNOW.pattern}|\beveryday\b|\b(?:every|each) (?:single )?day\b|\b(?:commute|deal|go through|suffer|endure)\b")),
    _rule(Kind.TASK, r"(?:my|our)\s+[\w' -]{2,40}?\s+(?:is|are)\s+(?:still\s+|only\s+)?due\b", when="future", state="open", importance=0.7, veto=_p(r"\b(?:baby|babies|wife|girlfriend|partner|daughter|sister|friend|child|period|due to)\b")),
    _rule(Kind.TASK, r"my to-?do(?: list)?(?: for \w+)?\s*(?:is|:|includes)\s", when="due", state="open", importance=0.7),
    # identity
    _identity(r"my\s+(?:full |first |real |given )?name(?:'s|\s+is)\s+(?!not\b|on\b|in\b|a\b|the\b|spelled|what|too|very|hard|often)(?P<e>\w[\w'.-]*(?:\s+(?-i:[A-ZÀ-Þ])[\w'.-]*){0,3})", "name"),
    _identity(r"(?:please\s+|you can\s+|just\s+|everyone\s+|people\s+|my friends\s+|friends\s+)*call(?:s)? me\s+(?P<e>{NAME})\s*(?:$|[,.!]|instead|from now on|please)", "name.call", _p(r"\b(?:back|later|tomorrow|when)\b")),
    _identity(r"I go by\s+(?P<e>{NAME})", "name.call"),
    _identity(r"{IAM}(?!{PEOPLE}\b)(?P<e>(?-i:[A-ZÀ-Þ][a-zß-ÿ'-]+(?:\s+[A-ZÀ-Þ][a-zß-ÿ'-]+){0,2}))(?=\s*(?:$|[,.!]|\band\b|\bfrom\b|\bbtw\b))", "name", _p(r"(?-i:\b(?:OK|Ok|Okay|Fine|Sorry|Good|Sure|Done|Back|Here|Ready|Great|Happy|Vegan|Christian|Jewish|Muslim|Catholic|Hindu|Buddhist|Gay|Confused|Stuck|New|Team|Not|Aries|Taurus|Gemini|Leo|Virgo|Libra|Scorpio|Sagittarius|Capricorn|Aquarius|Pisces|Generation|Gen|Batman|Superman|Spiderman|Groot|God|Jesus|Santa|Sherlock|Gandalf|Darth|Napoleon|Elsa|Dracula|Hamlet|Siri|Alexa)\b)")),
    _identity(r"{IAM}{ADV}(?:\d{2}|[1-9])(?:\s*[- ]?years?[- ]?old|\s*yrs?(?: old)?|\s*y/?o)\b", "age"),
    _identity(r"{IAM}{ADV}\d{2}\s*(?=$|[,.!]|\band\b)", "age"),
    _identity(r"I(?:'ve|\s+have)?\s*{ADV}turn(?:ed|ing)\s+\d{1,2}\b(?!\s*(?:%|degrees|am|pm))", "age"),
    _identity(r"my\s+birthday(?:'s|\s+is)\s+.*(?:\d|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)|christmas|new year|halloween)", "birthday"),
    _identity(r"I was born on\s+.*\d", "birthday"),
    _identity(r"I was born in\s+(?:19|20)\d\d\b", "birth.year"),
    _identity(r"I was born(?: and (?:raised|bred))? in\s+(?P<e>{NAME})", "origin"),
    _identity(r"I\s+{ADV}(?:work|worked)(?:\s+(?:full|part)[- ]time)?\s+as\s+(?:an?|the|head)\s+\w+", "job"),
    _identity(r"I\s+{ADV}work(?:\s+(?:full|part)[- ]time|\s+remotely)?\s+(?:for|at)\s+(?!home\b|night|best\b|my desk|least\b|all\b|free\b|\d|it\b|that\b|me\b|you\b)(?P<e>{NAME})?\s*\w*", "employer", _p(rf"\bI worked\b|{_VAGUE.pattern}")),
    _identity(r"(?:I|I'm|I am|I'll be|I've|I have)\s+{ADV}(?:start(?:ed|ing)?(?: (?:work|working|a new job|my new job|a job))? (?:at|with)|join(?:ed|ing)?|(?:been |got |was )?hired (?:by|at))\s+(?P<e>{NAME})", "employer", _p(rf"{_VAGUE.pattern}|\b(?:call|meeting|group|chat|discord|server|queue|waitlist|you)\b")),
    _identity(r"I\s+{ADV}work(?:\s+(?:full|part)[- ]time)?\s+in\s+(?!progress|the morning|the evening|silence|peace|batches|groups)(?:an?\s+|the\s+)?(?P<e>{NAME})?\w*", "", _VAGUE),
    _identity(r"my\s+(?:job|profession|occupation|day job)\s+is\s+(?!to\b.*\byou\b|boring|hard|stress|kill|great|ok|fine|driving)\w+", "job"),
    _identity(r"{IAM}{ADV}(?:(?:an?|the)\s+)(?:(?!(?:bad|good|terrible|huge|big|great)\b)[\w-]+\s+){0,3}?{JOB}{END}", "job", _p(r"\bnot an?\b|\b(?:fan|like an?)\b")),
    _identity(r"{IAM}{ADV}(?:retired|self-employed|unemployed|freelancing|between jobs|(?:studying|majoring in)\s+(?!this\b|the\b|that\b|an?\b|how\b|for\b|it\b)\w+)", "job"),
    _identity(r"I\s+{ADV}(?:teach|study|major in)\s+(?!this\b|the\b|that\b|it\b|you\b|how\b|hard|for\b|a lot|my\b|every)\w+", "job"),
    _identity(r"I\s+{ADV}(?:run|own)\s+(?:an?|my own)\s+(?:[\w-]+\s+){0,3}?(?:bakery|company|business|restaurant|cafe|café|shop|store|farm|studio|startup|agency|clinic|practice|salon|gym|hotel|bar|brewery|firm|school|consultancy)\b", "job"),
    _identity(r"(?:(?:I|we)\s+{ADV}(?:live|reside)|(?:I've|we've|I have|we have)\s+{ADV}(?:lived|been living))\s+(?:in|near|outside|just outside)\s+(?:an?\s+(?:[\w-]+\s+){0,3}?(?:town|village|city|suburb|flat|apartment|house|farm|studio|condo|cabin|island)|(?:(?:the|downtown|central|northern|southern|eastern|western|north|south|east|west|rural|upstate)\s+)*(?P<e>{NAME}))", "home.city", _VAGUE),
    _identity(r"(?:{IAM}|we're\s+|we are\s+){ADV}(?:living|based|located|residing)\s+(?:in|near|out of)\s+(?P<e>{NAME})", "home.city"),
    _identity(r"my\s+(?:home ?town|home city|home)\s+is\s+(?:now\s+)?(?P<e>{NAME})", "home.city"),
    _identity(r"(?P<e>{NAME})\s+(?:is|has become|became)\s+(?:now\s+)?(?:my|our)\s+(?:new\s+)?home\b(?!\s+(?:away|page|screen|team))", "home.city"),
    _identity(r"(?:{IAM}{ADV}from|I\s+(?:{ADV}(?:come|hail) from|grew up in|was raised in))\s+(?:(?:the|a|an|small|tiny|village|town|city|in|near|northern|southern|eastern|western|of)\s+){0,6}(?P<e>{NAME})", "origin", _p(r"\bfrom (?:the )?(?:future|past)")),
    _identity(r"{IAM}{ADV}(?:an?\s+)?(?:half[- ]|part[- ])?{PEOPLE}(?:\s+citizen)?{END}", "nationality"),
    _identity(r"{IAM}{ADV}(?:happily\s+|newly\s+|recently\s+)?(?:married|divorced|widowed|engaged|single)\b(?!\s+in\b)", "marital"),
    _identity(r"I\s+{ADV}have\s+a\s+(?:new\s+|lovely\s+|wonderful\s+)?(?:girlfriend|boyfriend|partner|fianc[ée]e?|wife|husband)\b(?!\s+(?:who (?:is|was) an?))", "marital"),
    _identity(r"{IAM}{ADV}(?:\w+ (?:weeks|months) )?pregnant\b", "pregnancy"),
    _identity(r"{IAM}(?:an?|the)\s+(?:[\w-]+\s+)?(?:mother|father|mom|mum|dad|parent|grandmother|grandfather|grandparent)(?:\s+of\b|{END})", "parent"),
    _identity(r"(?:my|our)\s+{PARTNER}(?:'s)?\s+(?:(?:full |first )?name\s+is|is (?:called|named))\s+(?P<e>{NAME})", "partner.name"),
    _identity(r"(?:my|our)\s+(?:(?:older|younger|little|big|eldest|oldest|youngest|twin|baby|late|middle)\s+)?{KIN}(?:'s|s')?\s+(?:(?:full |first )?names?\s+(?:is|are)|(?:is|are) (?:called|named))\s+(?P<e>{NAME})"),
    _identity(r"(?:my|our)\s+(?:new\s+|old\s+)?(?:boss|manager|landlord|landlady|doctor|gp|dentist|therapist|teacher|neighbou?r|co-?worker|colleague|supervisor|trainer|coach|friend)(?:'s|s')?\s+(?:(?:full |first )?names?\s+is|is (?:called|named))\s+(?P<e>{NAME})"),
    _identity(r"(?:my|our)\s+(?:new\s+|current\s+)?(?:phone|mobile|cell|cell ?phone|telephone)\s*number\s+is\s+(?:now\s+)?(?P<e>\+?\d[\d ()-]{4,})", "phone.number"),
    _identity(r"(?:my|our)\s+(?:new\s+|current\s+|personal\s+|private\s+)?e-?mail(?:\s+address)?\s+is\s+(?:now\s+)?(?P<e>[\w.+-]+@[\w.-]+\w)", "email"),
    _identity(r"(?:my|our)\s+work\s+e-?mail(?:\s+address)?\s+is\s+(?:now\s+)?(?P<e>[\w.+-]+@[\w.-]+\w)", "email.work"),
    _identity(r"(?:my|our)\s+(?:new\s+|current\s+|home\s+|postal\s+)*address\s+is\s+(?:now\s+)?(?P<e>\d+\w?\s+(?-i:[A-Z])[\w' ]+|(?-i:[A-Z])[\w' ]+\d+\w?)", "address"),
    _identity(r"(?:my|our)\s+(?:{ADJ}){0,2}?{PET}\s+is\s+an?\s+(?:{ADJ}){0,3}?(?:labrador|(?:golden )?retriever|poodle|beagle|husky|terrier|corgi|dachshund|bulldog|shepherd|spaniel|dalmatian|collie|pug|tabby|siamese|persian|maine coon|ragdoll|mix|mutt|rescue)\b"),
    _identity(r"(?:my|our)\s+{PARTNER},?\s+(?P<e>{NAME}),?\s+(?:is|has|and|works|lives|loves|likes|hates|can't|doesn't)\b", "partner.name"),
    _identity(r"(?:my|our)\s+(?:(?:older|younger|little|big|eldest|oldest|youngest|twin|baby|middle)\s+)?{KIN},?\s+(?P<e>{NAME})(?:\s+and\s+{NAME})?,?\s+(?:is|are|has|have|works?|lives?|loves?|likes?|hates?|stud(?:y|ies)|plays?|turns?|was|can't|doesn't)\b"),
    _identity(r"(?:my|our)\s+(?:(?:older|younger|little|big|eldest|oldest|youngest|twin|baby|middle)\s+)?{KIN}\s+(?:(?:is|are)\s+{ADV}(?:allergic|vegan|vegetarian|diabetic|pregnant|from\b|\d{1,2}\b|turning \d|an?\s+(?:[\w-]+\s+){0,2}?{JOB}{END}|retired|autistic|lactose|gluten)|works? (?:as|at|for|in)\b|lives? in\b|speaks?\b|stud(?:y|ies)\b|has\s+{CONDITION}|was born|turns? \d)"),
    _identity(r"{HAVE}{NUM}\s+(?:{ADJ}){0,2}?{CHILD}\b(?!\s+(?:node|class|process|element|component|theme))"),
    _identity(r"(?:{HAVE}(?:an?)|my|our)\s+(?!other\b|second\b|first\b)(?:{ADJ}){0,3}?{PET},?\s+(?:who is |which is |that is |and (?:his|her|its) name is |is |(?:'s|whose) name is )?(?:named|called|name is)?\s*\"?(?P<e>{NAME})\"?", "pet.{pet}.name"),
    _identity(r"(?:my|our)\s+{PET}'s\s+name\s+is\s+(?P<e>{NAME})", "pet.{pet}.name"),
    _identity(r"{HAVE}{NUM}\s+(?:{ADJ}){0,3}?{PET}\b(?!\s+(?:allerg|food|video|picture|photo|costume|breed|shelter|question|problem|class|image))", "", _TECH),
    _identity(r"I\s+(?:can\s+)?{ADV}speak\s+(?:fluent |native |some |a (?:little|bit of) |basic |decent |both )?{LANG}"),
    _identity(r"{IAM}{ADV}(?:fluent in|bilingual in|a native speaker of|a native {LANG})\s*{LANG}?"),
    _identity(r"my\s+(?:native|first|mother|second)\s*(?:language|tongue)\s+is\s+{LANG}", "language.native"),
    # preferences
    _rule(Kind.PREFERENCE, r"{IAM}{ADV}allergic to\s+\w+", importance=0.9),
    _rule(Kind.PREFERENCE, r"{IAM}{ADV}(?:(?:lactose|gluten|dairy|fructose|histamine)[- ]intolerant|intolerant (?:to|of)\s+\w+)", importance=0.9),
    _rule(Kind.PREFERENCE, r"I\s+(?:have|suffer from)\s+(?:an?\s+)?(?:\w+\s+){0,2}(?:allergy|allergies|intolerance)\b", importance=0.9),
    _rule(Kind.PREFERENCE, r"{IAM}{ADV}(?:(?:an?|on an?|switching to an?|going|switching to)\s+)?(?:strict\s+|lifelong\s+|recent\s+)?(?:vegan|vegetarian|pescatarian|flexitarian|gluten[- ]free|dairy[- ]free|halal|kosher|(?:keto|paleo|vegan|vegetarian|low[- ]carb|mediterranean|plant[- ]based|gluten[- ]free)(?:\s+diet)?)\b(?!\s+(?:restaurant|recipe|food))", "diet", importance=0.8),
    _rule(Kind.PREFERENCE, r"I\s+{ADV}(?:eat|keep)\s+(?:only\s+)?(?:halal|kosher|vegan|vegetarian|plant[- ]based|keto)\b", "diet", importance=0.8),
    _rule(Kind.PREFERENCE, r"I\s+(?:can't|cannot|can not)\s+(?:eat|drink|tolerate|digest|stomach|have (?=dairy|gluten|nuts|sugar|milk|eggs?|alcohol|caffeine|shellfish|soy|meat|peanuts|lactose|pork|wheat))\s*(?!it\b|this\b|that\b|any more\b|anymore\b)\w+", importance=0.8),
    _rule(Kind.PREFERENCE, r"(?:I|we)\s+{ADV}(?:don't|do not|never)\s+{ADV}(?:(?:smoke|drink(?: alcohol)?)\s*$|(?:eat|drink|like|enjoy|care for|cook with|watch|wear)\s+{OBJ}\w)", veto=_NOT_LIKED),
    _rule(Kind.PREFERENCE, r"my\s+(?:all[- ]time\s+|absolute\s+|personal\s+)?favou?rite\s+(?P<thing>\w+)(?:\s+(?:of all time|to \w+|ever))?\s+(?:is|are|has always been|was always)\s+(?!what\b|which\b|a\s*$)\w", "favourite.{thing}"),
    _rule(Kind.PREFERENCE, r"my\s+(?:all[- ]time\s+|absolute\s+)?favou?rite\s+(?:\w+\s+){1,3}(?:is|are)\s+(?!what\b)\w"),
    _rule(Kind.PREFERENCE, r"(?!(?:it|this|that|what|which)\b)(?:[\w']+\s+){1,5}?(?:is|are)\s+my\s+(?:all[- ]time\s+)?favou?rite\s+(?P<thing>\w+)", "favourite.{thing}", veto=_NOT_LIKED),
    _rule(Kind.PREFERENCE, r"(?:I|we)\s+{ADV}(?:love|like|enjoy|adore|prefer|hate|dislike|detest|loathe|despise|can't stand|cannot stand|can't bear)\s+{OBJ}\w", veto=_NOT_LIKED),
    _rule(Kind.PREFERENCE, r"(?:I'd|I would)\s+(?:much\s+|always\s+)?rather\s+(?!you\b|not\b|know\b)\w+.*\bthan\b", veto=_NOT_LIKED),
    _rule(Kind.PREFERENCE, r"{IAM}{ADV}(?:not\s+)?(?:an?\s+)?(?:(?:big|huge|massive|lifelong|die-?hard|avid)\s+)?(?:fan of|fond of|keen on|passionate about|obsessed with|addicted to|into)\s+{OBJ}\w", veto=_NOT_LIKED),
    _rule(Kind.PREFERENCE, r"{IAM}(?:more of\s+)?(?:an?\s+)(?:big\s+)?(?:tea|coffee|dog|cat|morning|evening|night|beach|mountain|city|sweet)\s+(?:person|lover|drinker)\b"),
    _rule(Kind.PREFERENCE, r"(?:I|we)\s+{ADV}play\s+(?:the\s+)?(?:piano|guitar|violin|cello|drums|flute|bass|saxophone|trumpet|ukulele|harp|clarinet|viola|tennis|football|soccer|basketball|chess|badminton|golf|hockey|rugby|volleyball|cricket|squash|table tennis|baseball|d&d|video games|board games)\b"),
    _rule(Kind.PREFERENCE, r"my\s+(?:main\s+|biggest\s+)?(?:hobby|hobbies|passion)\s+(?:is|are|include)\s+\w+"),
    _rule(Kind.PREFERENCE, r"I\s+{ADV}collect\s+(?!data|user|the\b|all\b|input)\w+", veto=_TECH),
    # goals
    _rule(Kind.GOAL, r"(?:my|our)\s+(?:(?:main|big|biggest|next|long-term|ultimate|current|personal)\s+)?(?:goal|dream|ambition|aim|resolution|new year's resolution)(?:\s+(?:this year|for \w+(?: \w+)?))?\s+is\s+(?!what\b)\w+", importance=0.6, veto=_NOT_GOAL),
    _rule(Kind.GOAL, r"(?:I|we)\s+{ADV}(?:want|hope|aim|intend|plan|would like|need)\s+to\s+(?:learn\s+(?!more\b|about\b|how\b|what\b|why\b|if\b|from you)|become\s+|lose\s+\d|lose weight|quit\s+(?:smoking|drinking|my job|sugar|vaping)|save\s+(?:up|money|for|\$|£|€|\d)|run\s+(?:a|my|the)\s+(?:\w+\s+)?(?:half\s+)?(?:marathon|10k|5k|race)|move\s+to\s+(?-i:[A-Z])|buy\s+(?:a|my|our)\s+(?:\w+\s+)?(?:house|flat|home|apartment)\b|start\s+(?:my|a|our)\s+(?:own\s+)?(?:\w+\s+)?(?:business|company|startup|podcast|blog|family)|open\s+(?:a|my|our)\s+|get\s+(?:fit|in shape|better at|into|promoted|a promotion|my)\s*|improve\s+my\s+(?!code|prompt|essay|answer)|travel\s+to|visit\s+(?-i:[A-Z])|retire|study\s+(?:abroad|medicine|law|in\b)|speak\s+|write\s+(?:a|my)\s+(?:novel|book)|master\s+|climb\s+|pass\s+(?:the|my)|read\s+\d+\s+books|build\s+muscle|eat\s+(?:healthier|less|more)|exercise\s+more|learn\s+to\s+)", importance=0.6, veto=_NOT_GOAL),
    _rule(Kind.GOAL, r"{IAM}{ADV}(?:trying|planning|hoping|aiming|working hard|determined|preparing)\s+to\s+(?:learn\s+(?!more|about|how|what)|become|lose\s+(?:\d|weight)|quit\s+(?:smoking|drinking|my job|sugar|vaping)|save\s+(?:up|money|for)|run\s+(?:a|my)|move\s+to\s+(?-i:[A-Z])|buy\s+(?:a|my|our)\s+(?:\w+\s+)?(?:house|flat|home|apartment)\b|start\s+(?:my|a|our)\s+(?:own\s+)?(?:\w+\s+)?(?:business|company|startup|podcast|blog|family)|open\s+(?:a|my|our)\s|get\s+(?:fit|in shape|better at|into|promoted|pregnant)|travel\s+to|retire|study\s+(?:abroad|medicine|law|in\b)|write\s+(?:a|my)\s+(?:novel|book)|eat\s+(?:healthier|less|more)|learn\s+to\s)", importance=0.6, veto=_NOT_GOAL),
    _rule(Kind.GOAL, r"(?:{IAM}{ADV}|I(?:'ve| have) been\s+)(?:saving(?:\s+up)?\s+(?:for|to)|training\s+for|studying\s+for|preparing\s+for|learning)\s+(?!about\b|how\b|that\b|this\b|more\b|from\b|it\b)\w+", importance=0.6, veto=_NOT_GOAL),
    _rule(Kind.GOAL, r"I(?:'ve| have) (?:always )?(?:wanted|dreamed|decided)\s+(?:to|of)\s+(?:learn\s+(?!more|about|how|what)|becom|open|start|mov|travel|visit|writ|quit|run)\w*", importance=0.6, veto=_NOT_GOAL),
    # events
    _rule(Kind.EVENT, r"(?:I|we)(?:'ve|\s+have)?\s+{ADV}(?:moved|relocated)\s+(?:back\s+)?to\s+(?:the\s+)?(?P<e>{NAME})", "home.city", when="due", importance=0.7),
    _rule(Kind.EVENT, r"I(?:'ve|\s+have)?\s+(?:just|recently)\s+(?:started|got|accepted|landed|began|begun)\s+(?:an?|my)\s+(?:new\s+)?(?:job|position|role|internship|degree|apprenticeship|promotion)\b", when="due"),
    _rule(Kind.EVENT, r"(?:(?:I|we)|my\s+{KIN}\s+(?:{NAME}\s+)?and\s+I|(?-i:[A-ZÀ-Þ][\w-]+)\s+and\s+I)\s+{ADV}{PAST}\b", when="past", veto=_p(rf"{_TECH.pattern}|\byou\b|\b{{PAST}}\s+(?:it|that|those|them|this)\b|\b(?:there|here|used to|approach|option|in the news|on the news|an article|a tweet|a post)\b")),
    _rule(Kind.EVENT, r"(?:{IAM}|we're\s+|we are\s+|my\s+{KIN}\s+(?:{NAME}\s+)?and I are\s+){ADV}{COMING}\b", when="future", veto=_p(rf"{_TECH.pattern}|\byou\b|\b(?:it|that|those|there|them)\b")),
    _rule(Kind.EVENT, r"(?:I|we)(?:'ve got|\s+{ADV}have|'ll have|\s+will have)\s+(?:an?|my|our|the|another)\s+(?:[\w'-]+\s+){0,4}?{DATE_NOUN}\b", when="future", veto=_TECH),
    _rule(Kind.EVENT, r"(?:my|our)\s+(?:[\w'-]+\s+){0,3}?{DATE_NOUN}(?:\s+(?:to|with|for|at|of|in)\s+[\w' ]{1,30}?)?\s+(?:is|was|will be|starts|got moved|has been moved)\b", when="due", veto=_p(rf"{_TECH.pattern}|\bbirthday\b|is (?!(?:on|in|at|next|this|tomorrow|scheduled|booked|set|due|\d))")),
    _rule(Kind.EVENT, r"(?:my|our)\s+{KIN}\s+(?:{NAME}\s+)?(?:was born|died|passed away|got married|graduated|is getting married|is visiting|is coming)\b", when="past"),
    # facts
    _rule(Kind.FACT, r"(?:I|we)\s+{ADV}(?:own|drive|ride)\s+(?:an?|two|three|\d+|my)\s+(?!point\b|copy\b)\w+", veto=_TECH),
    _rule(Kind.FACT, r"my\s+(?P<thing>blood type|height|weight|shoe size|phone|laptop|computer|camera|car|bike|star sign|zodiac sign|time ?zone)\s+is\s+(?!not\b|too\b|so\b|very\b|always\b|in\b|at\b|on\b|about to\b)(?:about\s+|around\s+)?(?:an?\s+|the\s+)?\w", "{thing}", veto=_TROUBLE),
    _rule(Kind.FACT, r"I(?:'ve got|\s+{ADV}have)\s+{CONDITION}\b", importance=0.9),
    _rule(Kind.FACT, r"(?:I(?:'ve been|\s+have been|\s+was|\s+got)\s+{ADV}diagnosed with|I\s+{ADV}suffer from)\s+\w+", importance=0.9),
    _rule(Kind.FACT, r"{IAM}{ADV}{SELF}\b", importance=0.6),
    _rule(Kind.FACT, r"I(?:'ve got|\s+{ADV}have)\s+an?\s+(?:(?:new|used|old|red|blue|black|white|silver|\d{4})\s+)*(?P<e>(?-i:[A-Z][\w-]*(?:\s+[A-Z0-9][\w-]*){0,3}))", veto=_p(rf"{_TECH.pattern}|(?-i:\b[A-Z]{{2,}} (?:in|from)\b)|\b(?:interview|meeting|exam|trip|flight|idea|appointment|degree)\b")),
)  # fmt: skip

_CUT = re.compile(
    r";\s*|,?\s+(?:and|but|yet|while|so|though|although)\s+(?=(?:I|we|my|our|now I|also I)(?:'\w+)?\s)|,\s+(?=(?:I|we|my|our)(?:'\w+)?\s)"
    r"|,?\s+(?:so|and)\s+(?=(?:please|pls|can|could|what|which|how|should|any|do|is|are|where|no)\b)"
    r"|,\s+(?=(?:what|which|how|where|who|when|why|can|could|would|should|(?:do|does|did|is|are|am|will) (?:you|there|it|that|this|these|they|we|I)|any|suggest|recommend|please|help|give|tell)\b)"
    r"|\s+[–—-]+\s+|:\s+(?=(?:I|my)\b)|,\s+(?:and|but)\s+(?=now\b)|\s+(?:and|but)\s+(?=now I\b)|\s+but\s+now\s+",
    re.IGNORECASE,
)

_GLUE = "\ue000"  # stands for the blank in "my wife and I", which must not be cut
_TWO = re.compile(
    r"\b((?:my|our) [\w-]+(?: (?-i:[A-Z])[\w-]+)?|(?:^|(?<=[,;] ))(?-i:[A-ZÀ-Þ][\w-]+)) and I\b", re.IGNORECASE
)


def _clauses(sentence: str) -> list[str]:
    pieces = _CUT.split(_TWO.sub(rf"\1{_GLUE}and{_GLUE}I", sentence))
    return [piece.replace(_GLUE, " ").strip() for piece in pieces if piece.strip()]


ENGLISH = Language(
    first_person=re.compile(r"\b(?:I|I'm|im|my|me|we|our|we're)\b", re.IGNORECASE),
    guard=_p(
        r"\b(?:if (?:I|we|my|someone|you)|suppos(?:e|ing)|imagin(?:e|ing)|what if|as if|as though|I wish|were I|let's say|hypothetically|assuming|assume I|in theory)\b"
        r"|\b(?:I'd|I would|we'd|we would)\b(?! (?:(?:\w+ )?rather|(?:never )?say)\b)"
        r"|\b(?:not sure|don't know|dunno|maybe|perhaps|might|probably|possibly|I guess|can't tell|can't decide|wonder(?:ing)?|unsure|not certain|I doubt|I feel like)\b"
        r"|\b(?!(?:i|we|good|bad|that|easier)\b)[\w]+(?:'s)?\s+(?:once |always |just |also |often |keeps? )?(?:said|says|saying|told|tells|thinks?|claims?|claimed|believes?|insists?|argues?|wrote|writes|quoted)\b"
        r"|\bin (?:my|the) (?:novel|story|dream|game|book|essay|poem|script|example)\b|\bmy (?:character|protagonist)\b|\bhow (?:do|would|can) (?:I|you) say\b|\b(?:lyrics?|slogans?|riddle|tagline)\b|\b(?:which|what) (?:movie|film|song|book|show)\?"
    ),
    question=_p(r"\?|^(?:what|which|how|where|who|whom|whose|when|why|can|could|would|should|shall|do|does|did|is|are|am|will|was|were|have|has|any)\s+(?!(?:I|we) ask\b)"),
    filler=_p(
        r"(?:(?:hi|hello|hey|hiya|greetings|good (?:morning|evening|afternoon|news)|btw|by the way|also|well|so|actually|oh|ok|okay|yes|yeah|yep|no|nope|and|but|um|uh|"
        r"fyi|just so you know|for (?:context|reference|the record|what it's worth)|as you know|you know|haha|lol|thanks|thank you|thx|anyway|anyways|honestly|"
        r"in fact|currently|now|right now|these days|nowadays|unfortunately|sadly|luckily|finally|great|sorry|cool|perfect|nice|first of all|first|one more thing|"
        r"another thing|i think you should know that|note that|remember that|please remember that|please remember|remember|please note that|keep in mind that|the thing is|"
        r"to be honest|tbh|there|everyone|all|plus|additionally|besides|in general|generally|personally|as a kid|because|since(?!\s+(?:last|this|yesterday|then|early|late|mid|\w+day\b|\d|january|february|march|april|may|june|july|august|september|october|november|december|spring|summer|autumn|winter)\b)|as|today|guess what|update|(?:small |quick |minor )?correction)\b[\s,.!:–-]*)+"
    ),
    clauses=_clauses,
    standing=_STANDING,
    rules=_RULES,
    condition=_p(r"\b((?:when(?:ever)?|(?:every|each) time|if)\s[^,]{2,80}?)(?=,|\s+(?:please|always|never|don't)\b)"),
    names=re.compile(r"(?!(?:I|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|Mon|Tues?|Wed|Thurs?|Fri|Sat|Sun|January|February|March|April|May|June|July|August|September|October|November|December)\b)(?<![.!?]\s)(?<![\w'])(?:(?<!^)|(?=[\w'-]+ [A-ZÀ-Þ]))([A-ZÀ-Þ][\w'-]*(?:\s+(?:of\s+|the\s+)?[A-ZÀ-Þ0-9][\w'-]*){0,3})|\"([^\"\n]{2,60})\""),
    tags=tuple(
        (tag, re.compile(rf"\b(?:{words})", re.IGNORECASE))
        for tag, words in (
            ("food", r"eat|food|cook|meal|vegan|vegetarian|diet|allergic|restaurant|coffee|tea\b|drink|recipe|cheese|meat|lactose|gluten|spicy|sushi|bak(?:e|ing)"),
            ("work", r"work|job|boss|colleague|office|report|meeting|interview|company|career|manager|engineer|developer|client|salary|employ"),
            ("family", r"wife|husband|partner|girlfriend|boyfriend|fianc|son\b|daughter|kids?\b|child|mother|father|mom\b|mum\b|dad\b|brother|sister|parents|married|grand|niece|nephew|family"),
            ("travel", r"travel|trip|flight|fly|hotel|vacation|holiday|passport|visa|visit|hik(?:e|ing)"),
            ("health", r"allerg|doctor|dentist|diabet|asthma|diagnosed|medic|hospital|surgery|weight|fitness|smok|intoleran|pregnan|ankle|injur|marathon|gym|sleep"),
            ("home", r"live\b|living|house|flat\b|apartment|rent|landlord|moved|neighbo|garden|kitchen"),
            ("pet", r"dog|cat\b|cats\b|puppy|kitten|pets?\b|hamster|rabbit|retriever"),
            ("hobby", r"play|guitar|piano|violin|cello|read|books?\b|movie|film|music|jazz|game|paint|photo|chess|collect|hobby|hobbies|garden|run|climb"),
            ("study", r"study|studying|school|universit|college|exam|class|degree|thesis|learn|student|essay|course|homework"),
            ("money", r"tax|rent|salary|budget|saving|invest|loan|mortgage|debt|bank\b|deposit"),
            ("language", rf"{_MACROS['LANG']}\b"),
        )
    ),
    slots={
        "colour": "color", "film": "movie", "films": "movie", "movies": "movie", "colors": "color", "colours": "color", "foods": "food",
        "dish": "food", "meal": "food", "books": "book", "songs": "song", "singer": "artist", "band": "artist", "puppy": "dog", "puppies": "dog",
        "kitten": "cat", "tabby": "cat", "bunny": "rabbit", "blood type": "blood.type", "shoe size": "shoe.size", "time zone": "timezone",
        "star sign": "zodiac", "zodiac sign": "zodiac", "computer": "computer",
    } | dict.fromkeys("retriever labrador poodle beagle husky terrier corgi dachshund bulldog shepherd".split(), "dog")
    | {"golden retriever": "dog", "labrador retriever": "dog"},
)  # fmt: skip
