"""Threshold rules: from a few labelled shots of one language to a readout and a threshold.

Every rule takes the same inputs and returns a `Calibration`; `RULES` lists them by name. A prompt is
flagged where its score is at or above the threshold.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recalib.errors import CalibrationError
from recalib.gate.readout import Readout, SourceRows, refit
from recalib.gate.threshold import best_f1


@dataclass(frozen=True)
class Shots:
    """Labelled examples of one language, as features [shots, rank]."""

    harmful: np.ndarray
    harmless: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """What a rule answers: the threshold, and the readout whose scores it is a threshold of."""

    readout: Readout
    threshold: float


Rule = Callable[[Readout, SourceRows, Shots], Calibration]


def f1(readout: Readout, source: SourceRows, shots: Shots) -> Calibration:
    """The paper's rule (arXiv 2606.01196): refit the readout on source rows and shots, then `best_f1`.

    The standardisation of the source stays; the shots count as much as any source row.
    Raises CalibrationError if the shots' scores are inverted.
    """
    features = np.concatenate([source.features, shots.harmful, shots.harmless])
    labels = np.concatenate([source.labels, np.ones(len(shots.harmful)), np.zeros(len(shots.harmless))])
    refitted = refit(features, labels, readout.mean, readout.scale)
    harmful, harmless = refitted.scores(shots.harmful), refitted.scores(shots.harmless)
    refuse_inverted(harmful, harmless)
    return Calibration(refitted, best_f1(harmful, harmless))


def midpoint(readout: Readout, source: SourceRows, shots: Shots) -> Calibration:
    """Halfway between the shots' class means; the source readout stays as it is.

    This is the threshold of linear discriminant analysis on the score, with equal class weights.
    Raises CalibrationError if the shots' scores are inverted.
    """
    harmful, harmless = readout.scores(shots.harmful), readout.scores(shots.harmless)
    refuse_inverted(harmful, harmless)
    return Calibration(readout, float(harmful.mean() + harmless.mean()) / 2)


RULES: dict[str, Rule] = {"f1": f1, "midpoint": midpoint}


def refuse_inverted(harmful: np.ndarray, harmless: np.ndarray) -> None:
    """Raise CalibrationError if harmless shots score higher than harmful ones on the mean.

    Any threshold would then flag the wrong class, and F1 would be best where everything is flagged.
    """
    if harmful.mean() <= harmless.mean():
        raise CalibrationError(
            f"the scores are inverted: {len(harmful)} harmful shots score {harmful.mean():.2f} on the "
            f"mean, {len(harmless)} harmless ones {harmless.mean():.2f}",
            fix="check the labels; then take more shots (--shots) or draw others (--seed)",
        )
