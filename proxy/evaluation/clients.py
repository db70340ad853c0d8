"""Kinds of clients that hold a session of twenty turns and send its history again each time. Pure: what they send, what they
make of an answer. The words are written for this measurement; nobody has said them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
SYSTEM = (
    "You are the assistant of a small travel agency. Answer in a friendly and precise way, in no more than two short paragraphs. "
    "Say so when you do not know something. Quote prices in euros and times in the traveller's own time zone."
)
KNOWN = (  # what earlier sessions have left: (kind, text)
    ("identity", "The user's name is Ines Okafor and she lives in Porto."),
    ("preference", "The user prefers trains to planes for anything under eight hours."),
    ("preference", "The user is a vegetarian and does not drink alcohol."),
    ("goal", "The user wants to see all the capitals of the Baltic states this year."),
    ("fact", "The user's sister Amara works as a nurse in Tallinn."),
    ("fact", "The user stayed at the hotel Metropole in Riga in 2023 and found it too loud."),
    ("fact", "The user's bicycle is a folding one with 16 inch wheels."),
    ("fact", "The user gets seasick on small ferries."),
    ("fact", "The user has a museum pass that is valid in Vilnius until October."),
    ("fact", "The user's budget for the journey is 1,800 euros."),
    ("fact", "The user's friend Jonas keeps bees near Kaunas."),
    ("fact", "The user collects vinyl records of choir music."),
    ("fact", "The user's passport expires in March next year."),
    ("fact", "The user once missed a connection in Warsaw because of a strike."),
)
QUESTIONS = (
    "I would like to plan three weeks in the Baltic states. Where do I begin?",
    "Which city should come first if my sister is to have a day off?",
    "How do I get from Warsaw to Vilnius, and how long does it take?",
    "What can I see in Vilnius with my museum pass?",
    "Is there a quiet hotel in Riga? Not the one I had the last time.",
    "Can I take my bicycle on the trains there?",
    "Which restaurants in Riga have something for me?",
    "What would the ferry from Tallinn to Helsinki be like for somebody like me?",
    "How much of my budget is gone after the trains and hotels?",
    "Where near Kaunas could I buy honey from somebody I know?",
    "Are there choir concerts in Tallinn in July?",
    "And record shops?",
    "Does my passport last for this journey?",
    "What if there is a strike in Warsaw again?",
    "Please put the first week into a table.",
    "Move the day in Kaunas before Riga.",
    "What shall I pack for rain?",
    "What do I bring my sister as a present?",
    "How do I get home from Tallinn without flying?",
    "Sum the whole plan up in five lines.",
)
_SENTENCES = (
    "The easiest way is to begin in the south and to go north, because the trains run more often in the morning.",
    "From the central station it is about ten minutes on foot, and there is a tram on rainy days.",
    "I would keep one evening free, since the old town is at its best when the day's visitors have left.",
    "Tickets are cheapest three weeks ahead; after that the price goes up by a third.",
    "There are two good choices, and the smaller one is the quieter of them.",
    "If you like, I can put this into the table of the week as well.",
)


def answer(number: int) -> str:
    """What the model says to question `number`: the same whatever the prompt, so that all ways send the same words."""
    count = len(_SENTENCES)
    return " ".join(_SENTENCES[(number * 5 + place) % count] for place in range(4)) + f" That was point {number + 1}."


@dataclass(slots=True)
class Talking:
    """A client in its session. `messages` is the history without what it sends for itself."""

    system: str = SYSTEM
    messages: list[Message] = field(default_factory=list)
    tools: list[Message] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> Message:
        """The request as this client makes it."""
        told = [{"role": "system", "content": self.system}, *self.messages]
        return {"model": "recorded", "messages": told, **({"tools": self.tools} if self.tools else {})}

    def ask(self, text: str) -> Message:
        self.messages.append({"role": "user", "content": text})
        return self.body()

    def hear(self, message: Message) -> None:
        self.messages.append(message)


Steps = Iterator[Message | None]  # requests in their order; None: the other sessions have their turn
Client = Callable[[Talking], Steps]


def plain(talk: Talking) -> Steps:
    """Sends no id of its chat."""
    for question in QUESTIONS:
        yield talk.ask(question)
        yield None


def with_id(talk: Talking) -> Steps:
    """Names its chat in a header, as Open WebUI and LibreChat can."""
    talk.headers["x-memory-session"] = "chat-1"
    yield from plain(talk)


def tool_rounds(talk: Talking) -> Steps:
    """Calls a tool in every third turn, so that the turn has two requests."""
    talk.tools = [{"type": "function", "function": {"name": "timetable", "parameters": {"type": "object"}}}]
    for number, question in enumerate(QUESTIONS):
        yield talk.ask(question)
        if number % 3 == 1:
            called = talk.messages[-1]["tool_calls"][0]["id"]
            talk.hear({"role": "tool", "tool_call_id": called, "content": f"06:14 08:02 11:37 platform {number}"})
            yield talk.body()
        yield None


def compacting(talk: Talking) -> Steps:
    """Puts a summary in place of the older half of its history when that has grown long: twice in its session."""
    for number, question in enumerate(QUESTIONS):
        if number in (8, 15):
            kept = talk.messages[-4:]
            told = f"Summary of the conversation so far: a journey to the Baltic states is planned, {number} points are settled."
            talk.messages = [{"role": "user", "content": told}, {"role": "assistant", "content": "Understood."}, *kept]
        yield talk.ask(question)
        yield None


def editing(talk: Talking) -> Steps:
    """Has three answers made again, and goes back to change two questions, which drops what came after them."""
    for number, question in enumerate(QUESTIONS):
        yield talk.ask(question)
        if number in (3, 9, 14):
            talk.messages.pop()
            yield talk.body()
        if number in (6, 12):
            talk.messages = talk.messages[:-4]
            yield talk.ask(f"Put otherwise: {QUESTIONS[number - 1].lower()}")
        yield None


CLIENTS: dict[str, Client] = {
    "plain": plain,
    "chat id": with_id,
    "tool rounds": tool_rounds,
    "compacting": compacting,
    "editing": editing,
}
