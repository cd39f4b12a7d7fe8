"""The gate's linear readout: standardised features to one score."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Readout:
    """s = w . (x - mean) / scale + b over features x = U^T h.

    `mean`, `scale`, `weight` have shape [rank]; the score is a logit, larger for harmful.
    """

    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Scores [n], float64, of features [n, rank]."""
        standardised = (features.astype(np.float64) - self.mean) / self.scale
        return np.asarray(standardised @ self.weight + self.bias)


@dataclass(frozen=True)
class SourceRows:
    """Training rows of the source languages: `features` [n, rank]; `labels` [n], 1 for harmful."""

    features: np.ndarray
    labels: np.ndarray


def fit(features: np.ndarray, labels: np.ndarray) -> Readout:
    """L2 logistic regression (C = 1) with balanced classes, on features standardised by themselves.

    `features` [n, rank], `labels` [n] with 1 for harmful. The released implementation stops after 80
    AdamW steps; this is the optimum of the same convex objective.
    """
    mean = features.mean(0, dtype=np.float64)
    scale = features.std(0, dtype=np.float64)
    return refit(features, labels, mean, np.where(scale > 0, scale, 1.0))


def refit(features: np.ndarray, labels: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> Readout:
    """As `fit`, with the standardisation [rank] given."""
    from sklearn.linear_model import LogisticRegression

    standardised = (features.astype(np.float64) - mean) / scale
    regression = LogisticRegression(class_weight="balanced", solver="newton-cholesky", max_iter=100, tol=1e-8)
    regression.fit(standardised, labels)
    return Readout(mean, scale, regression.coef_[0], float(regression.intercept_[0]))
