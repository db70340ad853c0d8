"""What is measured with: conversations as turns, and questions with the turns that answer them. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from memory.types import Turn

ADVERSARIAL = "adversarial"  # asks about what was said of somebody or something else; counted apart
UNANSWERABLE = "unanswerable"  # asks for what was never said; the right answer is nothing


class BadData(Exception):
    """The file is not in the format that was named; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Said:
    """One turn. `key` names it within its talk, as evidence does; `at` is in seconds since the epoch, UTC."""

    key: str
    session: str
    at: float
    text: str
    answer: str = ""
    speaker: str = ""

    def turn(self, cube: str) -> Turn:
        """As the turn log takes it down."""
        return Turn(
            id="",
            cube=cube,
            session=self.session,
            key=self.key,
            user_text=self.text,
            assistant_text=self.answer,
            said_at=self.at,
            answered_at=self.at,
            speaker=self.speaker,
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and the keys of the turns that answer it; none for an unanswerable one."""

    text: str
    evidence: frozenset[str]
    category: str

    @property
    def counts(self) -> bool:
        """Whether it counts in the figures of the whole."""
        return bool(self.evidence) and self.category != ADVERSARIAL


@dataclass(frozen=True, slots=True)
class Talk:
    """One owner's conversations, oldest turn first, and the questions about them."""

    name: str
    turns: tuple[Said, ...]
    questions: tuple[Asked, ...]

    @property
    def now(self) -> float:
        """When the questions are asked: a day after the last turn."""
        return max((turn.at for turn in self.turns), default=0.0) + 86_400.0
