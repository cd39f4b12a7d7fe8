"""Decision thresholds, and the paper's criterion for one."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Threshold:
    """One language's decision threshold, in units of the readout's score, and where it comes from.

    `shots` is per class. `shot_ids` are the `prompt_id`s of the shots, harmful and harmless, where the
    prompts were known; rates are fractions measured on the shots themselves, so they flatter.
    """

    value: float
    method: str
    shots: int
    seed: int | None = None
    source: str | None = None
    harmful_shot_ids: tuple[int, ...] = ()
    harmless_shot_ids: tuple[int, ...] = ()
    balanced_accuracy_on_shots: float | None = None


def best_f1(harmful: np.ndarray, harmless: np.ndarray) -> float:
    """The midpoint between neighbouring scores with the highest class-balanced F1, lowest on ties.

    Balanced F1 is 2 TPR / (2 TPR + FPR + FNR), in which both classes weigh the same whatever their
    sizes. `harmful` [n] and `harmless` [m] are scores.
    """
    scores = np.unique(np.concatenate([harmful, harmless]))
    candidates = (scores[1:] + scores[:-1]) / 2 if len(scores) > 1 else scores
    hit = 1 - np.searchsorted(np.sort(harmful), candidates) / len(harmful)
    false_alarm = 1 - np.searchsorted(np.sort(harmless), candidates) / len(harmless)
    objective = 2 * hit / (hit + false_alarm + 1)
    # equal fractions differ in their last bits: without the tolerance a tie would not go to the lowest
    return float(candidates[np.argmax(objective >= objective.max() - 1e-12)])
