"""What an extraction will do."""

from collections.abc import Sequence
from dataclasses import dataclass

from recalib.prompts.prompt import KINDS, LABELS, PromptSet
from recalib.shards import WHOLE, Shard


@dataclass(frozen=True)
class Plan:
    """The cells (language, split, label) with prompts, how to read them, and this process's share of each.

    `limit` caps the prompts of each cell; 0 means all.
    """

    prompts: PromptSet
    cells: tuple[tuple[str, str, str], ...]
    layers: tuple[int, ...]
    positions: tuple[str, ...]
    limit: int = 0
    shard: Shard = WHOLE

    def texts(self, cell: tuple[str, str, str]) -> list[str]:
        """All prompts of a cell, those of other shards too."""
        return self.prompts.texts(*cell)[: self.limit or None]

    def size(self, cell: tuple[str, str, str]) -> int:
        """Number of prompts of a cell in this shard."""
        return self.shard.size(len(self.texts(cell)))

    @property
    def count(self) -> int:
        """Number of prompts of all cells in this shard."""
        return sum(map(self.size, self.cells))


def plan_cells(
    prompts: PromptSet, languages: Sequence[str], splits: Sequence[str]
) -> tuple[tuple[tuple[str, str, str], ...], tuple[str, ...]]:
    """Cells that have prompts, and the names of those that have none; nobody misses unlabeled ones."""
    wanted = [(lang, split, label) for lang in languages for split in splits for label in KINDS]
    cells = tuple(cell for cell in wanted if prompts.texts(*cell))
    return cells, tuple("/".join(cell) for cell in wanted if cell not in cells and cell[2] in LABELS)
