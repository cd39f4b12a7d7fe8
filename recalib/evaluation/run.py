"""Running an evaluation: generate with every method, judge, and count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recalib.activations import ActivationSet
from recalib.errors import UsageError
from recalib.evaluation.cells import Cell, CellStore
from recalib.evaluation.gate_metrics import GateMetrics, gate_metrics
from recalib.evaluation.refusal import MethodResult, Verdicts, summarise
from recalib.gate.gate import Gate
from recalib.judges.agreement import Counts
from recalib.judges.judge import Judge, Verdict
from recalib.lm.batching import Advance
from recalib.lm.model import LanguageModel
from recalib.prompts.prompt import LABELS, PromptSet
from recalib.routing.generation import BATCH_SIZE, MAX_NEW_TOKENS, Completion, Request, generate
from recalib.shards import Shard

METHODS = ("base", "recalib")
"""`base` is the model alone, `recalib` the model routed by the gate."""


@dataclass(frozen=True)
class JudgedCompletion:
    """One completion with what was asked for and what the judge said."""

    method: str
    label: str
    completion: Completion
    verdict: Verdict


@dataclass(frozen=True)
class Evaluation:
    """Results by method, the gate's own metrics by language, and every completion."""

    methods: dict[str, MethodResult]
    gate_metrics: dict[str, GateMetrics]
    completions: tuple[JudgedCompletion, ...]


def evaluate_gate(
    activations: ActivationSet, gate: Gate, languages: Sequence[str], split: str = "test", limit: int = 0
) -> dict[str, GateMetrics]:
    """The gate on extracted activations; `limit` caps the rows of each class, 0 means all.

    Raises ArtifactError if the activations are another model's.
    """
    gate.meta.model.require_same(activations.meta.model, "the gate", str(activations.root))

    def scores(language: str, label: str) -> np.ndarray:
        if (language, split, label) not in activations.cells:
            return np.empty(0)
        rows = activations.load(language, split, label, gate.meta.layer, gate.meta.position).rows
        gate.require_hidden_size(rows.shape[1], str(activations.root))
        return gate.scores(rows[: limit or None], language)

    return {
        language: gate_metrics(scores(language, "harmful"), scores(language, "harmless"), gate.threshold_of(language))
        for language in languages
    }


def require_methods(methods: Sequence[str]) -> None:
    """Raise UsageError for a method that there is not."""
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise UsageError(f"--methods: {unknown[0]!r} is not one of {', '.join(METHODS)}")


@dataclass(frozen=True)
class Settings:
    """What is measured and how: `limit` caps the prompts of each language and class, 0 means all."""

    split: str = "test"
    limit: int = 0
    batch_size: int = BATCH_SIZE
    max_new_tokens: int = MAX_NEW_TOKENS
    seed: int = 0


def cells_of(
    prompts: PromptSet, languages: Sequence[str], methods: Sequence[str], settings: Settings
) -> dict[Cell, list[str]]:
    """The prompts of every (method, language, label). Raises UsageError for an unknown method."""
    require_methods(methods)
    return {
        (method, language, label): prompts.texts(language, settings.split, label)[: settings.limit or None]
        for method in methods
        for language in languages
        for label in LABELS
    }


def evaluate(
    lm: LanguageModel,
    gate: Gate,
    cells: Mapping[Cell, Sequence[str]],
    judge: Judge,
    settings: Settings,
    advance: Advance = lambda n: None,
    quality: Mapping[str, Counts] | None = None,
    store: CellStore | None = None,
) -> Evaluation:
    """Complete every cell's prompts with its method, judge them, and summarise.

    `quality` is how the judge is known to agree with references, by language; rates are corrected by it. With a
    `store`, each cell is kept there as it is finished, and taken from there if it is.

    Raises ArtifactError if the gate was made with another model.
    """
    made: list[tuple[str, str, Completion]] = []
    for cell, texts in cells.items():
        done = store.read(cell, texts) if store else None
        if done is None:
            done = _complete(lm, gate, cell, texts, settings, advance)
            if store:
                store.write(cell, done)
        else:
            advance(len(texts))
        made += [(cell[0], cell[2], completion) for completion in done]
    # all at once: some judges run many requests side by side, and say first what all of them will cost
    verdicts = judge.judge([completion for _, _, completion in made])
    judged = [JudgedCompletion(*parts, verdict) for parts, verdict in zip(made, verdicts, strict=True)]
    methods, languages = (tuple(dict.fromkeys(cell[i] for cell in cells)) for i in (0, 1))
    return Evaluation(
        methods={
            method: summarise(_verdicts(judged, method, languages), settings.seed, quality or {}) for method in methods
        },
        gate_metrics=_metrics(judged, gate, languages, methods[0]),
        completions=tuple(judged),
    )


def generate_shard(
    lm: LanguageModel,
    gate: Gate,
    cells: Mapping[Cell, Sequence[str]],
    settings: Settings,
    store: CellStore,
    shard: Shard,
    advance: Advance = lambda n: None,
) -> int:
    """Complete one shard's prompts of every cell and keep them, for `evaluate` to judge when all shards are there.

    Returns the number of cells that were finished before.
    """
    finished = 0
    for cell, texts in cells.items():
        own = shard.take(texts)
        if store.read_shard(cell, own, shard) is not None:
            finished += 1
            advance(len(own))
            continue
        store.write(cell, _complete(lm, gate, cell, own, settings, advance), shard)
    return finished


def _complete(
    lm: LanguageModel, gate: Gate, cell: Cell, texts: Sequence[str], settings: Settings, advance: Advance
) -> list[Completion]:
    method, language, _ = cell
    done: list[Completion] = []
    for batch in generate(
        lm,
        gate,
        [Request(text, language) for text in texts],
        steer=method == "recalib",
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
    ):
        done += batch
        advance(len(batch))
    return done


def _verdicts(judged: Sequence[JudgedCompletion], method: str, languages: Sequence[str]) -> dict[str, Verdicts]:
    return {
        language: Verdicts(*([i.verdict for i in _of(judged, method, language, label)] for label in LABELS))
        for language in languages
    }


def _metrics(
    judged: Sequence[JudgedCompletion], gate: Gate, languages: Sequence[str], method: str
) -> dict[str, GateMetrics]:
    """The gate's metrics from the scores that one method's completions carry."""
    metrics = {}
    for language in languages:
        harmful, harmless = (
            np.array([i.completion.score for i in _of(judged, method, language, label)]) for label in LABELS
        )
        metrics[language] = gate_metrics(harmful, harmless, gate.threshold_of(language))
    return metrics


def _of(judged: Sequence[JudgedCompletion], method: str, language: str, label: str) -> list[JudgedCompletion]:
    key = (method, language, label)
    return [i for i in judged if (i.method, i.completion.language, i.label) == key]


def macro_metrics(metrics: Mapping[str, GateMetrics]) -> dict[str, float | None]:
    """Unweighted means over languages of the gate's rates; None where a language has none."""
    names = ("auc", "balanced_accuracy", "f1", "false_flag_rate", "miss_rate")
    values = {name: [getattr(m, name) for m in metrics.values()] for name in names}
    return {name: None if None in column or not column else float(np.mean(column)) for name, column in values.items()}
