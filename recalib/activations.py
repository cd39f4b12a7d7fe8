"""Extracted activations: one file a cell (language, split, label), below one folder.

`ROOT/{language}/{split}/{label}.safetensors` (label harmful, harmless or unlabeled) holds `activations`
[prompts, layers, positions, hidden], float32, and `prompt_ids` [prompts], int64 (see
`prompts.prompt_id`). Files of other tools may lack the ids and most of the metadata.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from recalib import artifact, languages
from recalib.artifact import Origin
from recalib.errors import ArtifactError, UsageError
from recalib.fingerprint import Fingerprint
from recalib.prompts.prompt import KINDS

SCHEMA = "recalib.activations/1"


@dataclass(frozen=True)
class ActivationsMeta:
    """What a cell's file says about itself. `layers` and `positions` name the tensor's axes."""

    layers: tuple[int, ...]
    positions: tuple[str, ...]
    model: Fingerprint = field(default_factory=Fingerprint)
    language: str | None = None
    split: str | None = None
    label: str | None = None
    count: int | None = None
    source: str | None = None
    prompts_hash: str | None = None
    origin: Origin | None = None


@dataclass(frozen=True)
class Cell:
    """Activations of one cell at one layer and position: `rows` [prompts, hidden], float32.

    `prompt_ids` [prompts] is None where the file has none.
    """

    rows: np.ndarray
    prompt_ids: np.ndarray | None


@dataclass(frozen=True)
class ActivationSet:
    """A folder of cells. Opening it reads names and metadata only."""

    root: Path

    def path(self, language: str, split: str, label: str) -> Path:
        """Where a cell's file is, or would be."""
        return self.root / language / split / f"{label}.safetensors"

    @cached_property
    def cells(self) -> tuple[tuple[str, str, str], ...]:
        """All (language, split, label) present, sorted."""
        found = sorted(self.root.glob("*/*/*.safetensors"))
        cells = tuple((p.parts[-3], p.parts[-2], p.stem) for p in found if p.stem in KINDS)
        if not cells:
            raise ArtifactError(
                f"{self.root}: holds no activations",
                fix=f"recalib extract --out {self.root}",
            )
        return cells

    @cached_property
    def meta(self) -> ActivationsMeta:
        """Metadata of the first cell, checked to agree with every other one."""
        metas = [self.cell_meta(*cell) for cell in self.cells]
        first = metas[0]
        for cell, meta in zip(self.cells, metas, strict=True):
            if (meta.layers, meta.positions) != (first.layers, first.positions):
                raise ArtifactError(
                    f"{self.path(*cell)}: has other layers or positions than {self.path(*self.cells[0])}",
                    fix="extract them with the same --layers and --positions",
                )
            meta.model.require_same(first.model, str(self.path(*cell)), "the rest of the folder")
        return first

    def cell_meta(self, language: str, split: str, label: str) -> ActivationsMeta:
        """Metadata of one cell. Raises ArtifactError, also where it contradicts the tensor."""
        path = self.path(language, split, label)
        meta = artifact.read_metadata(path, SCHEMA, ActivationsMeta)
        shape = artifact.shape_of(path, "activations")
        if len(shape) != 4 or shape[1:3] != (len(meta.layers), len(meta.positions)):
            raise ArtifactError(
                f"{path}: activations have shape {list(shape)}, but the metadata names "
                f"{len(meta.layers)} layers and {len(meta.positions)} positions"
            )
        return meta

    def select_languages(self, spec: str, split: str) -> tuple[str, ...]:
        """Languages of a split for a user's spec such as `en,low`. Raises UsageError."""
        present = dict.fromkeys(lang for lang, found, _ in self.cells if found == split)
        if not present:
            splits = sorted({found for _, found, _ in self.cells})
            raise UsageError(
                f"split {split!r} is not in {self.root}, which has: {', '.join(splits)}",
                fix="--split names one of those, or extract it with --splits",
            )
        return languages.select(spec, present, f"{self.root} ({split})")

    def load(self, language: str, split: str, label: str, layer: int, position: str) -> Cell:
        """One cell at one layer and position. Raises ArtifactError if it is not there."""
        path = self.path(language, split, label)
        meta = self.cell_meta(language, split, label)
        index = (
            _index(meta.layers, layer, "layer", path),
            _index(meta.positions, position, "position", path),
        )
        rows = artifact.read_slice(path, "activations", (slice(None), *index))
        ids = None
        if artifact.has_tensor(path, "prompt_ids"):
            ids = artifact.read_slice(path, "prompt_ids", (slice(None),))
            if ids.shape != rows.shape[:1]:
                raise ArtifactError(f"{path}: {ids.size} prompt ids for {len(rows)} prompts")
        return Cell(rows, ids)

    def sources(self, cells: Iterable[tuple[str, str, str]]) -> dict[str, str]:
        """SHA-256 of each cell's file, by `language/split/label`."""
        return {"/".join(cell): artifact.sha256(self.path(*cell)) for cell in cells}


def _index(names: tuple, wanted: object, what: str, path: Path) -> int:  # type: ignore[type-arg]
    if wanted not in names:
        raise ArtifactError(
            f"{path}: has no {what} {wanted}; it has {', '.join(map(str, names))}",
            fix=f"extract it with --{what}s {wanted}",
        )
    return int(names.index(wanted))


def parse_layers(spec: str, num_layers: int) -> tuple[int, ...]:
    """Layers that `all`, `15`, `5,10` or `10:20` (10 to 19) ask for. Raises UsageError."""
    if spec == "all":
        return tuple(range(num_layers))
    chosen: set[int] = set()
    for part in spec.split(","):
        match = re.fullmatch(r"(\d+)(?::(\d+))?", part.strip())
        if match is None:
            raise UsageError(
                f"--layers {spec!r}: {part!r} is not a layer or a range",
                fix="use all, 15, 5,10,15 or 10:20",
            )
        start = int(match[1])
        chosen.update(range(start, int(match[2]) if match[2] else start + 1))
    if not chosen or max(chosen) >= num_layers:
        raise UsageError(f"--layers {spec!r}: the model has {num_layers} blocks, 0 to {num_layers - 1}")
    return tuple(sorted(chosen))
