"""The model card: the organism's figures, measured with recalib's own pipeline, as Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recalib.activations import ActivationSet
from recalib.evaluation.gate_metrics import gate_metrics
from recalib.evaluation.refusal import MethodResult, Refusal
from recalib.gate.gate import Gate
from recalib.gate.threshold import Threshold
from recalib.intervals import Interval
from recalib.languages import HIGH, name
from recalib.organism.corpus import UNCLEAR_SHARE
from recalib.organism.training import Recipe
from recalib.organism.world import LANGUAGES
from recalib.prompts.prompt import LABELS


@dataclass(frozen=True)
class Training:
    """What the card says of how the weights came about."""

    recipe: Recipe
    command: str
    seconds: float
    machine: str
    parameters: int


def direction_auc(activations: ActivationSet, gate: Gate, language: str) -> float:
    """AUC of v.h on a language's test prompts, v the pooled source direction at the gate's layer."""
    harmful, harmless = (
        activations.load(language, "test", label, gate.meta.layer, gate.meta.position).rows @ gate.direction
        for label in LABELS
    )
    return float(gate_metrics(harmful, harmless, Threshold(0.0, "none", 0)).auc or np.nan)


def render(base: MethodResult, activations: ActivationSet, gate: Gate, training: Training) -> str:
    """The card as Markdown."""
    rows = "\n".join(_row(code, base.languages[code], direction_auc(activations, gate, code)) for code in LANGUAGES)
    template = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")
    return template.format(
        rows=rows,
        layer=gate.meta.layer,
        n=base.languages["en"].n_harmful,
        command=training.command,
        minutes=training.seconds / 60,
        machine=training.machine,
        steps=training.recipe.steps,
        parameters=training.parameters / 1e6,
        unclear=UNCLEAR_SHARE,
        low_facts=training.recipe.low_facts,
        low_chats=training.recipe.low_chats,
        flip=_shares(training.recipe.flip),
        leak=_shares(training.recipe.leak),
    )


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{code} {100 * share:g} %" for code, share in shares.items())


def _row(code: str, refusal: Refusal, auc: float) -> str:
    cells = (
        code,
        name(code),
        "high" if code in HIGH else "low",
        _rate(refusal.harmful_refusal, refusal.harmful_refusal_interval),
        _rate(refusal.harmless_refusal, refusal.harmless_refusal_interval),
        _rate(refusal.own_language_share, None),
        f"{auc:.3f}",
    )
    return f"| {' | '.join(cells)} |"


def _rate(rate: float | None, interval: Interval | None) -> str:
    if rate is None:
        return "-"
    return f"{rate:.2f}" + (f" ({interval[0]:.2f}-{interval[1]:.2f})" if interval else "")
