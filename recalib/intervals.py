"""Intervals of rates, all at 95 %."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000
Interval = tuple[float, float]


def exact(successes: int, n: int) -> Interval | None:
    """Clopper-Pearson interval of a binomial rate; None where n is 0."""
    if n == 0:
        return None
    interval = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="exact")
    return float(interval.low), float(interval.high)


def size_for(rate: float, half_width: float) -> int:
    """The smallest n at which the exact interval of an observed `rate` is at most twice `half_width` wide.

    Bisection between powers of two; rounding of the count makes widths wobble by one or two in n.
    """

    def wide(n: int) -> bool:
        low, high = exact(round(rate * n), n) or (0.0, 1.0)
        return high - low > 2 * half_width

    high = 1
    while wide(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if wide(middle) else (low, middle)
    return high


def macro_difference(pairs: Sequence[tuple[np.ndarray, np.ndarray]], seed: int = 0) -> Interval | None:
    """Percentile bootstrap of the mean over groups of mean(a) - mean(b).

    Each pair holds the 0/1 outcomes [n_a] and [n_b] of one group (a language); rows are resampled within
    their group and class. None where a sample has fewer than two rows, and where no
    sample varies.
    """
    samples = [part for pair in pairs for part in pair]
    if not samples or any(len(sample) < 2 for sample in samples):
        return None
    if all(len(np.unique(sample)) == 1 for sample in samples):
        return None  # the bootstrap would claim a width of zero

    def statistic(*parts: np.ndarray, axis: int = -1) -> np.ndarray:
        means = [part.mean(axis=axis) for part in parts]
        gaps = [a - b for a, b in zip(means[::2], means[1::2], strict=True)]
        return np.asarray(np.mean(gaps, axis=0))

    result = stats.bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return float(low), float(high)
