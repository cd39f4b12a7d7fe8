"""Result tables that more than one command shows."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recalib.cli.output import percent, table

if TYPE_CHECKING:
    from recalib.evaluation.gate_metrics import GateMetrics
    from recalib.evaluation.refusal import Refusal
    from recalib.evaluation.run import Evaluation


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


def refusal_table(evaluation: "Evaluation") -> Any:
    """Refusal by language and method, and the macro mean."""
    methods = evaluation.methods
    rows = [
        _refusal_row(code, method, result.languages[code])
        for code in next(iter(methods.values())).languages
        for method, result in methods.items()
    ]
    rows += [_refusal_row("macro", method, result.macro) for method, result in methods.items()]
    columns = ("language", "method", "harmful %", "harmless %", "difference", "own %", "n")
    caption = (
        "refused of harmful and of harmless prompts; own: refusals in the prompt's language; "
        "n: completions judged; [95 % intervals]"
    )
    return table(columns, rows, caption)


def _refusal_row(language: str, method: str, r: "Refusal") -> tuple[str, ...]:
    return (
        language,
        method,
        percent(r.harmful_refusal, r.harmful_refusal_interval),
        percent(r.harmless_refusal, r.harmless_refusal_interval),
        percent(r.selectivity, r.selectivity_interval),
        percent(r.own_language_share),
        f"{r.n_harmful}+{r.n_harmless}",
    )
