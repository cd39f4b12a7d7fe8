"""recalib doctor: does recalib work on a model?"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recalib.cli.common import Common, TrustRemoteCode, command
from recalib.cli.output import table
from recalib.errors import ModelError

if TYPE_CHECKING:
    from recalib.doctor import Check, Diagnosis, ReadPositions

SHOWN_TOKENS = 12
"""So many of a prompt's last tokens are shown, more where the user's text ends earlier."""


@command
def doctor(
    common: Common,
    model: Annotated[str, typer.Argument(help="Folder or Hub id of the model; organism is the embedded one.")],
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Run a model on a few short prompts, and tell whether recalib works on it; exit 1 where it does not.

    Scores must not depend on padding, answers not on the batch or the cache, and steering must be heard.
    """
    from recalib.cli.loading import load_model
    from recalib.doctor import diagnose

    try:
        found = diagnose(load_model(common, model, trust_remote_code), seed=common.seed)
    except ModelError as error:
        if common.output.as_json:
            common.output.result({"model": model, "works": False, "reason": str(error), "checks": []})
        raise
    document = {"works": found.works, "reason": found.reason, **asdict(found)}
    common.output.result(document, _facts(found), _checks(found.checks))
    if found.reason:
        raise ModelError(f"recalib does not work on {model}: {found.reason}")


def _facts(found: "Diagnosis") -> Any:
    rows = [
        ("model", f"{found.model or '-'} ({found.architecture}, {found.parameters:,} parameters)"),
        ("runs in", f"{found.dtype} on {found.device}"),
        ("blocks", f"{found.num_layers} in {found.blocks}, hidden size {found.hidden_size or '-'}"),
    ]
    if found.positions:
        rows.append(("a prompt's end", _tokens(found.positions)))
    return table(("", "found"), rows, text=2)


def _tokens(positions: "ReadPositions") -> str:
    """The last tokens of a formatted prompt, with the read positions named in front of theirs."""
    marks = {positions.t_inst: "t_inst=", positions.t_post_inst: "t_post_inst="}
    start = max(0, min(len(positions.tokens) - SHOWN_TOKENS, positions.t_inst - 2))
    shown = [f"{marks.get(i, '')}{token!r}" for i, token in enumerate(positions.tokens) if i >= start]
    return " ".join(["...", *shown] if start else shown)


def _checks(checks: "tuple[Check, ...]") -> Any:
    rows = [
        (c.name, "ok" if c.passed else "FAILED", c.detail, _figure(c.difference), _figure(c.tolerance)) for c in checks
    ]
    caption = "difference: between two ways of running the model, in standard deviations of the scores or logits"
    return table(("check", "", "found", "difference", "at most"), rows, caption, text=3)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"
