"""Calibrating languages of a gate with a few examples."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recalib.calibration import rules
from recalib.calibration.guarantee import bounded
from recalib.calibration.rules import RULES, Rule
from recalib.calibration.score_model import Scores
from recalib.errors import CalibrationError, NoSeparationError, RecalibError, UsageError
from recalib.gate.gate import Gate
from recalib.gate.prior import ScorePrior, estimate
from recalib.gate.readout import Readout, SourceRows, refit
from recalib.gate.summary import summarise
from recalib.gate.threshold import Guarantee, Threshold
from recalib.intervals import Interval

RESAMPLES = 200
RESAMPLED_ROWS = 50_000
"""In all resamples together: with very many unlabeled prompts there are fewer resamples."""

MIN_RESAMPLED = 4
"""Fewer shots a class than this have too few distinct resamples to show a spread."""


@dataclass(frozen=True)
class LanguageExamples:
    """Examples of one language: activations [n, hidden] at the gate's layer and position.

    Any of the three may be empty, [0, hidden]. The ids are those of `prompts.prompt_id`, empty where the
    prompts are not known.
    """

    harmful: np.ndarray
    harmless: np.ndarray
    unlabeled: np.ndarray
    harmful_ids: tuple[int, ...] = ()
    harmless_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Request:
    """How to calibrate: `method` None takes the default for the examples at hand.

    `source` names where the examples come from.
    """

    method: str | None = None
    seed: int = 0
    source: str | None = None
    guarantee: Guarantee | None = None


@dataclass(frozen=True)
class Context:
    """What a threshold rule may use of a gate."""

    readout: Readout
    source: SourceRows
    prior: ScorePrior | None


@dataclass(frozen=True)
class Features:
    """Data sets of one language, as a gate's features.

    `harmful` [draws, n, rank], `harmless` [draws, m, rank], `unlabeled` [draws, u, rank].
    """

    harmful: np.ndarray
    harmless: np.ndarray
    unlabeled: np.ndarray


@dataclass(frozen=True)
class Calibrated:
    """Thresholds [draws] with the readouts that they are for, and the data sets' scores under those."""

    thresholds: np.ndarray
    readouts: list[Readout]
    scores: Scores


def context_of(gate: Gate, language: str) -> Context:
    """What the gate knows without that language; no prior where it lacks its sources' score spread."""
    others = [
        summarise(np.array(threshold.harmful_scores), np.array(threshold.harmless_scores))
        for code, threshold in gate.meta.thresholds.items()
        if code != language and code not in gate.refits and threshold.harmful_scores and threshold.harmless_scores
    ]
    prior = estimate(list(gate.meta.held_out.values()), others) if gate.meta.held_out else None
    return Context(gate.readout, gate.source, prior)


def apply(rule: Rule, context: Context, features: Features, seed: int) -> Calibrated:
    """Apply a rule to many data sets; a threshold is NaN where its data set cannot carry one.

    Raises CalibrationError if the gate lacks what the rule needs.
    """
    if rule.refits and not len(context.source.features):
        raise CalibrationError(
            "the rule f1 refits on the source rows, and this gate carries none",
            fix="--method midpoint, or fit the gate with recalib fit-gate",
        )
    if rule.needs_prior and context.prior is None:
        raise CalibrationError(
            "the gate does not know how its sources' scores spread",
            fix="--method midpoint, or fit the gate with recalib fit-gate",
        )
    readouts = [context.readout] * len(features.harmful)
    if rule.refits:
        readouts = [_refit(context, *shots) for shots in zip(features.harmful, features.harmless, strict=True)]
    parts = [
        np.stack([readout.scores(rows) for readout, rows in zip(readouts, part, strict=True)])
        for part in (features.harmful, features.harmless, features.unlabeled)
    ]
    scores = Scores(*parts)
    return Calibrated(rule.thresholds(scores, context.prior, seed), readouts, scores)


def calibrate(gate: Gate, examples: Mapping[str, LanguageExamples], request: Request) -> Gate:
    """The gate with a threshold for each language of `examples`, by one of `rules.RULES`.

    What other targets taught the gate before is used, what is calibrated here for one language is not used for
    the next. All or nothing: raises CalibrationError if any language's examples cannot carry a threshold
    (NoSeparationError if that is for want of separation in unlabelled rows), BarNotMet if they cannot carry
    the guarantee, and UsageError if the method needs other examples.
    """
    failures: list[tuple[str, RecalibError]] = []
    calibrated = gate
    for language, given in examples.items():
        try:
            threshold, readout = _calibrate_one(gate, language, given, request)
        except RecalibError as error:
            failures.append((language, error))
        else:
            rows = np.concatenate([given.harmful, given.harmless, given.unlabeled])
            calibrated = calibrated.with_threshold(language, readout, threshold, rows)
    if failures:
        worst = max((error for _, error in failures), key=lambda error: error.exit_code)
        detail = "; ".join(f"{language}: {error}" for language, error in failures)
        raise type(worst)(f"nothing was calibrated: {detail}", fix=worst.fix)
    return calibrated


def _calibrate_one(gate: Gate, language: str, given: LanguageExamples, request: Request) -> tuple[Threshold, Readout]:
    method = request.method or rules.default_method(len(given.harmful), len(given.unlabeled))
    rule = RULES[method]
    _require_examples(method, rule, given, request.guarantee)
    context = context_of(gate, language)
    features = Features(*(gate.features(part)[None] for part in (given.harmful, given.harmless, given.unlabeled)))
    result = apply(rule, context, features, request.seed)
    value, scores = float(result.thresholds[0]), result.scores
    if np.isnan(value):
        raise _why_not(rule, scores)
    threshold = Threshold(
        value=value,
        method=method,
        shots=len(given.harmful),
        seed=request.seed,
        source=request.source,
        unlabeled=len(given.unlabeled),
        interval=rules.interval_of(context.prior, scores, request.seed),
        resampled=_resampled(rule, context, features, request.seed),
        harmful_shot_ids=given.harmful_ids,
        harmless_shot_ids=given.harmless_ids,
        harmful_scores=tuple(map(float, scores.harmful[0])),
        harmless_scores=tuple(map(float, scores.harmless[0])),
    )
    if request.guarantee is not None:
        threshold = bounded(threshold, request.guarantee, language)
    return threshold, result.readouts[0]


def _require_examples(method: str, rule: Rule, given: LanguageExamples, guarantee: Guarantee | None) -> None:
    if rule.labelled and not (len(given.harmful) and len(given.harmless)):
        raise UsageError(f"--method {method} needs labelled examples of both classes", fix="--shots 4")
    if rule.unlabeled and not len(given.unlabeled):
        raise UsageError(f"--method {method} needs unlabelled prompts", fix="--unlabeled FILE")
    if guarantee is not None and rule.refits:
        raise UsageError(
            f"--method {method} fits the readout on the shots, so their scores guarantee nothing",
            fix="a guarantee with --method shrunk or midpoint",
        )
    if guarantee is not None and not len(given.harmful):
        raise UsageError("a guarantee needs labelled examples", fix="--shots N")


def _refit(context: Context, harmful: np.ndarray, harmless: np.ndarray) -> Readout:
    """The readout on source rows and shots [n, rank]; the sources' standardisation stays."""
    features = np.concatenate([context.source.features, harmful, harmless])
    labels = np.concatenate([context.source.labels, np.ones(len(harmful)), np.zeros(len(harmless))])
    return refit(features, labels, context.readout.mean, context.readout.scale)


def _resampled(rule: Rule, context: Context, features: Features, seed: int) -> Interval | None:
    """10th and 90th percentile of thresholds from shots and rows drawn again with replacement."""
    sizes = [part.shape[1] for part in (features.harmful, features.harmless, features.unlabeled)]
    if min(size for size in sizes if size) < MIN_RESAMPLED:
        return None
    rng = np.random.default_rng(seed)
    count = min(RESAMPLES, max(20, RESAMPLED_ROWS // sum(sizes)))
    again = [
        part[0][rng.integers(size, size=(count, size))] if size else np.repeat(part, count, axis=0)
        for part, size in zip((features.harmful, features.harmless, features.unlabeled), sizes, strict=True)
    ]
    thresholds = apply(rule, context, Features(*again), seed).thresholds
    low, high = np.nanquantile(thresholds, (0.1, 0.9))
    return float(low), float(high)


def _why_not(rule: Rule, scores: Scores) -> RecalibError:
    if not rule.labelled:
        return NoSeparationError(
            f"{scores.unlabeled.shape[1]} unlabelled prompts show no two classes: one normal distribution "
            "describes their scores as well as two",
            fix="--shots 4 with labelled examples, or more --unlabeled prompts, some of them harmful",
        )
    harmful, harmless = scores.harmful[0], scores.harmless[0]
    return CalibrationError(
        f"the scores are inverted: {len(harmful)} harmful shots score {harmful.mean():.2f} on the "
        f"mean, {len(harmless)} harmless ones {harmless.mean():.2f}",
        fix="check the labels; then take more shots (--shots) or draw others (--seed)",
    )
