"""One model of a language's scores, for labelled shots and unlabelled rows alike.

    harmful  ~ N(c + d/2, v1)      c ~ t(center), d ~ t(gap) and d > 0
    harmless ~ N(c - d/2, v0)      v1, v0 ~ scaled inverse chi-squared
    unlabelled ~ p harmful + (1 - p) harmless, p uniform on [.05, .95]

All with `DOF` degrees of freedom. The tails of t are heavy, so a conflict between prior and data is
decided for the data (Dawid, Biometrika 60, 1973). The posterior is sampled by Gibbs: t as a scale mixture
of normals, labels of unlabelled rows as latent variables (Gelman et al., Bayesian Data Analysis, 3rd
edition, sections 11.1, 12.1 and 22.2). Many data sets are sampled at once, along a first axis, which is
what makes the study of shots quick.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import special

from recalib.gate.prior import DOF, ScorePrior

PREVALENCE = (0.05, 0.95)
SWEEPS = 600
SWEEPS_UNLABELED = 1500
"""With unlabelled rows the chain mixes more slowly, because labels and parameters hold each other."""

BURN_IN = 0.2
"""Share of the sweeps that is thrown away."""


@dataclass(frozen=True)
class Scores:
    """Scores of one language: `harmful` [draws, n], `harmless` [draws, m], `unlabeled` [draws, u].

    Any of n, m and u may be 0; draws are data sets that have nothing to do with each other.
    """

    harmful: np.ndarray
    harmless: np.ndarray
    unlabeled: np.ndarray

    @classmethod
    def single(cls, harmful: np.ndarray, harmless: np.ndarray, unlabeled: np.ndarray | None = None) -> "Scores":
        """One data set, from scores [n], [m] and [u]."""
        rest = np.empty(0) if unlabeled is None else unlabeled
        return cls(harmful[None], harmless[None], rest[None])

    @property
    def draws(self) -> int:
        """Number of data sets."""
        return len(self.harmful)


@dataclass(frozen=True)
class Posterior:
    """Samples [samples, draws] of the model's parameters, in units of the score."""

    harmful_mean: np.ndarray
    harmless_mean: np.ndarray
    harmful_variance: np.ndarray
    harmless_variance: np.ndarray
    prevalence: np.ndarray

    def boundary(self) -> np.ndarray:
        """The threshold of highest balanced accuracy under each sample [samples, draws].

        Where the two normal densities are equal, between the means: quadratic discriminant analysis with
        equal weights. Where none of the means is on its own side of it, the nearer mean.
        """
        m1, m0, v1, v0 = self.harmful_mean, self.harmless_mean, self.harmful_variance, self.harmless_variance
        # a x^2 + b x + c = 0 in coordinates around the middle, which keeps the digits
        middle, half = (m1 + m0) / 2, (m1 - m0) / 2
        a, b = 1 / v1 - 1 / v0, -2 * half * (1 / v1 + 1 / v0)
        c = half**2 * a + np.log(v1 / v0)
        root = np.sqrt(np.maximum(b**2 - 4 * a * c, 0))
        offset = np.clip(2 * c / (root - b), -half, half)
        return np.asarray(middle + offset)


def sample(prior: ScorePrior, scores: Scores, seed: int = 0) -> Posterior:
    """Posterior samples for every draw, as many as there are sweeps after the burn-in.

    Rows may come in any order: the same rows give the same samples.
    """
    count = SWEEPS_UNLABELED if scores.unlabeled.shape[1] else SWEEPS
    sweeps = _sweep(prior, scores, np.random.default_rng(seed))
    kept = [state for number, state in zip(range(count), sweeps, strict=False) if number >= BURN_IN * count]
    return Posterior(*(np.stack(parts) for parts in zip(*kept, strict=True)))


@dataclass(frozen=True)
class _Moments:
    """Count, sum and sum of squares of one class's rows, each [draws]."""

    n: np.ndarray
    total: np.ndarray
    squares: np.ndarray

    def __add__(self, other: "_Moments") -> "_Moments":
        return _Moments(self.n + other.n, self.total + other.total, self.squares + other.squares)

    def around(self, mean: np.ndarray) -> np.ndarray:
        """Sum of squared deviations from `mean`, [draws]."""
        return np.asarray(np.maximum(self.squares - 2 * mean * self.total + self.n * mean**2, 0))


def _moments(rows: np.ndarray, weights: np.ndarray | None = None) -> _Moments:
    if weights is None:
        return _Moments(np.full(len(rows), float(rows.shape[1])), rows.sum(1), (rows**2).sum(1))
    return _Moments(weights.sum(1).astype(float), (weights * rows).sum(1), (weights * rows**2).sum(1))


def _sweep(prior: ScorePrior, scores: Scores, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, ...]]:
    """The Markov chain: one full pass over all parameters after the other.

    Scores are measured from the prior's center in units of its gap's location, so that rounding does not
    depend on the score's scale.
    """
    origin, unit, draws = prior.center[0], prior.gap[0], scores.draws
    parts = [np.sort((part - origin) / unit, axis=1) for part in (scores.harmful, scores.harmless, scores.unlabeled)]
    harmful, harmless, rows = _moments(parts[0]), _moments(parts[1]), parts[2]
    v1_prior, v0_prior = prior.harmful_variance / unit**2, prior.harmless_variance / unit**2
    center_scale, gap_scale = prior.center[1] / unit, prior.gap[1] / unit
    c = rows.mean(1) if rows.shape[1] else np.zeros(draws)
    d, v1, v0, p = np.ones(draws), np.full(draws, v1_prior), np.full(draws, v0_prior), np.full(draws, 0.5)
    while True:
        ones, zeros = harmful, harmless
        if rows.shape[1]:
            guess = _guess_labels(rows, c + d / 2, c - d / 2, v1, v0, p, rng)
            ones, zeros = harmful + _moments(rows, guess), harmless + _moments(rows, ~guess)
            p = _prevalence(guess.sum(1), rows.shape[1], rng)
        # a t prior is a normal one whose precision is itself drawn anew each time
        weight = _gamma((DOF + 1) / 2, DOF + (c / center_scale) ** 2, rng) / center_scale**2
        precision = ones.n / v1 + zeros.n / v0 + weight
        c = ((ones.total - ones.n * d / 2) / v1 + (zeros.total + zeros.n * d / 2) / v0) / precision
        c = c + rng.standard_normal(draws) / np.sqrt(precision)
        weight = _gamma((DOF + 1) / 2, DOF + ((d - 1) / gap_scale) ** 2, rng) / gap_scale**2
        precision = ones.n / (4 * v1) + zeros.n / (4 * v0) + weight
        d = ((ones.total - ones.n * c) / (2 * v1) - (zeros.total - zeros.n * c) / (2 * v0) + weight) / precision
        d = _positive_normal(d, 1 / np.sqrt(precision), rng)
        v1 = 1 / _gamma((DOF + ones.n) / 2, DOF * v1_prior + ones.around(c + d / 2), rng)
        v0 = 1 / _gamma((DOF + zeros.n) / 2, DOF * v0_prior + zeros.around(c - d / 2), rng)
        m1, m0 = origin + unit * (c + d / 2), origin + unit * (c - d / 2)
        yield m1, m0, v1 * unit**2, v0 * unit**2, p


def _guess_labels(
    rows: np.ndarray,
    m1: np.ndarray,
    m0: np.ndarray,
    v1: np.ndarray,
    v0: np.ndarray,
    p: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """A draw of which unlabelled rows [draws, u] are harmful, given the parameters [draws]."""
    m1, m0, v1, v0, p = (value[:, None] for value in (m1, m0, v1, v0, p))
    log_odds = (rows - m0) ** 2 / (2 * v0) - (rows - m1) ** 2 / (2 * v1) + np.log(v0 / v1) / 2 + special.logit(p)
    return np.asarray(rng.random(rows.shape) < special.expit(log_odds))


def _prevalence(harmful: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """A draw of the prevalence [draws] given that `harmful` [draws] of n rows are: a truncated beta."""
    a, b = harmful + 1.0, n - harmful + 1.0
    low, high = (special.betainc(a, b, bound) for bound in PREVALENCE)
    inside = special.betaincinv(a, b, low + (high - low) * rng.random(len(a)))
    return np.asarray(np.clip(inside, *PREVALENCE))


def _gamma(shape: np.ndarray | float, twice_rate: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(rng.gamma(shape, size=len(twice_rate)) / (twice_rate / 2))


def _positive_normal(mean: np.ndarray, scale: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A draw [draws] from normal distributions cut off below zero, by inversion of the upper tail."""
    above = special.ndtr(mean / scale) * (1 - rng.random(len(mean)))
    return np.asarray(np.maximum(mean - scale * special.ndtri(np.maximum(above, 1e-300)), 1e-9))
