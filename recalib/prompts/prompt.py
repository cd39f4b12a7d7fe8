"""Labelled prompts: what every source yields and every stage takes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from recalib import languages
from recalib.errors import PromptError, UsageError

LABELS = ("harmful", "harmless")
UNLABELED = "unlabeled"
"""What prompts are whose class nobody knows; they may help to calibrate, and nothing else."""

KINDS = (*LABELS, UNLABELED)


@dataclass(frozen=True)
class Prompt:
    """One prompt as a user types it, without a chat template."""

    text: str
    language: str
    label: str
    split: str


@dataclass(frozen=True)
class PromptSet:
    """All prompts of one source, in the source's order; `name` is what the user called it."""

    name: str
    prompts: tuple[Prompt, ...]

    def __post_init__(self) -> None:
        if not self.prompts:
            raise PromptError(f"{self.name}: holds no prompts")

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Languages in order of appearance."""
        return tuple(dict.fromkeys(prompt.language for prompt in self.prompts))

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Splits in order of appearance."""
        return tuple(dict.fromkeys(prompt.split for prompt in self.prompts))

    def select_languages(self, spec: str) -> tuple[str, ...]:
        """Languages for a user's spec such as `en,low`. Raises UsageError."""
        return languages.select(spec, self.languages, self.name)

    def require_split(self, split: str) -> None:
        """Raise UsageError if the source has no such split."""
        if split not in self.splits:
            raise UsageError(f"split {split!r} is not in {self.name}, which has: {', '.join(self.splits)}")

    def texts(self, language: str, split: str, label: str) -> list[str]:
        """Texts of one cell, in the source's order; empty where the source has none."""
        return list(self._cells.get((language, split, label), ()))

    @cached_property
    def _cells(self) -> dict[tuple[str, str, str], list[str]]:
        cells: dict[tuple[str, str, str], list[str]] = {}
        for prompt in self.prompts:
            cells.setdefault((prompt.language, prompt.split, prompt.label), []).append(prompt.text)
        return cells


def prompt_id(text: str) -> int:
    """A stable 63-bit id of a prompt's text: its SHA-256, cut so that it fits an int64."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def prompts_hash(texts: Sequence[str]) -> str:
    """Hex SHA-256 of a list of prompts, in their order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()
