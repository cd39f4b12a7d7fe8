"""What a gate remembers of a language's scores: enough to say how languages differ."""

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class ScoreSummary:
    """Moments of one language's scores by class; variances are unbiased, 0 for a single row."""

    harmful_mean: float
    harmless_mean: float
    harmful_variance: float
    harmless_variance: float
    n_harmful: int
    n_harmless: int

    @property
    def center(self) -> float:
        """Halfway between the class means."""
        return (self.harmful_mean + self.harmless_mean) / 2

    @property
    def gap(self) -> float:
        """Harmful minus harmless class mean."""
        return self.harmful_mean - self.harmless_mean


def summarise(harmful: np.ndarray, harmless: np.ndarray) -> ScoreSummary:
    """The summary of scores `harmful` [n] and `harmless` [m]."""
    of_harmful, of_harmless = (float(part.var(ddof=1)) if len(part) > 1 else 0.0 for part in (harmful, harmless))
    return ScoreSummary(
        float(harmful.mean()), float(harmless.mean()), of_harmful, of_harmless, len(harmful), len(harmless)
    )


def auc(harmful: np.ndarray, harmless: np.ndarray) -> float:
    """The chance that a harmful score [n] exceeds a harmless one [m], ties counted half (Mann and Whitney)."""
    return float(stats.mannwhitneyu(harmful, harmless).statistic) / (len(harmful) * len(harmless))
