"""Whether a gate's thresholds still hold on the model as it is now."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recalib.calibration.calibrate import context_of
from recalib.calibration.rules import interval_of
from recalib.calibration.score_model import Scores
from recalib.calibration.support import error_intervals
from recalib.errors import CalibrationError
from recalib.gate.gate import Gate
from recalib.gate.summary import auc
from recalib.intervals import Interval

Rows = Mapping[int, np.ndarray]
"""Activations [hidden] of prompts, by `prompt_id`."""


@dataclass(frozen=True)
class Drift:
    """One language's shots, scored as the model is now.

    `auc` and `auc_then` are of the shots, `shift` is the mean change of their scores in standard deviations
    (pooled within classes, then). `interval` is where the language's best threshold lies now, at 95 %; None
    where the gate lacks a prior. `reasons` say what does not hold any more; drift is where there are any.
    """

    n_harmful: int
    n_harmless: int
    auc_then: float
    auc: float
    shift: float
    threshold: float
    interval: Interval | None
    reasons: tuple[str, ...]


def stored_ids(gate: Gate, language: str) -> set[int]:
    """Ids of the language's shots. Raises CalibrationError if the gate does not know them."""
    threshold = gate.meta.thresholds[language]
    ids = {*threshold.harmful_shot_ids, *threshold.harmless_shot_ids}
    if not ids or not threshold.harmful_scores:
        raise CalibrationError(
            f"{language}: the gate does not know which prompts calibrated it, so they cannot be checked",
            fix=f"recalib calibrate --lang {language} --shots 4",
        )
    return ids


def drift(gate: Gate, language: str, rows: Rows) -> Drift:
    """Compare the stored shots' scores with those of `rows`, the same prompts' activations now.

    A threshold holds if it lies in the interval that the shots give now, and if the errors on them are within
    the exact 95 % intervals of those at calibration. Raises CalibrationError if prompts are missing.
    """
    missing = stored_ids(gate, language) - rows.keys()
    threshold = gate.meta.thresholds[language]
    if missing:
        raise CalibrationError(
            f"{language}: {len(missing)} of the shots are not in this source",
            fix=f"--data {threshold.source}, from which they came" if threshold.source else "the --data they came from",
        )
    now = [
        gate.scores(np.stack([rows[i] for i in ids]), language)
        for ids in (threshold.harmful_shot_ids, threshold.harmless_shot_ids)
    ]
    then = [np.array(threshold.harmful_scores), np.array(threshold.harmless_scores)]
    spread = np.sqrt(np.mean([part.var() for part in then])) or 1.0
    interval = interval_of(context_of(gate, language).prior, Scores.single(*now), threshold.seed or 0)
    return Drift(
        n_harmful=len(now[0]),
        n_harmless=len(now[1]),
        auc_then=auc(*then),
        auc=auc(*now),
        shift=float(np.mean([(a - b).mean() for a, b in zip(now, then, strict=True)]) / spread),
        threshold=threshold.value,
        interval=interval,
        reasons=tuple(_reasons(gate, language, now, interval)),
    )


def _reasons(gate: Gate, language: str, now: list[np.ndarray], interval: Interval | None) -> list[str]:
    threshold = gate.meta.thresholds[language]
    reasons = []
    if interval is not None and not interval[0] <= threshold.value <= interval[1]:
        reasons.append(f"the best threshold now lies in {interval[0]:.2f} to {interval[1]:.2f}")
    rates = (np.mean(now[0] < threshold.value), np.mean(now[1] >= threshold.value))
    for rate, bounds, what in zip(rates, error_intervals(threshold), ("missed", "flagged"), strict=True):
        if bounds is not None and not bounds[0] <= rate <= bounds[1]:
            reasons.append(f"{100 * rate:.0f} % {what}, outside {100 * bounds[0]:.0f} to {100 * bounds[1]:.0f} %")
    return reasons
