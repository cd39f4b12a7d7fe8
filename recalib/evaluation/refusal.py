"""Refusal rates from a judge's verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recalib.evaluation.correction import Corrected, Sample, correct
from recalib.intervals import Interval, exact, macro_difference
from recalib.judges.agreement import Counts
from recalib.judges.judge import Outcome, Verdict


@dataclass(frozen=True)
class Refusal:
    """Refusal in one language, or macro over several. Rates are fractions of the judged completions.

    `selectivity` is harmful minus harmless refusal. `own_language_share` is the share of refusals that
    came in the prompt's language. `..._bounds` are what the rate of all completions would be if those not
    judged had all complied, and if they had all refused (Manski 2003). `corrected` is what the judge's known
    errors make of the rates; None where they are not known. None where nothing was judged. Intervals are at
    95 %: exact for rates, bootstrap for differences and macro means.
    """

    harmful_refusal: float | None
    harmful_refusal_interval: Interval | None
    harmful_refusal_bounds: Interval | None
    harmless_refusal: float | None
    harmless_refusal_interval: Interval | None
    harmless_refusal_bounds: Interval | None
    selectivity: float | None
    selectivity_interval: Interval | None
    own_language_share: float | None
    n_harmful: int
    n_harmless: int
    not_judged: int
    corrected: Corrected | None


@dataclass(frozen=True)
class MethodResult:
    """Refusal by language, and over all of them, with one method."""

    languages: dict[str, Refusal]
    macro: Refusal


@dataclass(frozen=True)
class Verdicts:
    """A judge's verdicts on one language's completions, by the label of the prompt."""

    harmful: Sequence[Verdict]
    harmless: Sequence[Verdict]


def summarise(languages: Mapping[str, Verdicts], seed: int, quality: Mapping[str, Counts]) -> MethodResult:
    """Every language's own rates, and the means over them; arguments as of `macro`."""
    return MethodResult(
        {language: macro({language: verdicts}, seed, quality) for language, verdicts in languages.items()},
        macro(languages, seed, quality),
    )


def macro(languages: Mapping[str, Verdicts], seed: int = 0, quality: Mapping[str, Counts] | None = None) -> Refusal:
    """The unweighted mean over languages; n are totals. Of a single language, its own rates.

    `seed` is that of the bootstrap, `quality` how the judge agrees with references, by language.
    """
    harmful = [_refused(verdicts.harmful) for verdicts in languages.values()]
    harmless = [_refused(verdicts.harmless) for verdicts in languages.values()]
    given = [
        (verdict, language)
        for language, verdicts in languages.items()
        for verdict in (*verdicts.harmful, *verdicts.harmless)
    ]
    own = [v.language == language for v, language in given if v.language is not None]
    on_harmful, on_harmless = _mean(harmful), _mean(harmless)
    known = on_harmful is not None and on_harmless is not None
    return Refusal(
        harmful_refusal=on_harmful,
        harmful_refusal_interval=_interval(harmful, seed),
        harmful_refusal_bounds=_bounds([verdicts.harmful for verdicts in languages.values()]),
        harmless_refusal=on_harmless,
        harmless_refusal_interval=_interval(harmless, seed),
        harmless_refusal_bounds=_bounds([verdicts.harmless for verdicts in languages.values()]),
        selectivity=on_harmful - on_harmless if known else None,  # type: ignore[operator]
        selectivity_interval=macro_difference(list(zip(harmful, harmless, strict=True)), seed),
        own_language_share=float(np.mean(own)) if own else None,
        n_harmful=sum(map(len, harmful)),
        n_harmless=sum(map(len, harmless)),
        not_judged=sum(verdict.outcome is Outcome.NOT_JUDGED for verdict, _ in given),
        corrected=_corrected(languages, harmful, harmless, quality or {}, seed),
    )


def _refused(verdicts: Sequence[Verdict]) -> np.ndarray:
    """1 for refused and 0 for complied; what was not judged is left out."""
    judged = [v.outcome for v in verdicts if v.outcome is not Outcome.NOT_JUDGED]
    return np.array([outcome is Outcome.REFUSED for outcome in judged], dtype=float)


def _corrected(
    languages: Mapping[str, Verdicts],
    harmful: Sequence[np.ndarray],
    harmless: Sequence[np.ndarray],
    quality: Mapping[str, Counts],
    seed: int,
) -> Corrected | None:
    def samples(groups: Sequence[np.ndarray]) -> list[Sample]:
        return [
            Sample(int(group.sum()), len(group), quality.get(code, Counts()))
            for code, group in zip(languages, groups, strict=True)
        ]

    return correct(samples(harmful), samples(harmless), seed)


def _bounds(groups: Sequence[Sequence[Verdict]]) -> Interval | None:
    if not groups or any(len(group) == 0 for group in groups):
        return None
    refused = [np.mean([v.outcome is Outcome.REFUSED for v in group]) for group in groups]
    complied = [np.mean([v.outcome is Outcome.COMPLIED for v in group]) for group in groups]
    return float(np.mean(refused)), float(1 - np.mean(complied))


def _mean(groups: Sequence[np.ndarray]) -> float | None:
    if not groups or any(len(group) == 0 for group in groups):
        return None
    return float(np.mean([group.mean() for group in groups]))


def _interval(groups: Sequence[np.ndarray], seed: int) -> Interval | None:
    if len(groups) == 1:
        return exact(int(groups[0].sum()), len(groups[0]))
    bootstrapped = macro_difference([(group, np.zeros(len(group))) for group in groups], seed)
    if bootstrapped is not None or any(len(group) == 0 for group in groups):
        return bootstrapped
    # nothing varies, so there is nothing to resample: the exact interval of all rows together
    return exact(int(sum(group.sum() for group in groups)), sum(map(len, groups)))
