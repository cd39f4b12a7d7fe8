"""recalib inspect: what an artifact is."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recalib.cli.common import Common, command
from recalib.cli.output import table
from recalib.cli.tables import candidate_table, threshold_table

if TYPE_CHECKING:
    from recalib.gate.gate import Gate
    from recalib.gate.selection import Candidate


@command
def inspect(common: Common, file: Annotated[Path, typer.Argument(help="A gate or an activations file.")]) -> None:
    """Tell what an artifact is, from which model and data, and with which thresholds."""
    from recalib import activations, artifact
    from recalib.errors import ArtifactError
    from recalib.gate import gate

    schema = artifact.schema_of(file)
    if schema.startswith("recalib.gate/"):
        loaded = gate.Gate.load(file)
        document = {"file": str(file), "schema": schema, "rank": loaded.rank, **asdict(loaded.meta)}
        shown: tuple[Any, ...] = (_facts(document), threshold_table(loaded.meta, tuple(loaded.meta.thresholds)))
        chosen = [c for c in loaded.meta.candidates if _is_chosen(c, loaded)]
        if chosen:
            shown = (*shown, candidate_table(loaded.meta.candidates, chosen[0]))
    elif schema.startswith("recalib.activations/"):
        meta = artifact.read_metadata(file, activations.SCHEMA, activations.ActivationsMeta)
        shape = list(artifact.shape_of(file, "activations"))
        document = {"file": str(file), "schema": schema, "shape": shape, **asdict(meta)}
        shown = (_facts(document),)
    else:
        raise ArtifactError(f"{file}: has the unknown schema {schema}", fix="upgrade recalib")
    common.output.result(document, *shown)


def _facts(document: dict[str, Any]) -> Any:
    """Scalars and short lists, nested ones by dotted names; tables of their own are left out."""
    rows = []
    for key, value in document.items():
        if key in ("thresholds", "transferred", "candidates", "held_out"):
            continue
        if key == "parents":
            rows.append((key, f"{len(value)} files"))
        elif isinstance(value, dict):
            rows += [(f"{key}.{inner}", _short(v)) for inner, v in value.items() if v is not None]
        elif value is not None:
            rows.append((key, _short(value)))
    return table(("field", "value"), rows)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_chosen(candidate: "Candidate", loaded: "Gate") -> bool:
    meta = loaded.meta
    same_rank = candidate.readout == "ridge" or min(candidate.rank, len(meta.sources)) == loaded.rank
    return (candidate.layer, candidate.readout) == (meta.layer, meta.readout) and same_rank
