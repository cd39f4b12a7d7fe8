"""recalib fit-gate: activations of high-resource languages to a gate."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recalib.cli.common import Common, command
from recalib.cli.loading import DEFAULT_GATE
from recalib.cli.output import Output
from recalib.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from recalib.activations import ActivationSet
    from recalib.gate.forms import Form, LanguageRows
    from recalib.gate.gate import Gate
    from recalib.gate.selection import Selection

AUTO = "auto"


@command
def fit_gate(
    common: Common,
    activations: Annotated[Path, typer.Option(help="Folder that recalib extract wrote.")],
    sources: Annotated[str, typer.Option(help="Languages that fit the gate: codes or tiers.")] = "high",
    layer: Annotated[str, typer.Option(help="Block to read and steer; auto: what transfers best.")] = AUTO,
    rank: Annotated[str, typer.Option(help="Dimension of the subspace, or auto.")] = AUTO,
    readout: Annotated[str, typer.Option(help="subspace (the paper's), ridge (the whole residual), or auto.")] = AUTO,
    keep_all_sources: Annotated[
        bool, typer.Option("--keep-all-sources", help="Keep sources that the others' gate ranks at chance.")
    ] = False,
    position: Annotated[
        str | None,
        typer.Option(help="Read position.", show_default="t_post_inst if extracted, else the first"),
    ] = None,
    split: Annotated[str, typer.Option(help="Split that fits it.")] = "train",
    out: Annotated[Path, typer.Option(help="File to write the gate to.")] = DEFAULT_GATE,
) -> None:
    """Fit the gate: harmfulness directions, readout, steering strength.

    What is left to auto is judged by how well a gate fitted on all source languages but one decides on
    that one, with the threshold that it brings along.
    """
    from recalib.activations import ActivationSet
    from recalib.gate import fitting, selection

    folder = ActivationSet(activations)
    languages = folder.select_languages(sources, split)
    _require_cells(folder, languages, split)
    meta = folder.meta
    read_at = position or ("t_post_inst" if "t_post_inst" in meta.positions else meta.positions[0])
    layers = meta.layers if layer == AUTO else (_number(layer, "layer", 0),)
    forms = _forms(readout, rank, len(languages))
    with common.output.progress("choose", len(layers), "layers") as advance:

        def rows(index: int) -> "dict[str, LanguageRows]":
            loaded = fitting.rows_of(folder, languages, split, index, read_at)
            advance(1)
            return loaded

        selected = selection.choose(layers, rows, forms, keep_all_sources)
    _warn(common.output, selected)
    gate = fitting.fit_from(folder, selected, read_at, split)
    gate.save(out)
    _show(common.output, gate, selected, out)
    common.output.note(f"next: recalib calibrate --gate {out} --lang sw --shots 4")


def _warn(output: Output, selected: "Selection") -> None:
    from recalib.gate.selection import CHANCE_AUC

    for language, auc in selected.left_out.items():
        output.warn(
            f"{language} left out: the gate of the other sources ranks it at chance or inverted (AUC {auc:.2f}); "
            "--keep-all-sources keeps it"
        )
    if selected.chosen.balanced_accuracy < CHANCE_AUC:
        output.warn(
            f"the best candidate decides on {100 * selected.chosen.balanced_accuracy:.0f} % of a source language left "
            "out, near chance: this gate will not transfer; extract more layers or more prompts"
        )


def _show(output: Output, gate: "Gate", selected: "Selection", out: Path) -> None:
    from recalib.cli.tables import candidate_table

    chosen, meta = selected.chosen, gate.meta
    document = {
        "gate": str(out),
        "layer": chosen.layer,
        "position": meta.position,
        "readout": chosen.readout,
        "rank": gate.rank,
        "sources": list(meta.sources),
        "left_out": selected.left_out,
        "strength": meta.strength,
        "transferred_threshold": meta.transferred.value,
        "candidates": [asdict(candidate) for candidate in selected.candidates],
    }
    tables: list[Any] = [candidate_table(selected.candidates, chosen)] if len(selected.candidates) > 1 else []
    summary = (
        f"{out}: layer {chosen.layer}, {chosen.readout}, rank {gate.rank}, strength {meta.strength:.2f}, "
        f"from {', '.join(meta.sources)}"
    )
    output.result(document, *tables, summary)


def _require_cells(folder: "ActivationSet", languages: Sequence[str], split: str) -> None:
    from recalib.prompts.prompt import LABELS

    for cell in ((language, split, label) for language in languages for label in LABELS):
        if cell not in folder.cells:
            raise ArtifactError(f"{folder.path(*cell)}: no such file", fix="extract it, or leave its language out")


def _forms(readout: str, rank: str, sources: int) -> "list[Form]":
    from recalib.gate.forms import READOUTS, Form
    from recalib.gate.selection import candidate_forms

    if readout not in (AUTO, *READOUTS):
        raise UsageError(f"--readout {readout!r} is not one of {AUTO}, {', '.join(READOUTS)}")
    if readout == "ridge" and rank not in (AUTO, "1"):
        raise UsageError("--rank goes with --readout subspace; a ridge readout has rank 1")
    forms = list(candidate_forms(sources))
    if rank != AUTO:
        forms = [Form("subspace", _number(rank, "rank", 1)), *(form for form in forms if form.readout == "ridge")]
    return [form for form in forms if readout in (AUTO, form.readout)]


def _number(text: str, option: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise UsageError(f"--{option} {text!r} is neither {AUTO} nor a number from {least}")
    return int(text)
