"""PolyRefuse (arXiv 2505.17306) as it lies upstream.

`PolyRefuse/{label}_{split}_translated_{lang}.json` holds rows with `instruction` and sometimes
`instruction_translated`, which then is the one in the language. English train and val are not among
them: they lie in `dataset/splits/`.
"""

import json
import re
from pathlib import Path

from recalib.errors import PromptError
from recalib.prompts.prompt import Prompt

_TRANSLATED = re.compile(r"(harmful|harmless)_(train|val|test)_translated_([a-z-]+)\.json", re.I)
_ENGLISH = re.compile(r"(harmful|harmless)_(train|val)(?:_\d+_sampled)?\.json")


def is_layout(folder: Path) -> bool:
    """Whether the folder is PolyRefuse's repository or its folder of translations."""
    return bool(_files(folder))


def read(folder: Path) -> tuple[Prompt, ...]:
    """All prompts below a folder of that layout. Raises PromptError for a malformed file."""
    prompts = []
    for path, label, split, language in _files(folder):
        for text in _instructions(path):
            prompts.append(Prompt(text, language.lower(), label, split))
    return tuple(prompts)


def _files(folder: Path) -> list[tuple[Path, str, str, str]]:
    """(file, label, split, language), sorted; an English split wins over nothing only."""
    translations = folder / "PolyRefuse" if (folder / "PolyRefuse").is_dir() else folder
    found: dict[tuple[str, str, str], Path] = {}
    for path in sorted(translations.glob("*.json")):
        if match := _TRANSLATED.fullmatch(path.name):
            label, split, language = match.groups()
            found[label, split, language] = path
    if found:
        for path in sorted((translations.parent / "dataset" / "splits").glob("*.json")):
            if match := _ENGLISH.fullmatch(path.name):
                label, split = match.groups()
                found.setdefault((label, split, "en"), path)
    return [(path, *key) for key, path in sorted(found.items())]


def _instructions(path: Path) -> list[str]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        texts = [row.get("instruction_translated") or row["instruction"] for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PromptError(f"{path}: not a PolyRefuse file ({error!r})") from error
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str) or not text.strip():
            raise PromptError(f"{path}: row {number} has an empty instruction")
    return texts
