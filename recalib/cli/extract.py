"""recalib extract: prompts to activations."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recalib.cli.common import Columns, Common, Data, Limit, Model, TrustRemoteCode, command
from recalib.cli.output import Output
from recalib.errors import UsageError

if TYPE_CHECKING:
    from recalib.extraction import Plan
    from recalib.lm.model import LanguageModel
    from recalib.prompts.prompt import PromptSet
    from recalib.shards import Shard


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
    batch_tokens: Annotated[
        str, typer.Option(help="Tokens per batch, padding included; halved where memory runs out.")
    ] = "auto",
    shard: Annotated[
        str | None,
        typer.Option(
            help="K/N, K from 0: only each N-th prompt, in files of its own; readers join all N.",
            show_default="all, or the rank's part under torchrun and accelerate",
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="local, or ray (ray:N) for all shards at once, one a GPU (or N), on a Ray cluster.")
    ] = "local",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace finished files.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be extracted, and stop.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Run a model over labelled prompts and keep its residual stream.

    Writes one file a language, split and label below --out; finished files are skipped, so the same
    command resumes after a kill. Several processes, here or on other machines, can share the work: see --shard.
    """
    from recalib import extraction
    from recalib.activations import parse_layers
    from recalib.cli.loading import load_model, load_prompts
    from recalib.lm.model import count_blocks

    workers, tokens, read_positions = _ray_workers(engine), _batch_tokens(batch_tokens), _positions(positions)
    part, leads = _shard(shard, workers)
    common = replace(common, output=common.output if leads else Output(quiet=True))
    name = model or "organism"
    prompts = load_prompts(data, name, columns)
    cells, empty = _cells(prompts, langs, splits)
    if empty and leads:
        common.output.warn(f"{prompts.name} has no prompts for {', '.join(empty)}")
    count = count_blocks(name, revision=common.revision, trust_remote_code=trust_remote_code)
    plan = extraction.Plan(prompts, cells, parse_layers(layers, count), read_positions, limit, part)
    # one block is enough to tell which model it is
    blocks = 1 if dry_run or workers is not None else max(plan.layers) + 1
    lm = load_model(common, name, trust_remote_code, blocks)
    document, summary = _describe(plan, lm, out)
    if dry_run:
        if leads:
            common.output.result({**document, "dry_run": True}, f"would extract {summary} to {out}")
        return
    with common.output.progress("extract", plan.count) as advance:
        if workers is None:
            skipped = extraction.extract_to(out, lm, plan, tokens, overwrite, advance)
        else:
            from recalib.extraction.on_ray import Job, extract_on_ray

            settings = (common.revision, common.device, common.dtype, trust_remote_code)
            skipped = extract_on_ray(Job(name, *settings, plan, out.absolute(), tokens, overwrite), workers, advance)
    if leads:
        done = f", {skipped} of the files were finished before" if skipped else ""
        common.output.result({**document, "skipped": skipped}, f"{out}: {summary}{done}")
        when = "next" if part.count == 1 else f"when all {part.count} shards are there"
        common.output.note(f"{when}: recalib fit-gate --activations {out} --out artifacts/gate.safetensors")


def _shard(spec: str | None, workers: int | None) -> "tuple[Shard, bool]":
    """This process's shard, and whether it speaks for all: the first that a launcher started, or a lone one."""
    from recalib.shards import WHOLE, launched_shard, parse_shard

    if spec is not None:
        if workers is not None:
            raise UsageError("--shard and --engine ray exclude each other", fix="--engine ray:N runs all N shards")
        return parse_shard(spec), True
    shard = launched_shard() if workers is None else WHOLE
    return shard, shard.index == 0


def _cells(prompts: "PromptSet", langs: str, splits: str) -> "tuple[tuple[tuple[str, str, str], ...], tuple[str, ...]]":
    """Cells to extract, and the names of those that have no prompts. Raises UsageError."""
    from recalib.extraction import plan_cells

    names = tuple(part.strip() for part in splits.split(","))
    for split in names:
        prompts.require_split(split)
    return plan_cells(prompts, prompts.select_languages(langs), names)


def _describe(plan: "Plan", lm: "LanguageModel", out: Path) -> tuple[dict[str, Any], str]:
    size = plan.count * len(plan.layers) * len(plan.positions) * lm.hidden_size * 4
    document = {
        "out": str(out),
        "model": asdict(lm.fingerprint),
        "cells": len(plan.cells),
        "shard": str(plan.shard),
        "prompts": plan.count,
        "layers": list(plan.layers),
        "positions": list(plan.positions),
        "bytes": size,
    }
    share = f"shard {plan.shard}: " if plan.shard.count > 1 else ""
    summary = (
        f"{share}{plan.count} prompts in {len(plan.cells)} files, {len(plan.layers)} layers x "
        f"{len(plan.positions)} positions, {size / 1e6:.1f} MB"
    )
    return document, summary


def _positions(spec: str) -> tuple[str, ...]:
    from recalib.lm.chat import POSITIONS

    names = tuple(part.strip() for part in spec.split(","))
    for name in names:
        if name not in POSITIONS:
            raise UsageError(f"--positions: {name!r} is not one of {', '.join(POSITIONS)}")
    return names


def _batch_tokens(spec: str) -> int | None:
    if spec == "auto":
        return None
    if not spec.isdecimal() or int(spec) < 1:
        raise UsageError(f"--batch-tokens {spec!r} is neither auto nor a number from 1")
    return int(spec)


def _ray_workers(engine: str) -> int | None:
    """How many shards to run on Ray, 0 for what suits the cluster; None for no Ray."""
    kind, _, count = engine.partition(":")
    if engine == "local":
        return None
    if kind != "ray" or (count and not count.isdecimal()) or count == "0" or engine.endswith(":"):
        raise UsageError(f"--engine {engine!r} is not local, ray or ray:N")
    return int(count or 0)
