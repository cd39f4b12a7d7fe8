"""Getting a language's examples: by running the model on them alone, or from extracted activations."""

from collections.abc import Sequence

import numpy as np

from recalib.activations import ActivationSet
from recalib.calibration.calibrate import LanguageExamples
from recalib.calibration.shots import draw
from recalib.errors import CalibrationError
from recalib.extraction import extract
from recalib.gate.gate import Gate
from recalib.lm.batching import Advance
from recalib.lm.model import LanguageModel
from recalib.prompts.prompt import LABELS, PromptSet, prompt_id


def run(lm: LanguageModel, gate: Gate, texts: Sequence[str], advance: Advance = lambda n: None) -> np.ndarray:
    """Activations [n, hidden] of prompts where the gate reads them.

    Raises ArtifactError if the gate was made with another model.
    """
    gate.meta.model.require_same(lm.fingerprint, "the gate", "the model in use")
    return read(lm, gate, texts, advance)


def read(lm: LanguageModel, gate: Gate, texts: Sequence[str], advance: Advance = lambda n: None) -> np.ndarray:
    """As `run`, on a model that may have changed since. Raises ModelError if it lacks the gate's layer."""
    lm.require_layer(gate.meta.layer)
    return extract(lm, texts, (gate.meta.layer,), (gate.meta.position,), advance=advance)[:, 0, 0]


def from_prompts(
    lm: LanguageModel,
    gate: Gate,
    prompts: PromptSet,
    languages: Sequence[str],
    shots: int,
    *,
    split: str = "train",
    seed: int = 0,
    advance: Advance = lambda n: None,
) -> dict[str, LanguageExamples]:
    """Draw `shots` prompts a class and language, and run the model on those alone.

    Raises ArtifactError if the gate was made with another model, CalibrationError if a class has too
    few prompts.
    """
    drawn = {
        (language, label): [cell[i] for i in draw(len(cell), shots, language, label, seed)]
        for language in languages
        for label in LABELS
        for cell in [prompts.texts(language, split, label)]
    }
    rows = run(lm, gate, [text for cell in drawn.values() for text in cell], advance)
    parts = {key: rows[i * shots : (i + 1) * shots] for i, key in enumerate(drawn)}
    ids = {key: tuple(map(prompt_id, cell)) for key, cell in drawn.items()}
    return {
        language: LanguageExamples(
            parts[language, "harmful"],
            parts[language, "harmless"],
            rows[:0],
            ids[language, "harmful"],
            ids[language, "harmless"],
        )
        for language in languages
    }


def from_activations(
    activations: ActivationSet,
    gate: Gate,
    languages: Sequence[str],
    shots: int,
    *,
    split: str = "train",
    seed: int = 0,
) -> dict[str, LanguageExamples]:
    """Draw `shots` extracted rows a class and language: the same ones as from the prompts themselves.

    Raises as `from_prompts` does.
    """
    gate.meta.model.require_same(activations.meta.model, "the gate", str(activations.root))

    def pick(language: str, label: str) -> tuple[np.ndarray, tuple[int, ...]]:
        if (language, split, label) not in activations.cells:
            raise CalibrationError(f"{activations.root}: has no {label} {split} rows of {language}")
        cell = activations.load(language, split, label, gate.meta.layer, gate.meta.position)
        gate.require_hidden_size(cell.rows.shape[1], str(activations.root))
        index = draw(len(cell.rows), shots, language, label, seed)
        ids = () if cell.prompt_ids is None else tuple(map(int, cell.prompt_ids[index]))
        return cell.rows[index], ids

    result = {}
    for language in languages:
        (harmful, harmful_ids), (harmless, harmless_ids) = (pick(language, label) for label in LABELS)
        result[language] = LanguageExamples(harmful, harmless, harmful[:0], harmful_ids, harmless_ids)
    return result


def unlabeled_from_activations(activations: ActivationSet, gate: Gate, language: str) -> np.ndarray:
    """All rows [n, hidden] of a language in a folder, of every split and whatever their label.

    Raises ArtifactError if they are another model's, CalibrationError if there are none.
    """
    gate.meta.model.require_same(activations.meta.model, "the gate", str(activations.root))
    cells = [cell for cell in activations.cells if cell[0] == language]
    if not cells:
        raise CalibrationError(f"{activations.root}: has no rows of {language}")
    rows = np.concatenate([activations.load(*cell, gate.meta.layer, gate.meta.position).rows for cell in cells])
    gate.require_hidden_size(rows.shape[1], str(activations.root))
    return rows
