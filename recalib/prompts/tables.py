"""Prompts from JSONL, CSV and Parquet: columns prompt, language, label and, optionally, split."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recalib.errors import PromptError
from recalib.prompts.prompt import UNLABELED, Prompt

FIELDS = ("prompt", "language", "label", "split")
DEFAULT_SPLIT = "train"
_LABELS = {
    "harmful": ("harmful", "unsafe", "1", "true", "yes"),
    "harmless": ("harmless", "safe", "0", "false", "no"),
    UNLABELED: (UNLABELED,),
}
_LABEL_OF = {word: label for label, words in _LABELS.items() for word in words}


@dataclass(frozen=True)
class Row:
    """One row of a table; `where` is its file and line, for messages."""

    values: Mapping[str, Any]
    where: str


def read(path: Path, columns: Mapping[str, str]) -> tuple[Prompt, ...]:
    """Prompts of a file, by its extension. Raises PromptError naming the offending line."""
    readers = {
        ".jsonl": read_jsonl,
        ".json": read_jsonl,
        ".csv": _read_csv,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise PromptError(
            f"{path}: cannot tell the format from the extension {path.suffix!r}",
            fix=f"use one of {', '.join(readers)}",
        )
    try:
        return to_prompts(reader(path), columns)
    except UnicodeDecodeError as error:
        raise PromptError(f"{path}: not UTF-8 text ({error.reason})") from error


def to_prompts(rows: Iterable[Row], columns: Mapping[str, str], split: str = DEFAULT_SPLIT) -> tuple[Prompt, ...]:
    """Check rows and make prompts of them; `split` is for rows that name none."""
    return tuple(_prompt(row, columns, split) for row in rows)


def read_jsonl(path: Path) -> Iterator[Row]:
    """Rows of a JSON-lines file, blank lines skipped. Raises PromptError naming the line."""
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                values = json.loads(line)
            except ValueError as error:
                raise PromptError(f"{where}: not JSON ({error})") from error
            if not isinstance(values, dict):
                raise PromptError(f"{where}: a JSON object is needed, not {line.strip()[:40]!r}")
            yield Row(values, where)


def text_of(row: Row, column: str = "prompt") -> str:
    """The row's prompt. Raises PromptError if it is missing or empty."""
    text = row.values.get(column)
    if not isinstance(text, str) or not text.strip():
        problem = f"column {column!r} is {'empty' if column in row.values else 'missing'}"
        raise PromptError(f"{row.where}: {problem}", fix="--columns prompt=NAME maps another one")
    return text


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            for values in reader:
                where = f"{path}:{reader.line_num}"
                if None in values:
                    raise PromptError(f"{where}: more fields than the header names")
                yield Row(values, where)
        except csv.Error as error:
            raise PromptError(f"{path}:{reader.line_num}: {error}") from error


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except pa.ArrowException as error:
        raise PromptError(f"{path}: not a Parquet file ({error})") from error
    for number, values in enumerate(rows, 1):
        yield Row(values, f"{path}: row {number}")


def _prompt(row: Row, columns: Mapping[str, str], split: str) -> Prompt:
    name = {field: columns.get(field, field) for field in FIELDS}
    text = text_of(row, name["prompt"])
    language = row.values.get(name["language"])
    if not isinstance(language, str) or not language.strip():
        raise PromptError(
            f"{row.where}: column {name['language']!r} is missing or empty",
            fix="--columns language=NAME maps another one",
        )
    label = _LABEL_OF.get(str(row.values.get(name["label"])).strip().lower())
    if label is None:
        raise PromptError(
            f"{row.where}: column {name['label']!r} is {row.values.get(name['label'])!r}, "
            "not harmful, harmless or unlabeled",
            fix="--columns label=NAME maps another one",
        )
    split = str(row.values.get(name["split"]) or split).strip()
    for part in (language.strip(), split):
        # they become folder names below --out
        if not part.replace("-", "").replace("_", "").isalnum():
            raise PromptError(f"{row.where}: {part!r} is not a language code or a split name")
    return Prompt(text, language.strip().lower(), label, split)
