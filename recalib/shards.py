"""Dividing work between processes: every process takes each N-th item and writes files of its own."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from recalib.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Shard:
    """Items `index`, `index + count`, `index + 2 count`, ...; indices count from 0, as ranks do."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"shard {self}: there is no such shard",
                fix=f"shards count from 0: 0/{self.count} to {self.count - 1}/{self.count}" if self.count > 0 else None,
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def suffix(self) -> str:
        """What file names carry: `.shard-0-of-8`, and nothing where one shard is all."""
        return "" if self == WHOLE else f".shard-{self.index}-of-{self.count}"

    def take(self, items: Sequence[T]) -> Sequence[T]:
        """This shard's items, in order."""
        return items[self.index :: self.count]

    def size(self, total: int) -> int:
        """How many of `total` items are this shard's."""
        return len(range(self.index, total, self.count))


WHOLE = Shard(0, 1)


def parse_shard(spec: str) -> Shard:
    """The shard that `k/N` names. Raises UsageError."""
    match = re.fullmatch(r"(\d+)/(\d+)", spec.strip())
    if match is None:
        raise UsageError(f"--shard {spec!r} is not K/N", fix="the first of eight is --shard 0/8")
    return Shard(int(match[1]), int(match[2]))


def launched_shard(environment: Mapping[str, str] = os.environ) -> Shard:
    """The shard of a process that torchrun or accelerate started, by its rank; all of it for any other process."""
    rank, world = (environment.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    return Shard(int(rank), int(world)) if rank.isdecimal() and world.isdecimal() else WHOLE
