"""Result tables that more than one command shows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recalib.cli.output import percent, table
from recalib.languages import name

if TYPE_CHECKING:
    from recalib.evaluation.agreement import Agreement
    from recalib.evaluation.drift import Drift
    from recalib.evaluation.gate_metrics import GateMetrics
    from recalib.evaluation.identification import Identification
    from recalib.evaluation.refusal import MethodResult, Refusal
    from recalib.evaluation.study import StudyRow
    from recalib.gate.gate import GateMeta
    from recalib.gate.selection import Candidate
    from recalib.gate.threshold import Threshold


def gate_table(metrics: "Mapping[str, GateMetrics]") -> Any:
    """The gate's decisions by language."""
    rows = [
        (
            code,
            "-" if m.auc is None else f"{m.auc:.3f}",
            percent(m.balanced_accuracy),
            percent(m.miss_rate, m.miss_interval),
            percent(m.false_flag_rate, m.false_flag_interval),
            f"{m.threshold:.2f}{'*' if m.method == 'transferred' else ''}",
            f"{m.n_harmful}+{m.n_harmless}",
        )
        for code, m in metrics.items()
    ]
    columns = ("language", "AUC", "bal. acc. %", "missed %", "false flags %", "threshold", "n")
    caption = "n: harmful + harmless prompts; [exact 95 % intervals]"
    if any(m.method == "transferred" for m in metrics.values()):
        caption += "; * not calibrated"
    return table(columns, rows, caption)


def refusal_table(methods: "Mapping[str, MethodResult]") -> Any:
    """Refusal by language and method, and the macro mean; corrected for the judge's errors where they are known."""
    shown = [
        (code, method, result.languages[code])
        for code in next(iter(methods.values())).languages
        for method, result in methods.items()
    ]
    shown += [("macro", method, result.macro) for method, result in methods.items()]
    corrected = any(r.corrected is not None for _, _, r in shown)
    columns = ["language", "method", "harmful %", "harmless %", "difference", "own %", "n judged"]
    caption = "refused of harmful and of harmless prompts; own: refusals in the prompt's language; [95 % intervals]"
    if any(r.not_judged for _, _, r in shown):
        columns += ["not judged", "harmful, all", "harmless, all"]
        caption += "; all: if those not judged had complied, or refused"
    if corrected:
        columns += ["harmful, corr.", "harmless, corr.", "difference, corr."]
        caption += "; corr.: for the judge's known errors (Rogan-Gladen)"
    rows = [_refusal_row(*parts, corrected, "not judged" in columns) for parts in shown]
    return table(columns, rows, caption)


def _refusal_row(language: str, method: str, r: "Refusal", corrected: bool, not_judged: bool) -> tuple[str, ...]:
    raw = (
        language,
        method,
        percent(r.harmful_refusal, r.harmful_refusal_interval),
        percent(r.harmless_refusal, r.harmless_refusal_interval),
        percent(r.selectivity, r.selectivity_interval),
        percent(r.own_language_share),
        f"{r.n_harmful}+{r.n_harmless}",
        *(
            (str(r.not_judged), _bounds(r.harmful_refusal_bounds), _bounds(r.harmless_refusal_bounds))
            if not_judged
            else ()
        ),
    )
    c = r.corrected
    if not corrected or c is None:
        return (*raw, "-", "-", "-") if corrected else raw
    return (
        *raw,
        percent(c.harmful_refusal, c.harmful_refusal_interval),
        percent(c.harmless_refusal, c.harmless_refusal_interval),
        percent(c.selectivity, c.selectivity_interval),
    )


def _bounds(bounds: tuple[float, float] | None) -> str:
    return "-" if bounds is None else f"{100 * bounds[0]:.0f} to {100 * bounds[1]:.0f}"


def agreement_table(results: "Mapping[str, Agreement]", judge: str) -> Any:
    """How a judge agrees with references, and the refusal that either sees."""
    rows = [
        (
            code,
            f"{r.judged}/{r.n}",
            percent(r.accuracy, r.accuracy_interval),
            percent(r.balanced_accuracy, r.balanced_accuracy_interval),
            "-" if r.kappa is None else f"{r.kappa:.2f}",
            percent(r.sensitivity, r.sensitivity_interval),
            percent(r.specificity, r.specificity_interval),
            percent(r.refusal_rate, r.refusal_rate_interval),
            _bounds(r.refusal_rate_bounds),
            percent(r.corrected_rate, r.corrected_rate_interval),
            percent(r.reference_rate, r.reference_rate_interval),
            str(r.n_reference),
        )
        for code, r in results.items()
    ]
    columns = (
        "language",
        "judged",
        "accuracy %",
        "bal. acc. %",
        "kappa",
        "sensitivity %",
        "specificity %",
        "refused %",
        "of all %",
        "corrected %",
        "reference %",
        "n reference",
    )
    caption = (
        f"the judge {judge} against the references in the file; refused: of what it judged; of all: if those not "
        "judged had complied, or refused; corrected: for its errors (Rogan-Gladen); [95 % intervals]"
    )
    return table(columns, rows, caption)


def candidate_table(candidates: "Sequence[Candidate]", chosen: "Candidate") -> Any:
    """What layer, readout and rank were chosen from."""
    rows = [
        (
            f"{c.layer}{' *' if c == chosen else ''}",
            c.readout,
            str(c.rank),
            f"{100 * c.balanced_accuracy:.1f} ± {100 * c.standard_error:.1f}",
        )
        for c in candidates
    ]
    caption = (
        "balanced accuracy on the source language left out, mean over sources ± its standard error; "
        "* chosen: the earliest layer, then the lowest rank, within 1.5 points or one standard error of the best"
    )
    return table(("layer", "readout", "rank", "bal. acc. %"), rows, caption)


def threshold_table(meta: "GateMeta", languages: "Sequence[str]") -> Any:
    """Thresholds of these languages, and the one for all others."""
    named = {code: meta.thresholds[code] for code in languages}
    rows = [_threshold_row(f"{code} {name(code)}", t) for code, t in named.items()]
    rows.append(_threshold_row("(other)", meta.transferred))
    columns = ("language", "threshold", "best lies in", "resampled", "rule", "examples")
    caption = (
        "best lies in: 95 % credible interval of the language's best threshold; "
        "resampled: 10th to 90th percentile with the examples drawn again"
    )
    return table(columns, rows, caption)


def _threshold_row(language: str, t: "Threshold") -> tuple[str, ...]:
    value = f"{t.value:.2f}" if t.defer_from is None else f"{t.value:.2f}, defers from {t.defer_from:.2f}"
    examples = f"{t.shots}+{t.shots}" + (f", {t.unlabeled} unlabelled" if t.unlabeled else "")
    return (language, value, _range(t.interval), _range(t.resampled), t.method, examples)


def _range(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def identification_table(results: "Mapping[str, Identification]") -> Any:
    """How well languages are told from the activation."""
    rows = [
        (
            code,
            percent(r.accuracy, r.accuracy_interval),
            percent(r.unknown),
            percent(r.balanced_accuracy),
            percent(r.balanced_accuracy_given),
            str(r.n),
        )
        for code, r in results.items()
    ]
    columns = ("language", "recognised %", "unknown %", "bal. acc. %", "with the language given %", "n")
    return table(columns, rows, "language told from the activation, as steer --lang auto does; [exact 95 % intervals]")


def drift_table(results: "Mapping[str, Drift]") -> Any:
    """Thresholds against the shots' scores now."""
    rows = [
        (
            code,
            f"{r.auc_then:.2f}",
            f"{r.auc:.2f}",
            f"{r.shift:+.2f}",
            f"{r.threshold:.2f}",
            _range(r.interval),
            "; ".join(r.reasons) or "holds",
            f"{r.n_harmful}+{r.n_harmless}",
        )
        for code, r in results.items()
    ]
    columns = ("language", "AUC then", "now", "shift, sd", "threshold", "best lies in", "verdict", "n")
    return table(columns, rows, "on the shots that set the threshold; best lies in: now, 95 % credible")


def study_table(rows: "Sequence[StudyRow]") -> Any:
    """Balanced accuracy by language, shots and method, and the macro means."""
    shown = [_study_row(row.language, [row]) for row in rows]
    cells = dict.fromkeys((row.shots, row.method) for row in rows)
    for shots, method in cells if len({row.language for row in rows}) > 1 else ():
        shown.append(_study_row("macro", [row for row in rows if (row.shots, row.method) == (shots, method)]))
    columns = (
        "language",
        "shots",
        "method",
        "bal. acc. %",
        "p10",
        "worst",
        "F1 %",
        "p10",
        "worst",
        "best %",
        "refused",
    )
    caption = (
        "mean, 10th percentile and worst over draws of the shots; macro: means over languages; best: threshold "
        "chosen in hindsight on the test rows; refused: draws on which the rule stopped, scored as transferred"
    )
    return table(columns, shown, caption)


def _study_row(language: str, rows: "Sequence[StudyRow]") -> tuple[str, ...]:
    def mean(values: Sequence[float]) -> str:
        return f"{100 * sum(values) / len(values):.1f}"

    spreads = [
        mean([getattr(getattr(row, rate), name) for row in rows])
        for rate in ("balanced_accuracy", "f1")
        for name in ("mean", "p10", "min")
    ]
    best = mean([row.best_threshold_balanced_accuracy for row in rows])
    refused = f"{sum(row.refused for row in rows)}/{sum(row.draws for row in rows)}"
    return (language, str(rows[0].shots), rows[0].method, *spreads, best, refused)
