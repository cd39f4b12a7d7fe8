"""What is known of a language's scores before any of its prompts is seen."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from recalib.errors import CalibrationError
from recalib.gate.summary import ScoreSummary

DOF = 4.0
"""Degrees of freedom of the prior: few enough that a language far from it is believed."""

REACH = 0.5
"""How far a new language may lie from the known ones, as a share of the gap between the classes.

Languages to be calibrated are low-resource; they are no draw from the population that the sources are a
sample of, and lie outside its spread. Their centers and gaps get this much more standard deviation.
"""


@dataclass(frozen=True)
class ScorePrior:
    """Prior of one language's score distribution, in units of the score; see `score_model`.

    `center` and `gap` are (location, scale) of Student t distributions of what lies halfway between the
    class means and of their difference; the variances are the scales of scaled inverse chi-squared
    distributions.
    """

    center: tuple[float, float]
    gap: tuple[float, float]
    harmful_variance: float
    harmless_variance: float

    def interval(self) -> tuple[float, float]:
        """Where 95 % of the centers of new languages lie."""
        low, high = stats.t.interval(0.95, DOF, *self.center)
        return float(low), float(high)


def estimate(held_out: Sequence[ScoreSummary], calibrated: Sequence[ScoreSummary] = ()) -> ScorePrior:
    """The prior, from source languages held out and from targets calibrated before.

    A random-effects model: a language's center (and gap) is normal around a common mean, and what was
    seen of it is that plus sampling error. Mean and between-language variance are DerSimonian and Laird's
    (Controlled Clinical Trials 7, 1986); the scale is that of a new language's, with `REACH` on top.
    Variances are the geometric means of the sources'; few shots say nothing about theirs.

    Raises CalibrationError with fewer than two held-out sources.
    """
    usable = [s for s in held_out if min(s.n_harmful, s.n_harmless) > 1]
    if len(usable) < 2:
        raise CalibrationError(
            "the gate does not know how its sources' scores spread",
            fix="fit it again with recalib fit-gate on two sources or more, or use --method midpoint or f1",
        )
    harmful = float(np.exp(np.mean([np.log(s.harmful_variance or 1e-12) for s in usable])))
    harmless = float(np.exp(np.mean([np.log(s.harmless_variance or 1e-12) for s in usable])))
    everyone = [*usable, *calibrated]
    errors = np.array([harmful / s.n_harmful + harmless / s.n_harmless for s in everyone])
    gap, gap_scale = _random_effects(np.array([s.gap for s in everyone]), errors)
    center, center_scale = _random_effects(np.array([s.center for s in everyone]), errors / 4)
    if gap <= 0:
        raise CalibrationError(
            "the sources' scores are inverted under each other's gates: this gate does not transfer",
            fix="fit it on another layer or from more prompts",
        )
    reach = REACH * gap
    return ScorePrior(
        (center, float(np.hypot(center_scale, reach))), (gap, float(np.hypot(gap_scale, reach))), harmful, harmless
    )


def _random_effects(values: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of a new language's value; `errors` are sampling variances."""
    weights = 1 / errors
    fixed = np.average(values, weights=weights)
    excess = (weights * (values - fixed) ** 2).sum() - (len(values) - 1)
    between = max(0.0, excess / (weights.sum() - (weights**2).sum() / weights.sum()))
    weights = 1 / (errors + between)
    mean = np.average(values, weights=weights)
    return float(mean), float(np.sqrt(between + 1 / weights.sum()))
