"""The forms a gate can take: what it reads of the residual stream, fitted on labelled rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recalib.errors import CalibrationError
from recalib.gate import directions
from recalib.gate.readout import Readout, fit, fit_ridge
from recalib.gate.threshold import best_f1

READOUTS = ("subspace", "ridge")


@dataclass(frozen=True)
class Form:
    """`subspace`: the paper's readout on the top `rank` directions; `ridge`: on the whole residual.

    A ridge readout's weight vector is a basis of rank 1.
    """

    readout: str
    rank: int


@dataclass(frozen=True)
class LanguageRows:
    """Training activations of one source language at one layer: [n, hidden] each."""

    harmful: np.ndarray
    harmless: np.ndarray


@dataclass(frozen=True)
class Fitted:
    """A form fitted on source rows: `basis` [hidden, rank], its readout, the rows' features [n, rank].

    `threshold` is the one of highest balanced F1 on those rows, `labels` [n] are 1 for harmful.
    """

    form: Form
    basis: np.ndarray
    readout: Readout
    features: np.ndarray
    labels: np.ndarray
    threshold: float

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Scores [n], float64, of rows [n, hidden]."""
        return self.readout.scores(rows.astype(np.float64) @ self.basis)


def fit_forms(sources: Mapping[str, LanguageRows], forms: Sequence[Form]) -> list[Fitted]:
    """Every form fitted on the same sources; ranks are at most the number of sources.

    Raises CalibrationError without sources, or where a language's class means coincide.
    """
    if not sources:
        raise CalibrationError("a gate needs at least one source language")
    per_language = [directions.mean_difference(rows.harmful, rows.harmless) for rows in sources.values()]
    rows, labels = _stack(sources)
    basis = directions.subspace(per_language, len(per_language))
    features = rows @ basis
    fitted = []
    for form in forms:
        if form.readout == "ridge":
            own, readout = fit_ridge(rows, labels)
            seen = rows @ own
        else:
            own, seen = basis[:, : form.rank], features[:, : form.rank]
            readout = fit(seen, labels)
        scores = readout.scores(seen)
        threshold = best_f1(scores[labels == 1], scores[labels == 0])
        fitted.append(Fitted(form, own, readout, seen, labels, threshold))
    return fitted


def _stack(sources: Mapping[str, LanguageRows]) -> tuple[np.ndarray, np.ndarray]:
    """All rows [n, hidden], float64, harmful ones first, and their labels [n]."""
    harmful = np.concatenate([rows.harmful for rows in sources.values()])
    harmless = np.concatenate([rows.harmless for rows in sources.values()])
    labels = np.concatenate([np.ones(len(harmful)), np.zeros(len(harmless))])
    return np.concatenate([harmful, harmless]).astype(np.float64), labels
