"""Completions on disk while an evaluation runs: what was finished is not generated again."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from recalib.artifact import atomic
from recalib.routing.generation import Completion
from recalib.shards import WHOLE, Shard

_COMPLETION = TypeAdapter(Completion)
Cell = tuple[str, str, str]
"""Method, language and label."""


@dataclass(frozen=True)
class CellStore:
    """One JSONL file a cell, or a shard of one, below `root`: whole or not at all.

    `key` stands for all that completions depend on, apart from the prompts, which the files repeat. Files of
    another key or other prompts, and damaged ones, count as absent, and are replaced.
    """

    root: Path
    key: str

    def read(self, cell: Cell, prompts: Sequence[str]) -> list[Completion] | None:
        """A cell's completions, joined from a complete set of shards where it is there; None if it is not finished."""
        for count in (1, *self._divisions(cell)):
            shards = [Shard(index, count) for index in range(count)]
            parts = [self.read_shard(cell, shard.take(prompts), shard) for shard in shards]
            whole: list[Completion | None] = [None] * len(prompts)
            for shard, part in zip(shards, parts, strict=True):
                if part is not None:
                    whole[shard.index :: count] = part
            found = [completion for completion in whole if completion is not None]
            if len(found) == len(prompts) and None not in parts:
                return found
        return None

    def read_shard(self, cell: Cell, prompts: Sequence[str], shard: Shard) -> list[Completion] | None:
        """A shard's completions of these prompts, its own; None if it is not finished."""
        try:
            key, *rows = self._path(cell, shard).read_text(encoding="utf-8").splitlines()
            found = [_COMPLETION.validate_json(row) for row in rows]
        except (FileNotFoundError, ValueError, ValidationError):
            return None
        same = key == json.dumps(self.key) and [completion.prompt for completion in found] == list(prompts)
        return found if same else None

    def write(self, cell: Cell, completions: Sequence[Completion], shard: Shard = WHOLE) -> None:
        """Keep a shard's completions."""
        with atomic(self._path(cell, shard)) as handle:
            for row in (self.key, *map(asdict, completions)):
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _path(self, cell: Cell, shard: Shard) -> Path:
        method, language, label = cell
        return self.root / method / language / f"{label}{shard.suffix}.jsonl"

    def _divisions(self, cell: Cell) -> list[int]:
        """Numbers of shards into which the cell's files on disk divide it."""
        folder, label = self._path(cell, WHOLE).parent, cell[2]
        names = (re.fullmatch(rf"{label}\.shard-\d+-of-(\d+)\.jsonl", path.name) for path in folder.glob("*.jsonl"))
        return sorted({int(name[1]) for name in names if name})
