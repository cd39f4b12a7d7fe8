"""Running a model over prompts and keeping the residual stream where it is wanted."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recalib import artifact
from recalib.activations import SCHEMA, ActivationSet, ActivationsMeta
from recalib.artifact import Origin
from recalib.errors import ArtifactError, CorruptArtifactError, ModelError
from recalib.lm.batching import Advance, batches
from recalib.lm.blocks import capturing
from recalib.lm.chat import Encoded
from recalib.lm.model import LanguageModel
from recalib.prompts.prompt import KINDS, LABELS, PromptSet, prompt_id, prompts_hash

BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Plan:
    """What an extraction will do: the cells (language, split, label) with prompts, and how to read them.

    `limit` caps the prompts of each cell; 0 means all.
    """

    prompts: PromptSet
    cells: tuple[tuple[str, str, str], ...]
    layers: tuple[int, ...]
    positions: tuple[str, ...]
    limit: int = 0

    def texts(self, cell: tuple[str, str, str]) -> list[str]:
        """The prompts of a cell."""
        return self.prompts.texts(*cell)[: self.limit or None]

    @property
    def count(self) -> int:
        """Number of prompts in all cells."""
        return sum(len(self.texts(cell)) for cell in self.cells)


def plan_cells(
    prompts: PromptSet, languages: Sequence[str], splits: Sequence[str]
) -> tuple[tuple[tuple[str, str, str], ...], tuple[str, ...]]:
    """Cells that have prompts, and the names of those that have none; nobody misses unlabeled ones."""
    wanted = [(lang, split, label) for lang in languages for split in splits for label in KINDS]
    cells = tuple(cell for cell in wanted if prompts.texts(*cell))
    return cells, tuple("/".join(cell) for cell in wanted if cell not in cells and cell[2] in LABELS)


def extract(
    lm: LanguageModel,
    texts: Sequence[str],
    layers: tuple[int, ...],
    positions: tuple[str, ...],
    batch_tokens: int = BATCH_TOKENS,
    advance: Advance = lambda n: None,
) -> np.ndarray:
    """Residual stream [prompts, layers, positions, hidden], float32, after each of `layers`.

    Positions are `t_post_inst`, `t_inst` or `mean` (over all prompt tokens). Prompts are batched by
    length; padding goes to the right, where causal models never look, so that a row is the same alone
    and in any batch.

    Raises ModelError if an activation is NaN or infinite.
    """
    encoded = [lm.chat.encode(text) for text in texts]
    result = np.empty((len(texts), len(layers), len(positions), lm.hidden_size), np.float32)
    for rows in batches([len(e.ids) for e in encoded], batch_tokens):
        result[rows] = _run(lm, [encoded[i] for i in rows], layers, positions)
        if not np.isfinite(result[rows]).all():
            raise ModelError(
                f"activations of {lm.fingerprint.model} are NaN or infinite in {lm.model.dtype}",
                fix="--dtype float32, or bfloat16 where float16 overflows",
            )
        advance(len(rows))
    return result


def extract_to(
    root: Path,
    lm: LanguageModel,
    plan: Plan,
    batch_tokens: int = BATCH_TOKENS,
    overwrite: bool = False,
    advance: Advance = lambda n: None,
) -> int:
    """Extract every cell of the plan into its file, skipping those that are finished.

    Returns the number of cells skipped. Raises ArtifactError if another extraction writes to `root`,
    or if a file there was made from other prompts, settings or another model.
    """
    folder = ActivationSet(root)
    with _locked(root):
        wanted = {cell: _meta(lm, plan, cell) for cell in plan.cells}
        todo = [c for c in plan.cells if overwrite or not _finished(folder, c, wanted[c])]
        advance(plan.count - sum(len(plan.texts(cell)) for cell in todo))
        for cell in todo:
            texts = plan.texts(cell)
            rows = extract(lm, texts, plan.layers, plan.positions, batch_tokens, advance)
            ids = np.array([prompt_id(text) for text in texts], dtype=np.int64)
            tensors = {"activations": rows, "prompt_ids": ids}
            artifact.write(folder.path(*cell), SCHEMA, tensors, wanted[cell])
    return len(plan.cells) - len(todo)


def _run(
    lm: LanguageModel,
    rows: list[Encoded],
    layers: tuple[int, ...],
    positions: tuple[str, ...],
) -> np.ndarray:
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), lm.tokenizer.pad_token_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        mask[i, : len(row.ids)] = 1
    kept: dict[int, Tensor] = {}

    def keep(layer: int, h: Tensor) -> None:
        at = [_at(h, rows, mask, position) for position in positions]
        kept[layer] = torch.stack(at, dim=1).cpu()

    with capturing(lm.blocks, layers, keep):
        lm.decoder(**lm.inputs(ids, mask))
    return torch.stack([kept[layer] for layer in layers], dim=1).numpy()


def _at(h: Tensor, rows: list[Encoded], mask: Tensor, position: str) -> Tensor:
    """Read h [batch, tokens, hidden] at a position: [batch, hidden], float32."""
    if position == "mean":
        weights = mask.to(h.device, torch.float32)[:, :, None]
        return (h.float() * weights).sum(1) / weights.sum(1)
    index = torch.tensor([getattr(row, position) for row in rows], device=h.device)
    return h[torch.arange(len(rows), device=h.device), index].float()


def _meta(lm: LanguageModel, plan: Plan, cell: tuple[str, str, str]) -> ActivationsMeta:
    texts = plan.texts(cell)
    return ActivationsMeta(
        plan.layers,
        plan.positions,
        lm.fingerprint,
        *cell,
        count=len(texts),
        source=plan.prompts.name,
        prompts_hash=prompts_hash(texts),
        origin=Origin.now(),
    )


def _finished(folder: ActivationSet, cell: tuple[str, str, str], wanted: ActivationsMeta) -> bool:
    """Whether a cell's file is there, whole, and what is wanted.

    Raises ArtifactError if it is whole but another one: that is somebody's data.
    """
    path = folder.path(*cell)
    if not path.exists():
        return False
    fix = "another --out, or --overwrite to replace it"
    try:
        found = folder.cell_meta(*cell)
    except CorruptArtifactError:
        return False
    wanted.model.require_same(found.model, "this extraction", str(path))
    for name in ("layers", "positions", "prompts_hash"):
        if getattr(found, name) != getattr(wanted, name):
            raise ArtifactError(f"{path}: was extracted with other {name.replace('_', ' ')}", fix=fix)
    return True


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / ".lock", timeout=0):
            for stale in root.glob("*/*/.*.tmp"):
                stale.unlink()
            yield
    except Timeout as error:
        raise ArtifactError(
            f"{root}: another extraction is writing to it", fix="wait for it, or use another --out"
        ) from error
