"""What a judge is and what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Outcome(StrEnum):
    """What a completion did. What a judge has no basis for is not judged, never complied."""

    REFUSED = "refused"
    COMPLIED = "complied"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Verdict:
    """What the judge of that name answers.

    `language` is the one in which a refusal came, where the judge can tell; `why` says what it had no basis
    for, where it did not judge.
    """

    outcome: Outcome
    judge: str
    language: str | None = None
    why: str | None = None


class Answer(Protocol):
    """What a judge reads; generated here or made elsewhere. What nobody knows is None."""

    @property
    def prompt(self) -> str | None:
        """What was asked."""
        ...

    @property
    def language(self) -> str | None:
        """Code of the prompt's language."""
        ...

    @property
    def completion(self) -> str:
        """What the model said."""
        ...


class Judge(Protocol):
    """Something that reads completions and says which of them refuse."""

    @property
    def name(self) -> str:
        """The name by which `find` knows it, which every verdict carries."""
        ...

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """One verdict an answer, in order."""
        ...
