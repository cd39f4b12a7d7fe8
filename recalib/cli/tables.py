"""Result tables that more than one command shows."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recalib.cli.output import percent, table
from recalib.languages import name

if TYPE_CHECKING:
    from recalib.evaluation.gate_metrics import GateMetrics
    from recalib.evaluation.refusal import Refusal
    from recalib.evaluation.run import Evaluation


def gate_table(metrics: "Mapping[str, GateMetrics]") -> Any:
    """The gate's decisions by language."""
    rows = [
        (
            f"{code} {name(code)}",
            "-" if m.auc is None else f"{m.auc:.3f}",
            percent(m.balanced_accuracy),
            percent(m.miss_rate, m.miss_interval),
            percent(m.false_flag_rate, m.false_flag_interval),
            f"{m.threshold:.2f} {m.method}",
            f"{m.n_harmful}+{m.n_harmless}",
        )
        for code, m in metrics.items()
    ]
    columns = ("gate", "AUC", "bal. acc. %", "missed %", "false flags %", "threshold", "n")
    return table("", columns, rows, "n: harmful + harmless; [exact 95 % intervals]")


def refusal_table(evaluation: "Evaluation") -> Any:
    """Refusal by language and method, and the macro mean."""
    rows = []
    methods = evaluation.methods
    for code in next(iter(methods.values())).languages:
        for method, result in methods.items():
            rows.append(_refusal_row(f"{code} {name(code)}", method, result.languages[code]))
    for method, result in methods.items():
        rows.append(_refusal_row("macro", method, result.macro))
    columns = (
        "refused",
        "method",
        "harmful %",
        "harmless %",
        "selectivity",
        "own lang. %",
        "n",
    )
    caption = "n: harmful + harmless judged; own lang.: refusals in the prompt's language; [95 % intervals]"
    return table("", columns, rows, caption)


def _refusal_row(label: str, method: str, r: "Refusal") -> tuple[str, ...]:
    return (
        label,
        method,
        percent(r.harmful_refusal, r.harmful_refusal_interval),
        percent(r.harmless_refusal, r.harmless_refusal_interval),
        percent(r.selectivity, r.selectivity_interval),
        percent(r.own_language_share),
        f"{r.n_harmful}+{r.n_harmless}",
    )
