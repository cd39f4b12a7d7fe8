"""Telling a prompt's language from the activation that the gate scores."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

RANK = 32
RADIUS_QUANTILE = 0.999
RADIUS_SLACK = 1.5
"""Languages beyond the sources spread more than these; so much farther still counts as near."""


@dataclass(frozen=True)
class LanguageMap:
    """Language means in a space where prompts of one language have unit covariance.

    Linear discriminant analysis with equal priors: a row belongs to the nearest mean. `basis` [hidden, q]
    projects and whitens, by the sources' pooled within-language covariance on their top principal
    components; `means` [languages, q] are in the order of `names`, from `counts` rows each; `radius` is how
    far from its mean, in standard deviations, a row may lie.
    """

    basis: np.ndarray
    means: np.ndarray
    names: tuple[str, ...]
    counts: tuple[int, ...]
    radius: float

    def distances(self, rows: np.ndarray) -> np.ndarray:
        """Distance [n, languages] of rows [n, hidden] to every mean, in standard deviations.

        A mean of few rows is itself uncertain, which widens its language by 1 + 1/count (the predictive
        covariance).
        """
        offsets = (rows.astype(np.float64) @ self.basis)[:, None] - self.means
        return np.asarray(np.sqrt((offsets**2).sum(-1) / (1 + 1 / np.array(self.counts))))

    def identify(self, rows: np.ndarray) -> list[str | None]:
        """The language of each of the rows [n, hidden]; None where no mean is within the radius."""
        distances = self.distances(rows)
        nearest = distances.argmin(1)
        return [
            self.names[index] if row[index] <= self.radius else None
            for index, row in zip(nearest, distances, strict=True)
        ]

    def with_language(self, name: str, rows: np.ndarray) -> "LanguageMap":
        """This map with a language known by its rows [n, hidden]; what it knew of it before is replaced."""
        kept = [i for i, known in enumerate(self.names) if known != name]
        mean = (rows.astype(np.float64) @ self.basis).mean(0)
        return replace(
            self,
            means=np.concatenate([self.means[kept], mean[None]]),
            names=(*(self.names[i] for i in kept), name),
            counts=(*(self.counts[i] for i in kept), len(rows)),
        )


def fit_map(languages: Mapping[str, np.ndarray]) -> LanguageMap:
    """The map of languages from rows [n, hidden] of each.

    The within-language covariance is shrunk as in Ledoit and Wolf (2004), for which scikit-learn is used.
    """
    from sklearn.covariance import LedoitWolf
    from sklearn.decomposition import PCA

    rows = np.concatenate(list(languages.values())).astype(np.float64)
    rank = min(RANK, *rows.shape)
    principal = PCA(n_components=rank, random_state=0).fit(rows).components_.T
    projected = {name: part.astype(np.float64) @ principal for name, part in languages.items()}
    residuals = np.concatenate([part - part.mean(0) for part in projected.values()])
    # scaled first, so that the shrinkage is towards the diagonal and spares the small variances
    scale = residuals.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(LedoitWolf(assume_centered=True).fit(residuals / scale).covariance_)
    whitening = vectors / np.sqrt(np.maximum(values, 1e-12 * values.max())) / scale[:, None]
    own = np.sqrt(((residuals @ whitening) ** 2).sum(1))
    return LanguageMap(
        basis=principal @ whitening,
        means=np.stack([part.mean(0) for part in projected.values()]) @ whitening,
        names=tuple(languages),
        counts=tuple(len(part) for part in projected.values()),
        radius=RADIUS_SLACK * float(np.quantile(own, RADIUS_QUANTILE)),
    )
