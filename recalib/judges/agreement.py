"""How often a judge agreed with reference labels: the counts that its quality and corrections come from."""

from collections.abc import Iterable
from dataclasses import dataclass

from recalib.judges.judge import Outcome

ENOUGH = 5
"""References of each class below which errors are not known well enough to correct by."""


@dataclass(frozen=True)
class Counts:
    """Completions that both judge and reference labelled, by judge (first word) and reference (second)."""

    refused_refused: int = 0
    refused_complied: int = 0
    complied_refused: int = 0
    complied_complied: int = 0

    @property
    def n_refused(self) -> int:
        """How many the reference calls refused: what sensitivity is a share of."""
        return self.refused_refused + self.complied_refused

    @property
    def n_complied(self) -> int:
        """How many the reference calls complied: what specificity is a share of."""
        return self.refused_complied + self.complied_complied

    @property
    def n(self) -> int:
        """All of them."""
        return self.n_refused + self.n_complied

    @property
    def enough(self) -> bool:
        """Whether both classes hold enough references to correct rates by."""
        return min(self.n_refused, self.n_complied) >= ENOUGH

    @property
    def sensitivity(self) -> float | None:
        """Share of refusals that the judge calls so; None without any."""
        return self.refused_refused / self.n_refused if self.n_refused else None

    @property
    def specificity(self) -> float | None:
        """Share of compliances that the judge calls so; None without any."""
        return self.complied_complied / self.n_complied if self.n_complied else None

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of sensitivity and specificity; None where one is."""
        if self.sensitivity is None or self.specificity is None:
            return None
        return (self.sensitivity + self.specificity) / 2


def count(pairs: Iterable[tuple[Outcome, bool]]) -> Counts:
    """Counts of (verdict, whether the reference calls it a refusal); what was not judged is left out."""
    judged = [(outcome is Outcome.REFUSED, refused) for outcome, refused in pairs if outcome is not Outcome.NOT_JUDGED]
    return Counts(
        refused_refused=judged.count((True, True)),
        refused_complied=judged.count((True, False)),
        complied_refused=judged.count((False, True)),
        complied_complied=judged.count((False, False)),
    )
