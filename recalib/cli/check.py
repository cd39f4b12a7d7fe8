"""recalib check: do the thresholds still hold on the model as it is now?"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recalib.cli.common import Activations, Columns, Common, Data, GatePath, Model, TrustRemoteCode, command
from recalib.errors import BarNotMet, CalibrationError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from recalib.cli.loading import GateFile
    from recalib.fingerprint import Fingerprint
    from recalib.gate.gate import Gate


@command
def check(
    common: Common,
    gate: GatePath = None,
    lang: Annotated[str, typer.Option(help="Calibrated languages to check.")] = "all",
    data: Data = None,
    columns: Columns = "",
    activations: Activations = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where nothing drifted, write the gate for the model as it is now.", show_default=False),
    ] = None,
    model: Model = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Score the shots that set the thresholds again, on the model as it is now; exit 3 on drift.

    The gate knows its shots by hash; the prompts come from --data, or their rows from --activations.
    """
    from recalib import languages
    from recalib.cli.loading import find_gate
    from recalib.cli.tables import drift_table
    from recalib.evaluation import drift

    if activations is not None and data is not None:
        raise UsageError("--data and --activations exclude each other")
    found = find_gate(gate)
    if not found.gate.meta.thresholds:
        raise CalibrationError(
            f"{found.description}: no language is calibrated, so there is nothing to check",
            fix="recalib calibrate --lang sw --shots 4",
        )
    codes = languages.select(lang, found.gate.meta.thresholds, found.description)
    wanted = set().union(*(drift.stored_ids(found.gate, code) for code in codes))
    if activations is not None:
        rows, fingerprint = _from_activations(found.gate, activations, wanted)
    else:
        name = model or found.model_name
        rows, fingerprint = _from_prompts(common, found, name, data, columns, wanted, codes, trust_remote_code)
    results = {code: drift.drift(found.gate, code, rows) for code in codes}
    drifted = [code for code, result in results.items() if result.reasons]
    if out is not None and not drifted:
        replace(found.gate, meta=replace(found.gate.meta, model=fingerprint)).save(out)
    changed = found.gate.meta.model.conflicts(fingerprint)
    document = {
        "gate": str(found.path),
        "model_changed": list(changed),
        "drifted": drifted,
        "languages": {code: asdict(result) for code, result in results.items()},
    }
    verdict = f"drift: {', '.join(drifted)}" if drifted else "every threshold holds"
    model_note = f"the model differs in {', '.join(changed)}; " if changed else "the model is the gate's own; "
    common.output.result(document, drift_table(results), model_note + verdict)
    if drifted:
        raise BarNotMet(
            f"thresholds of {', '.join(drifted)} do not hold any more", fix=_remedy(found, drifted, bool(changed))
        )


def _remedy(found: "GateFile", drifted: Sequence[str], changed: bool) -> str:
    calibrate = f"recalib calibrate --gate {found.path} --lang {','.join(drifted)} --shots 4"
    if not changed:
        return calibrate
    return f"recalib extract and fit-gate --out {found.path} on the model as it is now, then {calibrate}"


def _from_activations(gate: "Gate", root: Path, wanted: set[int]) -> "tuple[dict[int, np.ndarray], Fingerprint]":
    from recalib.activations import ActivationSet

    folder, rows = ActivationSet(root), {}
    for cell in folder.cells:
        part = folder.load(*cell, gate.meta.layer, gate.meta.position)
        gate.require_hidden_size(part.rows.shape[1], str(root))
        if part.prompt_ids is not None:
            rows.update({int(i): row for i, row in zip(part.prompt_ids, part.rows, strict=True) if int(i) in wanted})
    return rows, folder.meta.model


def _from_prompts(
    common: Common,
    found: "GateFile",
    model: str,
    data: str | None,
    columns: str,
    wanted: set[int],
    codes: Sequence[str],
    trust_remote_code: bool,
) -> "tuple[dict[int, np.ndarray], Fingerprint]":
    from recalib.cli.loading import load_model, load_prompts
    from recalib.examples import read
    from recalib.prompts import prompt_id

    gate = found.gate
    sources = {gate.meta.thresholds[code].source for code in codes}
    prompts = load_prompts(data or (sources.pop() if len(sources) == 1 else None), model, columns)
    texts = {i: p.text for p in prompts.prompts if (i := prompt_id(p.text)) in wanted}
    lm = load_model(common, model, trust_remote_code, blocks=gate.meta.layer + 1)
    gate.require_hidden_size(lm.hidden_size, model)
    with common.output.progress("run shots", len(texts)) as advance:
        rows = read(lm, gate, list(texts.values()), advance)
    return dict(zip(texts, rows, strict=True)), lm.fingerprint
