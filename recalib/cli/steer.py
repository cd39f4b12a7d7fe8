"""recalib steer: completions, decided and steered by a gate."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recalib.cli.common import (
    BatchSize,
    Common,
    GatePath,
    MaxNewTokens,
    Model,
    TrustRemoteCode,
    command,
)
from recalib.errors import PromptError

if TYPE_CHECKING:
    from recalib.steering.generation import Completion, Request


@command
def steer(
    common: Common,
    prompt: Annotated[list[str] | None, typer.Argument(help="Prompts; - reads them from stdin.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help='Text file, a prompt a line, or JSONL rows {"prompt"[, "language"]}.'),
    ] = None,
    lang: Annotated[str | None, typer.Option(help="Language of prompts that name none.", show_default=False)] = None,
    gate: GatePath = None,
    model: Model = None,
    no_steer: Annotated[bool, typer.Option("--no-steer", help="Decide only; answer as the model would.")] = False,
    batch_size: BatchSize = 16,
    max_new_tokens: MaxNewTokens = 128,
    out: Annotated[Path | None, typer.Option(help="JSONL file for the rows.", show_default="the screen")] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Answer prompts: flagged ones are steered to refuse, for the others the refusal direction is removed.

    Each prompt runs once; the gate decides in the same pass that steers. Rows come in input order.
    """
    from recalib.cli.loading import find_gate, load_model
    from recalib.steering.generation import generate

    found = find_gate(gate)
    requests = _requests(prompt or [], prompts, lang)
    _warn_uncalibrated(common, requests, found.gate.meta.thresholds)
    lm = load_model(common, model or found.model_name, trust_remote_code)
    rows: list[Completion] = []
    with common.output.progress("steer", len(requests)) as advance:
        for batch in generate(
            lm,
            found.gate,
            requests,
            steer=not no_steer,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
        ):
            rows += batch
            advance(len(batch))
    if out is not None:
        _write(out, rows)
        common.output.result({"out": str(out), "rows": len(rows)}, f"{len(rows)} rows written to {out}")
    else:
        common.output.result([asdict(row) for row in rows], *map(_panel, rows))


def _requests(arguments: Sequence[str], file: Path | None, lang: str | None) -> "list[Request]":
    from recalib.steering.generation import Request

    requests = [Request(text, lang) for text in arguments if text != "-"]
    if "-" in arguments:
        requests += [Request(line.strip(), lang) for line in sys.stdin if line.strip()]
    if file is not None:
        requests += _read(file, lang)
    if not requests:
        raise PromptError("there are no prompts", fix="give them as arguments, with --prompts FILE, or -")
    empty = [number for number, request in enumerate(requests, 1) if not request.prompt.strip()]
    if empty:
        raise PromptError(f"prompt {empty[0]} is empty")
    return requests


def _read(file: Path, lang: str | None) -> "list[Request]":
    from recalib.prompts.tables import read_jsonl, text_of
    from recalib.steering.generation import Request

    if file.suffix.lower() not in (".jsonl", ".json"):
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise PromptError(f"{file}: not UTF-8 text ({error.reason})") from error
        return [Request(line.strip(), lang) for line in lines if line.strip()]
    requests = []
    for row in read_jsonl(file):
        language = row.values.get("language") or lang
        if language is not None and not isinstance(language, str):
            raise PromptError(f"{row.where}: language {language!r} is not a code")
        requests.append(Request(text_of(row), language))
    return requests


def _warn_uncalibrated(common: Common, requests: "Sequence[Request]", known: dict) -> None:  # type: ignore[type-arg]
    languages = {request.language for request in requests}
    missing = sorted(code for code in languages if code is not None and code not in known)
    if missing:
        common.output.warn(
            f"{', '.join(missing)} not calibrated: the threshold transferred from the sources is used; "
            f"recalib calibrate --lang {','.join(missing)} --shots 4"
        )
    elif None in languages:
        common.output.note("no --lang: the threshold transferred from the sources is used")


def _write(out: Path, rows: "Sequence[Completion]") -> None:
    import json

    from recalib.artifact import atomic

    with atomic(out) as handle:
        for row in rows:
            handle.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def _panel(row: "Completion") -> object:
    from rich.panel import Panel
    from rich.text import Text

    decision = "flagged" if row.flagged else "passed"
    return Panel(
        Text(row.completion or "(empty)"),
        title=Text(row.prompt, overflow="ellipsis"),
        title_align="left",
        subtitle=Text(
            f"{decision}: score {row.score:.2f}, threshold {row.threshold:.2f}"
            f"{f', {row.language}' if row.language else ''}"
        ),
        subtitle_align="left",
        border_style="red" if row.flagged else "green",
    )
