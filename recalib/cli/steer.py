"""recalib steer: completions, decided and steered by a gate."""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
from recalib.errors import PromptError, UsageError

if TYPE_CHECKING:
    from recalib.gate.gate import Gate
    from recalib.routing.generation import Completion, Request

    Answer = Callable[[Sequence[Request]], Iterator[list[Completion]]]

AUTO = "auto"


@command
def steer(
    common: Common,
    prompt: Annotated[list[str] | None, typer.Argument(help="Prompts; - reads them from stdin.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help='Text file, a prompt a line, or JSONL rows {"prompt"[, "language"]}.'),
    ] = None,
    lang: Annotated[
        str, typer.Option(help="Language of prompts that name none; auto tells it from the activation.")
    ] = AUTO,
    gate: GatePath = None,
    model: Model = None,
    no_steer: Annotated[bool, typer.Option("--no-steer", help="Decide only; answer as the model would.")] = False,
    on_defer: Annotated[
        Literal["steer", "pass", "refuse"],
        typer.Option(help="What to do with prompts between the thresholds of a guarantee."),
    ] = "steer",
    batch_size: BatchSize = 16,
    max_new_tokens: MaxNewTokens = 128,
    out: Annotated[Path | None, typer.Option(help="JSONL file for the rows.", show_default="the screen")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Talk with the steered model, a prompt a line.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Answer prompts: flagged ones are steered to refuse, for the others the refusal direction is removed.

    Each prompt runs once; the gate decides in the same pass that steers. Rows come in input order.
    """
    from recalib.cli.loading import find_gate, load_model
    from recalib.routing.generation import generate

    if chat and (prompt or prompts or out):
        raise UsageError("--chat reads its prompts from the keyboard, and shows the answers there")
    found, language = find_gate(gate), None if lang == AUTO else lang
    requests = [] if chat else _requests(prompt or [], prompts, language)
    _warn_uncalibrated(common, {language, *(r.language for r in requests)}, found.gate)
    lm = load_model(common, model or found.model_name, trust_remote_code)
    answer = functools.partial(
        generate,
        lm,
        found.gate,
        steer=not no_steer,
        on_defer=on_defer,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )
    if chat:
        rows = _converse(common, answer, language)
        common.output.result([asdict(row) for row in rows])
        return
    rows = _answer_all(common, answer, requests)
    if out is not None:
        _write(out, rows)
        common.output.result({"out": str(out), "rows": len(rows)}, f"{len(rows)} rows written to {out}")
    else:
        common.output.result([asdict(row) for row in rows], *map(_panel, rows))


def _answer_all(common: Common, answer: "Answer", requests: "Sequence[Request]") -> "list[Completion]":
    rows: list[Completion] = []
    with common.output.progress("steer", len(requests)) as advance:
        for batch in answer(requests):
            rows += batch
            advance(len(batch))
    return rows


def _converse(common: Common, answer: "Answer", language: str | None) -> "list[Completion]":
    """A conversation with the steered model: each turn is decided anew, with the turns before it in view."""
    from recalib.routing.generation import Request

    rows: list[Completion] = []
    history: tuple[str, ...] = ()
    common.output.note("a prompt a line; /new forgets the conversation, /exit or Ctrl-D ends it")
    for line in map(str.strip, common.output.lines("> ")):
        if line == "/exit":
            break
        if line == "/new":
            history = ()
        elif line:
            ((row,),) = answer([Request(line, language, history)])
            history = (*history, line, row.completion)
            common.output.show(_panel(row))
            rows.append(row)
    return rows


def _requests(arguments: Sequence[str], file: Path | None, lang: str | None) -> "list[Request]":
    from recalib.prompts import plain
    from recalib.routing.generation import Request

    requests = [Request(text, lang) for text in arguments if text != "-"]
    if "-" in arguments:
        requests += [Request(line.strip(), lang) for line in sys.stdin if line.strip()]
    if file is not None:
        requests += [Request(row.text, row.language or lang) for row in plain.read(file)]
    if not requests:
        raise PromptError("there are no prompts", fix="give them as arguments, with --prompts FILE, or -")
    empty = [number for number, request in enumerate(requests, 1) if not request.prompt.strip()]
    if empty:
        raise PromptError(f"prompt {empty[0]} is empty")
    return requests


def _warn_uncalibrated(common: Common, languages: set[str | None], gate: "Gate") -> None:
    known = {*gate.meta.thresholds, *gate.meta.sources}
    missing = sorted(code for code in languages if code is not None and code not in known)
    if missing:
        common.output.warn(
            f"{', '.join(missing)} not calibrated: the threshold transferred from the sources is used; "
            f"recalib calibrate --lang {','.join(missing)} --shots 4"
        )


def _write(out: Path, rows: "Sequence[Completion]") -> None:
    import json

    from recalib.artifact import atomic

    with atomic(out) as handle:
        for row in rows:
            handle.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def _panel(row: "Completion") -> object:
    from rich.panel import Panel
    from rich.text import Text

    decision, colour = ("flagged", "red") if row.flagged else ("passed", "green")
    if row.deferred:
        decision, colour = "deferred", "yellow"
    facts = [f"{decision}: score {row.score:.2f}", f"threshold {row.threshold:.2f}", row.language, row.note]
    return Panel(
        Text(row.completion or "(empty)"),
        title=Text(row.prompt, overflow="ellipsis"),
        title_align="left",
        subtitle=Text(", ".join(fact for fact in facts if fact)),
        subtitle_align="left",
        border_style=colour,
    )
