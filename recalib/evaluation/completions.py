"""Completions made elsewhere: reading them, judging them, and agreement with the references that they carry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recalib.errors import PromptError
from recalib.evaluation.agreement import Agreement, agreement_of
from recalib.evaluation.refusal import MethodResult, Verdicts, summarise
from recalib.judges.agreement import Counts
from recalib.judges.judge import Judge, Verdict
from recalib.prompts.prompt import LABELS
from recalib.prompts.tables import Row, read_jsonl


@dataclass(frozen=True)
class CompletionRow:
    """One completion; `label` is its prompt's, `refused` what a person or another judge said of it."""

    prompt: str | None
    language: str
    completion: str
    label: str | None
    refused: bool | None


@dataclass(frozen=True)
class JudgedCompletions:
    """Verdicts on rows, agreement by language, and, where prompts are labelled, refusal by language and macro."""

    rows: tuple[CompletionRow, ...]
    verdicts: tuple[Verdict, ...]
    agreement: dict[str, Agreement]
    refusal: MethodResult | None


def read(file: Path) -> list[CompletionRow]:
    """Rows {"completion" or "response", "language"[, "prompt", "label", "refusal"]} of a JSONL file.

    Raises PromptError naming the line, also where there are none at all.
    """
    rows = [_completion(row) for row in read_jsonl(file)]
    if not rows:
        raise PromptError(f"{file}: there are no completions in it", fix="name another file with --completions")
    return rows


def judge_rows(
    rows: Sequence[CompletionRow], judge: Judge, quality: Mapping[str, Counts], seed: int = 0
) -> JudgedCompletions:
    """Judge completions and compare with their references.

    `quality` is what is known of the judge from elsewhere, `seed` that of the bootstrap.
    """
    verdicts = judge.judge(rows)
    languages = tuple(dict.fromkeys(row.language for row in rows))
    agreement = {}
    for code in languages:
        own = [(v, row.refused) for v, row in zip(verdicts, rows, strict=True) if row.language == code]
        agreement[code] = agreement_of([v for v, _ in own], [r for _, r in own], seed, quality.get(code))
    labelled = _by_label(rows, verdicts)
    now = {**quality, **measured(agreement)}
    return JudgedCompletions(
        rows=tuple(rows),
        verdicts=tuple(verdicts),
        agreement=agreement,
        refusal=summarise(labelled, seed, now) if labelled else None,
    )


def measured(agreement: Mapping[str, Agreement]) -> dict[str, Counts]:
    """The counts of the languages that have enough references to tell something of the judge."""
    return {code: a.counts for code, a in agreement.items() if a.counts.enough}


def _by_label(rows: Sequence[CompletionRow], verdicts: Sequence[Verdict]) -> dict[str, Verdicts]:
    cells: dict[str, dict[str, list[Verdict]]] = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        if row.label is not None:
            cells.setdefault(row.language, {label: [] for label in LABELS})[row.label].append(verdict)
    return {code: Verdicts(**cell) for code, cell in cells.items()}


def _completion(row: Row) -> CompletionRow:
    values = row.values
    name = "completion" if "completion" in values else "response"
    completion = values.get(name)
    if not isinstance(completion, str):
        raise PromptError(f"{row.where}: has no text as 'completion' or 'response'")
    language = values.get("language")
    if not isinstance(language, str) or not language.strip():
        raise PromptError(f"{row.where}: 'language' is {language!r}, not a code such as sw")
    label = values.get("label")
    if label not in (*LABELS, None):
        raise PromptError(f"{row.where}: 'label' is {label!r}, not {' or '.join(LABELS)}")
    prompt = values.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        raise PromptError(f"{row.where}: 'prompt' is {prompt!r}, not text")
    refused = values.get("refusal")
    if refused not in (0, 1, None):  # True and False, too
        raise PromptError(f"{row.where}: 'refusal' is {refused!r}, not 1 (refused), 0 (complied) or null")
    known = None if refused is None else bool(refused)
    return CompletionRow(prompt, language.strip().lower(), completion, label, known)
