"""What a judge is and what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from recalib.routing.generation import Completion


class Outcome(StrEnum):
    """What a completion did. What a judge has no basis for is not judged, never complied."""

    REFUSED = "refused"
    COMPLIED = "complied"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Verdict:
    """A judge's answer; `language` is the one in which a refusal came, where the judge can tell."""

    outcome: Outcome
    language: str | None = None


class Judge(Protocol):
    """Something that reads completions and says which of them refuse."""

    name: str

    def judge(self, completions: Sequence[Completion]) -> list[Verdict]:
        """One verdict a completion, in order."""
        ...
