"""recalib eval: what a gate decides, and what the model then does."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from recalib.cli.answering import PromptRun, generate_part, judge_all, store_in
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
from recalib.cli.judging import AGREEMENT_RATES, find_judge, judge_completions
from recalib.cli.measured import Measured
from recalib.cli.study import parse_design, run_study
from recalib.cli.tables import gate_table, identification_table
from recalib.errors import BarNotMet, UsageError
from recalib.evaluation.bars import Bar, parse_bar

if TYPE_CHECKING:
    from recalib.cli.loading import GateFile

GATE_RATES = ("auc", "balanced_accuracy", "f1", "false_flag_rate", "miss_rate")
REFUSAL_RATES = ("harmful_refusal", "harmless_refusal", "selectivity", "own_language_share")


@command
def evaluate(
    common: Common,
    langs: Annotated[
        str | None,
        typer.Option(help="Codes and tiers: sw,yo, low, all.", show_default="low; with --completions all"),
    ] = None,
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
    completions: Annotated[
        Path | None,
        typer.Option(
            help="Judge completions made elsewhere: JSONL with completion, language and, where known, prompt, label, "
            "refusal (1 refused, 0 not: the judge is compared with it).",
            show_default=False,
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="builtin, organism, none, openai:MODEL, qwen3guard:MODEL or polyguard:MODEL.",
            show_default="organism for the embedded model, else builtin",
        ),
    ] = None,
    judge_url: Annotated[
        str | None,
        typer.Option(
            help="Endpoint of --judge openai:MODEL; the key is $OPENAI_API_KEY.",
            show_default="$OPENAI_BASE_URL, else OpenAI's",
        ),
    ] = None,
    judge_price: Annotated[
        str | None,
        typer.Option(help="Its price, IN,OUT dollars per million tokens, to show the cost first.", show_default=False),
    ] = None,
    batch_size: BatchSize = 64,
    max_new_tokens: MaxNewTokens = 128,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results and completions; finished cells there are kept.", show_default=False),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="K/N, K from 0: only generate each N-th prompt's answers, into --out; without it all are judged.",
            show_default="all, or the rank's part under torchrun and accelerate",
        ),
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
    calibrates, and measures on the test split. --completions judges a file and, where it has references,
    the judge.
    """
    from recalib.cli.loading import find_gate, load_model, load_prompts
    from recalib.evaluation.run import Settings, cells_of, require_methods
    from recalib.judges import default_for
    from recalib.shards import WHOLE, launched_shard, parse_shard

    given = {"--data": data, "--activations": activations, "--completions": completions}
    named = [option for option, value in given.items() if value is not None]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} exclude each other")
    if study is not None:
        if activations is None or fail_under:
            raise UsageError("--study works on --activations DIR, and has no --fail-under")
        design = parse_design(shots, methods, draws, unlabeled_n, prevalence, common.seed)
        run_study(common, find_gate(gate), activations, langs or "low", design, out)
        return
    rates = (*REFUSAL_RATES, *AGREEMENT_RATES) if completions else GATE_RATES if activations else REFUSAL_RATES
    bars = [parse_bar(text, rates) for text in fail_under or ()]
    if completions is not None:
        measured = judge_completions(
            common, completions, langs, find_judge(common, judge or "builtin", judge_url, judge_price, batch_size)
        )
        _finish(common, measured, out, bars)
        return
    names = tuple(part.strip() for part in (methods or "base,recalib").split(","))
    require_methods(names)
    found = find_gate(gate)
    if activations is not None:
        measured = _on_activations(found, activations, langs or "low", split, limit)
    else:
        model_name = model or found.model_name
        part = parse_shard(shard) if shard is not None else launched_shard()
        if part != WHOLE and out is None:
            raise UsageError(f"the answers of shard {part} must be kept", fix="--out DIR, the same for all shards")
        judging = None  # a shard's answers are judged later, with the others
        if part == WHOLE:
            judging = find_judge(common, judge or default_for(model_name), judge_url, judge_price, batch_size)
        prompts = load_prompts(data, model_name, columns)
        prompts.require_split(split)
        languages = prompts.select_languages(langs or "low")
        lm = load_model(common, model_name, trust_remote_code)
        settings = Settings(split, limit, batch_size, max_new_tokens, common.seed)
        run = PromptRun(lm, found, cells_of(prompts, languages, names, settings), settings)
        store = store_in(out, run) if out else None
        if judging is None:
            assert store is not None
            generate_part(common, run, store, part)
            return
        measured = judge_all(common, run, store, judging)
    _finish(common, measured, out, bars)


def _finish(common: Common, measured: Measured, out: Path | None, bars: list[Bar]) -> None:
    if out is not None:
        _write(out, measured)
        common.output.note(f"written to {out}")
    common.output.result(measured.document, *measured.tables)
    _require(bars, measured.macro)


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
        figures = "; ".join(f"{bar} but it is {_show(macro.get(bar.metric))}" for bar in missed)
        raise BarNotMet(f"the bar was not met: {figures}")


def _show(figure: float | None) -> str:
    return "not measured" if figure is None else f"{figure:.3f}"
