"""Fitting a gate on the source languages' activations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recalib.activations import ActivationSet
from recalib.errors import CalibrationError
from recalib.gate import directions
from recalib.gate.forms import Fitted, Form, LanguageRows, fit_forms
from recalib.gate.gate import Gate, GateMeta
from recalib.gate.identification import LanguageMap, fit_map
from recalib.gate.prior import estimate
from recalib.gate.readout import SourceRows
from recalib.gate.selection import Selection
from recalib.gate.summary import ScoreSummary
from recalib.gate.threshold import Threshold
from recalib.intervals import Interval
from recalib.prompts.prompt import LABELS


@dataclass(frozen=True)
class Fit:
    """A gate's arrays before they become an artifact; see `Gate`."""

    direction: np.ndarray
    strength: float
    fitted: Fitted
    languages: LanguageMap | None


def fit_gate(sources: Mapping[str, LanguageRows], form: Form) -> Fit:
    """Direction, strength, readout with the transferred threshold, and language map, from the sources.

    Raises CalibrationError as `fit_forms` does.
    """
    (fitted,) = fit_forms(sources, [form])
    harmful = np.concatenate([rows.harmful for rows in sources.values()])
    harmless = np.concatenate([rows.harmless for rows in sources.values()])
    direction = directions.mean_difference(harmful, harmless)
    both = {code: np.concatenate([rows.harmful, rows.harmless]) for code, rows in sources.items()}
    languages = fit_map(both) if len(both) > 1 else None
    return Fit(direction, directions.strength(harmful, harmless, direction), fitted, languages)


def rows_of(
    activations: ActivationSet, sources: Sequence[str], split: str, layer: int, position: str
) -> dict[str, LanguageRows]:
    """Source languages' rows from extracted activations. Raises ArtifactError if a cell is missing."""
    return {
        language: LanguageRows(*(activations.load(language, split, label, layer, position).rows for label in LABELS))
        for language in sources
    }


def fit_from(activations: ActivationSet, selection: Selection, position: str, split: str = "train") -> Gate:
    """A gate, not yet calibrated for any target, of the form and from the sources that were selected."""
    sources, layer = tuple(selection.held_out), selection.chosen.layer
    fit = fit_gate(rows_of(activations, sources, split, layer, position), selection.chosen.form)
    held_out = {language: held.scores for language, held in selection.held_out.items()}
    meta = GateMeta(
        layer=layer,
        position=position,
        strength=fit.strength,
        transferred=Threshold(
            value=fit.fitted.threshold, method="transferred", shots=0, interval=_interval_of_centers(held_out)
        ),
        readout=selection.chosen.readout,
        model=activations.meta.model,
        sources=sources,
        left_out=selection.left_out,
        held_out=held_out,
        candidates=selection.candidates,
        split=split,
        parents=activations.sources((lang, split, label) for lang in sources for label in LABELS),
    )
    return Gate(
        fit.direction,
        fit.fitted.basis,
        fit.fitted.readout,
        SourceRows(fit.fitted.features, fit.fitted.labels),
        meta,
        languages=fit.languages,
    )


def _interval_of_centers(held_out: Mapping[str, ScoreSummary]) -> Interval | None:
    try:
        return estimate(list(held_out.values())).interval()
    except CalibrationError:  # too few sources, or no transfer between them: nothing is known
        return None
