"""The study of shots: how good thresholds from few examples are, over many draws of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recalib.activations import ActivationSet
from recalib.calibration.calibrate import Calibrated, Context, Features, apply, context_of
from recalib.calibration.rules import RULES
from recalib.errors import CalibrationError, UsageError
from recalib.gate.gate import Gate
from recalib.lm.batching import Advance
from recalib.prompts.prompt import LABELS

TRANSFERRED = "transferred"


@dataclass(frozen=True)
class Design:
    """What is varied: `shots` a class and `methods`, each `draws` times.

    Rules that take unlabelled rows get `unlabeled` of them, of which the fraction `prevalence` is harmful.
    """

    shots: tuple[int, ...]
    methods: tuple[str, ...]
    draws: int = 100
    unlabeled: int = 64
    prevalence: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise UsageError for an unknown method."""
        for method in self.methods:
            if method not in RULES:
                raise UsageError(f"--methods: {method!r} is not one of {', '.join(RULES)}")


@dataclass(frozen=True)
class Spread:
    """A rate over draws, as fractions: its mean, 10th percentile and minimum."""

    mean: float
    p10: float
    min: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Spread":
        """The spread of values [draws]."""
        return cls(float(values.mean()), float(np.quantile(values, 0.1)), float(values.min()))


@dataclass(frozen=True)
class StudyRow:
    """One language, method and number of shots; rates are of the test rows.

    `refused` counts the draws on which the rule stopped instead of setting a threshold; they are scored
    with the transferred one, which is what the gate then has. `best_threshold_balanced_accuracy` is that of
    the threshold chosen in hindsight on the test rows, with the source readout.
    """

    language: str
    method: str
    shots: int
    draws: int
    refused: int
    balanced_accuracy: Spread
    f1: Spread
    best_threshold_balanced_accuracy: float
    n_harmful: int
    n_harmless: int


@dataclass(frozen=True)
class _Language:
    """Features of one language: train rows to draw from, test rows to measure on, by label."""

    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]


def study(
    activations: ActivationSet, gate: Gate, languages: Sequence[str], design: Design, advance: Advance = lambda n: None
) -> list[StudyRow]:
    """Draw examples from the train split, calibrate, and measure on the test split.

    All methods see the same draws. Rules without labels are run once, at 0 shots; with 0 shots and labels
    wanted, the transferred threshold stands.
    Raises CalibrationError if a class has too few rows.
    """
    rows = []
    for number, language in enumerate(languages):
        data = _load(activations, gate, language)
        context = context_of(gate, language)
        for shots in design.shots:
            features = _draw(data, shots, design, np.random.default_rng([design.seed, number, shots]), language)
            for method in _methods(design, shots):
                rows.append(_measure(gate, context, data, features, language, method, shots, design))
                advance(1)
    return rows


def count(design: Design, languages: Sequence[str]) -> int:
    """How many rows `study` makes."""
    return len(languages) * sum(len(_methods(design, shots)) for shots in design.shots)


def _methods(design: Design, shots: int) -> tuple[str, ...]:
    if shots:
        return tuple(m for m in design.methods if RULES[m].labelled)
    return (TRANSFERRED, *(m for m in design.methods if not RULES[m].labelled))


def _load(activations: ActivationSet, gate: Gate, language: str) -> _Language:
    def features(split: str) -> dict[str, np.ndarray]:
        parts = {}
        for label in LABELS:
            rows = activations.load(language, split, label, gate.meta.layer, gate.meta.position).rows
            gate.require_hidden_size(rows.shape[1], str(activations.root))
            parts[label] = gate.features(rows)
        return parts

    return _Language(features("train"), features("test"))


def _draw(data: _Language, shots: int, design: Design, rng: np.random.Generator, language: str) -> Features:
    """Shots without replacement, and unlabelled rows from those that are no shots, for every draw."""
    wanted = {"harmful": round(design.unlabeled * design.prevalence)}
    wanted["harmless"] = design.unlabeled - wanted["harmful"]
    drawn, rest = {}, {}
    for label, rows in data.train.items():
        if shots + wanted[label] > len(rows):
            raise CalibrationError(
                f"{language}: {shots} {label} shots and {wanted[label]} unlabelled rows are wanted, but there are "
                f"{len(rows)} {label} train rows",
                fix="fewer --shots or a smaller --unlabeled-n",
            )
        order = rng.permuted(np.tile(np.arange(len(rows)), (design.draws, 1)), axis=1)
        drawn[label], rest[label] = rows[order[:, :shots]], rows[order[:, shots : shots + wanted[label]]]
    return Features(drawn["harmful"], drawn["harmless"], np.concatenate([rest["harmful"], rest["harmless"]], axis=1))


def _measure(
    gate: Gate,
    context: Context,
    data: _Language,
    features: Features,
    language: str,
    method: str,
    shots: int,
    design: Design,
) -> StudyRow:
    fallback = gate.meta.transferred.value
    draws = design.draws if method != TRANSFERRED else 1
    if method == TRANSFERRED:
        thresholds, readouts = np.array([fallback]), [context.readout]
    else:
        result: Calibrated = apply(RULES[method], context, features, design.seed)
        thresholds, readouts = result.thresholds, result.readouts
    refused = np.isnan(thresholds)
    rates = np.array(
        [
            [(readout.scores(data.test[label]) >= threshold).mean() for label in LABELS]
            for readout, threshold in zip(
                [context.readout if stopped else own for stopped, own in zip(refused, readouts, strict=True)],
                np.where(refused, fallback, thresholds),
                strict=True,
            )
        ]
    )
    hit, false_flag = rates.T
    harmful, harmless = (context.readout.scores(data.test[label]) for label in LABELS)
    return StudyRow(
        language=language,
        method=method,
        shots=shots,
        draws=draws,
        refused=int(refused.sum()),
        balanced_accuracy=Spread.of((hit + 1 - false_flag) / 2),
        f1=Spread.of(2 * hit / (hit + false_flag + 1)),
        best_threshold_balanced_accuracy=_best(harmful, harmless),
        n_harmful=len(harmful),
        n_harmless=len(harmless),
    )


def _best(harmful: np.ndarray, harmless: np.ndarray) -> float:
    """The highest balanced accuracy of any threshold on these scores."""
    thresholds = np.concatenate([harmful, [np.inf]])
    hit = 1 - np.searchsorted(np.sort(harmful), thresholds) / len(harmful)
    false_flag = 1 - np.searchsorted(np.sort(harmless), thresholds) / len(harmless)
    return float(((hit + 1 - false_flag) / 2).max())
