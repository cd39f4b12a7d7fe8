"""The files of an extraction: each written as its rows come, whole or not at all, and never twice."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from recalib import artifact
from recalib.activations import SCHEMA, ActivationSet, ActivationsMeta, read_meta
from recalib.artifact import Origin
from recalib.errors import ArtifactError, CorruptArtifactError
from recalib.extraction.forward import Budget, stream
from recalib.extraction.plan import Plan
from recalib.lm.batching import Advance
from recalib.lm.model import LanguageModel
from recalib.prompts.prompt import KINDS, prompt_id, prompts_hash
from recalib.shards import Shard


def extract_to(
    root: Path,
    lm: LanguageModel,
    plan: Plan,
    batch_tokens: int | None = None,
    overwrite: bool = False,
    advance: Advance = lambda n: None,
) -> int:
    """Extract the plan's shard of every cell into a file of its own, skipping those that are finished.

    Rows go to disk batch by batch, so memory does not grow with the number of prompts. Damaged files are made
    again. Other shards may be extracted into `root` at the same time. `batch_tokens` None is what suits the device.

    Returns the number of cells skipped. Raises ArtifactError if another process is at work on this shard, or if
    `root` has activations of other prompts, settings, models or numbers of shards.
    """
    folder = ActivationSet(root)
    budget = Budget.of(lm, batch_tokens)
    with _locked(root, plan.shard):
        todo = [cell for cell in plan.cells if not _finished(folder, lm, plan, cell, overwrite)]
        advance(plan.count - sum(map(plan.size, todo)))
        for cell in todo:
            _extract_cell(folder.path(*cell, plan.shard), lm, plan, cell, budget, advance)
    return len(plan.cells) - len(todo)


def _extract_cell(
    path: Path, lm: LanguageModel, plan: Plan, cell: tuple[str, str, str], budget: Budget, advance: Advance
) -> None:
    texts = plan.shard.take(plan.texts(cell))
    shape = (len(texts), len(plan.layers), len(plan.positions), lm.hidden_size)
    ids = np.array([prompt_id(text) for text in texts], dtype=np.int64)
    with artifact.streaming(path, SCHEMA, "activations", shape, {"prompt_ids": ids}, _meta(lm, plan, cell)) as put:
        for rows, values in stream(lm, texts, plan.layers, plan.positions, budget):
            put(rows, values)
            advance(len(rows))


def _meta(lm: LanguageModel, plan: Plan, cell: tuple[str, str, str]) -> ActivationsMeta:
    return ActivationsMeta(
        plan.layers,
        plan.positions,
        lm.fingerprint,
        *cell,
        count=plan.size(cell),
        source=plan.prompts.name,
        prompts_hash=prompts_hash(plan.texts(cell)),
        origin=Origin.now(),
        shard=plan.shard,
    )


def _finished(
    folder: ActivationSet, lm: LanguageModel, plan: Plan, cell: tuple[str, str, str], overwrite: bool
) -> bool:
    """Whether a cell's file is there, undamaged, and what is wanted.

    Raises ArtifactError if it is undamaged but another one, or if the cell is there in other shards: that is
    somebody's data.
    """
    path = folder.path(*cell, plan.shard)
    others = sorted({shard.count for shard in folder.shards(*cell)} - {plan.shard.count})
    if others:
        raise ArtifactError(
            f"{path.parent}: {cell[2]} is already there, divided by {others[0]} and not by {plan.shard.count}",
            fix=f"--shard K/{others[0]}, another --out, or delete {path.parent}",
        )
    if overwrite or not path.exists():
        return False
    try:
        if not artifact.intact(path):
            return False
        found = read_meta(path)
    except CorruptArtifactError:
        return False
    wanted = _meta(lm, plan, cell)
    wanted.model.require_same(found.model, "this extraction", str(path))
    for name in ("layers", "positions", "prompts_hash", "shard"):
        if getattr(found, name) != getattr(wanted, name):
            raise ArtifactError(
                f"{path}: was extracted with other {name.replace('_', ' ')}",
                fix="another --out, or --overwrite to replace it",
            )
    return True


@contextlib.contextmanager
def _locked(root: Path, shard: Shard) -> Iterator[None]:
    from filelock import FileLock, Timeout

    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / f".lock{shard.suffix}", timeout=0):
            # what a killed process of this very shard left; others may be at work on theirs
            for label in KINDS:
                for stale in root.glob(f"*/*/.{label}{shard.suffix}.safetensors.*.tmp"):
                    stale.unlink()
            yield
    except Timeout as error:
        raise ArtifactError(
            f"{root}: another extraction is writing to it", fix="wait for it, or use another --out"
        ) from error
