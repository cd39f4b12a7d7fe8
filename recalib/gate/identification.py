"""Telling a prompt's language from the activation that the gate scores."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

MAX_RANK = 256
OWN_QUANTILE = 0.001
NEAR = 0.5
"""Languages beyond the sources, known by a few rows, hold together less; so much less is still near."""


@dataclass(frozen=True)
class LanguageMap:
    """Language directions in a space where prompts of one language have unit covariance.

    Rows are whitened, seen from the middle of the source languages, and compared by angle: a row belongs
    to the direction with the largest cosine. Without lengths a short prompt, whose language shows less,
    is as well placed as a long one (length normalisation; Garcia-Romero and Espy-Wilson 2011).

    `basis` [hidden, q] projects and whitens, `center` [q] is the middle, `directions` [languages, q] are unit
    vectors in the order of `names`, and `least_cosine` is how far a row may turn from its language.
    """

    basis: np.ndarray
    center: np.ndarray
    directions: np.ndarray
    names: tuple[str, ...]
    least_cosine: float

    def cosines(self, rows: np.ndarray) -> np.ndarray:
        """Cosine [n, languages] between rows [n, hidden] and every language's direction."""
        return np.asarray(_directions(rows, self.basis, self.center) @ self.directions.T)

    def identify(self, rows: np.ndarray) -> list[str | None]:
        """The language of each of the rows [n, hidden]; None where none is near."""
        cosines = self.cosines(rows)
        return [
            self.names[index] if row[index] >= self.least_cosine else None
            for index, row in zip(cosines.argmax(1), cosines, strict=True)
        ]

    def with_language(self, name: str, rows: np.ndarray) -> "LanguageMap":
        """This map with a language known by its rows [n, hidden]; what it knew of it before is replaced."""
        kept = [i for i, known in enumerate(self.names) if known != name]
        learned = _unit(_directions(rows, self.basis, self.center).mean(0))
        return replace(
            self,
            directions=np.concatenate([self.directions[kept], learned[None]]),
            names=(*(self.names[i] for i in kept), name),
        )


def fit_map(languages: Mapping[str, np.ndarray]) -> LanguageMap:
    """The map of languages from rows [n, hidden] of each.

    The within-language covariance, on the principal components of all rows, is shrunk as in Ledoit and
    Wolf (2004), for which scikit-learn is used.
    """
    from sklearn.covariance import LedoitWolf
    from sklearn.decomposition import PCA

    rows = np.concatenate(list(languages.values())).astype(np.float64)
    principal = PCA(n_components=min(MAX_RANK, *rows.shape), random_state=0).fit(rows).components_.T
    projected = {name: part.astype(np.float64) @ principal for name, part in languages.items()}
    residuals = np.concatenate([part - part.mean(0) for part in projected.values()])
    # scaled first, so that the shrinkage is towards the diagonal and spares the small variances
    scale = residuals.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(LedoitWolf(assume_centered=True).fit(residuals / scale).covariance_)
    basis = principal @ (vectors / np.sqrt(np.maximum(values, 1e-12 * values.max())) / scale[:, None])
    center = np.mean([part.mean(0) @ basis for part in languages.values()], axis=0)
    placed = {name: _directions(part, basis, center) for name, part in languages.items()}
    directions = np.stack([_unit(part.mean(0)) for part in placed.values()])
    own = np.concatenate([part @ direction for part, direction in zip(placed.values(), directions, strict=True)])
    return LanguageMap(basis, center, directions, tuple(languages), NEAR * float(np.quantile(own, OWN_QUANTILE)))


def _directions(rows: np.ndarray, basis: np.ndarray, center: np.ndarray) -> np.ndarray:
    return _unit(rows.astype(np.float64) @ basis - center)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0))
