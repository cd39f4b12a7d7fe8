"""Data sets of the Hugging Face Hub, or folders in a layout that `datasets` loads without a script."""

import re
from collections.abc import Mapping

from recalib.errors import PromptError
from recalib.prompts.prompt import Prompt
from recalib.prompts.tables import Row, to_prompts


def is_dataset_id(source: str) -> bool:
    """Whether the text has the form of a Hub id, `owner/name`, optionally with `:configuration`."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", source) is not None


def read(source: str, columns: Mapping[str, str]) -> tuple[Prompt, ...]:
    """Prompts of all splits of a data set; a split's name is the split of rows that name none.

    Raises PromptError when it cannot be loaded or a row is malformed.
    """
    from datasets import load_dataset

    name, _, configuration = source.partition(":")
    try:
        splits = load_dataset(name, configuration or None)
    except Exception as error:
        raise PromptError(
            f"{source}: datasets cannot load it ({type(error).__name__}: {_first_line(error)})",
            fix="check the id or the path; a gated data set needs `hf auth login`",
        ) from error
    prompts: list[Prompt] = []
    for split, rows in splits.items():
        numbered = (Row(row, f"{source}[{split}] row {i}") for i, row in enumerate(rows))
        prompts += to_prompts(numbered, columns, split)
    return tuple(prompts)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
