"""Decisions: what a gate makes of each row of a batch, whatever languages are mixed in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recalib.gate.gate import Gate


@dataclass(frozen=True)
class Decision:
    """A gate's decision on one prompt: flagged, deferred, or, where it is neither, passed.

    `language` is the one whose threshold was applied, None for the one transferred from the sources;
    `note` says why that was taken.
    """

    flagged: bool
    deferred: bool
    score: float
    threshold: float
    language: str | None
    note: str | None = None


def decide(gate: Gate, rows: np.ndarray, languages: Sequence[str | None]) -> list[Decision]:
    """Decide rows [n, hidden] at the gate's layer and position.

    `languages` has a code for each row, or None where the gate is to tell it from the row itself.
    """
    known = list(languages)
    unknown = [i for i, language in enumerate(known) if language is None]
    if unknown and gate.languages is not None:
        for i, found in zip(unknown, gate.languages.identify(rows[unknown]), strict=True):
            known[i] = found
    decisions: dict[int, Decision] = {}
    for language in dict.fromkeys(known):
        index = [i for i, found in enumerate(known) if found == language]
        threshold, note = gate.threshold_of(language), _note(gate, language)
        scores = gate.scores(rows[index], language)
        flagged, deferred = threshold.flags(scores), threshold.defers(scores)
        for at, i in enumerate(index):
            decisions[i] = Decision(
                bool(flagged[at]), bool(deferred[at]), float(scores[at]), threshold.value, language, note
            )
    return [decisions[i] for i in range(len(known))]


def _note(gate: Gate, language: str | None) -> str | None:
    if language in gate.meta.thresholds or language in gate.meta.sources:
        return None
    if language is not None:
        return f"{language} is not calibrated: the sources' threshold"
    if gate.languages is None:
        return "no language given, and the gate knows none: the sources' threshold"
    return "no known language is near: the sources' threshold"
