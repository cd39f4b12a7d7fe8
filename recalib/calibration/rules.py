"""Threshold rules: from a few examples of one language to its threshold.

A rule is a function from many data sets at once (`Scores`, a draw each) to their thresholds [draws], NaN
where a data set cannot carry one; `RULES` lists them by name. A prompt is flagged where its score is at or
above the threshold.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from recalib.calibration.score_model import Posterior, Scores, sample
from recalib.gate.prior import ScorePrior
from recalib.gate.threshold import best_f1
from recalib.intervals import Interval

SEPARATION = 1.0
"""Nats by which two normals must describe unlabelled rows better than one; see `separated`."""

WIDEST = 1.5
"""The widest interval of the threshold, in units of the gap, that unlabelled rows may leave."""

FEW = 4
INVERTED = -1.0
"""Fewer shots than `FEW` contradict the gate if their gap lies this many standard errors below zero.

With so few a gap below zero may be chance; with more, any does."""


@dataclass(frozen=True)
class Rule:
    """A threshold rule and what it needs.

    `refits`: the readout is fitted again on source rows and shots before scores are taken, so that
    the scores of the shots are no longer those of fresh prompts and no guarantee can be given on them.
    `needs_prior`: it cannot do without the spread of the sources' scores.
    """

    thresholds: Callable[[Scores, ScorePrior | None, int], np.ndarray]
    labelled: bool = True
    unlabeled: bool = False
    refits: bool = False
    needs_prior: bool = True


def f1(scores: Scores, prior: ScorePrior | None = None, seed: int = 0) -> np.ndarray:
    """The paper's rule (arXiv 2606.01196): `best_f1` on the shots, with the readout refitted on them, too."""
    thresholds = [best_f1(*pair) for pair in zip(scores.harmful, scores.harmless, strict=True)]
    return np.where(gap_of_shots(scores) > 0, thresholds, np.nan)


def midpoint(scores: Scores, prior: ScorePrior | None = None, seed: int = 0) -> np.ndarray:
    """Halfway between the shots' class means: linear discriminant analysis with equal weights."""
    middle = (scores.harmful.mean(1) + scores.harmless.mean(1)) / 2
    return np.where(gap_of_shots(scores) > 0, middle, np.nan)


def shrunk(scores: Scores, prior: ScorePrior, seed: int = 0) -> np.ndarray:
    """Posterior median of the best boundary given the labelled shots: empirical Bayes, see `score_model`."""
    labelled = Scores(scores.harmful, scores.harmless, np.empty((scores.draws, 0)))
    return np.where(_contradicts(labelled, prior), np.nan, posterior_median(sample(prior, labelled, seed)))


def mixture(scores: Scores, prior: ScorePrior, seed: int = 0) -> np.ndarray:
    """The same given the unlabelled rows alone; NaN where they show no two classes."""
    none = np.empty((scores.draws, 0))
    unlabeled = Scores(none, none, scores.unlabeled)
    posterior = sample(prior, unlabeled, seed)
    return np.where(separated(unlabeled.unlabeled, posterior), posterior_median(posterior), np.nan)


def joint(scores: Scores, prior: ScorePrior, seed: int = 0) -> np.ndarray:
    """The same given labelled shots and unlabelled rows in one likelihood."""
    posterior = sample(prior, scores, seed)
    return np.where(_contradicts(scores, prior), np.nan, posterior_median(posterior))


RULES: dict[str, Rule] = {
    "f1": Rule(f1, refits=True, needs_prior=False),
    "midpoint": Rule(midpoint, needs_prior=False),
    "shrunk": Rule(shrunk),  # type: ignore[arg-type]
    "mixture": Rule(mixture, labelled=False, unlabeled=True),  # type: ignore[arg-type]
    "joint": Rule(joint, unlabeled=True),  # type: ignore[arg-type]
}


def default_method(shots: int, unlabeled: int) -> str:
    """The rule that did best in the study for that many labelled shots a class and unlabelled rows."""
    if not unlabeled:
        return "shrunk"
    return "joint" if shots else "mixture"


def posterior_median(posterior: Posterior) -> np.ndarray:
    """Median [draws] of the best boundary: the estimate of least expected absolute error."""
    return np.asarray(np.median(posterior.boundary(), axis=0))


def credible_interval(posterior: Posterior) -> tuple[np.ndarray, np.ndarray]:
    """Central 95 % of the best boundary, two arrays [draws]."""
    low, high = np.quantile(posterior.boundary(), (0.025, 0.975), axis=0)
    return low, high


def interval_of(prior: ScorePrior | None, scores: Scores, seed: int) -> Interval | None:
    """Central 95 % of the best boundary given a single data set; None without a prior."""
    if prior is None:
        return None
    low, high = credible_interval(sample(prior, scores, seed))
    return float(low[0]), float(high[0])


def separation(rows: np.ndarray, posterior: Posterior) -> np.ndarray:
    """How much better two normals describe unlabelled rows [draws, u] than one, in nats [draws].

    The log-likelihood of the mixture at the posterior means, which the sources inform, less that of the
    single normal that fits the rows best: what is not positive gives no reason to see two classes.
    """
    n = rows.shape[1]
    m1, m0, v1, v0, p = (
        samples.mean(0)[:, None]
        for samples in (
            posterior.harmful_mean,
            posterior.harmless_mean,
            posterior.harmful_variance,
            posterior.harmless_variance,
            posterior.prevalence,
        )
    )
    two = np.logaddexp(
        np.log(p) + stats.norm.logpdf(rows, m1, np.sqrt(v1)), np.log1p(-p) + stats.norm.logpdf(rows, m0, np.sqrt(v0))
    )
    one = -n / 2 * (np.log(2 * np.pi * np.maximum(rows.var(1), 1e-300)) + 1)
    return np.asarray(two.sum(1) - one)


def separated(rows: np.ndarray, posterior: Posterior) -> np.ndarray:
    """Whether unlabelled rows [draws, u] show two classes, as booleans [draws].

    They do where two normals describe them better than one, and where that places the threshold.
    """
    low, high = credible_interval(posterior)
    gap = np.median(posterior.harmful_mean - posterior.harmless_mean, axis=0)
    return np.asarray((separation(rows, posterior) > SEPARATION) & (high - low < WIDEST * gap))


def gap_of_shots(scores: Scores) -> np.ndarray:
    """Mean score of harmful shots less that of harmless ones, [draws]."""
    return np.asarray(scores.harmful.mean(1) - scores.harmless.mean(1))


def _contradicts(scores: Scores, prior: ScorePrior) -> np.ndarray:
    """Whether labelled shots lie so far the wrong way round that chance does not explain it, [draws]."""
    n, m = scores.harmful.shape[1], scores.harmless.shape[1]
    error = np.sqrt(prior.harmful_variance / n + prior.harmless_variance / m)
    return np.asarray(gap_of_shots(scores) < (INVERTED * error if min(n, m) < FEW else 0.0))
