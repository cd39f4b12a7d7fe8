"""recalib calibrate: a few examples of a language to its threshold."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recalib.cli.common import (
    Activations,
    Columns,
    Common,
    Data,
    GatePath,
    Model,
    TrustRemoteCode,
    command,
)
from recalib.cli.output import Output, percent, table
from recalib.languages import name

if TYPE_CHECKING:
    from recalib.gate.gate import Gate


@command
def calibrate(
    common: Common,
    lang: Annotated[str, typer.Option(help="Languages to calibrate: sw, sw,yo or low.")],
    shots: Annotated[int, typer.Option(min=1, help="Labelled examples per class and language.")] = 4,
    gate: GatePath = None,
    data: Data = None,
    columns: Columns = "",
    activations: Activations = None,
    split: Annotated[str, typer.Option(help="Split that the shots come from.")] = "train",
    method: Annotated[str, typer.Option(help="Threshold rule: f1 (the paper's, with refit) or midpoint.")] = "f1",
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write the gate to.",
            show_default="the gate itself; artifacts/gate.safetensors for the embedded one",
        ),
    ] = None,
    model: Model = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Set languages' thresholds from a few labelled examples each.

    The model runs on the shots alone, or they are drawn from extracted activations. Thresholds of other
    languages are kept. Try --shots 1, 2 and 4 with several seeds before you trust one.
    """
    from recalib import shots as shot_source
    from recalib.activations import ActivationSet
    from recalib.calibration.calibrate import calibrate as apply
    from recalib.calibration.rules import RULES
    from recalib.cli.loading import DEFAULT_GATE, find_gate, load_model, load_prompts
    from recalib.errors import UsageError

    if method not in RULES:
        raise UsageError(f"--method {method!r} is not one of {', '.join(RULES)}")
    if activations is not None and data is not None:
        raise UsageError("--data and --activations exclude each other")
    found = find_gate(gate)
    target = out or (DEFAULT_GATE if found.shipped else found.path)
    if activations is not None:
        folder = ActivationSet(activations)
        languages = folder.select_languages(lang, split)
        source = str(activations)
        drawn = shot_source.from_activations(folder, found.gate, languages, shots, split=split, seed=common.seed)
    else:
        model_name = model or found.model_name
        prompts = load_prompts(data, model_name, columns)
        prompts.require_split(split)
        languages = prompts.select_languages(lang)
        source = prompts.name
        lm = load_model(common, model_name, trust_remote_code)
        total = 2 * shots * len(languages)
        with common.output.progress("run shots", total) as advance:
            drawn = shot_source.from_prompts(
                lm,
                found.gate,
                prompts,
                languages,
                shots,
                split=split,
                seed=common.seed,
                advance=advance,
            )
    calibrated = apply(found.gate, drawn, method, common.seed, source)
    calibrated.save(target)
    summary = f"{method}, seed {common.seed}"
    _show(common.output, calibrated, target, languages, shots, f"{source} ({summary})")
    common.output.note(f"next: recalib eval --gate {target} --langs {lang}")


def _show(output: Output, gate: "Gate", target: Path, languages: Sequence[str], shots: int, source: str) -> None:
    thresholds = {code: gate.meta.thresholds[code] for code in languages}
    document = {
        "gate": str(target),
        "languages": {
            code: {
                "threshold": t.value,
                "method": t.method,
                "shots": t.shots,
                "balanced_accuracy_on_shots": t.balanced_accuracy_on_shots,
            }
            for code, t in thresholds.items()
        },
    }
    rows = [
        (f"{code} {name(code)}", f"{t.value:.2f}", percent(t.balanced_accuracy_on_shots))
        for code, t in thresholds.items()
    ]
    output.result(
        document,
        f"thresholds from {shots} harmful + {shots} harmless shots of {source}:",
        table(
            ("language", "threshold", "correct on shots %"), rows, f"without shots: {gate.meta.transferred.value:.2f}"
        ),
        f"{target}: written; {2 * shots} shots say little about errors to come, recalib eval does",
    )
