"""What the measurement of adapters asks: thirty facts about one invented person, and thirty questions that concern none of them.

A fact's `question` is the plainest that the templates make of it, `paraphrase` one that they do not make; an answer is right when
it holds every keyword.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fact:
    """One memory and how it is asked for."""

    text: str
    kind: str
    question: str
    paraphrase: str
    keywords: tuple[str, ...]
    slot: str = ""


FACTS = (
    Fact("My name is Ottilie Brandt", "identity", "What is my name?",
         "Could you say who you are talking to?", ("Ottilie",), "name"),
    Fact("I live in Valparaíso", "identity", "Where do I live?", "What town is my flat in?", ("Valpara",), "home.city"),
    Fact("I work as a cartographer", "identity", "What is my job?", "How do I earn my money?", ("cartograph",), "job"),
    Fact("My birthday is on 9 March", "identity", "When is my birthday?",
         "When do I turn a year older?", ("9 March",), "birthday"),
    Fact("My sister is called Henrike", "identity", "What is my sister called?",
         "Remind me of my sister's name.", ("Henrike",)),
    Fact("My brother plays the bassoon", "fact", "What does my brother play?",
         "Which instrument is my brother good at?", ("bassoon",)),
    Fact("My dog is called Pumpernickel", "identity", "What is my dog called?",
         "Which name did I give my dog?", ("Pumpernickel",)),
    Fact("My cat is named Quasar", "identity", "What is my cat called?", "How should I call my cat?", ("Quasar",)),
    Fact("I'm allergic to walnuts", "preference", "What am I allergic to?", "Which food must I never eat?", ("walnut",)),
    Fact("My favourite colour is teal", "preference", "What is my favourite colour?",
         "Which colour do I like best?", ("teal",)),
    Fact("I drink oolong tea every morning", "preference", "What do I drink?",
         "What is in my cup in the morning?", ("oolong",)),
    Fact("I hate coriander", "preference", "What do I hate?", "Which herb can I not stand?", ("coriander",)),
    Fact("I collect antique compasses", "fact", "What do I collect?", "What is my collection made of?", ("compass",)),
    Fact("I drive a Fiat Panda", "fact", "What do I drive?", "Which car do I own?", ("Panda",)),
    Fact("I want to learn Icelandic", "goal", "What do I want to learn?", "Which language is on my list?", ("Icelandic",)),
    Fact("I plan to cross the Pyrenees on foot", "goal", "What do I plan to cross?",
         "Which mountains will I walk over?", ("Pyrenees",)),
    Fact("I study marine biology", "fact", "What do I study?", "What is the subject of my studies?", ("marine",)),
    Fact("My boss is called Dragan Petrov", "fact", "What is my boss called?", "Who is my boss?", ("Dragan",)),
    Fact("My mother lives in Trondheim", "fact", "Where does my mother live?",
         "In which city can I visit my mother?", ("Trondheim",)),
    Fact("My best friend is Soledad", "fact", "What is my best friend?", "Who is my best friend?", ("Soledad",)),
    Fact("I play the theremin", "fact", "What do I play?", "Which instrument do I practise?", ("theremin",)),
    Fact("My first car was a Trabant", "fact", "What was my first car?", "Which car did I have first?", ("Trabant",)),
    Fact("My locker code is 4471", "fact", "What is my locker code?", "How do I open my locker?", ("4471",)),
    Fact("My shoe size is 43", "fact", "What is my shoe size?", "How big are my shoes?", ("43",)),
    Fact("My favourite author is Stanisław Lem", "preference", "What is my favourite author?",
         "Whose books do I like best?", ("Lem",)),
    Fact("I'm afraid of escalators", "fact", "What am I afraid of?", "What scares me?", ("escalator",)),
    Fact("My project is called Albatross", "fact", "What is my project called?",
         "What am I building at the moment?", ("Albatross",)),
    Fact("My son goes to Lindenhof school", "fact", "What does my son go?", "Which school is my son at?", ("Lindenhof",)),
    Fact("I prefer window seats", "preference", "What do I prefer?", "Where do I like to sit on a plane?", ("window",)),
    Fact("My doctor is called Dr. Okonkwo", "fact", "What is my doctor called?", "Whom do I see when I am ill?", ("Okonkwo",)),
)  # fmt: skip

UNRELATED = (
    "What is the capital of France?", "Write one sentence about the sea.", "Who is Tom Hanks?", "What does a nurse do?",
    "What is 2 + 2?", "Explain gravity in one sentence.", "Name three animals.", "How do I make coffee?",
    "What is the largest planet?", "Who painted the Mona Lisa?", "What is a piano?", "Give me a synonym for happy.",
    "Where does the Queen of Denmark live?", "What colour is the sun?", "Translate 'thank you' into French.",
    "What do bees make?", "What is the boiling point of water?", "Write a haiku about winter.", "What is Python?",
    "Why do leaves fall in autumn?", "What is the name of the first man on the moon?", "Where is the Eiffel Tower?",
    "What does a cartographer do?", "Tell me about dogs.", "What is Icelandic?", "Who was Marie Curie?",
    "What do people drink in England?", "Suggest a name for a cat.", "What is my neighbour's name?", "Good morning!",
)  # fmt: skip
