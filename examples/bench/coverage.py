"""Run `recalib doctor` on every causal-LM type of the installed transformers, tiny and with random weights.

python examples/bench/coverage.py [TYPE ...]      # no download; about 15 minutes on one core

Without types it writes coverage.md next to this file. Each type is built and examined in a process of its own
with a time and a memory limit, so that one bad type does not end the run.
"""

import json
import multiprocessing
import resource
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from tiny_model import DoesNotRun, build, tokenizer

SECONDS = 120
MEMORY = 12 * 2**30
PROMPTS = ("w1", "w2 w3 w4 w5", "w6 w7 w8 w9 w10 w11 w12", " ".join(f"w{i}" for i in range(20, 43)))

Outcome = Literal["yes", "no", "cannot run", "cannot be built"]


@dataclass(frozen=True)
class Row:
    """What became of a type; `reason` says why, where recalib does not work on it."""

    model_type: str
    architecture: str
    outcome: Outcome
    reason: str


def examine(model_type: str, architecture: str) -> Row:
    """Build the type's tiny model and run the doctor on it."""
    import torch
    from transformers import CONFIG_MAPPING

    from recalib.doctor import diagnose
    from recalib.errors import ModelError
    from recalib.lm.model import wrap

    def runs(model: Any) -> None:
        with torch.inference_mode():
            model(input_ids=torch.arange(3, 12)[None], attention_mask=torch.ones(1, 9, dtype=torch.long))

    try:
        model = build(CONFIG_MAPPING[model_type], runs)
    except DoesNotRun as error:
        return Row(model_type, architecture, "cannot run", _first_line(error))
    except Exception as error:  # noqa: BLE001 - whatever the type's own code raises is the finding
        return Row(model_type, architecture, "cannot be built", f"{type(error).__name__}: {_first_line(error)}")
    try:
        found = diagnose(wrap(model, tokenizer()), PROMPTS)
    except ModelError as error:
        return Row(model_type, architecture, "no", str(error))
    slower = [check.detail for check in found.checks if check.name == "left padding" and check.detail != "equal"]
    return Row(model_type, architecture, "yes" if found.works else "no", found.reason or "; ".join(slower))


def guarded(model_type: str, architecture: str, processes: Any) -> Row:
    """`examine` in a process of its own."""
    receiving, sending = processes.Pipe(duplex=False)
    process = processes.Process(target=_report, args=(model_type, architecture, sending))
    process.start()
    sending.close()
    try:
        if receiving.poll(SECONDS):
            row: Row = receiving.recv()
            return row
        reason = f"not done after {SECONDS} s"
    except EOFError:
        reason = "its process died"
    finally:
        process.kill()
        process.join()
    return Row(model_type, architecture, "cannot be built", reason)


def _report(model_type: str, architecture: str, out: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out.send(examine(model_type, architecture))


def report(rows: Sequence[Row], versions: str) -> str:
    """The table, with the counts above it."""
    counts = Counter(row.outcome for row in rows)
    can_run = counts["yes"] + counts["no"]
    slower = sum(row.outcome == "yes" and bool(row.reason) for row in rows)
    share = f"{100 * counts['yes'] / max(1, can_run):.1f} %"
    lines = [
        "# Causal-LM types that recalib works on",
        "",
        f"Written by `python examples/bench/coverage.py` with {versions}: every type that `AutoModelForCausalLM`",
        "knows, built tiny from its default config with random weights, examined by `recalib doctor` (float32, CPU).",
        "Beyond sizes, `is_decoder` is set where there is such a switch, and a hybrid whose default has no attention",
        "layer gets one.",
        "",
        "| | types |",
        "| --- | --- |",
        f"| known to transformers | {len(rows)} |",
        f"| cannot be built tiny from their default config | {counts['cannot be built']} |",
        f"| built, but fail a plain forward pass over text, without recalib | {counts['cannot run']} |",
        f"| run a forward pass | {can_run} |",
        f"| **recalib works** | **{counts['yes']} ({share} of those that run)** |",
        f"| of these, generating prompts of one length, or single ones, at a time | {slower} |",
        "",
        "| type | class | works | reason |",
        "| --- | --- | --- | --- |",
        *(f"| {r.model_type} | {r.architecture} | {r.outcome} | {_cell(r.reason)} |" for r in rows),
    ]
    return "\n".join(lines) + "\n"


def _first_line(error: Exception) -> str:
    """The message; two lines where the first only announces the second."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])


def _cell(text: str) -> str:
    short = text if len(text) <= 300 else text[:297] + "..."
    return short.replace("|", "\\|").replace("<", "\\<")


def main(wanted: Sequence[str]) -> None:
    """Examine the types named, or all of them, and show or write the table."""
    import torch
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as TYPES

    # forked from a process that has the slow imports behind it
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["torch", "transformers", "recalib.doctor", "tiny_model"])
    rows = []
    for model_type in wanted or TYPES:
        rows.append(guarded(model_type, TYPES[model_type], processes))
        print(json.dumps(vars(rows[-1])), file=sys.stderr, flush=True)
    text = report(rows, f"transformers {transformers.__version__} and torch {torch.__version__.partition('+')[0]}")
    if wanted:
        print(text)
    else:
        Path(__file__).with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
