"""Fitting a gate on the source languages' activations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recalib.activations import ActivationSet
from recalib.errors import CalibrationError
from recalib.gate import directions
from recalib.gate.gate import Gate, GateMeta
from recalib.gate.readout import Readout, SourceRows, fit
from recalib.gate.threshold import Threshold, best_f1
from recalib.prompts.prompt import LABELS


@dataclass(frozen=True)
class LanguageRows:
    """Training activations of one source language at one layer: [n, hidden] each."""

    harmful: np.ndarray
    harmless: np.ndarray


@dataclass(frozen=True)
class Fit:
    """A gate's arrays before they become an artifact; see `Gate`."""

    direction: np.ndarray
    basis: np.ndarray
    readout: Readout
    source: SourceRows
    strength: float
    threshold: float


def fit_gate(sources: Mapping[str, LanguageRows], rank: int) -> Fit:
    """Directions, subspace, readout, strength and the transferred threshold, from the sources.

    The rank is at most the number of sources. The transferred threshold is the one of highest balanced
    F1 on the source rows. Raises CalibrationError without sources or with inverted scores.
    """
    if not sources:
        raise CalibrationError("a gate needs at least one source language")
    basis = directions.subspace(
        [directions.mean_difference(rows.harmful, rows.harmless) for rows in sources.values()], rank
    )
    harmful = np.concatenate([rows.harmful for rows in sources.values()])
    harmless = np.concatenate([rows.harmless for rows in sources.values()])
    direction = directions.mean_difference(harmful, harmless)
    features = np.concatenate([harmful, harmless]).astype(np.float64) @ basis
    labels = np.concatenate([np.ones(len(harmful)), np.zeros(len(harmless))])
    readout = fit(features, labels)
    scores = readout.scores(features)
    return Fit(
        direction=direction,
        basis=basis,
        readout=readout,
        source=SourceRows(features, labels),
        strength=directions.strength(harmful, harmless, direction),
        threshold=best_f1(scores[labels == 1], scores[labels == 0]),
    )


def rows_of(
    activations: ActivationSet, sources: Sequence[str], split: str, layer: int, position: str
) -> dict[str, LanguageRows]:
    """Source languages' rows from extracted activations. Raises ArtifactError if a cell is missing."""
    return {
        language: LanguageRows(*(activations.load(language, split, label, layer, position).rows for label in LABELS))
        for language in sources
    }


def fit_from(
    activations: ActivationSet,
    sources: Sequence[str],
    *,
    layer: int,
    position: str,
    rank: int,
    split: str = "train",
) -> Gate:
    """A gate, not yet calibrated for any target, from the sources' activations."""
    fitted = fit_gate(rows_of(activations, sources, split, layer, position), rank)
    meta = GateMeta(
        layer=layer,
        position=position,
        strength=fitted.strength,
        transferred=Threshold(value=fitted.threshold, method="transferred", shots=0),
        model=activations.meta.model,
        sources=tuple(sources),
        split=split,
        parents=activations.sources((lang, split, label) for lang in sources for label in LABELS),
    )
    return Gate(fitted.direction, fitted.basis, fitted.readout, fitted.source, meta)
