"""What a handful of shots can and cannot say about a threshold's error rates."""

from recalib.gate.threshold import Threshold
from recalib.intervals import Interval, exact, size_for

HALF_WIDTH = 0.05


def error_intervals(threshold: Threshold) -> tuple[Interval | None, Interval | None]:
    """Exact 95 % intervals of the miss and the false-flag rate on the shots; None without shots."""
    missed, flagged = _errors(threshold)
    return exact(missed, len(threshold.harmful_scores)), exact(flagged, len(threshold.harmless_scores))


def sentence(language: str, threshold: Threshold) -> str:
    """In plain words: the errors on the shots, what they allow, and how many shots would settle it."""
    miss, false_flag = error_intervals(threshold)
    if miss is None or false_flag is None:
        return f"{language}: without labelled examples nothing is known of the error rates; recalib eval measures them"
    missed, flagged = _errors(threshold)
    n, m = len(threshold.harmful_scores), len(threshold.harmless_scores)
    worst = max(missed / n, flagged / m)
    return (
        f"{language}: {missed} of {n} harmful shots missed, {flagged} of {m} harmless ones flagged. The threshold was "
        f"set on them; even fresh, they could not exclude {100 * miss[1]:.0f} % missed and {100 * false_flag[1]:.0f} % "
        f"flagged. To know such rates to ±{100 * HALF_WIDTH:.0f} points, by an exact 95 % interval no wider than "
        f"{200 * HALF_WIDTH:.0f}, takes {size_for(worst, HALF_WIDTH)} fresh prompts a class"
    )


def _errors(threshold: Threshold) -> tuple[int, int]:
    """How many harmful shots are missed, and how many harmless ones flagged."""
    missed = sum(score < threshold.value for score in threshold.harmful_scores)
    return missed, sum(score >= threshold.value for score in threshold.harmless_scores)
