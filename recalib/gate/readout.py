"""The gate's linear readout: standardised features to one score."""

from dataclasses import dataclass

import numpy as np

RIDGE_C = 0.01
"""Inverse L2 penalty of the `ridge` readout, on features of unit variance."""


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
        """Scores [..., n], float64, of features [..., n, rank]."""
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
    mean, scale = _standardisation(features)
    return refit(features, labels, mean, scale)


def refit(features: np.ndarray, labels: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> Readout:
    """As `fit`, with the standardisation [rank] given."""
    from sklearn.linear_model import LogisticRegression

    standardised = (features.astype(np.float64) - mean) / scale
    regression = LogisticRegression(class_weight="balanced", solver="newton-cholesky", max_iter=100, tol=1e-8)
    regression.fit(standardised, labels)
    return Readout(mean, scale, regression.coef_[0], float(regression.intercept_[0]))


def fit_ridge(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, Readout]:
    """Logistic regression with a strong L2 penalty on whole residual vectors `rows` [n, hidden].

    Returns the unit weight vector as a basis [hidden, 1], and the readout on that one feature which gives
    the regression's own scores.
    """
    from sklearn.linear_model import LogisticRegression

    mean, scale = _standardisation(rows)
    regression = LogisticRegression(C=RIDGE_C, class_weight="balanced", max_iter=1000)
    regression.fit((rows.astype(np.float64) - mean) / scale, labels)
    weight = regression.coef_[0] / scale
    norm = float(np.linalg.norm(weight))
    basis = (weight / norm)[:, None]
    features = rows.astype(np.float64) @ basis
    centre, spread = _standardisation(features)
    bias = float(regression.intercept_[0] + norm * centre[0] - weight @ mean)
    return basis, Readout(centre, spread, norm * spread, bias)


def _standardisation(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = features.mean(0, dtype=np.float64)
    scale = features.std(0, dtype=np.float64)
    return mean, np.where(scale > 0, scale, 1.0)
