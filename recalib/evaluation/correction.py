"""Refusal rates corrected for what a judge gets wrong (Rogan & Gladen 1978)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recalib.intervals import CONFIDENCE, RESAMPLES, Interval
from recalib.judges.agreement import Counts


@dataclass(frozen=True)
class Sample:
    """What a judge called refused, `refused` of `n`, and how it did against references elsewhere."""

    refused: int
    n: int
    counts: Counts


@dataclass(frozen=True)
class Corrected:
    """Refusal as the reference would have counted it; fractions with 95 % bootstrap intervals.

    Fewer completions were judged or labelled than that takes where a field is None.
    """

    harmful_refusal: float | None
    harmful_refusal_interval: Interval | None
    harmless_refusal: float | None
    harmless_refusal_interval: Interval | None
    selectivity: float | None
    selectivity_interval: Interval | None


def rogan_gladen(rate: np.ndarray, sensitivity: np.ndarray, specificity: np.ndarray) -> np.ndarray:
    """(rate + specificity - 1) / (sensitivity + specificity - 1), within [0, 1]; the arguments broadcast.

    Where the judge is no better than chance the denominator is not positive: 0 or 1 then, whichever side the
    rate is on, so that intervals become as wide as they must.
    """
    informedness = np.maximum(sensitivity + specificity - 1, 1e-9)
    corrected: np.ndarray = np.clip((rate + specificity - 1) / informedness, 0, 1)
    return corrected


def usable(counts: Counts) -> bool:
    """Whether a correction can rest on these counts: both classes are there, and the judge beats chance."""
    return (counts.balanced_accuracy or 0) > 0.5


def corrected_rate(samples: Sequence[Sample], seed: int = 0) -> tuple[float, Interval] | None:
    """The mean of the samples' corrected rates and its interval; None where one cannot be corrected."""
    if not samples or any(sample.n == 0 or not usable(sample.counts) for sample in samples):
        return None
    rng = np.random.default_rng(seed)
    errors = [_error_draws(sample.counts, rng) for sample in samples]
    drawn = [_draws(sample, error, rng) for sample, error in zip(samples, errors, strict=True)]
    return float(np.mean([_point(sample) for sample in samples])), _interval(np.mean(drawn, axis=0))


def correct(harmful: Sequence[Sample], harmless: Sequence[Sample], seed: int = 0) -> Corrected | None:
    """Both classes of some languages, a sample each in the same order, and the difference of their means.

    In the difference a language's error rates are drawn once for both classes. None where nothing can be corrected.
    """
    first, second = corrected_rate(harmful, seed), corrected_rate(harmless, seed)
    if first is None and second is None:
        return None
    difference, interval = None, None
    if first is not None and second is not None:
        rng = np.random.default_rng(seed)
        gaps = []
        for bad, good in zip(harmful, harmless, strict=True):
            errors = _error_draws(bad.counts, rng)
            gaps.append(_draws(bad, errors, rng) - _draws(good, errors, rng))
        difference, interval = first[0] - second[0], _interval(np.mean(gaps, axis=0))
    return Corrected(
        harmful_refusal=first[0] if first else None,
        harmful_refusal_interval=first[1] if first else None,
        harmless_refusal=second[0] if second else None,
        harmless_refusal_interval=second[1] if second else None,
        selectivity=difference,
        selectivity_interval=interval,
    )


def _point(sample: Sample) -> float:
    sensitivity, specificity = sample.counts.sensitivity, sample.counts.specificity
    return float(rogan_gladen(np.array(sample.refused / sample.n), np.array(sensitivity), np.array(specificity)))


def _draws(sample: Sample, errors: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    return rogan_gladen(_resampled(sample.refused, sample.n, rng), *errors)


def _error_draws(counts: Counts, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return (
        _resampled(counts.refused_refused, counts.n_refused, rng),
        _resampled(counts.complied_complied, counts.n_complied, rng),
    )


def _resampled(successes: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Parametric bootstrap of a rate [RESAMPLES], smoothed: Beta draws with half a success and half a failure added.

    Resampling rows would say that a judge without an error in ten makes none.
    """
    return rng.beta(successes + 0.5, n - successes + 0.5, RESAMPLES)


def _interval(draws: np.ndarray) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)
