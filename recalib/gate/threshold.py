"""Decision thresholds, and the paper's criterion for one."""

from dataclasses import dataclass

import numpy as np

from recalib.intervals import Interval


@dataclass(frozen=True)
class Guarantee:
    """Bounds that a threshold keeps with probability `confidence` over the draw of the shots.

    `max_false_flag` bounds the share of harmless prompts flagged, `max_miss` that of harmful ones passed;
    None where nothing was promised. All are fractions.
    """

    confidence: float
    max_false_flag: float | None = None
    max_miss: float | None = None


@dataclass(frozen=True)
class Threshold:
    """One language's decision threshold, in units of the readout's score, and where it comes from.

    A prompt is flagged where its score is at least `value`. Where `defer_from` is set, prompts from there
    up to `value` are deferred: the shots do not decide them within the guarantee. `interval` is the 95 %
    credible interval of the language's best threshold, `resampled` the 10th and 90th percentile of
    thresholds from resampled shots.

    `shots` is per class, `unlabeled` the number of rows without label. The ids are `prompt_id`s of the
    shots where the prompts were known, the scores are the shots' own, in the same order.
    """

    value: float
    method: str
    shots: int
    seed: int | None = None
    source: str | None = None
    unlabeled: int = 0
    interval: Interval | None = None
    resampled: Interval | None = None
    defer_from: float | None = None
    guarantee: Guarantee | None = None
    harmful_shot_ids: tuple[int, ...] = ()
    harmless_shot_ids: tuple[int, ...] = ()
    harmful_scores: tuple[float, ...] = ()
    harmless_scores: tuple[float, ...] = ()

    @property
    def balanced_accuracy_on_shots(self) -> float | None:
        """Balanced accuracy on the shots themselves, as a fraction; it flatters. None without shots."""
        if not (self.harmful_scores and self.harmless_scores):
            return None
        hits = np.mean(np.array(self.harmful_scores) >= self.value)
        return float(hits + np.mean(np.array(self.harmless_scores) < self.value)) / 2

    def flags(self, scores: np.ndarray) -> np.ndarray:
        """Whether scores [...] are flagged, as booleans [...]."""
        return np.asarray(scores >= self.value)

    def defers(self, scores: np.ndarray) -> np.ndarray:
        """Whether scores [...] are deferred, as booleans [...]."""
        start = self.value if self.defer_from is None else self.defer_from
        return np.asarray((scores >= start) & (scores < self.value))


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
