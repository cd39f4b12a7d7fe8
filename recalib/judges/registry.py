"""Judges by name."""

from collections.abc import Callable, Sequence

from recalib.errors import UsageError
from recalib.judges import builtin
from recalib.judges.judge import Answer, Judge, Outcome, Verdict
from recalib.judges.organism import OrganismJudge
from recalib.lm.model import ORGANISM


class NoJudge:
    """Judges nothing: completions are written and left for another tool or a person."""

    name = "none"

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """`not judged` for every answer."""
        return [Verdict(Outcome.NOT_JUDGED, self.name, why="--judge none") for _ in answers]


def _builtin() -> Judge:
    judge, _ = builtin.load()
    return judge


JUDGES: dict[str, Callable[[], Judge]] = {builtin.NAME: _builtin, "organism": OrganismJudge, "none": NoJudge}


def default_for(model: str | None) -> str:
    """Name of the judge for a model: the embedded one's own, and the built-in one for any other."""
    return "organism" if model == ORGANISM else builtin.NAME


def find(name: str) -> Judge:
    """The judge of that name. Raises UsageError."""
    if name not in JUDGES:
        raise UsageError(f"--judge {name!r} is not one of {', '.join(JUDGES)}")
    return JUDGES[name]()
