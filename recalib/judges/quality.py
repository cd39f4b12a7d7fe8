"""How well a judge is known to agree with references, by language: shipped for the built-in one, else measured here."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from recalib.artifact import atomic
from recalib.errors import ArtifactError
from recalib.judges import builtin
from recalib.judges.agreement import Counts

SCHEMA = "recalib.judge-quality/1"
_FIX = "delete it and measure again: recalib eval --completions"


@dataclass(frozen=True)
class Quality:
    """Counts of agreement by language, and by language where the references came from."""

    judge: str
    counts: dict[str, Counts]
    source: dict[str, str]

    def with_counts(self, counts: Mapping[str, Counts], source: str) -> "Quality":
        """The same with these languages' counts in place of older ones."""
        return Quality(self.judge, {**self.counts, **counts}, {**self.source, **dict.fromkeys(counts, source)})


def known(judge: str, folder: Path) -> Quality:
    """What is known of a judge: what ships with it, and over that what `folder` holds. Raises ArtifactError."""
    quality = _shipped(judge)
    path = path_of(judge, folder)
    if not path.is_file():
        return quality
    stored = _read(path)
    if stored.judge != judge:
        raise ArtifactError(f"{path}: is about the judge {stored.judge}, not {judge}", fix=_FIX)
    return Quality(judge, {**quality.counts, **stored.counts}, {**quality.source, **stored.source})


def record(judge: str, counts: Mapping[str, Counts], source: str, folder: Path) -> Path:
    """Add languages to what `folder` holds about a judge; returns the file. Raises ArtifactError."""
    path = path_of(judge, folder)
    before = _read(path) if path.is_file() else Quality(judge, {}, {})
    with atomic(path) as handle:
        json.dump({"schema": SCHEMA, **asdict(before.with_counts(counts, source))}, handle, indent=2)
    return path


def path_of(judge: str, folder: Path) -> Path:
    """The judge's file: its name, with a dash for what file names do not take."""
    return folder / ("".join(c if c.isalnum() or c in "._" else "-" for c in judge) + ".json")


def _shipped(judge: str) -> Quality:
    if judge != builtin.NAME:
        return Quality(judge, {}, {})
    _, basis = builtin.load()
    # elsewhere the figures are of decisions that the judge does not take
    counts = {code: counts for code, counts in basis.agreement.items() if code in basis.covered}
    return Quality(judge, counts, dict.fromkeys(counts, basis.reference))


def _read(path: Path) -> Quality:
    from pydantic import TypeAdapter, ValidationError

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or document.pop("schema", None) != SCHEMA:
            raise ArtifactError(f"{path}: is not {SCHEMA}", fix=_FIX)
        return TypeAdapter(Quality).validate_python(document)
    except (ValueError, ValidationError) as error:
        raise ArtifactError(f"{path}: cannot be read ({type(error).__name__})", fix=_FIX) from error
