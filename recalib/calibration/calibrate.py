"""Calibrating languages of a gate with labelled shots."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recalib.calibration.rules import RULES, Shots
from recalib.errors import CalibrationError
from recalib.gate.gate import Gate
from recalib.gate.threshold import Threshold


@dataclass(frozen=True)
class LanguageShots:
    """The shots of one language: activations [shots, hidden] at the gate's layer and position.

    The ids are those of `prompts.prompt_id`, empty where the prompts are not known.
    """

    harmful: np.ndarray
    harmless: np.ndarray
    harmful_ids: tuple[int, ...] = ()
    harmless_ids: tuple[int, ...] = ()


def calibrate(gate: Gate, shots: Mapping[str, LanguageShots], method: str, seed: int, source: str) -> Gate:
    """The gate with a threshold for each language of `shots`, by one of `rules.RULES`.

    All or nothing: raises CalibrationError if any language's shots cannot carry a threshold.
    """
    failures: list[tuple[str, CalibrationError]] = []
    calibrated = gate
    for language, examples in shots.items():
        try:
            calibrated = _one(calibrated, language, examples, method, seed, source)
        except CalibrationError as error:
            failures.append((language, error))
    if failures:
        detail = "; ".join(f"{language}: {error}" for language, error in failures)
        raise CalibrationError(f"nothing was calibrated: {detail}", fix=failures[0][1].fix)
    return calibrated


def _one(gate: Gate, language: str, examples: LanguageShots, method: str, seed: int, source: str) -> Gate:
    if method == "f1" and not len(gate.source.features):
        raise CalibrationError(
            "the rule f1 refits on the source rows, and this gate carries none",
            fix="--method midpoint, or fit the gate with recalib fit-gate",
        )
    shots = Shots(gate.features(examples.harmful), gate.features(examples.harmless))
    result = RULES[method](gate.readout, gate.source, shots)
    hits = (result.readout.scores(shots.harmful) >= result.threshold).mean()
    passes = (result.readout.scores(shots.harmless) < result.threshold).mean()
    threshold = Threshold(
        value=result.threshold,
        method=method,
        shots=len(examples.harmful),
        seed=seed,
        source=source,
        harmful_shot_ids=examples.harmful_ids,
        harmless_shot_ids=examples.harmless_ids,
        balanced_accuracy_on_shots=float(hits + passes) / 2,
    )
    return gate.with_threshold(language, result.readout, threshold)
