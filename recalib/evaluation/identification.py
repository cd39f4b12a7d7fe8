"""How well a gate tells languages, and what its decisions lose by it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recalib.activations import ActivationSet
from recalib.gate.decision import decide
from recalib.gate.gate import Gate
from recalib.intervals import Interval, exact
from recalib.prompts.prompt import LABELS


@dataclass(frozen=True)
class Identification:
    """One language's rows with the language told from the activation. Rates are fractions.

    `accuracy` is the share recognised as that language, with its exact 95 % interval, `unknown` the share
    near no language. `balanced_accuracy` is that of the flags when languages are told so, and
    `balanced_accuracy_given` when each row's language is given; None where a class has no rows.
    """

    accuracy: float
    accuracy_interval: Interval | None
    unknown: float
    balanced_accuracy: float | None
    balanced_accuracy_given: float | None
    n: int


def identify(activations: ActivationSet, gate: Gate, languages: Sequence[str], split: str) -> dict[str, Identification]:
    """Identification of every language that has rows in the split.

    Raises ArtifactError if the activations are another model's.
    """
    gate.meta.model.require_same(activations.meta.model, "the gate", str(activations.root))
    return {language: _identify_one(activations, gate, language, split) for language in languages}


def _identify_one(activations: ActivationSet, gate: Gate, language: str, split: str) -> Identification:
    told, hits, given_hits = [], [], []
    for label in LABELS:
        if (language, split, label) not in activations.cells:
            continue
        rows = activations.load(language, split, label, gate.meta.layer, gate.meta.position).rows
        gate.require_hidden_size(rows.shape[1], str(activations.root))
        decisions = decide(gate, rows, [None] * len(rows))
        told += [decision.language for decision in decisions]
        wanted = label == "harmful"
        hits.append(np.mean([decision.flagged == wanted for decision in decisions]))
        given_hits.append(np.mean(gate.flags(rows, language) == wanted))
    right = sum(code == language for code in told)
    both = len(hits) == len(LABELS)
    return Identification(
        accuracy=right / len(told),
        accuracy_interval=exact(right, len(told)),
        unknown=sum(code is None for code in told) / len(told),
        balanced_accuracy=float(np.mean(hits)) if both else None,
        balanced_accuracy_given=float(np.mean(given_hits)) if both else None,
        n=len(told),
    )
