"""Examining a model."""

from collections.abc import Callable, Sequence
from typing import Any

from recalib.doctor.checks import Patient
from recalib.doctor.findings import Check, Diagnosis
from recalib.errors import RecalibError
from recalib.lm.model import LanguageModel

PROMPTS = (
    "Hello",
    "How do I bake bread?",
    "Nipe mapishi ya wali wa nazi, tafadhali, kwa watu wanne.",
    "Write three sentences about the sea, one about the wind, and end with a question that a child might ask.",
)
"""What a model is checked on unless other prompts are given: short, and of different lengths."""


def diagnose(lm: LanguageModel, prompts: Sequence[str] = PROMPTS, seed: int = 0) -> Diagnosis:
    """Run every check, or those up to one that the others build on and that fails.

    What the model's code raises fails the check in which it does. `prompts` should have different lengths:
    equal ones need no padding. `seed` draws the directions that scores are read along.
    """
    patient = Patient(lm, tuple(prompts), seed)
    checks: list[Check] = []
    for name, check in patient.checks().items():
        checks.append(_attempt(name, check))
        if name == "block outputs" and not checks[-1].passed:
            break  # the other checks look at these outputs
    return Diagnosis(
        model=lm.fingerprint.model,
        architecture=lm.fingerprint.architecture,
        parameters=sum(p.numel() for p in lm.model.parameters()),
        dtype=str(lm.model.dtype).removeprefix("torch."),
        device=str(lm.device),
        blocks=_name_of(lm),
        num_layers=lm.num_layers,
        hidden_size=lm.hidden_size if checks[1].passed else None,
        positions=patient.positions if checks[0].passed else None,
        checks=tuple(checks),
    )


def _attempt(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except RecalibError as error:
        return Check(name, False, str(error))
    except Exception as error:  # noqa: BLE001 - the model's code may raise anything, and that is the finding
        reason = next(iter(str(error).strip().splitlines()), "")
        return Check(name, False, f"the model raised {type(error).__name__}: {reason}")


def _name_of(lm: LanguageModel) -> str:
    names: dict[Any, str] = {module: name for name, module in lm.model.named_modules()}
    return names[lm.blocks]
