"""recalib extract: prompts to activations."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from recalib.cli.common import Columns, Common, Data, Limit, Model, TrustRemoteCode, command


@command
def extract(
    common: Common,
    out: Annotated[Path, typer.Option(help="Folder for the activations.")],
    model: Model = None,
    data: Data = None,
    columns: Columns = "",
    langs: Annotated[str, typer.Option(help="Codes and tiers: en,de, high, mid, low or all.")] = "all",
    splits: Annotated[str, typer.Option(help="Splits, comma-separated.")] = "train,test",
    layers: Annotated[str, typer.Option(help="Blocks: all, 15, 5,10,15 or 10:20 (10 to 19).")] = "all",
    positions: Annotated[str, typer.Option(help="t_post_inst, t_inst, mean; comma-separated.")] = "t_post_inst",
    limit: Limit = 0,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens per batch, padding included.")] = 8192,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace finished files.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be extracted, and stop.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Run a model over labelled prompts and keep its residual stream.

    Writes one file a language, split and label below --out; finished files are skipped, so the same
    command resumes after a kill.
    """
    from recalib import extraction
    from recalib.activations import parse_layers
    from recalib.cli.loading import load_model, load_prompts
    from recalib.errors import UsageError
    from recalib.lm.chat import POSITIONS

    output = common.output
    read_positions = tuple(part.strip() for part in positions.split(","))
    for position in read_positions:
        if position not in POSITIONS:
            raise UsageError(f"--positions: {position!r} is not one of {', '.join(POSITIONS)}")
    name = model or "organism"
    prompts = load_prompts(data, name, columns)
    wanted_splits = tuple(part.strip() for part in splits.split(","))
    for split in wanted_splits:
        prompts.require_split(split)
    cells, empty = extraction.plan_cells(prompts, prompts.select_languages(langs), wanted_splits)
    if empty:
        output.warn(f"{prompts.name} has no prompts for {', '.join(empty)}")
    lm = load_model(common, name, trust_remote_code)
    plan = extraction.Plan(prompts, cells, parse_layers(layers, lm.num_layers), read_positions, limit)
    size = plan.count * len(plan.layers) * len(plan.positions) * lm.hidden_size * 4
    document = {
        "out": str(out),
        "model": asdict(lm.fingerprint),
        "cells": len(cells),
        "prompts": plan.count,
        "layers": list(plan.layers),
        "positions": list(plan.positions),
        "bytes": size,
    }
    summary = (
        f"{plan.count} prompts in {len(cells)} files, {len(plan.layers)} layers x "
        f"{len(plan.positions)} positions, {size / 1e6:.1f} MB"
    )
    if dry_run:
        output.result({**document, "dry_run": True}, f"would extract {summary} to {out}")
        return
    with output.progress("extract", plan.count) as advance:
        skipped = extraction.extract_to(out, lm, plan, batch_tokens, overwrite, advance)
    done = f", {skipped} of the files were finished before" if skipped else ""
    output.result({**document, "skipped": skipped}, f"{out}: {summary}{done}")
    output.note(f"next: recalib fit-gate --activations {out} --out artifacts/gate.safetensors")
