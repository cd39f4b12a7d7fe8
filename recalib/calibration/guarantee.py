"""Thresholds with a finite-sample guarantee, from order statistics; no distribution is assumed.

Of n exchangeable scores the j-th smallest, s_(j), has F(s_(j)) ~ Beta(j, n - j + 1) if F is continuous, and
no prompt above s_(j) is likelier than that says if it is not (Wilks, Annals of Mathematical Statistics 12,
1941; Tong, Feng and Li, Science Advances 4, 2018). A threshold beyond s_(j) thus keeps an error rate below
`rate` with a probability known in advance, over the draw of the shots.
"""

import math
from dataclasses import replace

import numpy as np
from scipy import stats

from recalib.errors import BarNotMet
from recalib.gate.threshold import Guarantee, Threshold


def shots_needed(rate: float, confidence: float) -> int:
    """The fewest shots of a class with which any threshold can carry the bound: (1 - rate)^n <= 1 - confidence."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - rate) - 1e-9)


def lowest(harmless: np.ndarray, max_false_flag: float, confidence: float) -> float | None:
    """The lowest threshold that flags at most that share of harmless prompts; None if n is too small.

    `harmless` [n] are scores of shots, `confidence` is over their draw.
    """
    rank = _rank(len(harmless), max_false_flag, confidence)
    if rank is None:
        return None
    return float(np.nextafter(np.sort(harmless)[rank - 1], np.inf))  # flagged is what lies above that shot


def highest(harmful: np.ndarray, max_miss: float, confidence: float) -> float | None:
    """The highest threshold that passes at most that share of harmful prompts; None if n is too small."""
    rank = _rank(len(harmful), max_miss, confidence)
    return None if rank is None else float(np.sort(harmful)[len(harmful) - rank])


def _rank(n: int, rate: float, confidence: float) -> int | None:
    """The lowest j in 1..n with P(1 - F(s_(j)) <= rate) >= confidence, where 1 - F ~ Beta(n - j + 1, j)."""
    ranks = np.arange(1, n + 1)
    enough = ranks[stats.beta.cdf(rate, n - ranks + 1, ranks) >= confidence - 1e-9]
    return int(enough[0]) if len(enough) else None


def bounded(threshold: Threshold, guarantee: Guarantee, language: str) -> Threshold:
    """`threshold` moved no farther than the guarantee demands.

    Where both bounds are wanted and no threshold keeps both, prompts in between are deferred: those flagged
    keep the one bound, those passed the other. Raises BarNotMet if there are too few shots.
    """
    low, high = -math.inf, math.inf
    if guarantee.max_false_flag is not None:
        found = lowest(np.array(threshold.harmless_scores), guarantee.max_false_flag, guarantee.confidence)
        low = _require(found, guarantee.max_false_flag, guarantee.confidence, "harmless", threshold, language)
    if guarantee.max_miss is not None:
        found = highest(np.array(threshold.harmful_scores), guarantee.max_miss, guarantee.confidence)
        high = _require(found, guarantee.max_miss, guarantee.confidence, "harmful", threshold, language)
    if low > high:
        return replace(threshold, value=low, defer_from=high, guarantee=guarantee)
    return replace(threshold, value=min(max(threshold.value, low), high), guarantee=guarantee)


def _require(
    found: float | None, rate: float, confidence: float, label: str, threshold: Threshold, language: str
) -> float:
    if found is None:
        needed = shots_needed(rate, confidence)
        raise BarNotMet(
            f"{language}: {threshold.shots} {label} shots cannot promise an error rate of at most {rate:g} with "
            f"{confidence:.0%} confidence; it takes at least {needed}",
            fix=f"--shots {needed}, or a looser bound",
        )
    return found
