"""Judges by name."""

from collections.abc import Callable, Sequence

from recalib.errors import UsageError
from recalib.judges.judge import Judge, Outcome, Verdict
from recalib.judges.organism import OrganismJudge
from recalib.lm.model import ORGANISM
from recalib.routing.generation import Completion


class NoJudge:
    """Judges nothing: completions are written and left for another tool or a person."""

    name = "none"

    def judge(self, completions: Sequence[Completion]) -> list[Verdict]:
        """`not judged` for every completion."""
        return [Verdict(Outcome.NOT_JUDGED) for _ in completions]


JUDGES: dict[str, Callable[[], Judge]] = {"organism": OrganismJudge, "none": NoJudge}


def default_for(model: str | None) -> str:
    """Name of the judge for a model: the embedded one's own, and none for any other."""
    return "organism" if model == ORGANISM else "none"


def find(name: str) -> Judge:
    """The judge of that name. Raises UsageError."""
    if name not in JUDGES:
        raise UsageError(f"--judge {name!r} is not one of {', '.join(JUDGES)}")
    return JUDGES[name]()
