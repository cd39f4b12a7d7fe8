"""Finding the gate, the model and the prompts that a command works on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recalib.cli.common import Common
from recalib.errors import ArtifactError, UsageError
from recalib.organism import GATE_FILE

if TYPE_CHECKING:
    from recalib.gate.gate import Gate
    from recalib.lm.model import LanguageModel
    from recalib.prompts.prompt import PromptSet

DEFAULT_GATE = Path("artifacts/gate.safetensors")


@dataclass(frozen=True)
class GateFile:
    """A gate and where it was found; `shipped` says that it is the embedded model's own."""

    gate: "Gate"
    path: Path

    @property
    def shipped(self) -> bool:
        """Whether this is the gate that the package carries, which is never written to."""
        return self.path == GATE_FILE

    @property
    def model_name(self) -> str:
        """The model that the gate was made with; the embedded one where the gate does not say."""
        return self.gate.meta.model.model or "organism"

    @property
    def description(self) -> str:
        """How to call it in messages."""
        return "the embedded model's gate" if self.shipped else str(self.path)


def find_gate(path: Path | None) -> GateFile:
    """The gate named, else the default place's, else the shipped one. Raises ArtifactError."""
    from recalib.gate.gate import Gate

    if path is not None and not path.is_file():
        raise ArtifactError(f"{path}: no such gate", fix=f"recalib fit-gate --out {path}")
    found = path or (DEFAULT_GATE if DEFAULT_GATE.is_file() else GATE_FILE)
    return GateFile(Gate.load(found), found)


def load_model(common: Common, name: str, trust_remote_code: bool, blocks: int | None = None) -> "LanguageModel":
    """Load a model, or its first `blocks` alone, with the common options; says so, because it can take long."""
    from recalib import lm

    common.output.note(f"loading {'the embedded model' if name == 'organism' else name} ...")
    return lm.load(
        name,
        revision=common.revision,
        device=common.device,
        dtype=common.dtype,
        trust_remote_code=trust_remote_code,
        blocks=blocks,
    )


def load_prompts(data: str | None, model: str, columns: str) -> "PromptSet":
    """The prompts named, else those that suit the model."""
    from recalib import prompts

    return prompts.load(data or ("organism" if model == "organism" else "starter"), parse_columns(columns))


def parse_columns(spec: str) -> Mapping[str, str]:
    """`prompt=text,label=unsafe` as a mapping. Raises UsageError."""
    from recalib.prompts.tables import FIELDS

    pairs = [part.split("=", 1) for part in spec.split(",") if part.strip()]
    for pair in pairs:
        if len(pair) != 2 or pair[0].strip() not in FIELDS:
            raise UsageError(
                f"--columns {spec!r}: {'='.join(pair)!r} is not FIELD=COLUMN",
                fix=f"FIELD is one of {', '.join(FIELDS)}",
            )
    return {field.strip(): column.strip() for field, column in pairs}
