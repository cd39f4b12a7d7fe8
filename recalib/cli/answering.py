"""Evaluating on prompts: generating answers, in shards if asked for, and judging them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recalib.cli.common import Common
from recalib.cli.judging import QUALITY, verdict_fields, warn_of_not_judged
from recalib.cli.measured import Measured
from recalib.cli.tables import gate_table, refusal_table

if TYPE_CHECKING:
    from recalib.cli.loading import GateFile
    from recalib.evaluation.cells import Cell, CellStore
    from recalib.evaluation.run import Evaluation, Settings
    from recalib.judges import Judge
    from recalib.lm.model import LanguageModel
    from recalib.shards import Shard


@dataclass(frozen=True)
class PromptRun:
    """What is generated, and with what."""

    lm: "LanguageModel"
    gate: "GateFile"
    cells: "Mapping[Cell, Sequence[str]]"
    settings: "Settings"


def store_in(out: Path, run: PromptRun) -> "CellStore":
    """The answers kept below `out` that this very gate, model and length gave."""
    from recalib.artifact import sha256
    from recalib.evaluation.cells import CellStore

    model = (asdict(run.lm.fingerprint), str(run.lm.model.dtype))
    parts = (sha256(run.gate.path), *model, run.settings.max_new_tokens)
    return CellStore(out / "cells", hashlib.sha256(json.dumps(parts).encode()).hexdigest())


def generate_part(common: Common, run: PromptRun, store: "CellStore", shard: "Shard") -> None:
    """Generate one shard's answers, and keep them."""
    from recalib.evaluation.run import generate_shard

    total = sum(shard.size(len(texts)) for texts in run.cells.values())
    with common.output.progress(f"shard {shard}", total) as advance:
        skipped = generate_shard(run.lm, run.gate.gate, run.cells, run.settings, store, shard, advance)
    document = {"shard": str(shard), "cells": len(run.cells), "prompts": total, "skipped": skipped}
    common.output.result(document, f"shard {shard}: {total} answers in {len(run.cells)} cells, {skipped} made before")
    common.output.note("when all shards are there: the same command without --shard")


def judge_all(common: Common, run: PromptRun, store: "CellStore | None", judge: "Judge") -> Measured:
    """Generate what is not there yet, and judge everything."""
    from recalib.evaluation.run import evaluate as evaluate_cells
    from recalib.judges.quality import known

    with common.output.progress("evaluate", sum(map(len, run.cells.values()))) as advance:
        quality = known(judge.name, QUALITY).counts
        result = evaluate_cells(run.lm, run.gate.gate, run.cells, judge, run.settings, advance, quality, store)
    if judge.name != "none":
        last = list(result.methods.values())[-1].languages
        warn_of_not_judged(
            common, {c: (r.not_judged, r.not_judged + r.n_harmful + r.n_harmless) for c, r in last.items()}
        )
    return measured(result, judge.name)


def measured(evaluation: "Evaluation", judge: str) -> Measured:
    """An evaluation in the forms in which it leaves."""
    document = {
        "judge": judge,
        "methods": {
            name: {
                "languages": {code: asdict(r) for code, r in method.languages.items()},
                "macro": asdict(method.macro),
            }
            for name, method in evaluation.methods.items()
        },
        "gate_metrics": {code: asdict(m) for code, m in evaluation.gate_metrics.items()},
    }
    rows = tuple(
        {"method": i.method, "label": i.label, **asdict(i.completion), **verdict_fields(i.verdict)}
        for i in evaluation.completions
    )
    last = list(evaluation.methods.values())[-1]
    tables = (refusal_table(evaluation.methods), gate_table(evaluation.gate_metrics))
    return Measured(document, tables, asdict(last.macro), rows)
