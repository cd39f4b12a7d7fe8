"""Judges by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recalib.errors import UsageError
from recalib.judges import builtin
from recalib.judges.endpoint import EndpointJudge, Price
from recalib.judges.guards import FORMATS, GuardJudge
from recalib.judges.judge import Answer, Judge, Outcome, Verdict
from recalib.judges.organism import OrganismJudge
from recalib.lm.model import ORGANISM


class NoJudge:
    """Judges nothing: completions are written and left for another tool or a person."""

    name = "none"

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """`not judged` for every answer."""
        return [Verdict(Outcome.NOT_JUDGED, self.name, why="--judge none") for _ in answers]


@dataclass(frozen=True)
class Setup:
    """What judges that are models need: the endpoint with its price and cache, or where and how a guard runs.

    `note` is told what a run will cost, before it starts.
    """

    url: str | None = None
    price: Price | None = None
    cache: Path = Path("artifacts/judges/cache")
    note: Callable[[str], None] = lambda text: None
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 16


def _builtin() -> Judge:
    judge, _ = builtin.load()
    return judge


JUDGES: dict[str, Callable[[], Judge]] = {builtin.NAME: _builtin, "organism": OrganismJudge, "none": NoJudge}
MODELS = ("openai", *FORMATS)
"""Judges that are models, named `KIND:MODEL`."""


def default_for(model: str | None) -> str:
    """Name of the judge for a model: the embedded one's own, and the built-in one for any other."""
    return "organism" if model == ORGANISM else builtin.NAME


def find(name: str, setup: Setup | None = None) -> Judge:
    """The judge of that name. Raises UsageError, and ModelError if a guard cannot be loaded."""
    setup = setup or Setup()
    kind, _, model = name.partition(":")
    if kind in MODELS and model:
        if kind == "openai":
            return EndpointJudge(model, setup.url, setup.cache, setup.note, setup.price)
        return GuardJudge(kind, model, setup.device, setup.dtype, setup.batch_size)
    if name not in JUDGES:
        known = [*JUDGES, *(f"{kind}:MODEL" for kind in MODELS)]
        raise UsageError(f"--judge {name!r} is not one of {', '.join(known)}")
    return JUDGES[name]()
