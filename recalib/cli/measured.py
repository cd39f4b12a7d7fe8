"""What an evaluation found, on its way out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measured:
    """A result in the forms in which it leaves: JSON, tables, macro figures, rows for a file."""

    document: dict[str, Any]
    tables: tuple[Any, ...]
    macro: Mapping[str, float | None]
    completions: tuple[dict[str, Any], ...] = ()
