"""recalib eval: what a gate decides, and what the model then does."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from recalib.cli.common import (
    Activations,
    BatchSize,
    Columns,
    Common,
    Data,
    GatePath,
    Limit,
    MaxNewTokens,
    Model,
    TrustRemoteCode,
    command,
)
from recalib.cli.study import parse_design, run_study
from recalib.cli.tables import gate_table, identification_table, refusal_table
from recalib.errors import BarNotMet, UsageError
from recalib.evaluation.bars import Bar, parse_bar

if TYPE_CHECKING:
    from recalib.cli.loading import GateFile
    from recalib.evaluation.run import Evaluation, Settings
    from recalib.judges import Judge, Verdict
    from recalib.lm.model import LanguageModel
    from recalib.prompts.prompt import PromptSet

GATE_RATES = ("auc", "balanced_accuracy", "f1", "false_flag_rate", "miss_rate")
REFUSAL_RATES = ("harmful_refusal", "harmless_refusal", "selectivity", "own_language_share")


@dataclass(frozen=True)
class Measured:
    """A result in the forms in which it leaves: JSON, tables, macro figures, rows for a file."""

    document: dict[str, Any]
    tables: tuple[Any, ...]
    macro: Mapping[str, float | None]
    completions: tuple[dict[str, Any], ...] = ()


@command
def evaluate(
    common: Common,
    langs: Annotated[str, typer.Option(help="Codes and tiers: sw,yo, low, all.")] = "low",
    gate: GatePath = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="base, recalib; with --study the threshold rules. Comma-separated.",
            show_default="base,recalib; with --study f1,midpoint,shrunk,mixture,joint",
        ),
    ] = None,
    data: Data = None,
    columns: Columns = "",
    activations: Activations = None,
    split: Annotated[str, typer.Option(help="Split to measure on.")] = "test",
    limit: Limit = 0,
    judge: Annotated[
        str | None,
        typer.Option(help="builtin, organism or none.", show_default="organism for the embedded model, else builtin"),
    ] = None,
    batch_size: BatchSize = 64,
    max_new_tokens: MaxNewTokens = 128,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results.json and the completions.", show_default=False),
    ] = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            help="Bar for a macro figure of the last method, as 'selectivity>=0.5'; exit 3 if missed.",
            show_default=False,
        ),
    ] = None,
    study: Annotated[
        Literal["shots"] | None,
        typer.Option(
            help="Study thresholds from few examples, drawn again and again, on --activations.", show_default=False
        ),
    ] = None,
    shots: Annotated[str, typer.Option(help="Of a study: labelled examples per class.")] = "0,1,2,4,8,16",
    draws: Annotated[int, typer.Option(min=2, help="Of a study: draws of the examples.")] = 100,
    unlabeled_n: Annotated[int, typer.Option(min=1, help="Of a study: unlabelled rows, for rules that use them.")] = 64,
    prevalence: Annotated[float, typer.Option(min=0, max=1, help="Of a study: share of those that is harmful.")] = 0.2,
    model: Model = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure a gate: on labelled activations alone, or by what the model answers with and without it.

    With --activations nothing is generated. With prompts, every method completes the same ones and a
    judge says which completions refuse. --study shots draws examples from the train split many times,
    calibrates, and measures on the test split.
    """
    from recalib.cli.loading import find_gate, load_model, load_prompts
    from recalib.evaluation.run import Settings, require_methods

    if activations is not None and data is not None:
        raise UsageError("--data and --activations exclude each other")
    if study is not None:
        if activations is None or fail_under:
            raise UsageError("--study works on --activations DIR, and has no --fail-under")
        design = parse_design(shots, methods, draws, unlabeled_n, prevalence, common.seed)
        run_study(common, find_gate(gate), activations, langs, design, out)
        return
    rates = REFUSAL_RATES if activations is None else GATE_RATES
    bars = [parse_bar(text, rates) for text in fail_under or ()]
    names = tuple(part.strip() for part in (methods or "base,recalib").split(","))
    require_methods(names)
    found = find_gate(gate)
    if activations is not None:
        measured = _on_activations(found, activations, langs, split, limit)
    else:
        model_name = model or found.model_name
        judging = _find_judge(common, judge, model_name)
        prompts = load_prompts(data, model_name, columns)
        prompts.require_split(split)
        languages = prompts.select_languages(langs)
        lm = load_model(common, model_name, trust_remote_code)
        settings = Settings(split, limit, batch_size, max_new_tokens, common.seed)
        measured = _on_prompts(common, found, lm, prompts, languages, names, judging, settings)
    if out is not None:
        _write(out, measured)
        common.output.note(f"written to {out}")
    common.output.result(measured.document, *measured.tables)
    _require(bars, measured.macro)


def _find_judge(common: Common, name: str | None, model: str) -> "Judge":
    from recalib import judges

    judge = judges.find(name or judges.default_for(model))
    if judge.name == "none":
        common.output.warn("--judge none: completions are made but not judged")
    return judge


def _on_activations(found: "GateFile", root: Path, langs: str, split: str, limit: int) -> Measured:
    from recalib.activations import ActivationSet
    from recalib.evaluation.identification import identify
    from recalib.evaluation.run import evaluate_gate, macro_metrics

    folder = ActivationSet(root)
    languages = folder.select_languages(langs, split)
    metrics = evaluate_gate(folder, found.gate, languages, split, limit)
    macro = macro_metrics(metrics)
    document = {"gate_metrics": {code: asdict(m) for code, m in metrics.items()}, "macro": macro}
    if found.gate.languages is None:
        return Measured(document, (gate_table(metrics),), macro)
    told = identify(folder, found.gate, languages, split)
    document["identification"] = {code: asdict(i) for code, i in told.items()}
    return Measured(document, (gate_table(metrics), identification_table(told)), macro)


def _on_prompts(
    common: Common,
    found: "GateFile",
    lm: "LanguageModel",
    prompts: "PromptSet",
    languages: tuple[str, ...],
    methods: tuple[str, ...],
    judge: "Judge",
    settings: "Settings",
) -> Measured:
    from recalib.evaluation.run import evaluate as run
    from recalib.prompts.prompt import LABELS

    cells = [prompts.texts(lang, settings.split, label) for lang in languages for label in LABELS]
    total = len(methods) * sum(len(cell[: settings.limit or None]) for cell in cells)
    with common.output.progress("evaluate", total) as advance:
        result = run(lm, found.gate, prompts, languages, methods, judge, settings, advance)
    return measured(result, judge.name)


def measured(evaluation: "Evaluation", judge: str) -> Measured:
    """An evaluation in the forms in which it leaves."""
    document = {
        "judge": judge,
        "methods": {
            name: {
                "languages": {code: asdict(r) for code, r in method.languages.items()},
                "macro": asdict(method.macro),
            }
            for name, method in evaluation.methods.items()
        },
        "gate_metrics": {code: asdict(m) for code, m in evaluation.gate_metrics.items()},
    }
    rows = tuple(
        {"method": i.method, "label": i.label, **asdict(i.completion), **_verdict(i.verdict)}
        for i in evaluation.completions
    )
    last = list(evaluation.methods.values())[-1]
    tables = (refusal_table(evaluation), gate_table(evaluation.gate_metrics))
    return Measured(document, tables, asdict(last.macro), rows)


def _verdict(verdict: "Verdict") -> dict[str, Any]:
    fields = {"verdict": verdict.outcome, "judge": verdict.judge, "refused_in": verdict.language, "why": verdict.why}
    return {name: value for name, value in fields.items() if value is not None}


def _write(out: Path, measured: Measured) -> None:
    from recalib.artifact import atomic

    if measured.completions:
        with atomic(out / "completions.jsonl") as handle:
            for row in measured.completions:
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")
    with atomic(out / "results.json") as handle:
        json.dump(measured.document, handle, ensure_ascii=False, indent=2, allow_nan=False)


def _require(bars: list[Bar], macro: Mapping[str, float | None]) -> None:
    missed = [bar for bar in bars if not bar.met_by(macro)]
    if missed:
        figures = "; ".join(f"{bar} but it is {_show(macro[bar.metric])}" for bar in missed)
        raise BarNotMet(f"the bar was not met: {figures}")


def _show(figure: float | None) -> str:
    return "not measured" if figure is None else f"{figure:.3f}"
