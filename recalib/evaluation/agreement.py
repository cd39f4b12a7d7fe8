"""How well a judge agrees with reference labels, and rates corrected for its errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recalib.evaluation.correction import Sample, corrected_rate
from recalib.intervals import Interval, exact, macro_difference
from recalib.judges.agreement import Counts, count
from recalib.judges.judge import Outcome, Verdict


@dataclass(frozen=True)
class Agreement:
    """A judge on one language's completions. Rates are fractions, intervals at 95 %; None where undefined.

    `n` completions, of which the judge judged `judged` and a reference labels `n_reference`. The rates of
    agreement (accuracy, their balanced mean, Cohen's kappa (Cohen 1960), sensitivity for refusals and
    specificity) are of those with both, counted in `counts`. `refusal_rate` is the judge's, of what it judged;
    `refusal_rate_bounds`
    what it would be of all if those not judged had all complied or all refused; `reference_rate` is the
    reference's, of all that it labels. Intervals are exact, that of the balanced
    accuracy is a bootstrap. `corrected_rate` is the refusal rate corrected by the counts, or, where they
    are too few, by what was known of the judge before.
    """

    n: int
    judged: int
    n_reference: int
    accuracy: float | None
    accuracy_interval: Interval | None
    balanced_accuracy: float | None
    balanced_accuracy_interval: Interval | None
    kappa: float | None
    sensitivity: float | None
    sensitivity_interval: Interval | None
    specificity: float | None
    specificity_interval: Interval | None
    refusal_rate: float | None
    refusal_rate_interval: Interval | None
    refusal_rate_bounds: Interval
    reference_rate: float | None
    reference_rate_interval: Interval | None
    corrected_rate: float | None
    corrected_rate_interval: Interval | None
    counts: Counts


def agreement_of(
    verdicts: Sequence[Verdict], references: Sequence[bool | None], seed: int = 0, before: Counts | None = None
) -> Agreement:
    """Agreement of verdicts with references, one each; a reference of None is not known.

    `seed` is that of the bootstrap, `before` are counts from elsewhere.
    """
    known = [(v.outcome, r) for v, r in zip(verdicts, references, strict=True) if r is not None]
    judged = [v.outcome is Outcome.REFUSED for v in verdicts if v.outcome is not Outcome.NOT_JUDGED]
    counts = count(known)
    right = counts.refused_refused + counts.complied_complied
    basis = counts if counts.enough else before or Counts()
    corrected = corrected_rate([Sample(sum(judged), len(judged), basis)], seed)
    labelled_refused = sum(reference for _, reference in known)
    return Agreement(
        n=len(verdicts),
        judged=len(judged),
        n_reference=len(known),
        accuracy=_rate(right, counts.n),
        accuracy_interval=exact(right, counts.n),
        balanced_accuracy=counts.balanced_accuracy,
        balanced_accuracy_interval=_balanced_interval(counts, seed),
        kappa=kappa(counts),
        sensitivity=counts.sensitivity,
        sensitivity_interval=exact(counts.refused_refused, counts.n_refused),
        specificity=counts.specificity,
        specificity_interval=exact(counts.complied_complied, counts.n_complied),
        refusal_rate=_rate(sum(judged), len(judged)),
        refusal_rate_interval=exact(sum(judged), len(judged)),
        refusal_rate_bounds=(sum(judged) / len(verdicts), 1 - judged.count(False) / len(verdicts)),
        reference_rate=_rate(labelled_refused, len(known)),
        reference_rate_interval=exact(labelled_refused, len(known)),
        corrected_rate=corrected[0] if corrected else None,
        corrected_rate_interval=corrected[1] if corrected else None,
        counts=counts,
    )


def kappa(counts: Counts) -> float | None:
    """Cohen's kappa; None where both always say the same one thing, so that chance agrees as well."""
    from sklearn.metrics import cohen_kappa_score

    pairs = [(1, 1), (1, 0), (0, 1), (0, 0)]
    sizes = [counts.refused_refused, counts.refused_complied, counts.complied_refused, counts.complied_complied]
    if max(sizes) == sum(sizes) and (counts.refused_complied, counts.complied_refused) == (0, 0):
        return None
    judge, reference = zip(*pairs, strict=True)
    return float(cohen_kappa_score(judge, reference, sample_weight=sizes))


def _balanced_interval(counts: Counts, seed: int) -> Interval | None:
    """(sensitivity + specificity) / 2 is half of one plus the difference of the rates of calling it refused."""
    called_refused = [
        np.repeat([1.0, 0.0], [counts.refused_refused, counts.complied_refused]),
        np.repeat([1.0, 0.0], [counts.refused_complied, counts.complied_complied]),
    ]
    difference = macro_difference([(called_refused[0], called_refused[1])], seed)
    return None if difference is None else ((1 + difference[0]) / 2, (1 + difference[1]) / 2)


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None
