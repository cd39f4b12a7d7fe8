"""Extracted activations: one file a cell (language, split, label), below one folder.

`ROOT/{language}/{split}/{label}.safetensors` (label harmful, harmless or unlabeled) holds `activations`
[prompts, layers, positions, hidden], float32, and `prompt_ids` [prompts], int64 (see
`prompts.prompt_id`). Files of other tools may lack the ids and most of the metadata.

In its place there may be `{label}.shard-{k}-of-{N}.safetensors` for each k from 0 to N - 1, with prompts k,
k + N, k + 2N, ... of the cell; readers see them joined, in the cell's order, or not at all.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from recalib import artifact, languages
from recalib.artifact import Origin
from recalib.errors import ArtifactError, UsageError
from recalib.fingerprint import Fingerprint
from recalib.prompts.prompt import KINDS
from recalib.shards import WHOLE, Shard

SCHEMA = "recalib.activations/1"


@dataclass(frozen=True)
class ActivationsMeta:
    """What a cell's file says about itself. `layers` and `positions` name the tensor's axes.

    `count` is of the file's own prompts, `prompts_hash` is the hash of all of the cell's.
    """

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
    shard: Shard = WHOLE


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

    def path(self, language: str, split: str, label: str, shard: Shard = WHOLE) -> Path:
        """Where a cell's file, or a shard of it, is or would be."""
        return self.root / language / split / f"{label}{shard.suffix}.safetensors"

    @cached_property
    def cells(self) -> tuple[tuple[str, str, str], ...]:
        """All (language, split, label) present, even if in part, sorted."""
        named = [(path, _file_name(path)) for path in self.root.glob("*/*/*.safetensors")]
        cells = {(path.parts[-3], path.parts[-2], name[0]) for path, name in named if name is not None}
        if not cells:
            raise ArtifactError(
                f"{self.root}: holds no activations",
                fix=f"recalib extract --out {self.root}",
            )
        return tuple(sorted(cells))

    def shards(self, language: str, split: str, label: str) -> tuple[Shard, ...]:
        """Shards present of one cell, sorted; `WHOLE` where it is one file."""
        names = map(_file_name, self.path(language, split, label).parent.glob("*.safetensors"))
        return tuple(sorted(name[1] for name in names if name is not None and name[0] == label))

    def files(self, language: str, split: str, label: str) -> tuple[Path, ...]:
        """The files that make up one cell, by shard. Raises ArtifactError if they are not one complete set."""
        shards = self.shards(language, split, label)
        where = self.path(language, split, label)
        if not shards:
            raise ArtifactError(f"{where}: no such file")
        counts = sorted({shard.count for shard in shards})
        if len(counts) > 1:
            sets = ", ".join("one file" if count == 1 else f"shards of {count}" for count in counts)
            raise ArtifactError(
                f"{where.parent}: {label} is there more than once, as {sets}",
                fix=f"delete all but one set of {where.with_suffix('')}*.safetensors",
            )
        missing = [str(s) for k in range(counts[0]) if (s := Shard(k, counts[0])) not in shards]
        if missing:
            raise ArtifactError(
                f"{where.parent}: {label} is incomplete, shards {', '.join(missing)} are missing",
                fix=f"recalib extract --shard {missing[0]} ... with the other shards' options",
            )
        return tuple(self.path(language, split, label, shard) for shard in shards)

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
        """Metadata of one cell, with the count of all its prompts. Raises ArtifactError, also where files differ."""
        files = self.files(language, split, label)
        metas = [read_meta(path) for path in files]
        for k, (path, meta) in enumerate(zip(files, metas, strict=True)):
            if meta.shard != Shard(k, len(files)):
                raise ArtifactError(f"{path}: is shard {meta.shard} by its metadata", fix="give it back its name")
            meta.model.require_same(metas[0].model, str(path), str(files[0]))
            for name in ("layers", "positions", "prompts_hash"):
                if getattr(meta, name) != getattr(metas[0], name):
                    raise ArtifactError(
                        f"{path}: has other {name.replace('_', ' ')} than {files[0]}",
                        fix="extract all shards with the same options",
                    )
        return replace(metas[0], shard=WHOLE, count=sum(artifact.shape_of(path, "activations")[0] for path in files))

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
        meta = self.cell_meta(language, split, label)
        files = self.files(language, split, label)
        index = (
            _index(meta.layers, layer, "layer", files[0]),
            _index(meta.positions, position, "position", files[0]),
        )
        parts = [_load(path, index) for path in files]
        rows = _joined([part.rows for part in parts], files)
        ids = [part.prompt_ids for part in parts if part.prompt_ids is not None]
        return Cell(rows, _joined(ids, files) if len(ids) == len(parts) else None)

    def sources(self, cells: Iterable[tuple[str, str, str]]) -> dict[str, str]:
        """SHA-256 of each of the cells' files, by `language/split/label`, for shards with `.shard-k-of-N`."""
        files = [path for cell in cells for path in self.files(*cell)]
        return {path.relative_to(self.root).with_suffix("").as_posix(): artifact.sha256(path) for path in files}


def read_meta(path: Path) -> ActivationsMeta:
    """Metadata of one file. Raises ArtifactError, also where it contradicts the tensor."""
    meta = artifact.read_metadata(path, SCHEMA, ActivationsMeta)
    shape = artifact.shape_of(path, "activations")
    if len(shape) != 4 or shape[1:3] != (len(meta.layers), len(meta.positions)):
        raise ArtifactError(
            f"{path}: activations have shape {list(shape)}, but the metadata names "
            f"{len(meta.layers)} layers and {len(meta.positions)} positions"
        )
    return meta


def _file_name(path: Path) -> tuple[str, Shard] | None:
    """The label and the shard in a file's name; None for a file that is no activations."""
    match = re.fullmatch(rf"({'|'.join(KINDS)})(?:\.shard-(\d+)-of-(\d+))?\.safetensors", path.name)
    if match is None:
        return None
    index, count = int(match[2] or 0), int(match[3] or 1)
    return (match[1], Shard(index, count)) if index < count else None


def _load(path: Path, index: tuple[int, int]) -> Cell:
    rows = artifact.read_slice(path, "activations", (slice(None), *index))
    if not artifact.has_tensor(path, "prompt_ids"):
        return Cell(rows, None)
    ids = artifact.read_slice(path, "prompt_ids", (slice(None),))
    if ids.shape != rows.shape[:1]:
        raise ArtifactError(f"{path}: {ids.size} prompt ids for {len(rows)} prompts")
    return Cell(rows, ids)


def _joined(parts: Sequence[np.ndarray], files: Sequence[Path]) -> np.ndarray:
    """Rows of all shards in the cell's order."""
    total = sum(map(len, parts))
    result = np.empty((total, *parts[0].shape[1:]), parts[0].dtype)
    for k, (part, path) in enumerate(zip(parts, files, strict=True)):
        if len(part) != Shard(k, len(parts)).size(total):
            raise ArtifactError(f"{path}: has {len(part)} rows, which is not its share of {total}")
        result[k :: len(parts)] = part
    return result


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
