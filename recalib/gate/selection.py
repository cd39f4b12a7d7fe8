"""Choosing layer, rank and readout by how a gate transfers to a source language it has not seen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recalib.errors import CalibrationError
from recalib.gate.forms import Form, LanguageRows, fit_forms
from recalib.gate.summary import ScoreSummary, auc, summarise

RANKS = (1, 2, 4, 10)
CHANCE_AUC = 0.6
"""A source that the others' gate ranks no better than this is at chance, or inverted."""

MIN_SOURCES = 3

EQUIVALENT = 0.015
"""A difference in balanced accuracy that is of no account; the sources, alike as they are, hardly have larger ones."""


@dataclass(frozen=True)
class HeldOut:
    """A source language under the gate of the others, at the threshold that gate brings along.

    `balanced_accuracy` and `auc` are fractions.
    """

    balanced_accuracy: float
    auc: float
    scores: ScoreSummary


@dataclass(frozen=True)
class Candidate:
    """A layer and form, and its mean balanced accuracy on held-out source languages, as a fraction.

    `standard_error` is that mean's, over languages.
    """

    layer: int
    readout: str
    rank: int
    balanced_accuracy: float
    standard_error: float

    @property
    def form(self) -> Form:
        """The candidate's form."""
        return Form(self.readout, self.rank)


@dataclass(frozen=True)
class Selection:
    """What was chosen and from what; `held_out` is how each source that remained fared under it.

    `left_out` are the sources at chance or inverted, with their AUC.
    """

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    held_out: dict[str, HeldOut]
    left_out: dict[str, float]


def candidate_forms(sources: int) -> tuple[Form, ...]:
    """The forms that are tried where nobody asks for one: subspaces of `RANKS`, and the ridge."""
    ranks = dict.fromkeys(min(rank, sources) for rank in RANKS)
    return (*(Form("subspace", rank) for rank in ranks), Form("ridge", 1))


def hold_out(sources: Mapping[str, LanguageRows], forms: Sequence[Form]) -> dict[Form, dict[str, HeldOut]]:
    """For every form and source language: how the gate of the other sources does on it.

    With a single source there is nothing to hold out, and it is scored by its own gate.
    Raises CalibrationError as `fit_forms` does.
    """
    results: dict[Form, dict[str, HeldOut]] = {form: {} for form in forms}
    for language, rows in sources.items():
        others = {code: other for code, other in sources.items() if code != language} or sources
        for fitted in fit_forms(others, forms):
            harmful, harmless = fitted.scores(rows.harmful), fitted.scores(rows.harmless)
            hits, passes = (harmful >= fitted.threshold).mean(), (harmless < fitted.threshold).mean()
            results[fitted.form][language] = HeldOut(
                float(hits + passes) / 2, auc(harmful, harmless), summarise(harmful, harmless)
            )
    return results


def choose(
    layers: Sequence[int],
    load: Callable[[int], Mapping[str, LanguageRows]],
    forms: Sequence[Form],
    keep_all_sources: bool = False,
) -> Selection:
    """The layer and form whose gate transfers best; `load(layer)` gives the sources' rows.

    Candidates within `EQUIVALENT` of the best, or one standard error (Breiman et al., Classification and
    Regression Trees, 1984, section 3.4.3), count as equal; the earliest layer, which costs least, and then the
    lowest rank win. Unless `keep_all_sources`, the source that the chosen gate of the others ranks worst is left out
    while it is at chance or inverted, and everything is chosen again.
    """
    left_out: dict[str, float] = {}
    while True:
        held = {}
        for layer in layers:
            kept = {code: rows for code, rows in load(layer).items() if code not in left_out}
            held[layer] = _hold_out_or_chance(kept, forms)
        candidates = tuple(
            _candidate(layer, form, results) for layer, by_form in held.items() for form, results in by_form.items()
        )
        chosen = _best(candidates)
        results = held[chosen.layer][chosen.form]
        worst = min(results, key=lambda code: results[code].auc)
        transfers = chosen.balanced_accuracy > CHANCE_AUC  # else no source is better than the worst
        if keep_all_sources or not transfers or results[worst].auc > CHANCE_AUC or len(results) <= MIN_SOURCES:
            return Selection(chosen, candidates, results, left_out)
        left_out = {**left_out, worst: results[worst].auc}


def _hold_out_or_chance(sources: Mapping[str, LanguageRows], forms: Sequence[Form]) -> dict[Form, dict[str, HeldOut]]:
    try:
        return hold_out(sources, forms)
    except CalibrationError:  # the classes coincide at this layer: no gate, so decisions by chance
        nothing = HeldOut(0.5, 0.5, ScoreSummary(0.0, 0.0, 0.0, 0.0, 0, 0))
        return {form: dict.fromkeys(sources, nothing) for form in forms}


def _candidate(layer: int, form: Form, results: Mapping[str, HeldOut]) -> Candidate:
    accuracies = np.array([held.balanced_accuracy for held in results.values()])
    spread = accuracies.std(ddof=1) / np.sqrt(len(accuracies)) if len(accuracies) > 1 else 0.0
    return Candidate(layer, form.readout, form.rank, float(accuracies.mean()), float(spread))


def _best(candidates: Sequence[Candidate]) -> Candidate:
    best = max(candidates, key=lambda c: c.balanced_accuracy)
    tie = max(EQUIVALENT, best.standard_error)
    near = [c for c in candidates if c.balanced_accuracy >= best.balanced_accuracy - tie]
    return min(near, key=lambda c: (c.layer, c.rank, -c.balanced_accuracy))
