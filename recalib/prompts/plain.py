"""Prompts without labels: text files with a prompt a line, and JSONL."""

from dataclasses import dataclass
from pathlib import Path

from recalib.errors import PromptError
from recalib.prompts.tables import read_jsonl, text_of


@dataclass(frozen=True)
class PlainPrompt:
    """A prompt, and its language where the file names one."""

    text: str
    language: str | None = None


def read(file: Path) -> list[PlainPrompt]:
    """Prompts of a text file, a line each, or of JSONL rows {"prompt"[, "language"]}.

    Raises PromptError naming the line, also where there are none at all.
    """
    prompts = _read_rows(file) if file.suffix.lower() in (".jsonl", ".json") else _read_lines(file)
    if not prompts:
        raise PromptError(f"{file}: there are no prompts in it", fix="name another file with --prompts or --unlabeled")
    return prompts


def _read_lines(file: Path) -> list[PlainPrompt]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise PromptError(f"{file}: not UTF-8 text ({error.reason})") from error
    return [PlainPrompt(line.strip()) for line in lines if line.strip()]


def _read_rows(file: Path) -> list[PlainPrompt]:
    prompts = []
    for row in read_jsonl(file):
        language = row.values.get("language")
        if language is not None and not isinstance(language, str):
            raise PromptError(f"{row.where}: language {language!r} is not a code")
        prompts.append(PlainPrompt(text_of(row), language or None))
    return prompts
