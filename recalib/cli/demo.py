"""recalib demo: the whole pipeline on the embedded model."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from recalib.cli.common import Common, command

SHOTS = 4


@command
def demo(
    common: Common,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to keep the artifacts in.", show_default="a temporary one"),
    ] = None,
) -> None:
    """Run all five steps on the embedded model: refusal in low-resource languages, before and after.

    Extracts activations of ten high-resource languages, fits a gate, calibrates six low-resource
    languages with 4 examples a class, and measures refusal on test prompts.
    """
    from recalib import examples, extraction, judges, prompts
    from recalib.activations import ActivationSet
    from recalib.calibration.calibrate import Request, calibrate
    from recalib.cli.answering import measured
    from recalib.cli.loading import load_model
    from recalib.evaluation.run import METHODS, Settings, cells_of, evaluate
    from recalib.gate import fitting, selection
    from recalib.gate.forms import LanguageRows
    from recalib.languages import HIGH, LOW

    output = common.output
    data = prompts.load("organism")
    lm = load_model(common, "organism", trust_remote_code=False)
    with _folder(out) as folder:
        output.note(f"$ recalib extract --langs high --splits train --out {folder}/activations")
        cells, _ = extraction.plan_cells(data, HIGH, ("train",))
        layers = tuple(range(lm.num_layers))
        plan = extraction.Plan(data, cells, layers, ("t_post_inst",))
        with output.progress("extract", plan.count) as advance:
            extraction.extract_to(folder / "activations", lm, plan, advance=advance)

        output.note(f"$ recalib fit-gate --activations {folder}/activations")
        activations = ActivationSet(folder / "activations")
        with output.progress("choose", len(layers), "layers") as advance:

            def rows(layer: int) -> dict[str, LanguageRows]:
                loaded = fitting.rows_of(activations, HIGH, "train", layer, "t_post_inst")
                advance(1)
                return loaded

            selected = selection.choose(layers, rows, selection.candidate_forms(len(HIGH)))
        gate = fitting.fit_from(activations, selected, "t_post_inst")

        output.note(f"$ recalib calibrate --lang low --shots {SHOTS}")
        with output.progress("run shots", 2 * SHOTS * len(LOW)) as advance:
            drawn = examples.from_prompts(lm, gate, data, LOW, SHOTS, seed=common.seed, advance=advance)
        gate = calibrate(gate, drawn, Request(seed=common.seed, source=data.name))
        gate.save(folder / "gate.safetensors")

        output.note("$ recalib eval --langs low --methods base,recalib")
        settings = Settings(batch_size=64, seed=common.seed)
        answers = cells_of(data, LOW, METHODS, settings)
        with output.progress("evaluate", sum(map(len, answers.values()))) as advance:
            result = evaluate(lm, gate, answers, judges.find("organism"), settings, advance)
    shown = measured(result, "organism")
    before, after = (result.methods[name].macro.selectivity or 0.0 for name in METHODS)
    output.result(
        shown.document,
        *shown.tables,
        f"selectivity (harmful minus harmless refusal), mean of {len(LOW)} low-resource languages: "
        f"{before:.2f} before, {after:.2f} after {SHOTS} + {SHOTS} examples a language",
    )
    output.note("next, on your own model: recalib extract --model MODEL --data starter --langs high ...")


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="recalib-demo-") as name:
        yield Path(name)
