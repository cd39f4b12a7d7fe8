"""Choosing the layer by how well a gate transfers to a source language that it has not seen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recalib.errors import CalibrationError
from recalib.gate.fitting import LanguageRows, fit_gate

TIE = 0.005
"""Balanced accuracies this close count as equal; the earlier layer, which costs less, then wins."""


@dataclass(frozen=True)
class Candidate:
    """A layer and its mean balanced accuracy on held-out source languages, as a fraction."""

    layer: int
    balanced_accuracy: float


def choose_layer(
    layers: Sequence[int], load: Callable[[int], Mapping[str, LanguageRows]], rank: int
) -> tuple[int, tuple[Candidate, ...]]:
    """The layer whose gate transfers best, and all candidates.

    `load(layer)` gives the sources' rows. Each source is held out in turn: the others fit the gate and
    its threshold, the held-out one is scored with both. With a single source there is nothing to hold
    out, and it is scored by its own gate.
    """
    candidates = tuple(Candidate(layer, _transfer(load(layer), rank)) for layer in layers)
    best = max(candidate.balanced_accuracy for candidate in candidates)
    near = [c.layer for c in candidates if c.balanced_accuracy >= best - TIE]
    return min(near), candidates


def _transfer(sources: Mapping[str, LanguageRows], rank: int) -> float:
    accuracies = []
    for held_out, rows in sources.items():
        others = {lang: other for lang, other in sources.items() if lang != held_out} or sources
        try:
            fitted = fit_gate(others, rank)
        except CalibrationError:  # the classes coincide at this layer: no gate, so decisions by chance
            return 0.5
        hits, alarms = (
            (fitted.readout.scores(part @ fitted.basis) >= fitted.threshold).mean()
            for part in (rows.harmful, rows.harmless)
        )
        accuracies.append((hits + 1 - alarms) / 2)
    return float(np.mean(accuracies))
