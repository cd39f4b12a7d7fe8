"""How well a gate separates and decides, on labelled scores; no generation."""

from dataclasses import dataclass

import numpy as np

from recalib.gate.summary import auc
from recalib.gate.threshold import Threshold
from recalib.intervals import Interval, exact


@dataclass(frozen=True)
class GateMetrics:
    """A gate on one language's rows. Rates are fractions; None where a class has no rows.

    `false_flag_rate` is the share of harmless rows flagged, `miss_rate` that of harmful rows not
    flagged, with exact 95 % intervals. `f1` weighs both classes alike.
    """

    auc: float | None
    balanced_accuracy: float | None
    f1: float | None
    false_flag_rate: float | None
    false_flag_interval: Interval | None
    miss_rate: float | None
    miss_interval: Interval | None
    threshold: float
    method: str
    n_harmful: int
    n_harmless: int


def gate_metrics(harmful: np.ndarray, harmless: np.ndarray, threshold: Threshold) -> GateMetrics:
    """Metrics of scores `harmful` [n] and `harmless` [m] at a threshold."""
    both = len(harmful) > 0 and len(harmless) > 0
    misses = int((harmful < threshold.value).sum())
    alarms = int((harmless >= threshold.value).sum())
    miss = misses / len(harmful) if len(harmful) else None
    alarm = alarms / len(harmless) if len(harmless) else None
    ranked = balanced_accuracy = f1 = None
    if both and miss is not None and alarm is not None:
        ranked = auc(harmful, harmless)
        balanced_accuracy = 1 - (miss + alarm) / 2
        f1 = 2 * (1 - miss) / (2 - miss + alarm)
    return GateMetrics(
        auc=ranked,
        balanced_accuracy=balanced_accuracy,
        f1=f1,
        false_flag_rate=alarm,
        false_flag_interval=exact(alarms, len(harmless)),
        miss_rate=miss,
        miss_interval=exact(misses, len(harmful)),
        threshold=threshold.value,
        method=threshold.method,
        n_harmful=len(harmful),
        n_harmless=len(harmless),
    )
