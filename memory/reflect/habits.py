"""Habits: what a user comes back to in conversation after conversation, and how often. Pure; English and Chinese.

A word counts once a session, in a long one only if it comes up twice. It is a habit with SESSIONS sessions on DAYS days, unless
it is a word of no interest or, where there are MANY sessions, one that nearly all of them have. Numbers in
the text are steps (at least 4, 6, 10 …), so that it stays the same from one session to the next.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from memory.extract.text import has_cjk
from memory.pieces import day
from memory.reflect.derived import Derived, derive
from memory.types import Kind, Memory
from memory.words import STOP_WORDS, fold, stem

SESSIONS, DAYS = 4, 3
LONG = 6  # turns of a session
MANY, MOST_OF_ALL = 12, 0.5  # sessions; the share of them from which a word is only a manner of speaking
MOST = 8  # insights of this kind in a cube
_STEPS = (4, 6, 10, 15, 25, 50, 100, 250, 1000)
_READ = 400  # characters of a message
_CITED = 40
_WORD = re.compile(r"[a-zà-ÿ][a-zà-ÿ'’-]{3,24}")
_WIDE = re.compile(r"[\u4e00-\u9fff]+")
_WEEKDAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
_WEEKDAYS_ZH = "一二三四五六日"
_DULL = frozenset(
    stem(word)
    for word in """
    able according actually add advice again ago already although always amazing another answer anyone anything anyway around
    article ask asked back bad based begin best better big bit book bring build call came cannot case change check child choose
    city class clear code come common compare complete consider continue correct could country couple create current daily data
    date dear decide deep describe detail detailed different difference discuss done down draft each early easy else email end
    english enough especially even evening ever every everyone everything exactly example expect explain fact family far fast
    feel few file final find fine first follow following food form found free french friend fun game general generate german get
    give given gives going good great group guess guide half hand happen happy hard hear hello help here hey high home hope hour
    hours house however idea ideas imagine important improve include information instead interested interesting issue item items
    job just keep kind know known language large last late later latest learn least leave less let life like likely line list
    little live long look looking lot love made main make makes making many matter maybe mean means meeting mention message
    might mind minute mistake month months more morning most move much must name near need needed never new next nice night note
    nothing number often okay old once one only open option options order other others page part past pay people perfect perhaps
    person place plan please point possible prefer pretty probably problem project provide put question questions quick quickly
    quite read reading ready really reason recommend recommendation recommendations remember remind reply right said same say
    says second see seem sense sentence set several short should show simple since small somehow someone something sometimes
    soon sorry sound start started still stop story such suggest suggestion suggestions summary sure take talk tell text thank
    thanks that thing things think thought three time times tips title today together told tomorrow tonight topic translate true
    try trying turn two type understand until usage used useful user using usually version very view want wanted wants watch
    ways week weekend weeks well went whether while whole will wish without wonder wondering word words work works working world
    would write writing written wrong year years yesterday yet young your absolutely agree amazed appreciate awesome aww awful
    beautiful bless blessed calm care caring cheer chance chat cool connect crazy cute definitely difficult dream dreams emotion
    enjoy enjoyed enjoying everybody excite excited exciting experience experiences express fantastic favorite favourite feeling
    feelings friends forward gave glad gotten grateful heart hang heard helpful helped honest honestly incredible inspire
    inspired inspiring inspiration joy journey kinda kids kudos lately laugh lesson lots lovely luck lucky mate meaningful
    memory memories miss moment moments motivate motivated nervous okay opportunity pass passion peace peaceful perfect picture
    photo pleasure positive power powerful pretty proud push rough share sharing shared safe seeing sounds special spend spent
    stay strength stress strong stuff super support supportive supporting surprise sweet talking tough totally treat true trust
    truly unique vibe weird wild wonderful worth worry worried wow yeah yep yup hmm haha okay gonna wanna gotta dad mom mum
    mother father brother sister husband wife daughter son parents buddy dude folks""".split()
)
_DULL_ZH = re.compile(
    r"[的了是在和与也都就我你他她它们这那个有很一不吗呢吧啊把被给去要还说想会能可以对请帮问什么怎如何为哪谁几多少时候今明昨天年月日"
    r"最近现在觉得知道告诉推荐应该需要谢再又才但如果因所从到上下里中后前个些点用做写看听]"
)


@dataclass(frozen=True, slots=True)
class Habit:
    """A word with the episodes in which it occurs, oldest first."""

    word: str
    episodes: tuple[Memory, ...]

    @property
    def sessions(self) -> int:
        """In how many conversations."""
        return len({_session(memory) for memory in self.episodes})


def insights(episodes: Sequence[Memory], at: float) -> list[Derived]:
    """What the user comes back to, the most frequent first."""
    return [_derived(habit, at) for habit in find(episodes)]


def find(episodes: Sequence[Memory]) -> list[Habit]:
    """The habits with enough support; of words that always come together the more telling one."""
    where: dict[str, list[Memory]] = defaultdict(list)
    shapes: dict[str, Counter[str]] = defaultdict(Counter)
    for memory in sorted(episodes, key=lambda m: (m.message_time, m.id)):
        for key, word in _words(memory.text):
            where[key].append(memory)
            shapes[key][word] += 1
    turns = Counter(_session(memory) for memory in episodes)
    found = []
    for key, every in where.items():
        times = Counter(_session(memory) for memory in every)
        said = [m for m in every if times[_session(m)] > 1 or turns[_session(m)] < LONG]
        if len(turns) >= MANY and len(times) > MOST_OF_ALL * len(turns):
            continue
        habit = Habit(min(shapes[key], key=lambda word: (-shapes[key][word], word)), tuple(said))
        if habit.sessions >= SESSIONS and len({_day(memory) for memory in said}) >= DAYS:
            found.append(habit)
    kept: list[Habit] = []
    for habit in sorted(found, key=lambda h: (-h.sessions, -len(h.word), h.word)):
        if len(kept) < MOST and not any(_together(habit, other) for other in kept):
            kept.append(habit)
    return kept


def _derived(habit: Habit, at: float) -> Derived:
    cited = list(habit.episodes[-_CITED:])
    text = _told(habit)
    sure = min(0.9, 0.5 + 0.05 * habit.sessions)
    # the step, not the count: the insight stays as it is until there is more to say
    steady = round(_step(habit.sessions) / (_step(habit.sessions) + 4), 3)
    made = derive(
        Kind.INSIGHT,
        text,
        cited,
        at,
        name=f"habit {fold(habit.word)}",
        entities=(habit.word,),
        tags=("habit",),
        importance=0.4,
        confidence=min(sure, steady),
        attributes={"about": habit.word, "by": "rules"},
    )
    return Derived(made, tuple(sorted(memory.id for memory in cited)))


def _told(habit: Habit) -> str:
    since, often = habit.episodes[0].message_time, _rhythm([_day(memory) for memory in habit.episodes])
    step = _step(habit.sessions)
    if has_cjk(habit.word):
        first = datetime.fromtimestamp(since, UTC)
        parts = [f"{first:%Y}年{first.month}月{first.day}日以来至少{step}次对话谈到{habit.word}"]
        rhythm = {"day": "几乎每天", "week": "大约每周一次", "month": "大约每月一次"}.get(often[0], "")
        weekday = f"多在星期{_WEEKDAYS_ZH[often[1]]}" if often[1] is not None else ""
        return "，".join([*parts, *(part for part in (rhythm, weekday) if part)]) + "。"
    rhythm = {"day": "nearly every day", "week": "about every week", "month": "about every month"}.get(often[0], "")
    weekday = f"mostly on {_WEEKDAYS[often[1]]}" if often[1] is not None else ""
    parts = [f"Comes back to {habit.word}: at least {step} conversations since {day(since)}"]
    return ", ".join([*parts, *(part for part in (rhythm, weekday) if part)]) + "."


def _rhythm(days: Iterable[date]) -> tuple[str, int | None]:
    """How often ("day", "week", "month" or ""), and the weekday (0 is Monday; UTC) on which three in four fall."""
    every = sorted(set(days))
    span = (every[-1] - every[0]).days + 1
    weeks = len({each.isocalendar()[:2] for each in every})
    months = len({(each.year, each.month) for each in every})
    often = ""
    if span >= 5 and len(every) / span >= 0.7:
        often = "day"
    elif weeks >= 4 and weeks / (span / 7) >= 0.7:
        often = "week"
    elif months >= 4 and months / (span / 30.4) >= 0.7:
        often = "month"
    weekday, count = Counter(each.weekday() for each in every).most_common(1)[0]
    return often, weekday if often != "day" and len(every) >= 4 and count / len(every) >= 0.75 else None


def _step(count: int) -> int:
    return max(step for step in _STEPS if step <= max(count, _STEPS[0]))


def _words(text: str) -> dict[tuple[str, str], None]:
    """Keys with the words as they are written; each once."""
    plain = fold(text[:_READ])
    found = {
        (stem(word.strip("'’-")), word.strip("'’-"))
        for word in _WORD.findall(plain)
        if word not in STOP_WORDS and stem(word) not in _DULL and "'" not in word and "’" not in word
    }
    for run in _WIDE.findall(plain):
        for part in _DULL_ZH.split(run):
            found |= {(part[i : i + n], part[i : i + n]) for n in (2, 3, 4) for i in range(len(part) - n + 1)}
    once: dict[str, str] = {}
    for key, word in sorted(found):
        once.setdefault(key, word)
    return dict.fromkeys(once.items())


def _together(habit: Habit, other: Habit) -> bool:
    one, two = ({memory.id for memory in each.episodes} for each in (habit, other))
    return len(one & two) / len(one | two) >= 0.7 or habit.word in other.word or other.word in habit.word


def _session(memory: Memory) -> str:
    return memory.sources[0].session if memory.sources else memory.id


def _day(memory: Memory) -> date:
    return datetime.fromtimestamp(memory.message_time, UTC).date()
