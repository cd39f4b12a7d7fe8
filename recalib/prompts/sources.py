"""From what the user typed after --data to a PromptSet."""

from collections.abc import Mapping
from pathlib import Path

from recalib.errors import PromptError
from recalib.prompts import hub, polyrefuse, tables
from recalib.prompts.prompt import Prompt, PromptSet

STARTER = Path(__file__).parent.parent / "starter"
BUILT_IN = ("organism", "starter")


def load(source: str, columns: Mapping[str, str] | None = None) -> PromptSet:
    """Read a prompt source.

    `source` is `organism` (the embedded model's own prompts), `starter` (the package's 23-language
    set), a folder in PolyRefuse's layout, a JSONL, CSV or Parquet file, a folder that `datasets` can
    load, or the id of a data set on the Hub. `columns` maps the fields prompt, language, label and
    split to the names that the table uses.

    Raises PromptError when the source is missing, empty or malformed.
    """
    path = Path(source)
    if source == "organism":
        return PromptSet(source, _organism())
    if source == "starter":
        return PromptSet(source, _starter())
    if path.is_dir() and polyrefuse.is_layout(path):
        return PromptSet(source, polyrefuse.read(path))
    if path.is_file():
        return PromptSet(source, tables.read(path, columns or {}))
    if path.is_dir() or hub.is_dataset_id(source):
        return PromptSet(source, hub.read(source, columns or {}))
    raise PromptError(
        f"{source}: no such prompt source",
        fix="--data takes organism, starter, a file, a folder or a Hub data set id",
    )


def _organism() -> tuple[Prompt, ...]:
    from recalib.organism import world

    return tuple(
        Prompt(row.prompt, row.language, row.label, row.split)
        for split in ("train", "val", "test")
        for row in world.prompts(split)
    )


def _starter() -> tuple[Prompt, ...]:
    """The first half of each class is for calibration (train), the second for a check (test)."""
    prompts = []
    for path in sorted(STARTER.glob("*.jsonl")):
        for row in tables.read_jsonl(path):
            number = int(row.values["id"].rpartition("-")[2])
            split = "train" if number <= 8 else "test"
            prompts.append(Prompt(row.values["prompt"], path.stem, row.values["label"], split))
    return tuple(prompts)
