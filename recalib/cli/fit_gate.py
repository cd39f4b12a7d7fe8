"""recalib fit-gate: activations of high-resource languages to a gate."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from recalib.cli.common import Common, command
from recalib.cli.loading import DEFAULT_GATE

NEAR_CHANCE = 0.6


@command
def fit_gate(
    common: Common,
    activations: Annotated[Path, typer.Option(help="Folder that recalib extract wrote.")],
    sources: Annotated[str, typer.Option(help="Languages that fit the gate: codes or tiers.")] = "high",
    layer: Annotated[
        int | None,
        typer.Option(min=0, help="Block to read and steer.", show_default="what transfers best"),
    ] = None,
    rank: Annotated[int, typer.Option(min=1, help="Dimension of the subspace.")] = 10,
    position: Annotated[
        str | None,
        typer.Option(help="Read position.", show_default="t_post_inst if extracted, else the first"),
    ] = None,
    split: Annotated[str, typer.Option(help="Split that fits it.")] = "train",
    out: Annotated[Path, typer.Option(help="File to write the gate to.")] = DEFAULT_GATE,
) -> None:
    """Fit the gate: harmfulness directions, subspace, readout and steering strength.

    Without --layer, each layer is judged by how well a gate fitted on all source languages but one
    decides on that one.
    """
    from recalib.activations import ActivationSet
    from recalib.cli.output import percent, table
    from recalib.errors import ArtifactError
    from recalib.gate import fitting, selection
    from recalib.prompts.prompt import LABELS

    folder = ActivationSet(activations)
    languages = folder.select_languages(sources, split)
    for cell in ((language, split, label) for language in languages for label in LABELS):
        if cell not in folder.cells:
            raise ArtifactError(f"{folder.path(*cell)}: no such file", fix="extract it, or leave its language out")
    meta = folder.meta
    read_at = position or ("t_post_inst" if "t_post_inst" in meta.positions else meta.positions[0])
    candidates: tuple[selection.Candidate, ...] = ()
    if layer is None:
        with common.output.progress("choose layer", len(meta.layers), "layers") as advance:

            def rows(index: int) -> dict[str, fitting.LanguageRows]:
                advance(1)
                return fitting.rows_of(folder, languages, split, index, read_at)

            layer, candidates = selection.choose_layer(meta.layers, rows, rank)
        held_out = max(candidate.balanced_accuracy for candidate in candidates)
        if held_out < NEAR_CHANCE:
            common.output.warn(
                f"the best layer decides on {100 * held_out:.0f} % of a source language left out, near chance: "
                "this gate will not transfer; extract more layers or more prompts"
            )
    gate = fitting.fit_from(folder, languages, layer=layer, position=read_at, rank=rank, split=split)
    gate.save(out)
    document = {
        "gate": str(out),
        "layer": layer,
        "position": read_at,
        "rank": gate.rank,
        "sources": list(languages),
        "strength": gate.meta.strength,
        "transferred_threshold": gate.meta.transferred.value,
        "candidates": [asdict(candidate) for candidate in candidates],
    }
    shown = [(f"{c.layer}{' *' if c.layer == layer else ''}", percent(c.balanced_accuracy)) for c in candidates]
    caption = "balanced accuracy on the source language left out, mean over sources; * chosen"
    tables = [table(("layer", "bal. acc. %"), shown, caption)] if shown else []
    common.output.result(
        document,
        *tables,
        f"{out}: layer {layer}, rank {gate.rank}, strength {gate.meta.strength:.2f}, from {', '.join(languages)}",
    )
    common.output.note(f"next: recalib calibrate --gate {out} --lang sw --shots 4")
